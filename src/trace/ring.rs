//! The last exits of one vCPU: a ring that its thread writes and any thread may read, also
//! while it is being written, without a lock.
//!
//! Invariant: there is one writer. A slot's sequence number is odd while the slot is written
//! and even when it holds a record; a reader that sees it change, or sees it odd, drops what
//! it read. No number comes twice, hence one for a record that has begun and another for the
//! same record finished: or a reader that begins with the one and ends with the other would
//! keep a mixture. The writer's release store of the even number orders the record before it,
//! the release fence orders the odd number before the record; the reader mirrors the two.

use std::fmt;

use crate::exit::{Direction, Gpa, MmioExit, PioAddr, PioExit, VmExit};
use crate::sync::{AtomicU64, Ordering, fence};

/// How many exits are kept; fewer under the model checker, which is slower with each.
pub const KEPT: usize = if cfg!(loom) { 2 } else { 16 };

/// What became of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// It is being handled, or was when the vCPU ended.
    Pending,
    /// Its accesses were posted.
    Posted,
    /// Its access was served, by the vCPU itself.
    Served,
    /// The run loop dealt with it.
    RunLoop,
}

/// One exit as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// The number of this exit among all of its vCPU, from 0.
    pub sequence: u64,
    /// The exit. The instruction bytes of an internal error are not kept.
    pub exit: VmExit,
    /// The first 8 bytes of what was written or read, little-endian.
    pub data: u64,
    /// What became of it.
    pub handler: Handler,
}

#[derive(Debug, Default)]
struct Slot {
    sequence: AtomicU64,
    words: [AtomicU64; 3],
}

/// See the module's text.
#[derive(Debug)]
pub struct ExitRing {
    /// How many exits have been recorded; only the writer changes it.
    count: AtomicU64,
    slots: [Slot; KEPT],
}

impl ExitRing {
    /// An empty ring.
    pub fn new() -> Self {
        Self { count: AtomicU64::new(0), slots: Default::default() }
    }

    /// Records that an exit has happened; [`finish`](Self::finish) completes the record. Only
    /// the vCPU's own thread calls these two.
    pub fn begin(&self, exit: &VmExit, data: u64) {
        let count = self.count.load(Ordering::Relaxed);
        self.store(count, begun(count), exit, data, Handler::Pending);
        self.count.store(count + 1, Ordering::Release);
    }

    /// Completes the last record with what came of it.
    pub fn finish(&self, exit: &VmExit, data: u64, handler: Handler) {
        let last = self.count.load(Ordering::Relaxed).wrapping_sub(1);
        self.store(last, finished(last), exit, data, handler);
    }

    fn store(&self, number: u64, sequence: u64, exit: &VmExit, data: u64, handler: Handler) {
        let slot = &self.slots[slot_of(number)];
        slot.sequence.store(sequence - 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in slot.words.iter().zip(encode(exit, data, handler)) {
            word.store(value, Ordering::Relaxed);
        }
        slot.sequence.store(sequence, Ordering::Release);
    }

    /// How many exits there have been.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The last exits, oldest first. Exact once the vCPU's thread has ended; before that, a
    /// record that is being written is left out.
    pub fn last(&self) -> Vec<ExitRecord> {
        let count = self.count();
        let kept = u64::try_from(KEPT).unwrap_or(u64::MAX);
        (count.saturating_sub(kept)..count).filter_map(|number| self.load(number)).collect()
    }

    fn load(&self, number: u64) -> Option<ExitRecord> {
        let slot = &self.slots[slot_of(number)];
        let before = slot.sequence.load(Ordering::Acquire);
        let words = [0, 1, 2].map(|index: usize| slot.words[index].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = slot.sequence.load(Ordering::Relaxed);
        if before != after || (before != begun(number) && before != finished(number)) {
            return None;
        }
        let (exit, data, handler) = decode(words)?;
        Some(ExitRecord { sequence: number, exit, data, handler })
    }
}

impl Default for ExitRing {
    fn default() -> Self {
        Self::new()
    }
}

fn slot_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0) % KEPT
}

/// The sequence number of a slot that holds exit `number` as [`ExitRing::begin`] left it. The
/// odd number before it says that it is being written.
fn begun(number: u64) -> u64 {
    4 * number + 2
}

/// The same, as [`ExitRing::finish`] left it.
fn finished(number: u64) -> u64 {
    4 * number + 4
}

/// Word 0 holds the kind, direction, size and handler in its lowest bytes and a 32-bit number
/// above; word 1 an address or reason; word 2 the data.
fn encode(exit: &VmExit, data: u64, handler: Handler) -> [u64; 3] {
    let write = |direction| u64::from(direction == Direction::Write);
    let (kind, way, size, number, address) = match *exit {
        VmExit::Pio(pio) => (0, write(pio.direction), pio.size, pio.count, u64::from(pio.port.0)),
        VmExit::Mmio(mmio) => (1, write(mmio.direction), mmio.size, 1, mmio.gpa.0),
        VmExit::Hlt => (2, 0, 0, 0, 0),
        VmExit::Shutdown => (3, 0, 0, 0, 0),
        VmExit::FailEntry { reason, cpu } => (4, 0, 0, cpu, reason),
        VmExit::InternalError { suberror, .. } => (5, 0, 0, suberror, 0),
        VmExit::SystemEvent { kind } => (6, 0, 0, kind, 0),
        VmExit::Interrupted => (7, 0, 0, 0, 0),
        VmExit::Unhandled { reason } => (8, 0, 0, reason, 0),
        VmExit::SetTpr => (9, 0, 0, 0, 0),
    };
    let who = match handler {
        Handler::Pending => 0u64,
        Handler::Posted => 1,
        Handler::RunLoop => 2,
        Handler::Served => 3,
    };
    let head = kind | way << 8 | u64::from(size) << 16 | who << 24 | u64::from(number) << 32;
    [head, address, data]
}

fn decode([head, address, data]: [u64; 3]) -> Option<(VmExit, u64, Handler)> {
    let [kind, way, size, who, number @ ..] = head.to_le_bytes();
    let number = u32::from_le_bytes(number);
    let direction = if way == 1 { Direction::Write } else { Direction::Read };
    let exit = match kind {
        0 => {
            let port = PioAddr(u16::try_from(address).ok()?);
            VmExit::Pio(PioExit { port, direction, size, count: number })
        }
        1 => VmExit::Mmio(MmioExit { gpa: Gpa(address), direction, size }),
        2 => VmExit::Hlt,
        3 => VmExit::Shutdown,
        4 => VmExit::FailEntry { reason: address, cpu: number },
        5 => VmExit::InternalError { suberror: number, insn: None },
        6 => VmExit::SystemEvent { kind: number },
        7 => VmExit::Interrupted,
        8 => VmExit::Unhandled { reason: number },
        9 => VmExit::SetTpr,
        _ => return None,
    };
    let handler = match who {
        0 => Handler::Pending,
        1 => Handler::Posted,
        2 => Handler::RunLoop,
        3 => Handler::Served,
        _ => return None,
    };
    Some((exit, data, handler))
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Handler::Pending => write!(f, "pending"),
            Handler::Posted => write!(f, "posted"),
            Handler::RunLoop => write!(f, "run-loop"),
            Handler::Served => write!(f, "vcpu"),
        }
    }
}

impl fmt::Display for ExitRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |direction| if direction == Direction::Write { "write" } else { "read" };
        let data = self.data;
        match self.exit {
            VmExit::Pio(PioExit { port, direction, size, count }) => {
                let way = if direction == Direction::Write { "out" } else { "in" };
                write!(f, "io-{way} port={port} size={size} count={count} data={data:#x}")?;
            }
            VmExit::Mmio(MmioExit { gpa, direction, size }) => {
                let way = way(direction);
                write!(f, "mmio-{way} gpa={gpa} size={size} count=1 data={data:#x}")?;
            }
            VmExit::Hlt => write!(f, "hlt")?,
            VmExit::Shutdown => write!(f, "shutdown")?,
            VmExit::FailEntry { reason, cpu } => {
                write!(f, "fail-entry reason={reason:#x} cpu={cpu}")?
            }
            VmExit::InternalError { suberror, .. } => {
                write!(f, "internal-error suberror={suberror}")?
            }
            VmExit::SystemEvent { kind } => write!(f, "system-event type={kind}")?,
            VmExit::Interrupted => write!(f, "interrupted")?,
            VmExit::SetTpr => write!(f, "set-tpr")?,
            VmExit::Unhandled { reason } => write!(f, "unhandled reason={reason}")?,
        }
        write!(f, " handler={}", self.handler)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_exit() -> impl Strategy<Value = VmExit> {
        let direction = prop_oneof![Just(Direction::Read), Just(Direction::Write)];
        prop_oneof![
            (any::<u16>(), direction.clone(), 1u8..=4, 1..=4096u32).prop_map(
                |(port, direction, size, count)| VmExit::Pio(PioExit {
                    port: PioAddr(port),
                    direction,
                    size,
                    count
                })
            ),
            (any::<u64>(), direction, 1u8..=8).prop_map(|(gpa, direction, size)| VmExit::Mmio(
                MmioExit { gpa: Gpa(gpa), direction, size }
            )),
            Just(VmExit::Hlt),
            Just(VmExit::Shutdown),
            Just(VmExit::Interrupted),
            Just(VmExit::SetTpr),
            (any::<u64>(), any::<u32>())
                .prop_map(|(reason, cpu)| VmExit::FailEntry { reason, cpu }),
            any::<u32>().prop_map(|suberror| VmExit::InternalError { suberror, insn: None }),
            any::<u32>().prop_map(|kind| VmExit::SystemEvent { kind }),
            any::<u32>().prop_map(|reason| VmExit::Unhandled { reason }),
        ]
    }

    fn any_handler() -> impl Strategy<Value = Handler> {
        prop_oneof![
            Just(Handler::Pending),
            Just(Handler::Posted),
            Just(Handler::RunLoop),
            Just(Handler::Served),
        ]
    }

    proptest! {
        #[test]
        fn keeps_the_last_exits_exactly(
            exits in prop::collection::vec((any_exit(), any::<u64>(), any_handler()), 0..50),
        ) {
            let ring = ExitRing::new();
            for (exit, data, handler) in &exits {
                ring.begin(exit, 0);
                ring.finish(exit, *data, *handler);
            }
            let expected: Vec<_> = (0..)
                .zip(&exits)
                .skip(exits.len().saturating_sub(KEPT))
                .map(|(sequence, (exit, data, handler))| ExitRecord {
                    sequence,
                    exit: *exit,
                    data: *data,
                    handler: *handler,
                })
                .collect();
            prop_assert_eq!(ring.last(), expected);
            prop_assert_eq!(ring.count(), u64::try_from(exits.len()).unwrap());
        }
    }

    #[test]
    fn a_reader_never_sees_half_a_record() {
        let ring = ExitRing::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_000 {
                    // Every field is the same number, so that a mixture shows.
                    let exit = VmExit::Mmio(MmioExit {
                        gpa: Gpa(number),
                        direction: Direction::Read,
                        size: 8,
                    });
                    ring.begin(&exit, 0);
                    ring.finish(&exit, number, Handler::RunLoop);
                }
            });
            let mut seen = 0;
            while ring.count() < 200_000 {
                for record in ring.last() {
                    let VmExit::Mmio(mmio) = record.exit else { panic!("{record:?}") };
                    let pending = record.handler == Handler::Pending;
                    let data = if pending { 0 } else { record.sequence };
                    assert_eq!((mmio.gpa.0, record.data), (record.sequence, data));
                    seen += 1;
                }
            }
            assert!(seen > 0);
        });
    }
}
