//! The way of one thread's records to the trace's writer: a bounded ring with one producer, which
//! adds a record in some ten nanoseconds, and one consumer, the writer, which takes all there are
//! from time to time.
//!
//! Invariants. `tail` counts the records that were added and only the producer changes it, `head`
//! those that were taken and only the consumer does; `head <= tail <= head + capacity`. The
//! producer's release store of `tail` orders the record before it, the consumer's of `head` orders
//! its reading before the slot's next use. A producer that finds no room publishes `waiting`,
//! fence, looks again, sleeps; the consumer makes room, fence, reads `waiting`, wakes it: so not
//! both can miss. The model checker runs it.

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering, Parker, fence};

/// The words of a record.
type Words = [u64; 8];

/// What the producer does when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for the writer: nothing is lost.
    Block,
    /// It goes on without the record, which is counted.
    Drop,
}

/// No room, and no time to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Keeps what one side writes off the cache line of the other.
#[derive(Debug)]
#[repr(align(64))]
struct Line<T>(T);

/// See the module's text.
#[derive(Debug)]
pub struct Stream {
    slots: Box<[[AtomicU64; 8]]>,
    tail: Line<AtomicUsize>,
    head: Line<AtomicUsize>,
    when_full: WhenFull,
    /// The producer sleeps in `bed` for want of room, or is about to.
    waiting: AtomicBool,
    bed: Parker,
    /// Nobody may wait for room any more.
    abandoned: AtomicBool,
}

impl Stream {
    /// A stream with room for `capacity` records, at least one.
    pub fn new(capacity: usize, when_full: WhenFull) -> Self {
        let slot = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            slots: (0..capacity.max(1)).map(|_| slot()).collect(),
            tail: Line(AtomicUsize::new(0)),
            head: Line(AtomicUsize::new(0)),
            when_full,
            waiting: AtomicBool::new(false),
            bed: Parker::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Names the calling thread as the producer; to be called before it adds anything.
    pub fn adopt(&self) {
        self.bed.adopt();
    }

    /// Adds a record. Wakes the writer when the stream has just become half full, so that it
    /// need not look often.
    ///
    /// # Errors
    ///
    /// [`Dropped`] if there is no room and this stream drops, or was abandoned.
    pub fn push(&self, words: Words, writer: &Parker) -> Result<(), Dropped> {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let mut used = tail.wrapping_sub(self.head.0.load(Ordering::Acquire));
        while used >= self.slots.len() {
            writer.unpark();
            self.wait_for_room(tail)?;
            used = tail.wrapping_sub(self.head.0.load(Ordering::Acquire));
        }
        let slot = &self.slots[tail % self.slots.len()];
        for (word, value) in slot.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        if used + 1 == self.slots.len() / 2 {
            writer.unpark();
        }
        Ok(())
    }

    /// Sleeps until there may be room.
    fn wait_for_room(&self, tail: usize) -> Result<(), Dropped> {
        if self.when_full == WhenFull::Drop {
            return Err(Dropped);
        }
        self.waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let full = tail.wrapping_sub(self.head.0.load(Ordering::Acquire)) >= self.slots.len();
        let abandoned = self.abandoned.load(Ordering::Relaxed);
        if full && !abandoned {
            self.bed.park(None);
        }
        self.waiting.store(false, Ordering::Relaxed);
        if full && abandoned { Err(Dropped) } else { Ok(()) }
    }

    /// Takes all records there are, in order. Only the writer calls this.
    pub fn drain(&self, mut take: impl FnMut(Words)) {
        let head = self.head.0.load(Ordering::Relaxed);
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut next = head;
        while next != tail {
            let slot = &self.slots[next % self.slots.len()];
            take(slot.each_ref().map(|word| word.load(Ordering::Relaxed)));
            next = next.wrapping_add(1);
        }
        if next != head {
            self.head.0.store(next, Ordering::Release);
            self.wake_producer();
        }
    }

    /// From now on the producer drops what there is no room for.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.wake_producer();
    }

    /// Whether the producer waits for room, or is about to.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    fn wake_producer(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) {
            self.bed.unpark();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::testing::{wait_until, watched};

    fn record(number: u64) -> Words {
        [number; 8]
    }

    fn drained(stream: &Stream) -> Vec<u64> {
        let mut numbers = Vec::new();
        stream.drain(|words| {
            assert_eq!(words, record(words[0]), "torn");
            numbers.push(words[0]);
        });
        numbers
    }

    #[test]
    fn blocking_loses_nothing() {
        for capacity in [1, 2, 3, 64] {
            watched(move || {
                let stream = Arc::new(Stream::new(capacity, WhenFull::Block));
                let producer = thread::spawn({
                    let stream = Arc::clone(&stream);
                    move || {
                        stream.adopt();
                        for number in 0..10_000 {
                            stream.push(record(number), &Parker::default()).unwrap();
                        }
                    }
                });
                let mut numbers = Vec::new();
                while numbers.len() < 10_000 {
                    numbers.append(&mut drained(&stream));
                    thread::yield_now();
                }
                producer.join().unwrap();
                assert!(numbers.into_iter().eq(0..10_000));
            });
        }
    }

    #[test]
    fn dropping_keeps_the_oldest_and_says_so() {
        let stream = Stream::new(2, WhenFull::Drop);
        let results: Vec<_> =
            (0..4).map(|number| stream.push(record(number), &Parker::default())).collect();
        assert_eq!(results, [Ok(()), Ok(()), Err(Dropped), Err(Dropped)]);
        assert_eq!(drained(&stream), [0, 1]);
        stream.push(record(4), &Parker::default()).unwrap();
        assert_eq!(drained(&stream), [4]);
    }

    #[test]
    fn who_waits_for_room_is_let_go_when_the_trace_is_given_up() {
        watched(|| {
            let stream = Arc::new(Stream::new(1, WhenFull::Block));
            let producer = thread::spawn({
                let stream = Arc::clone(&stream);
                move || {
                    stream.adopt();
                    [0, 1].map(|number| stream.push(record(number), &Parker::default()))
                }
            });
            wait_until(|| stream.waiting.load(Ordering::SeqCst));
            stream.abandon();
            assert_eq!(producer.join().unwrap(), [Ok(()), Err(Dropped)]);
            assert_eq!(drained(&stream), [0]);
        });
    }
}
