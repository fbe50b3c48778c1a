//! The queue's protocol once more, without what is there for speed, and with one flaw at a
//! time. Without a flaw it has to pass every scenario that the product passes, so it is the
//! same protocol; with each of them the checker has to find the scenario that it breaks.

use std::collections::VecDeque;

use minivmm::devices::queue::{Busy, Closed, Round, Serve};
use minivmm::exit::{Access, VcpuId};
use minivmm::sync::{
    AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Parker, Receiver, Sender, TrySendError,
    bounded, fence,
};

use crate::explore;
use crate::properties::{self, Log, Protocol, Seen};

/// What can be wrong with a [`Sketch`].
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The device thread takes from the channel before it takes the devices.
    ReceivesOutside,
    /// A call serves its own access without those in the channel first.
    Overtakes,
    /// A call serves what is in the channel, but not what is held.
    OvertakesHeld,
    /// The device thread says that it sleeps only after its last look.
    IdleAfterLook,
    /// Who helps does not wake the device thread.
    HelpsInSilence,
    /// An access that a busy device refuses goes to the end of the line.
    BusyGoesLast,
    /// The device thread does not say that it has made room.
    RoomInSilence,
    /// It says so only if an access is held.
    RoomForHeldOnly,
    /// Closing wakes those who wait for room, and leaves no word of why.
    ClosesInSilence,
    /// A vCPU that is stopped takes its posted access with it.
    DropsLate,
}

#[derive(Clone, Copy)]
struct Request {
    vcpu: VcpuId,
    access: Access,
}

struct Sketch {
    flaw: Flaw,
    sender: Sender<Request>,
    /// To be used with the devices only.
    receiver: Receiver<Request>,
    devices: Mutex<Devices>,
    room: Condvar,
    idle: AtomicBool,
    bed: Parker,
}

#[derive(Default)]
struct Devices {
    held: Option<Request>,
    late: VecDeque<Request>,
    posted: u64,
    closed: bool,
    log: Log,
}

#[derive(PartialEq)]
enum Step {
    Served,
    Empty,
    Held,
}

impl Sketch {
    fn new(log: Log, capacity: usize, flaw: Flaw) -> Self {
        let (sender, receiver) = bounded(capacity);
        Self {
            flaw,
            sender,
            receiver,
            devices: Mutex::new(Devices { log, ..Devices::default() }),
            room: Condvar::new(),
            idle: AtomicBool::new(false),
            bed: Parker::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn step(&self, devices: &mut Devices) -> Step {
        let next = devices.held.take().or_else(|| self.receiver.try_recv().ok());
        let Some(request) = next.or_else(|| devices.late.pop_front()) else {
            return Step::Empty;
        };
        match devices.log.serve(request.vcpu, &request.access) {
            Ok(_) => devices.posted += 1,
            Err(Busy) if self.has(Flaw::BusyGoesLast) => {
                devices.late.push_back(request);
                return Step::Held;
            }
            Err(Busy) => {
                devices.held = Some(request);
                return Step::Held;
            }
        }
        Step::Served
    }

    fn enter(&self, request: Request) -> Result<(), Closed> {
        while let Err(TrySendError::Full(_)) = self.sender.try_send(request) {
            let mut devices = self.devices.lock();
            loop {
                match self.step(&mut devices) {
                    Step::Served => {}
                    Step::Empty => break,
                    Step::Held => {
                        if let Err(closed) = self.wait_for_room(&mut devices) {
                            if !self.has(Flaw::DropsLate) {
                                devices.late.push_back(request);
                            }
                            return Err(closed);
                        }
                    }
                }
            }
            self.let_go(devices);
        }
        Ok(())
    }

    fn serve_line(&self, devices: &mut MutexGuard<'_, Devices>) -> Result<(), Closed> {
        let held = u64::from(devices.held.is_some() && !self.has(Flaw::OvertakesHeld));
        let end = devices.posted + self.receiver.len() as u64 + held;
        while devices.posted < end {
            match self.step(devices) {
                Step::Served => {}
                Step::Empty => break,
                Step::Held => self.wait_for_room(devices)?,
            }
        }
        Ok(())
    }

    fn wait_for_room(&self, devices: &mut MutexGuard<'_, Devices>) -> Result<(), Closed> {
        if devices.closed {
            return Err(Closed);
        }
        self.bed.unpark();
        self.room.wait(devices);
        Ok(())
    }

    fn let_go(&self, devices: MutexGuard<'_, Devices>) {
        let work = devices.log.needs_thread() && !self.has(Flaw::HelpsInSilence);
        drop(devices);
        if work {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.idle.load(Ordering::Relaxed) && self.idle.swap(false, Ordering::Relaxed) {
            self.bed.unpark();
        }
    }
}

impl Protocol for Sketch {
    fn post(&self, vcpu: VcpuId, access: Access) -> Result<(), Closed> {
        let entered = self.enter(Request { vcpu, access });
        fence(Ordering::SeqCst);
        self.wake();
        entered
    }

    fn call(&self, vcpu: VcpuId, access: &Access) -> Result<Seen, Closed> {
        let mut devices = self.devices.lock();
        if !self.has(Flaw::Overtakes) {
            self.serve_line(&mut devices)?;
        }
        let reply = loop {
            match devices.log.serve(vcpu, access) {
                Ok(reply) => break reply,
                Err(Busy) => self.wait_for_room(&mut devices)?,
            }
        };
        self.let_go(devices);
        Ok(reply)
    }

    fn round<R>(&self, f: impl FnOnce(&mut Log) -> R) -> Round<R> {
        let early =
            if self.has(Flaw::ReceivesOutside) { self.receiver.try_recv().ok() } else { None };
        let mut devices = self.devices.lock();
        devices.held = devices.held.or(early);
        while self.step(&mut devices) == Step::Served {}
        let result = f(&mut devices.log);
        let held = devices.held.is_some() || !devices.late.is_empty();
        let silent = match self.flaw {
            Flaw::RoomInSilence => true,
            Flaw::RoomForHeldOnly => !held,
            _ => false,
        };
        if !silent {
            self.room.notify_all();
        }
        Round { result, posted: devices.posted, held }
    }

    fn sleep(&self, look: impl FnOnce() -> bool) {
        let set_idle = || {
            self.idle.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        };
        let found = if self.has(Flaw::IdleAfterLook) {
            let found = look();
            set_idle();
            found
        } else {
            set_idle();
            look()
        };
        if !found {
            self.bed.park(None);
        }
        self.idle.store(false, Ordering::Relaxed);
    }

    fn close(&self) {
        self.devices.lock().closed = !self.has(Flaw::ClosesInSilence);
        self.room.notify_all();
    }

    fn rouse(&self) {
        self.bed.unpark();
    }
}

fn with(flaw: Flaw) -> impl Fn(Log, usize) -> Sketch {
    move |log, capacity| Sketch::new(log, capacity, flaw)
}

#[test]
fn without_a_flaw_it_keeps_every_promise() {
    explore::bounded(2, || properties::posts_arrive_once_and_in_order(with(Flaw::None)));
    explore::bounded(2, || properties::a_read_sees_own_writes(with(Flaw::None)));
    explore::bounded(2, || properties::a_read_sees_refused_writes(with(Flaw::None)));
    explore::bounded(2, || properties::a_read_sees_ordered_writes(with(Flaw::None)));
    explore::bounded(2, || properties::calls_take_effect_once_and_in_order(with(Flaw::None)));
    explore::bounded(2, || properties::a_post_ends_the_sleep(with(Flaw::None)));
    explore::bounded(2, || properties::two_posts_end_the_sleep(with(Flaw::None)));
    explore::bounded(2, || properties::posts_of_two_end_the_sleep(with(Flaw::None)));
    explore::bounded(2, || properties::help_ends_the_sleep(with(Flaw::None)));
    explore::bounded(2, || properties::help_beside_a_post_ends_the_sleep(with(Flaw::None)));
    explore::bounded(2, || properties::rouse_ends_the_sleep(with(Flaw::None)));
    explore::bounded(2, || properties::a_full_channel_loses_nothing(with(Flaw::None)));
    explore::bounded(2, || properties::a_full_channel_holds_up_all(with(Flaw::None)));
    explore::bounded(2, || properties::a_refused_call_gets_room(with(Flaw::None)));
    explore::bounded(2, || properties::close_frees_a_refused_call(with(Flaw::None)));
    explore::bounded(2, || properties::close_frees_who_waits(with(Flaw::None)));
}

#[test]
#[should_panic(expected = "lost or out of order")]
fn receiving_outside_the_mutex_reorders() {
    explore::bounded(2, || properties::posts_arrive_once_and_in_order(with(Flaw::ReceivesOutside)));
}

#[test]
#[should_panic(expected = "an older write is not seen")]
fn a_call_past_the_channel_overtakes() {
    explore::bounded(2, || properties::a_read_sees_own_writes(with(Flaw::Overtakes)));
}

#[test]
#[should_panic(expected = "an older write is not seen")]
fn a_call_past_what_is_held_overtakes() {
    explore::bounded(2, || properties::a_read_sees_refused_writes(with(Flaw::OvertakesHeld)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn idle_after_the_last_look_sleeps_for_ever() {
    explore::bounded(2, || properties::a_post_ends_the_sleep(with(Flaw::IdleAfterLook)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn help_in_silence_leaves_the_output() {
    explore::bounded(2, || properties::help_ends_the_sleep(with(Flaw::HelpsInSilence)));
}

#[test]
#[should_panic(expected = "lost or out of order")]
fn an_access_refused_and_put_last_is_overtaken() {
    explore::bounded(2, || properties::a_full_channel_loses_nothing(with(Flaw::BusyGoesLast)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn room_made_in_silence_is_waited_for() {
    explore::bounded(2, || properties::a_full_channel_loses_nothing(with(Flaw::RoomInSilence)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn room_made_in_silence_is_waited_for_by_a_refused_call() {
    explore::bounded(2, || properties::a_refused_call_gets_room(with(Flaw::RoomForHeldOnly)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn closing_in_silence_frees_nobody() {
    explore::bounded(2, || properties::close_frees_who_waits(with(Flaw::ClosesInSilence)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn closing_in_silence_frees_no_refused_call() {
    explore::bounded(2, || properties::close_frees_a_refused_call(with(Flaw::ClosesInSilence)));
}

#[test]
#[should_panic(expected = "lost or out of order")]
fn dropping_what_is_late_loses_it() {
    explore::bounded(2, || properties::close_frees_who_waits(with(Flaw::DropsLate)));
}
