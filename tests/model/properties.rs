//! What the device protocol promises, as scenarios that any implementation of it can be put
//! through: the product's (`queue.rs`) and the sketch with its flaws (`sketch.rs`).

use std::sync::Arc;

use loom::thread::{self, JoinHandle};
use minivmm::devices::queue::{Busy, Closed, Round, Serve};
use minivmm::exit::{Access, AddressSpace, Direction, VcpuId};
use minivmm::sync::{AtomicBool, Ordering};

/// Room for all that a scenario can bring.
const PLENTY: usize = 9;

/// The device: it remembers what it served, and has an output that the device thread empties.
#[derive(Debug, Default)]
pub struct Log {
    /// Which vCPU wrote what, in order.
    writes: Seen,
    /// Writes that the output has room for.
    room: usize,
    /// Writes in the output.
    output: usize,
    /// Writes that have been taken out.
    written: usize,
}

impl Log {
    fn new(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// The device thread's part: empties the output. Returns how much it ever took.
    fn write_out(&mut self) -> usize {
        self.written += self.output;
        self.room += self.output;
        self.output = 0;
        self.written
    }

    fn of(&self, vcpu: u32) -> Vec<u64> {
        let own = self.writes.iter().filter(|(writer, _)| writer.0 == vcpu);
        own.map(|(_, value)| *value).collect()
    }
}

/// What a read comes back with: which vCPU had written what, in order.
pub type Seen = Vec<(VcpuId, u64)>;

impl Serve for Log {
    type Reply = Seen;

    fn serve(&mut self, vcpu: VcpuId, access: &Access) -> Result<Seen, Busy> {
        match access.direction {
            Direction::Write if self.room == 0 => Err(Busy),
            Direction::Write => {
                self.room -= 1;
                self.output += 1;
                self.writes.push((vcpu, access.data));
                Ok(Seen::default())
            }
            Direction::Read => Ok(self.writes.clone()),
        }
    }

    fn needs_thread(&self) -> bool {
        self.output > 0
    }
}

/// An implementation of the protocol.
pub trait Protocol: Send + Sync + 'static {
    fn post(&self, vcpu: VcpuId, access: Access) -> Result<(), Closed>;
    fn call(&self, vcpu: VcpuId, access: &Access) -> Result<Seen, Closed>;
    fn round<R>(&self, f: impl FnOnce(&mut Log) -> R) -> Round<R>;
    fn sleep(&self, look: impl FnOnce() -> bool);
    fn close(&self);
    fn rouse(&self);
}

fn access(direction: Direction, data: u64) -> Access {
    Access { space: AddressSpace::Pio, addr: 0, direction, size: 1, data }
}

fn write(data: u64) -> Access {
    access(Direction::Write, data)
}

fn read() -> Access {
    access(Direction::Read, 0)
}

/// Reads as `vcpu`, by a call; returns the writes that it saw.
fn read_by<Q: Protocol>(queue: &Q, vcpu: VcpuId) -> Seen {
    queue.call(vcpu, &read()).unwrap()
}

/// Starts the thread of vCPU `id`.
fn vcpu<Q: Protocol>(
    queue: &Arc<Q>,
    id: u32,
    run: impl FnOnce(&Q, VcpuId) + 'static,
) -> JoinHandle<()> {
    let queue = Arc::clone(queue);
    thread::spawn(move || run(&queue, VcpuId(id)))
}

/// When the vCPUs have ended, serves what is left, with room for all of it, and gives what the
/// device has seen.
fn finish<Q: Protocol>(queue: &Q, vcpus: impl IntoIterator<Item = JoinHandle<()>>) -> Log {
    for vcpu in vcpus {
        vcpu.join().unwrap();
    }
    queue.round(|log| log.room = PLENTY);
    queue.round(std::mem::take).result
}

/// The device thread until `total` writes are out. It works as `devices/thread.rs` has it, but
/// is always about to sleep: each of its rounds is a last look.
fn write_all_out<Q: Protocol>(queue: &Q, total: usize) {
    let (mut posted, mut written) = (0, 0);
    while written < total {
        queue.sleep(|| {
            let round = queue.round(Log::write_out);
            let found = round.posted != posted || round.held;
            (posted, written) = (round.posted, round.result);
            found || written == total
        });
    }
}

/// (a) Posted accesses are all served, once, and those of one vCPU in order.
pub fn posts_arrive_once_and_in_order<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let first = vcpu(&queue, 0, |queue, id| {
        queue.post(id, write(1)).unwrap();
        queue.post(id, write(2)).unwrap();
    });
    let second = vcpu(&queue, 1, |queue, id| {
        queue.post(id, write(1)).unwrap();
        read_by(queue, id);
    });
    queue.round(Log::write_out);
    let log = finish(&*queue, [first, second]);
    assert_eq!((log.of(0), log.of(1)), (vec![1, 2], vec![1]), "lost or out of order");
}

/// (b) A read sees the same vCPU's writes that came before it.
pub fn a_read_sees_own_writes<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let vcpus = [0, 1].map(|id| {
        vcpu(&queue, id, |queue, id| {
            queue.post(id, write(1)).unwrap();
            assert!(read_by(queue, id).contains(&(id, 1)), "an older write is not seen");
        })
    });
    queue.round(Log::write_out);
    finish(&*queue, vcpus);
}

/// (b) The same if a busy device has refused one of them.
pub fn a_read_sees_refused_writes<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(1), PLENTY));
    let reader = vcpu(&queue, 0, |queue, id| {
        queue.post(id, write(1)).unwrap();
        queue.post(id, write(2)).unwrap();
        assert!(read_by(queue, id).contains(&(id, 2)), "an older write is not seen");
    });
    write_all_out(&*queue, 2);
    finish(&*queue, [reader]);
}

/// (b) A read sees another vCPU's write if the guest has ordered the two through its memory.
pub fn a_read_sees_ordered_writes<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let flag = Arc::new(AtomicBool::new(false));
    let writer = vcpu(&queue, 0, {
        let flag = Arc::clone(&flag);
        move |queue, id| {
            queue.post(id, write(1)).unwrap();
            flag.store(true, Ordering::Release);
        }
    });
    let reader = vcpu(&queue, 1, move |queue, id| {
        let ordered = flag.load(Ordering::Acquire);
        let seen = read_by(queue, id).contains(&(VcpuId(0), 1));
        assert!(seen || !ordered, "an older write is not seen");
    });
    queue.round(Log::write_out);
    finish(&*queue, [writer, reader]);
}

/// (c) Calls of two vCPUs are served once each, in order, and a read after them sees them.
pub fn calls_take_effect_once_and_in_order<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let caller = vcpu(&queue, 0, |queue, id| {
        queue.call(id, &write(1)).unwrap();
        queue.call(id, &write(2)).unwrap();
    });
    queue.call(VcpuId(1), &write(1)).unwrap();
    assert!(read_by(&*queue, VcpuId(1)).contains(&(VcpuId(1), 1)), "an older write is not seen");
    let log = finish(&*queue, [caller]);
    assert_eq!((log.of(0), log.of(1)), (vec![1, 2], vec![1]), "lost or out of order");
}

/// (d) The device thread, asleep or on its way there, serves a posted access.
pub fn a_post_ends_the_sleep<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let poster = vcpu(&queue, 0, |queue, id| queue.post(id, write(1)).unwrap());
    write_all_out(&*queue, 1);
    poster.join().unwrap();
}

/// (d) And the next one, for which it may have to be woken again.
pub fn two_posts_end_the_sleep<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let poster = vcpu(&queue, 0, |queue, id| {
        queue.post(id, write(1)).unwrap();
        queue.post(id, write(2)).unwrap();
    });
    write_all_out(&*queue, 2);
    poster.join().unwrap();
}

/// (d) And those of two vCPUs, each of which may find that the other is about to wake it.
pub fn posts_of_two_end_the_sleep<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let posters = [0, 1].map(|id| vcpu(&queue, id, |queue, id| queue.post(id, write(1)).unwrap()));
    write_all_out(&*queue, 2);
    posters.into_iter().for_each(|poster| poster.join().unwrap());
}

/// (d) The device thread writes out what a vCPU has served by helping itself.
pub fn help_ends_the_sleep<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let helper = vcpu(&queue, 0, |queue, id| {
        queue.call(id, &write(1)).unwrap();
    });
    write_all_out(&*queue, 1);
    helper.join().unwrap();
}

/// (d) The same beside a vCPU that posts.
pub fn help_beside_a_post_ends_the_sleep<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let helper = vcpu(&queue, 0, |queue, id| {
        queue.call(id, &write(1)).unwrap();
    });
    let poster = vcpu(&queue, 1, |queue, id| queue.post(id, write(1)).unwrap());
    write_all_out(&*queue, 2);
    [helper, poster].into_iter().for_each(|vcpu| vcpu.join().unwrap());
}

/// (d) The supervisor's rouse ends a sleep that begins before or after it.
pub fn rouse_ends_the_sleep<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(PLENTY), PLENTY));
    let drain = Arc::new(AtomicBool::new(false));
    let supervisor = thread::spawn({
        let (queue, drain) = (Arc::clone(&queue), Arc::clone(&drain));
        move || {
            drain.store(true, Ordering::SeqCst);
            queue.rouse();
        }
    });
    while !drain.load(Ordering::SeqCst) {
        queue.sleep(|| drain.load(Ordering::SeqCst));
    }
    supervisor.join().unwrap();
}

/// (e) With a channel for one access and a device that takes one at a time, nobody waits for
/// ever, nothing is lost and the order is kept.
pub fn a_full_channel_loses_nothing<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(1), 1));
    let poster = vcpu(&queue, 0, |queue, id| {
        (1..=3).for_each(|value| queue.post(id, write(value)).unwrap());
    });
    write_all_out(&*queue, 3);
    assert_eq!(finish(&*queue, [poster]).of(0), [1, 2, 3], "lost or out of order");
}

/// (e) The same with a second vCPU that wants a reply.
pub fn a_full_channel_holds_up_all<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(1), 1));
    let poster = vcpu(&queue, 0, |queue, id| queue.post(id, write(1)).unwrap());
    let caller = vcpu(&queue, 1, |queue, id| {
        queue.call(id, &write(1)).unwrap();
    });
    write_all_out(&*queue, 2);
    finish(&*queue, [poster, caller]);
}

/// (e) A call that a busy device refuses, with nothing in the channel, gets the room that the
/// device thread makes.
pub fn a_refused_call_gets_room<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(1), 1));
    let caller = vcpu(&queue, 0, |queue, id| {
        queue.call(id, &write(1)).unwrap();
        queue.call(id, &write(2)).unwrap();
    });
    write_all_out(&*queue, 2);
    assert_eq!(finish(&*queue, [caller]).of(0), [1, 2], "lost or out of order");
}

/// (f) When the VM stops, such a call does not go on waiting, and is not served.
pub fn close_frees_a_refused_call<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(0), 1));
    let caller = vcpu(&queue, 0, |queue, id| {
        assert_eq!(queue.call(id, &write(1)), Err(Closed));
    });
    queue.close();
    assert!(finish(&*queue, [caller]).of(0).is_empty(), "served");
}

/// (f) When the VM stops, nobody goes on waiting for a device that is busy for good; what was
/// posted is served later all the same, in order.
pub fn close_frees_who_waits<Q: Protocol>(new: impl Fn(Log, usize) -> Q) {
    let queue = Arc::new(new(Log::new(0), 1));
    let tried = [0, 1].map(|_| Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let vcpus = [0, 1].map(|id: u32| {
        let tried = Arc::clone(&tried[usize::try_from(id).unwrap()]);
        vcpu(&queue, id, move |queue, id| {
            // The second vCPU posts one access less, to keep the scenario small.
            for value in 1..=3 - u64::from(id.0) {
                tried.store(value, std::sync::atomic::Ordering::Relaxed);
                if queue.post(id, write(value)) == Err(Closed) {
                    return;
                }
            }
        })
    });
    queue.close();
    let log = finish(&*queue, vcpus);
    for (id, tried) in (0..).zip(tried) {
        let tried = tried.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(log.of(id), (1..=tried).collect::<Vec<_>>(), "lost or out of order");
    }
}
