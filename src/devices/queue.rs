//! The device protocol: how accesses of many vCPUs reach the devices, in one order, without a
//! context switch on the way. docs/concurrency.md argues it; the model checker runs it
//! (`tests/model.rs` through `sync.rs`).
//!
//! A *posted* access enters one bounded channel, and is then done for its vCPU; the device
//! thread serves it in its next round. The receiver lives inside the mutex that guards the
//! devices, so only the holder of the devices can take from the channel and nothing can
//! overtake. A vCPU that needs a result *helps*: it takes the devices, serves what is in the
//! channel by then, and after that its own access, in place: it comes after all that entered
//! before, as if it had entered too, and is spared the way through the channel.
//!
//! Lock order: `devices` is the only lock here, and nothing that can block on the host
//! happens while it is held. Runs on the vCPU threads (`post`, `call`) and on the device
//! thread (`round`, `nap`, `sleep`). Whoever serves may have a [`Watch`] look on, for a trace.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::devices::watch::{Posted, QueueCounts, Watch};
use crate::exit::{Access, VcpuId};
use crate::sync::{
    AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Parker, Receiver, Sender, TrySendError,
    bounded, fence,
};

/// How many accesses a vCPU or the device thread serves before it lets go of the devices.
/// At some 30 ns each the mutex is held for about as long as a contender spins for it.
const BATCH: usize = 64;

/// What the queue gives accesses to: the devices behind their bus.
pub trait Serve {
    /// What a served access comes back with.
    type Reply;

    /// Serves one access, or says [`Busy`] and changes nothing.
    fn serve(&mut self, vcpu: VcpuId, access: &Access) -> Result<Self::Reply, Busy>;

    /// Whether there is work that only the device thread does, such as output to write.
    fn needs_thread(&self) -> bool;

    /// Whether that cannot wait until the thread has taken its nap.
    fn is_urgent(&self) -> bool {
        false
    }
}

/// The device cannot take this access now: its output is full. A posted access waits at the
/// head of the channel and all others behind it, as on a bus that holds wait states; with any
/// other its own vCPU waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// The VM is stopping and the access could not be finished for its vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The channel, the devices behind it, and the device thread's bed.
pub struct DeviceQueue<S: Serve> {
    requests: Sender<Posted>,
    devices: Mutex<Devices<S>>,
    /// Waited on, with `devices`, by vCPUs whose way a busy device bars.
    room: Condvar,
    /// How many accesses may be in the channel, if that is fewer than it has room for. Publishes
    /// nothing but itself, and so is not for the model checker.
    limit: std::sync::atomic::AtomicUsize,
    /// The device thread sleeps without a time limit, or is about to. Ordered against the
    /// channel by the two fences in [`wake_idle`](Self::wake_idle) and [`sleep`](Self::sleep).
    idle: AtomicBool,
    bed: Parker,
    /// How often it was woken from there. For statistics only, and so not for the model checker.
    wakes: std::sync::atomic::AtomicU64,
}

/// What the mutex guards.
struct Devices<S: Serve> {
    requests: Receiver<Posted>,
    /// Taken from the channel but refused by a busy device: first in line.
    held: Option<Posted>,
    /// Posted accesses of vCPUs that were stopped while the channel was full, at most one
    /// each: last in line.
    late: VecDeque<Posted>,
    /// Posted accesses served so far, by whomever.
    posted: u64,
    counts: QueueCounts,
    /// Nobody may wait for room any more.
    closed: bool,
    server: S,
}

enum Step {
    Served,
    Empty,
    Held,
}

impl<S: Serve> Devices<S> {
    /// Serves the access that is first in line.
    fn step(&mut self, watch: &mut impl Watch) -> Step {
        let next = self.held.take().or_else(|| self.requests.try_recv().ok());
        let Some(request) = next.or_else(|| self.late.pop_front()) else {
            return Step::Empty;
        };
        let began = watch.now();
        match self.server.serve(request.vcpu, &request.access) {
            Ok(_) => {
                self.posted += 1;
                watch.served(&request, began);
            }
            Err(Busy) => {
                self.held = Some(request);
                return Step::Held;
            }
        }
        Step::Served
    }

    /// What `posted` is once all that are in line now have been served. Those that are late do
    /// not count: their vCPUs have ended, so nothing that a guest does comes after them.
    ///
    /// Invariant: what entered the channel before the caller took the devices is counted, since
    /// nobody's view of the channel is older than what happened before.
    fn end_of_line(&mut self) -> u64 {
        let in_line = (self.requests.len() + usize::from(self.held.is_some())) as u64;
        self.counts.deepest = self.counts.deepest.max(in_line);
        self.posted + in_line
    }

    /// Serves up to [`BATCH`] accesses; `Served` means that there may be more.
    fn batch(&mut self, watch: &mut impl Watch) -> Step {
        for _ in 0..BATCH {
            match self.step(watch) {
                Step::Served => {}
                stopped => return stopped,
            }
        }
        Step::Served
    }
}

impl<S: Serve> DeviceQueue<S> {
    /// A queue with room for `capacity` posted accesses.
    pub fn new(server: S, capacity: usize) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self {
            requests: sender,
            devices: Mutex::new(Devices {
                requests: receiver,
                held: None,
                late: VecDeque::new(),
                posted: 0,
                counts: QueueCounts::default(),
                closed: false,
                server,
            }),
            room: Condvar::new(),
            limit: usize::MAX.into(),
            idle: AtomicBool::new(false),
            bed: Parker::default(),
            wakes: Default::default(),
        }
    }

    /// Hands in an access whose result the vCPU does not need. Returns as soon as it is in the
    /// channel; serves others first if the channel is full.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the VM is stopping and there was no room; the access is not lost, it is
    /// served after all that is in the channel.
    pub fn post(&self, vcpu: VcpuId, access: Access, watch: &mut impl Watch) -> Result<(), Closed> {
        let entered = self.enter(Posted { vcpu, access, ticket: watch.ticket() }, watch);
        self.wake_idle();
        entered
    }

    /// Serves an access on the calling thread and returns its reply, by helping: what is in the
    /// channel is served first.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the VM is stopping and a busy device bars the way; the access is not served.
    pub fn call(
        &self,
        vcpu: VcpuId,
        access: &Access,
        watch: &mut impl Watch,
    ) -> Result<S::Reply, Closed> {
        let mut devices = self.devices.lock();
        self.serve_line(&mut devices, watch)?;
        let reply = loop {
            watch.serving();
            match devices.server.serve(vcpu, access) {
                Ok(reply) => break reply,
                Err(Busy) => self.wait_for_room(&mut devices)?,
            }
        };
        watch.served_own();
        self.let_go(devices);
        Ok(reply)
    }

    /// Serves what is in line now, and not what others enter meanwhile: it ends, however fast
    /// they post.
    fn serve_line(
        &self,
        devices: &mut MutexGuard<'_, Devices<S>>,
        watch: &mut impl Watch,
    ) -> Result<(), Closed> {
        let end = devices.end_of_line();
        devices.counts.helps += u64::from(devices.posted < end);
        while devices.posted < end {
            match devices.step(watch) {
                Step::Served => {}
                Step::Held => self.wait_for_room(devices)?,
                // While we waited a device panicked over one of them, which is not counted.
                Step::Empty => break,
            }
        }
        Ok(())
    }

    /// Puts `request` into the channel, making room if there is none.
    fn enter(&self, mut request: Posted, watch: &mut impl Watch) -> Result<(), Closed> {
        loop {
            if self.has_room() {
                match self.requests.try_send(request) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                        request = back;
                    }
                }
            }
            let mut devices = self.devices.lock();
            while let Step::Held = devices.batch(watch) {
                if let Err(closed) = self.wait_for_room(&mut devices) {
                    devices.late.push_back(request);
                    return Err(closed);
                }
            }
            self.let_go(devices);
        }
    }

    /// Whether the limit allows one more. Several vCPUs that ask at once may go beyond it: it is
    /// there to have the channel full early, and its own bound holds in any case.
    fn has_room(&self) -> bool {
        let limit = self.limit.load(std::sync::atomic::Ordering::Relaxed);
        limit == usize::MAX || self.requests.len() < limit
    }

    /// From now on at most `limit` accesses are in the channel, and never more than it has room
    /// for; at least one is allowed.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit.max(1), std::sync::atomic::Ordering::Relaxed);
    }

    /// Waits, without the devices, until a busy device has room again. Only the device thread
    /// makes room, so it is woken first, from whatever sleep.
    fn wait_for_room(&self, devices: &mut MutexGuard<'_, Devices<S>>) -> Result<(), Closed> {
        if devices.closed {
            return Err(Closed);
        }
        self.bed.unpark();
        self.room.wait(devices);
        Ok(())
    }

    /// Lets go of the devices, and wakes the device thread if it sleeps and helping made work
    /// for it, or if it naps and that is urgent. No fence is needed: `idle` was set before the
    /// device thread last held the devices, so either it saw this work then or we see `idle` now.
    fn let_go(&self, devices: MutexGuard<'_, Devices<S>>) {
        let idle = self.idle.load(Ordering::Relaxed);
        let wake = idle && devices.server.needs_thread();
        let urgent = !idle && devices.server.is_urgent();
        drop(devices);
        if wake {
            self.wake();
        } else if urgent {
            self.bed.unpark();
        }
    }

    /// Wakes the device thread if it sleeps; to be called after a posted access has entered.
    ///
    /// Invariant: either the sleeper's last look sees the access, or we see `idle`. The fence
    /// orders our send before our load; the one in `sleep` orders its store before its look.
    fn wake_idle(&self) {
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.idle.swap(false, Ordering::Relaxed) {
            self.wakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.bed.unpark();
        }
    }

    /// What has been counted so far.
    pub fn counts(&self) -> QueueCounts {
        let wakes = self.wakes.load(std::sync::atomic::Ordering::Relaxed);
        QueueCounts { wakes, ..self.devices.lock().counts }
    }

    /// Runs `f` on the devices, with no access served first: for what comes from the host's
    /// side, such as input. Wakes the device thread if that made work for it.
    pub fn visit<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        let mut devices = self.devices.lock();
        let result = f(&mut devices.server);
        self.let_go(devices);
        result
    }

    /// Serves what is in line, then runs `f` on the devices, again and again while it is refused
    /// for want of room: for what comes after all that was posted before.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the VM is stopping and a busy device bars the way.
    pub fn settle<R>(
        &self,
        watch: &mut impl Watch,
        mut f: impl FnMut(&mut S) -> Result<R, Busy>,
    ) -> Result<R, Closed> {
        let mut devices = self.devices.lock();
        self.serve_line(&mut devices, watch)?;
        let result = loop {
            match f(&mut devices.server) {
                Ok(result) => break result,
                Err(Busy) => self.wait_for_room(&mut devices)?,
            }
        };
        self.let_go(devices);
        Ok(result)
    }

    /// No vCPU waits for room from now on: those that do return [`Closed`].
    pub fn close(&self) {
        self.devices.lock().closed = true;
        self.room.notify_all();
    }

    /// Wakes the device thread, wherever it sleeps.
    pub fn rouse(&self) {
        self.bed.unpark();
    }

    /// Names the calling thread as the device thread.
    pub fn adopt(&self) {
        self.bed.adopt();
    }

    /// One round of the device thread: serves what is in the channel, then runs `f` on the
    /// devices, which may make room, and lets those who wait for it try again.
    pub fn round<R>(&self, watch: &mut impl Watch, f: impl FnOnce(&mut S) -> R) -> Round<R> {
        // A flood must not keep `f` from its turn, hence a bound on the batches.
        let mut before = None;
        for _ in 0..BATCH {
            let mut devices = self.devices.lock();
            let before = *before.get_or_insert(devices.posted);
            if let Step::Served = devices.batch(watch) {
                continue;
            }
            devices.counts.deepest = devices.counts.deepest.max(devices.posted - before);
            return self.finish_round(&mut devices, f);
        }
        self.finish_round(&mut self.devices.lock(), f)
    }

    /// Nothing need be held for somebody to wait: a refused access that was not posted is with
    /// its vCPU.
    fn finish_round<R>(&self, devices: &mut Devices<S>, f: impl FnOnce(&mut S) -> R) -> Round<R> {
        let result = f(&mut devices.server);
        self.room.notify_all();
        Round { result, posted: devices.posted, held: devices.held.is_some() }
    }

    /// The device thread's short sleep, between rounds while there is traffic: for `period` at
    /// most, and less only if a vCPU waits for room.
    pub fn nap(&self, period: Duration) {
        self.bed.park(Some(period));
    }

    /// The device thread's long sleep: until there is work, or for `limit`. `look` is one more
    /// round; if it finds work there is no sleep.
    pub fn sleep(&self, limit: Option<Duration>, look: impl FnOnce() -> bool) {
        self.idle.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !look() {
            self.bed.park(limit);
        }
        self.idle.store(false, Ordering::Relaxed);
    }
}

impl<S: Serve> fmt::Debug for DeviceQueue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceQueue").field("idle", &self.idle).finish_non_exhaustive()
    }
}

/// What a round of the device thread found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round<R> {
    /// What the caller's function returned.
    pub result: R,
    /// Posted accesses served so far, by whomever: it grows while there is traffic.
    pub posted: u64,
    /// A busy device holds up the channel.
    pub held: bool,
}

#[cfg(all(test, not(loom)))]
mod tests;
