//! The device thread: the standing server of the channel, and the only thread that writes the
//! guest's output to the host. It takes the output while it holds the devices and writes it
//! after letting go of them, in batches.
//!
//! How often it works is a matter of cost: waking a thread costs more than an exit. While
//! posted accesses come it looks every `NAP_MIN` to `NAP_MAX`, and once they have stopped
//! for `QUIET` it sleeps until it is woken.

mod stream;

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::console::{Output, OutputReport};
use crate::devices::DeviceSet;
use crate::devices::queue::{DeviceQueue, Round};
use crate::devices::serial::SerialPort;
use crate::devices::watch::WatchOutput;
use crate::events::Event;
use stream::Stream;

/// The first nap after work was found.
const NAP_MIN: Duration = Duration::from_micros(200);
/// Naps double up to this one: on a host with no idle CPU each takes time from a vCPU.
const NAP_MAX: Duration = Duration::from_millis(4);
/// Without a posted access for this long the thread sleeps until it is woken.
const QUIET: Duration = Duration::from_millis(8);

/// What the device thread is to do; the states follow one another and never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    Run,
    Drain,
    Abandon,
}

/// How the supervisor steers the device thread, and what it can see of it.
#[derive(Debug)]
pub struct DeviceControl {
    /// A [`Phase`]. Publishes nothing but itself.
    phase: AtomicU8,
    /// Bytes of output taken from the devices: what is not written of them is lost, also when the
    /// thread has died of it.
    taken: AtomicU64,
    written: AtomicU64,
    writes: AtomicU64,
}

impl DeviceControl {
    /// A thread that is to run.
    pub fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Run as u8),
            taken: AtomicU64::new(0),
            written: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }
    }

    /// No vCPU runs any more: serve what is left, write all output, end. The caller rouses the
    /// thread.
    pub fn drain(&self) {
        self.phase.fetch_max(Phase::Drain as u8, Ordering::SeqCst);
    }

    /// Give up on output that the host does not take, count it, end. The caller rouses the
    /// thread and interrupts its write.
    pub fn abandon(&self) {
        self.phase.fetch_max(Phase::Abandon as u8, Ordering::SeqCst);
    }

    /// Bytes of output written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Calls of write(2) so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// What has become of the output that was taken from the devices.
    pub fn report(&self) -> OutputReport {
        let (written, taken) = (self.written(), self.taken.load(Ordering::Relaxed));
        OutputReport { written, writes: self.writes(), lost: taken.saturating_sub(written) }
    }

    /// In the place of a thread that has died, or never was, when no vCPU runs any more: serves
    /// what is left, whose output is lost.
    pub fn give_up_rest(&self, queue: &DeviceQueue<DeviceSet>) {
        loop {
            let mut lost = 0;
            let round = queue.round(&mut (), |devices| {
                let mut take = |port: &mut SerialPort| {
                    let mut rest = Vec::new();
                    port.take_output(&mut rest);
                    lost += rest.len();
                };
                take(devices.com1());
                devices.written_ports().for_each(take);
            });
            self.taken.fetch_add(to_u64(lost), Ordering::Relaxed);
            if lost == 0 && !round.held {
                break;
            }
        }
    }

    fn reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) >= phase as u8
    }
}

impl Default for DeviceControl {
    fn default() -> Self {
        Self::new()
    }
}

/// The device thread's own state.
pub struct DeviceThread<'a, W> {
    queue: &'a DeviceQueue<DeviceSet>,
    control: &'a DeviceControl,
    on_event: Box<dyn FnMut(Event) + 'a>,
    watch: W,
    com1: Stream,
    /// What the other ports send whose output is written, in the order of the devices.
    others: Vec<Stream>,
    /// Posted accesses that had been served at the last round.
    posted: u64,
}

/// What a round found in the devices.
struct Found {
    output_left: bool,
    /// When the devices want to be told the time.
    timer: Option<Instant>,
}

impl<'a, W: WatchOutput> DeviceThread<'a, W> {
    /// A thread that writes to `output` and tells `on_event` if that fails, and when the guest
    /// has made room for input that waits. `watch` is told what it does.
    pub fn new(
        queue: &'a DeviceQueue<DeviceSet>,
        control: &'a DeviceControl,
        output: Box<dyn Output>,
        on_event: impl FnMut(Event) + 'a,
        watch: W,
    ) -> Self {
        Self {
            queue,
            control,
            on_event: Box::new(on_event),
            watch,
            com1: Stream::new(output),
            others: Vec::new(),
            posted: 0,
        }
    }

    /// Has it write what the ports besides COM1 send, too, those of them whose output is written,
    /// in the order of the devices.
    pub fn with_ports(mut self, outputs: impl IntoIterator<Item = Box<dyn Output>>) -> Self {
        self.others = outputs.into_iter().map(Stream::new).collect();
        self
    }

    /// Serves until told to end; the body of the thread.
    pub fn run(mut self) -> OutputReport {
        self.queue.adopt();
        while !self.control.reached(Phase::Drain) {
            if self.sleep() {
                self.work();
            }
        }
        self.drain();
        let unknown = self.queue.visit(|devices| devices.unknown().total());
        if unknown > 0 {
            log::info!(target: "minivmm::devices", "{unknown} accesses met no device");
        }
        self.control.report()
    }

    /// Sleeps until there is work: the last look and the sleep are one step of the protocol. False
    /// if the devices have been told the time, and that was all.
    fn sleep(&mut self) -> bool {
        let queue = self.queue;
        let timer = queue.visit(DeviceSet::tick);
        queue.sleep(timer.map(from_now), || {
            let posted = self.posted;
            let round = self.round(true);
            let found = round.posted != posted || round.result.output_left || round.held;
            // One that was started since we asked: nobody tells us of it, for we were awake.
            let is_earlier = |new| timer.is_none_or(|old| new < old);
            found
                || round.result.timer.is_some_and(is_earlier)
                || self.control.reached(Phase::Drain)
        });
        let due = timer.is_some_and(|timer| timer <= Instant::now());
        if !due {
            return true;
        }
        let posted = self.posted;
        let round = self.round(true);
        round.posted != posted || round.result.output_left || round.held
    }

    /// Looks again and again, at growing distances, until nothing has been posted for a while.
    fn work(&mut self) {
        // The first byte after a quiet time is written at once; what follows is gathered.
        let mut at_once = true;
        let mut nap = NAP_MIN;
        let mut quiet_since = Instant::now();
        while !self.control.reached(Phase::Drain) {
            let posted = self.posted;
            let round = self.round(at_once);
            let now = Instant::now();
            at_once = round.posted == posted && !round.result.output_left && !round.held;
            if !at_once {
                quiet_since = now;
            } else if now.duration_since(quiet_since) >= QUIET {
                return;
            }
            self.queue.nap(round.result.timer.map_or(nap, |timer| from_now(timer).min(nap)));
            nap = (nap * 2).min(NAP_MAX);
        }
    }

    /// Serves what is there, writes the output if it is due (or `at_once`), logs what is to be
    /// logged.
    fn round(&mut self, at_once: bool) -> Round<Found> {
        let Self { queue, control, com1, others, watch, .. } = self;
        let mut notices = Vec::new();
        let mut input_room = false;
        let round = queue.round(watch, |devices| {
            let now = Instant::now();
            let mut taken = com1.take(devices.com1(), at_once, now);
            let mut output_left = devices.com1().output_len() > 0;
            for (stream, port) in others.iter_mut().zip(devices.written_ports()) {
                taken += stream.take(port, at_once, now);
                output_left |= port.output_len() > 0;
            }
            control.taken.fetch_add(to_u64(taken), Ordering::Relaxed);
            notices = devices.unknown().take_notices();
            input_room = devices.com1().take_input_call();
            Found { output_left, timer: devices.tick() }
        });
        self.posted = round.posted;
        self.watch.let_go();
        if input_room {
            (self.on_event)(Event::InputRoom);
        }
        for notice in notices {
            log::warn!(target: "minivmm::devices", "{notice}");
        }
        // Without the devices: this is where the host may make us wait. A trace tells of COM1's.
        let Self { control, on_event, watch, com1, others, .. } = self;
        let errors = others.iter_mut().map(|stream| stream.write(control, &mut ()));
        for error in com1.write(control, watch).into_iter().chain(errors.flatten()) {
            on_event(Event::OutputFailed(error));
        }
        round
    }

    /// The end: everything that is in the channel and in the devices' output, or a count of it.
    fn drain(&mut self) {
        loop {
            let round = self.round(true);
            if !round.result.output_left && !round.held {
                break;
            }
        }
        let Self { queue, control, com1, others, .. } = self;
        for stream in std::iter::once(com1).chain(others) {
            while !stream.is_taken() && !control.reached(Phase::Abandon) {
                queue.nap(NAP_MAX);
            }
            control.written.fetch_sub(stream.take_back(), Ordering::Relaxed);
        }
    }
}

impl<W> fmt::Debug for DeviceThread<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceThread").field("com1", &self.com1).finish_non_exhaustive()
    }
}

fn from_now(time: Instant) -> Duration {
    time.saturating_duration_since(Instant::now())
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests;
