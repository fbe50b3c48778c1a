//! The way of records to a trace's writer: one producer, one consumer, little room.

use std::sync::Arc;

use loom::thread;
use minivmm::sync::{Parker, without_fences};
use minivmm::trace::stream::{Dropped, Stream, WhenFull};

use crate::explore;

/// Takes what is there; each record has to be whole.
fn drain(stream: &Stream, taken: &mut Vec<u64>) {
    stream.drain(|words| {
        assert!(words.iter().all(|word| *word == words[0]), "torn: {words:?}");
        taken.push(words[0]);
    });
}

/// The writer as `trace/writer.rs` has it, with a bed that it leaves only when it is woken: it
/// looks, and sleeps if it has not all of the `total` records yet.
fn take_all(stream: &Stream, writer: &Parker, total: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    loop {
        drain(stream, &mut taken);
        if taken.len() >= total {
            return taken;
        }
        writer.park(None);
    }
}

/// (k) Every record arrives once, whole and in order, and neither side sleeps for ever, with room
/// for `capacity` of `total` records.
fn nothing_is_lost(capacity: usize, total: u64, fences: bool) {
    let stream = Arc::new(Stream::new(capacity, WhenFull::Block));
    let writer = Arc::new(Parker::default());
    let producer = thread::spawn({
        let (stream, writer) = (Arc::clone(&stream), Arc::clone(&writer));
        move || {
            let push = || {
                for number in 1..=total {
                    stream.push([number; 8], &writer).unwrap();
                }
            };
            if fences {
                push()
            } else {
                without_fences(push)
            }
            // Whoever comes to an end wakes the writer, as `Tracer::finish` does.
            writer.unpark();
        }
    });
    let taken = take_all(&stream, &writer, usize::try_from(total).unwrap());
    producer.join().unwrap();
    assert_eq!(taken, (1..=total).collect::<Vec<_>>(), "lost or out of order");
}

#[test]
fn a_stream_loses_nothing() {
    explore::bounded(3, || nothing_is_lost(1, 2, true));
}

#[test]
fn a_stream_with_more_room_loses_nothing() {
    explore::bounded(2, || nothing_is_lost(2, 3, true));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_its_fence_the_producer_sleeps_beside_room() {
    explore::bounded(3, || nothing_is_lost(1, 2, false));
}

/// (k) Who waits for room is let go when the trace is given up, and told that its record is lost
/// unless there was room.
#[test]
fn giving_up_lets_go_who_waits() {
    explore::bounded(4, || {
        let stream = Arc::new(Stream::new(1, WhenFull::Block));
        let writer = Arc::new(Parker::default());
        let producer = thread::spawn({
            let (stream, writer) = (Arc::clone(&stream), Arc::clone(&writer));
            move || [1, 2].map(|number| stream.push([number; 8], &writer))
        });
        stream.abandon();
        let results = producer.join().unwrap();
        let mut taken = Vec::new();
        drain(&stream, &mut taken);
        assert_eq!((results, taken), ([Ok(()), Err(Dropped)], vec![1]));
    });
}

/// (k) A stream that drops never waits, and what it takes arrives whole and in order.
#[test]
fn dropping_never_waits() {
    explore::bounded(3, || {
        let stream = Arc::new(Stream::new(1, WhenFull::Drop));
        let writer = Arc::new(Parker::default());
        let producer = thread::spawn({
            let (stream, writer) = (Arc::clone(&stream), Arc::clone(&writer));
            move || [1, 2].map(|number| stream.push([number; 8], &writer).is_ok())
        });
        let mut taken = Vec::new();
        drain(&stream, &mut taken);
        let pushed = producer.join().unwrap();
        drain(&stream, &mut taken);
        let expected: Vec<_> = (1..=2).zip(pushed).filter(|(_, ok)| *ok).map(|(n, _)| n).collect();
        assert_eq!(taken, expected, "lost or out of order");
    });
}
