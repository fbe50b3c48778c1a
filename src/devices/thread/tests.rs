//! The device thread's own decisions: when output is due, and what becomes of a batch. Whole
//! runs of it, with stalls and failures, are in `vmm/tests`.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::devices::serial::OUTPUT_CAPACITY;
use crate::devices::setup::DeviceSetup;
use crate::exit::{Access, AddressSpace, Direction, VcpuId};

fn queue() -> DeviceQueue<DeviceSet> {
    let devices =
        DeviceSet::unconnected(DeviceSetup { input_limit: 16, ..DeviceSetup::default() }).unwrap();
    DeviceQueue::new(devices, 256)
}

fn send(queue: &DeviceQueue<DeviceSet>, bytes: &[u8]) {
    for byte in bytes {
        let access = Access {
            space: AddressSpace::Pio,
            addr: 0x3f8,
            direction: Direction::Write,
            size: 1,
            data: u64::from(*byte),
        };
        queue.post(VcpuId(0), access, &mut ()).unwrap();
    }
}

/// Keeps each call's bytes; takes at most `limit` of them, and answers every second call with
/// an interruption.
#[derive(Clone, Default)]
struct Calls {
    limit: usize,
    interrupted: bool,
    calls: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Output for Calls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = bytes.len().min(self.limit);
        self.calls.lock().unwrap().push(bytes[..len].to_vec());
        Ok(len)
    }
}

struct Broken;

impl Output for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

mod pacing {
    use super::super::stream::{FLUSH_AGE, FLUSH_LEN, Pacing};
    use super::*;

    #[test]
    fn nothing_is_never_due() {
        let mut pacing = Pacing::new();
        let now = Instant::now();
        assert!(!pacing.is_due(0, now));
        assert!(!pacing.is_due(0, now + 10 * FLUSH_AGE));
    }

    #[test]
    fn output_is_due_when_no_more_comes() {
        let mut pacing = Pacing::new();
        let now = Instant::now();
        assert!(!pacing.is_due(10, now));
        assert!(!pacing.is_due(20, now));
        assert!(pacing.is_due(20, now));
        // What comes next has to wait again.
        assert!(!pacing.is_due(20, now));
    }

    #[test]
    fn output_is_due_when_it_is_much_or_old() {
        let mut pacing = Pacing::new();
        let now = Instant::now();
        assert!(pacing.is_due(FLUSH_LEN, now));
        assert!(!pacing.is_due(1, now));
        assert!(!pacing.is_due(2, now + FLUSH_AGE / 2));
        assert!(pacing.is_due(3, now + FLUSH_AGE));
    }
}

#[test]
fn a_batch_is_written_to_its_end_and_counted() {
    let (queue, control) = (queue(), DeviceControl::new());
    let output = Calls { limit: 4, ..Calls::default() };
    let calls = Arc::clone(&output.calls);
    let no_event = |event| panic!("{event:?}");
    send(&queue, b"0123456789");
    control.drain();
    let report = DeviceThread::new(&queue, &control, Box::new(output), no_event, ()).run();
    assert_eq!(*calls.lock().unwrap(), [&b"0123"[..], b"4567", b"89"]);
    assert_eq!(report, OutputReport { written: 10, writes: 3, lost: 0 });
    assert_eq!((control.written(), control.writes()), (10, 3));
}

#[test]
fn a_drain_gets_what_is_in_the_transmitter_and_the_channel_too() {
    for more in 0..4 {
        let (queue, control) = (queue(), DeviceControl::new());
        let bytes: Vec<u8> = (0..=250).cycle().take(OUTPUT_CAPACITY + more).collect();
        send(&queue, &bytes);
        let output = Calls { limit: usize::MAX, ..Calls::default() };
        let calls = Arc::clone(&output.calls);
        control.drain();
        DeviceThread::new(&queue, &control, Box::new(output), |_| {}, ()).run();
        assert_eq!(calls.lock().unwrap().concat(), bytes);
    }
}

#[test]
fn a_failure_is_told_once_and_the_rest_counted() {
    let (queue, control) = (queue(), DeviceControl::new());
    let mut failures = Vec::new();
    let mut thread = DeviceThread::new(
        &queue,
        &control,
        Box::new(Broken),
        |event| {
            let Event::OutputFailed(error) = event else { panic!("{event:?}") };
            failures.push(error.kind());
        },
        None,
    );
    for _ in 0..3 {
        send(&queue, b"lost");
        thread.round(true);
    }
    control.drain();
    assert_eq!(thread.run(), OutputReport { written: 0, writes: 0, lost: 12 });
    assert_eq!(failures, [io::ErrorKind::StorageFull]);
}

#[test]
fn an_abandoned_batch_is_counted_and_not_written() {
    let (queue, control) = (queue(), DeviceControl::new());
    let output = Calls { limit: 4, ..Calls::default() };
    let calls = Arc::clone(&output.calls);
    send(&queue, b"0123456789");
    control.abandon();
    let report = DeviceThread::new(&queue, &control, Box::new(output), |_| {}, ()).run();
    assert_eq!(report, OutputReport { written: 0, writes: 0, lost: 10 });
    assert!(calls.lock().unwrap().is_empty());
}

#[test]
fn phases_do_not_go_back() {
    let control = DeviceControl::new();
    control.abandon();
    control.drain();
    assert!(control.reached(Phase::Abandon));
}

#[test]
fn room_for_input_is_told_to_who_waits_for_it() {
    let (queue, control) = (queue(), DeviceControl::new());
    let mut calls = 0;
    let mut thread = DeviceThread::new(
        &queue,
        &control,
        Box::new(Broken),
        |event| {
            assert!(matches!(event, Event::InputRoom), "{event:?}");
            calls += 1;
        },
        None,
    );
    queue.visit(|devices| {
        devices.com1().push_input(&[b'x'; 17]);
        assert_eq!(devices.com1().wanted_input(), 0);
    });
    thread.round(false);
    queue.visit(|devices| (0..8).map(|_| devices.com1().read(0)).count());
    thread.round(false);
    thread.round(false);
    drop(thread);
    assert_eq!(calls, 1);
}
