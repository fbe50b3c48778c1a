//! The flight recorder: the last exits of one vCPU, always on. Its thread writes them into a ring
//! that any thread may read, also while it is being written, without a lock.
//!
//! Invariant: there is one writer. A slot's sequence number is odd while the slot is written
//! and even when it holds a record; a reader that sees it change, or sees it odd, drops what
//! it read. No number comes twice, hence one for a record that has begun and another for the
//! same record finished: or a reader that begins with the one and ends with the other would
//! keep a mixture. The writer's release store of the even number orders the record before it,
//! the release fence orders the odd number before the record; the reader mirrors the two.

use crate::sync::{AtomicU64, Ordering, fence};
use crate::trace::record::Record;

/// How many exits are kept; fewer under the model checker, which makes all their atomics anew for
/// each interleaving.
pub const KEPT: usize = if cfg!(loom) { 1 } else { 16 };

/// The last exits of one vCPU.
#[derive(Debug, Default)]
pub struct FlightRecorder {
    ring: WordRing<8, KEPT>,
}

impl FlightRecorder {
    /// Records that an exit has happened; [`finish`](Self::finish) completes the record. Only
    /// the vCPU's own thread calls these two.
    pub fn begin(&self, record: &Record) {
        self.ring.begin(record.to_words());
    }

    /// Completes the last record with what came of it.
    pub fn finish(&self, record: &Record) {
        self.ring.finish(record.to_words());
    }

    /// How many exits there have been.
    pub fn count(&self) -> u64 {
        self.ring.count()
    }

    /// The last exits, oldest first. Exact once the vCPU's thread has ended; before that, a
    /// record that is being written is left out.
    pub fn last(&self) -> Vec<Record> {
        self.ring.last().into_iter().filter_map(Record::from_words).collect()
    }
}

/// The ring: the last `KEPT` values of `WORDS` words each. Smaller under the model checker, which
/// is slower with each.
#[derive(Debug)]
pub struct WordRing<const WORDS: usize, const KEPT: usize> {
    /// How many values have been recorded; only the writer changes it.
    count: AtomicU64,
    slots: [Slot<WORDS>; KEPT],
}

#[derive(Debug)]
struct Slot<const WORDS: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize, const KEPT: usize> WordRing<WORDS, KEPT> {
    /// An empty ring.
    pub fn new() -> Self {
        let slot = |_| Slot {
            sequence: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self { count: AtomicU64::new(0), slots: std::array::from_fn(slot) }
    }

    /// Adds a value. Only one thread calls this and [`finish`](Self::finish).
    pub fn begin(&self, words: [u64; WORDS]) {
        let count = self.count.load(Ordering::Relaxed);
        self.store(count, begun(count), words);
        self.count.store(count + 1, Ordering::Release);
    }

    /// Replaces the last value, once.
    pub fn finish(&self, words: [u64; WORDS]) {
        let last = self.count.load(Ordering::Relaxed).wrapping_sub(1);
        self.store(last, finished(last), words);
    }

    fn store(&self, number: u64, sequence: u64, words: [u64; WORDS]) {
        let slot = &self.slots[slot_of::<KEPT>(number)];
        slot.sequence.store(sequence - 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in slot.words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// How many values there have been.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The last values, oldest first, without those that are being written.
    pub fn last(&self) -> Vec<[u64; WORDS]> {
        let count = self.count();
        let kept = u64::try_from(KEPT).unwrap_or(u64::MAX);
        (count.saturating_sub(kept)..count).filter_map(|number| self.load(number)).collect()
    }

    fn load(&self, number: u64) -> Option<[u64; WORDS]> {
        let slot = &self.slots[slot_of::<KEPT>(number)];
        let before = slot.sequence.load(Ordering::Acquire);
        let words = slot.words.each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = slot.sequence.load(Ordering::Relaxed);
        let whole = before == after && (before == begun(number) || before == finished(number));
        whole.then_some(words)
    }
}

impl<const WORDS: usize, const KEPT: usize> Default for WordRing<WORDS, KEPT> {
    fn default() -> Self {
        Self::new()
    }
}

fn slot_of<const KEPT: usize>(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0) % KEPT
}

/// The sequence number of a slot that holds value `number` as `begin` left it. The odd number
/// before it says that it is being written.
fn begun(number: u64) -> u64 {
    4 * number + 2
}

/// The same, as `finish` left it.
fn finished(number: u64) -> u64 {
    4 * number + 4
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::trace::record::testing::any_record;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_the_last_exits_exactly(
            records in prop::collection::vec((any_record(), any_record()), 0..50),
        ) {
            let recorder = FlightRecorder::default();
            for (first, second) in &records {
                recorder.begin(first);
                recorder.finish(second);
            }
            let last = records.iter().skip(records.len().saturating_sub(KEPT));
            let expected: Vec<_> = last.map(|(_, record)| *record).collect();
            prop_assert_eq!(recorder.last(), expected);
            prop_assert_eq!(recorder.count(), u64::try_from(records.len()).unwrap());
        }
    }

    #[test]
    fn a_reader_never_sees_half_a_record() {
        let ring = WordRing::<8, KEPT>::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_000 {
                    // Every word is the same number, so that a mixture shows.
                    ring.begin([2 * number; 8]);
                    ring.finish([2 * number + 1; 8]);
                }
            });
            let mut seen = 0;
            while ring.count() < 200_000 {
                for words in ring.last() {
                    assert_eq!(words, [words[0]; 8]);
                    seen += 1;
                }
            }
            assert!(seen > 0);
        });
    }
}
