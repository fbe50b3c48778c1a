//! The flight recorder's ring, with its one writer and a reader: every word is a load that may
//! return an old value. Two values of two words show what sixteen of eight would.

use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use minivmm::sync::{AtomicU64, Ordering, fence, without_fences};
use minivmm::trace::flight::WordRing;

use crate::explore;

type Ring = WordRing<2, 2>;

/// Value number `n` as it is at first: all of it follows from its number, so that a mixture shows.
fn begin(ring: &Ring, n: u64) {
    ring.begin([2 * n; 2]);
}

/// And as it is then.
fn finish(ring: &Ring, n: u64) {
    ring.finish([2 * n + 1; 2]);
}

/// Reads the values, all of which have to be whole; returns their numbers.
fn read(ring: &Ring) -> Vec<u64> {
    let whole = |[first, second]: [u64; 2]| {
        assert_eq!(first, second, "torn");
        first / 2
    };
    ring.last().into_iter().map(whole).collect()
}

/// A full ring: it holds values 0 and 1, the last one finished or not.
fn full_ring(finished: bool) -> Arc<Ring> {
    let ring = Arc::new(Ring::new());
    begin(&ring, 0);
    finish(&ring, 0);
    begin(&ring, 1);
    if finished {
        finish(&ring, 1);
    }
    ring
}

/// Starts a thread that does `write`.
fn writer(ring: &Arc<Ring>, write: impl FnOnce(&Ring) + 'static) -> JoinHandle<()> {
    let ring = Arc::clone(ring);
    thread::spawn(move || write(&ring))
}

/// (i) A record that is being finished is seen as it was or as it is then, or not at all.
#[test]
fn finishing_tears_no_record() {
    explore::bounded(4, || {
        let ring = full_ring(false);
        let writer = writer(&ring, |ring| finish(ring, 1));
        read(&ring);
        writer.join().unwrap();
        assert_eq!(read(&ring), [0, 1]);
    });
}

/// (i) So is one that another takes the place of.
#[test]
fn replacing_tears_no_record() {
    explore::bounded(4, || {
        let ring = full_ring(true);
        let writer = writer(&ring, |ring| begin(ring, 2));
        read(&ring);
        writer.join().unwrap();
        assert_eq!(read(&ring), [1, 2]);
    });
}

/// (i) And two that change one after the other.
#[test]
fn going_on_tears_no_record() {
    explore::bounded(2, || {
        let ring = full_ring(false);
        let writer = writer(&ring, |ring| {
            finish(ring, 1);
            begin(ring, 2);
            finish(ring, 2);
        });
        read(&ring);
        writer.join().unwrap();
        assert_eq!(read(&ring), [1, 2]);
    });
}

#[test]
#[should_panic(expected = "torn")]
fn without_the_writers_fence_a_record_is_torn() {
    explore::all(|| {
        let ring = full_ring(true);
        let writer = writer(&ring, |ring| without_fences(|| begin(ring, 2)));
        read(&ring);
        writer.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "torn")]
fn without_the_readers_fence_a_record_is_torn() {
    explore::all(|| {
        let ring = full_ring(true);
        let writer = writer(&ring, |ring| begin(ring, 2));
        without_fences(|| read(&ring));
        writer.join().unwrap();
    });
}

/// What can be wrong with the numbers of a [`Slot`].
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// None is odd: the slot is not marked while it is written.
    NeverOdd,
    /// The same number for what replaces the first value, as the ring once had it for the two
    /// states of one record.
    Repeated,
}

/// The core of one slot: two words that belong together, and the number.
#[derive(Default)]
struct Slot {
    number: AtomicU64,
    words: [AtomicU64; 2],
}

impl Slot {
    fn write(&self, number: u64, value: u64, flaw: Flaw) {
        if flaw != Flaw::NeverOdd {
            self.number.store(number - 1, Ordering::Relaxed);
        }
        fence(Ordering::Release);
        for word in &self.words {
            word.store(value, Ordering::Relaxed);
        }
        self.number.store(number, Ordering::Release);
    }

    fn read(&self) -> Option<[u64; 2]> {
        let before = self.number.load(Ordering::Acquire);
        let words = self.words.each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (self.number.load(Ordering::Relaxed) == before && before.is_multiple_of(2)).then_some(words)
    }
}

fn slot_is_not_torn(flaw: Flaw) {
    let slot = Arc::new(Slot::default());
    slot.write(2, 5, flaw);
    let writer = thread::spawn({
        let slot = Arc::clone(&slot);
        move || slot.write(if flaw == Flaw::Repeated { 2 } else { 4 }, 6, flaw)
    });
    if let Some([first, second]) = slot.read() {
        assert_eq!(first, second, "torn");
    }
    writer.join().unwrap();
}

#[test]
fn the_sketched_slot_is_not_torn() {
    explore::all(|| slot_is_not_torn(Flaw::None));
}

#[test]
#[should_panic(expected = "torn")]
fn without_odd_numbers_it_is_torn() {
    explore::all(|| slot_is_not_torn(Flaw::NeverOdd));
}

#[test]
#[should_panic(expected = "torn")]
fn with_a_number_that_comes_twice_it_is_torn() {
    explore::all(|| slot_is_not_torn(Flaw::Repeated));
}
