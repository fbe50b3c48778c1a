//! The device protocol on real threads, around servers that check what they are given.

use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};

use super::*;
use crate::exit::{AddressSpace, Direction};
use crate::testing::{wait_until, watched};

const V0: VcpuId = VcpuId(0);
const V1: VcpuId = VcpuId(1);

/// An access that carries a number.
fn access(data: u64) -> Access {
    Access { space: AddressSpace::Pio, addr: 0, direction: Direction::Write, size: 8, data }
}

/// Takes each vCPU's accesses, which are numbered from 0, in their order only; replies with
/// how many accesses of all vCPUs it has served before.
#[derive(Default)]
struct Counter {
    next: [u64; 4],
    served: u64,
    /// What the device thread knows of `served`.
    seen: u64,
    /// Accesses until it is busy; none if it never is.
    room: Option<u64>,
    refused: Vec<ThreadId>,
}

impl Counter {
    /// What the device thread does.
    fn look(&mut self) -> u64 {
        self.seen = self.served;
        self.served
    }
}

impl Serve for Counter {
    type Reply = u64;

    fn serve(&mut self, vcpu: VcpuId, access: &Access) -> Result<u64, Busy> {
        if self.room == Some(0) {
            self.refused.push(thread::current().id());
            return Err(Busy);
        }
        self.room = self.room.map(|room| room - 1);
        let next = &mut self.next[vcpu.index()];
        assert_eq!(access.data, *next, "{vcpu}");
        *next += 1;
        self.served += 1;
        Ok(self.served - 1)
    }

    fn needs_thread(&self) -> bool {
        self.seen != self.served
    }
}

/// Whether `thread` waits for room. It was refused with the devices held, and let go of them
/// only by waiting.
fn waits(queue: &DeviceQueue<Counter>, thread: ThreadId) -> bool {
    queue.visit(|counter| counter.refused.contains(&thread))
}

/// The device thread in little: rounds with naps between them as long as there is work, then
/// sleep, until `end`. `make_room` is what it does for the server.
fn device_thread(
    queue: &DeviceQueue<Counter>,
    end: &AtomicBool,
    make_room: impl Fn(&mut Counter) + Copy,
) {
    queue.adopt();
    let mut posted = 0;
    while !end.load(Ordering::SeqCst) {
        let round = queue.round(&mut (), make_room);
        if round.posted != posted || round.held {
            posted = round.posted;
            queue.nap(Duration::from_micros(50));
            continue;
        }
        queue.sleep(None, || {
            let round = queue.round(&mut (), make_room);
            round.posted != posted || round.held || end.load(Ordering::SeqCst)
        });
    }
}

mod order {
    use super::*;

    const VCPUS: u32 = 4;
    const ACCESSES: u64 = 20_000;

    /// All vCPUs hand in their accesses, of which about one in `calls` is waited for. Returns
    /// how many replies there were, and the queue.
    fn hand_in(queue: &DeviceQueue<Counter>, calls: u64) -> u64 {
        let published = AtomicU64::new(0);
        let hand_in = |vcpu: u32| {
            let mut replies = 0;
            for number in 0..ACCESSES {
                if (number * 7 + u64::from(vcpu)) % calls == 0 {
                    let before = published.load(Ordering::SeqCst);
                    let reply = queue.call(VcpuId(vcpu), &access(number), &mut ()).unwrap();
                    // A read sees all that had come before it, whoever wrote it.
                    assert!(reply >= before, "{reply} < {before}");
                    replies += 1;
                } else {
                    queue.post(VcpuId(vcpu), access(number), &mut ()).unwrap();
                }
                published.fetch_add(1, Ordering::SeqCst);
            }
            replies
        };
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..VCPUS).map(|vcpu| scope.spawn(move || hand_in(vcpu))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    }

    /// Every access was served, each vCPU's in order, and each call had its reply.
    fn check(queue: &DeviceQueue<Counter>, replies: u64) {
        let total = u64::from(VCPUS) * ACCESSES;
        let round = queue.round(&mut (), |counter| (counter.next, counter.served));
        assert_eq!(round.result, ([ACCESSES; 4], total));
        assert_eq!(round.posted + replies, total);
        assert!(!round.held);
    }

    #[test]
    fn vcpus_alone_keep_it_whatever_the_channel_holds() {
        for (capacity, calls) in [(1, 3), (2, 5), (3, 50), (64, 1), (1024, 500)] {
            watched(move || {
                let queue = DeviceQueue::new(Counter::default(), capacity);
                check(&queue, hand_in(&queue, calls));
            });
        }
    }

    #[test]
    fn a_device_thread_beside_them_keeps_it_and_a_busy_device_too() {
        for (capacity, calls, room) in
            [(1, 4, Some(100)), (3, 1, Some(50)), (64, 100, Some(1000)), (1024, 20, None)]
        {
            watched(move || {
                let counter = Counter { room, ..Counter::default() };
                let queue = DeviceQueue::new(counter, capacity);
                let end = AtomicBool::new(false);
                thread::scope(|scope| {
                    let make_room = move |counter: &mut Counter| {
                        counter.room = room;
                        counter.refused.clear();
                    };
                    let (queue, end) = (&queue, &end);
                    scope.spawn(move || device_thread(queue, end, make_room));
                    let replies = hand_in(queue, calls);
                    end.store(true, Ordering::SeqCst);
                    queue.rouse();
                    wait_until(|| !queue.round(&mut (), make_room).held);
                    check(queue, replies);
                });
            });
        }
    }
}

mod helping {
    use super::*;

    /// A device to which vCPU 0 posts again whenever an access of it is served; it replies with
    /// how many that were.
    struct Flooded {
        queue: Weak<DeviceQueue<Flooded>>,
        served: u64,
    }

    impl Serve for Flooded {
        type Reply = u64;

        fn serve(&mut self, vcpu: VcpuId, access: &Access) -> Result<u64, Busy> {
            if vcpu == V0 {
                self.served += 1;
                self.queue.upgrade().unwrap().post(V0, *access, &mut ()).unwrap();
            }
            Ok(self.served)
        }

        fn needs_thread(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_vcpu_serves_those_before_it_and_none_after_it() {
        for capacity in [3, 8] {
            watched(move || {
                let queue = Arc::new_cyclic(|queue| {
                    DeviceQueue::new(Flooded { queue: Weak::clone(queue), served: 0 }, capacity)
                });
                for _ in 0..3 {
                    queue.post(V0, access(0), &mut ()).unwrap();
                }
                assert_eq!(queue.call(V1, &access(0), &mut ()), Ok(3));
                assert_eq!(queue.call(V1, &access(0), &mut ()), Ok(6));
            });
        }
    }

    #[test]
    fn a_full_channel_is_served_by_who_needs_room() {
        let queue = DeviceQueue::new(Counter::default(), 2);
        for number in 0..2 {
            queue.post(V0, access(number), &mut ()).unwrap();
        }
        queue.post(V1, access(0), &mut ()).unwrap();
        assert_eq!(queue.visit(|counter| counter.served), 2);
    }
}

mod busy {
    use super::*;

    #[test]
    fn what_a_busy_device_refuses_stays_first() {
        let busy = Counter { room: Some(1), ..Counter::default() };
        let queue = DeviceQueue::new(busy, 8);
        for number in 0..4 {
            queue.post(V0, access(number), &mut ()).unwrap();
        }
        // Each round serves one and makes room for the next.
        for served in 1..=4 {
            let round = queue.round(&mut (), |counter| {
                counter.room = Some(1);
                counter.served
            });
            assert_eq!((round.result, round.posted, round.held), (served, served, served < 4));
        }
    }

    #[test]
    fn a_refused_call_waits_for_room_and_bars_nobody() {
        watched(|| {
            let busy = Counter { room: Some(0), ..Counter::default() };
            let queue = DeviceQueue::new(busy, 8);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| queue.call(V0, &access(0), &mut ()));
                let id = waiter.thread().id();
                wait_until(|| waits(&queue, id));
                // There is room, of which nobody tells it.
                queue.visit(|counter| counter.room = None);
                assert_eq!(queue.call(V1, &access(0), &mut ()), Ok(0));
                queue.post(V1, access(1), &mut ()).unwrap();
                let round = queue.round(&mut (), |counter| counter.served);
                assert_eq!((round.result, round.held), (2, false));
                assert_eq!(waiter.join().unwrap(), Ok(2));
            });
        });
    }

    #[test]
    fn a_call_waits_behind_what_is_held() {
        watched(|| {
            let busy = Counter { room: Some(0), ..Counter::default() };
            let queue = DeviceQueue::new(busy, 8);
            queue.post(V0, access(0), &mut ()).unwrap();
            assert!(queue.round(&mut (), |counter| counter.refused.clear()).held);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| queue.call(V1, &access(0), &mut ()));
                let id = waiter.thread().id();
                wait_until(|| waits(&queue, id));
                queue.round(&mut (), |counter| counter.room = None);
                assert_eq!(waiter.join().unwrap(), Ok(1));
            });
        });
    }

    #[test]
    fn room_lets_all_who_wait_go_on() {
        watched(|| {
            let busy = Counter { room: Some(0), ..Counter::default() };
            let queue = DeviceQueue::new(busy, 2);
            thread::scope(|scope| {
                let call = |vcpu| queue.call(VcpuId(vcpu), &access(0), &mut ()).unwrap();
                let waiters: Vec<_> = (0..4).map(|vcpu| scope.spawn(move || call(vcpu))).collect();
                for waiter in &waiters {
                    wait_until(|| waits(&queue, waiter.thread().id()));
                }
                queue.round(&mut (), |counter| counter.room = None);
                let mut replies: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
                replies.sort_unstable();
                assert_eq!(replies, [0, 1, 2, 3]);
            });
        });
    }

    #[test]
    fn who_waits_for_room_wakes_the_device_thread() {
        watched(|| {
            let busy = Counter { room: Some(0), ..Counter::default() };
            let queue = DeviceQueue::new(busy, 1);
            let end = AtomicBool::new(false);
            thread::scope(|scope| {
                // There is room only for who has waited.
                let make_room = |counter: &mut Counter| {
                    counter.look();
                    counter.room = Some(u64::from(counter.refused.pop().is_some()));
                };
                let (queue, end) = (&queue, &end);
                scope.spawn(move || device_thread(queue, end, make_room));
                for number in 0..2_000 {
                    queue.call(V0, &access(number), &mut ()).unwrap();
                }
                end.store(true, Ordering::SeqCst);
                queue.rouse();
            });
        });
    }
}

mod closing {
    use super::*;

    #[test]
    fn all_who_wait_are_let_go_and_nothing_that_was_posted_is_lost() {
        for capacity in [1, 2, 3, 100] {
            watched(move || {
                let busy = Counter { room: Some(0), ..Counter::default() };
                let queue = DeviceQueue::new(busy, capacity);
                let handed_in: Vec<u64> = thread::scope(|scope| {
                    // Three post until they are told to stop, one waits for a reply.
                    let post = |vcpu| {
                        let number =
                            (0..).find(|n| queue.post(VcpuId(vcpu), access(*n), &mut ()).is_err());
                        number.unwrap() + 1
                    };
                    let call = || {
                        assert_eq!(queue.call(VcpuId(3), &access(0), &mut ()), Err(Closed));
                        0
                    };
                    let mut threads: Vec<_> =
                        (0..3).map(|vcpu| scope.spawn(move || post(vcpu))).collect();
                    threads.push(scope.spawn(call));
                    for thread in &threads {
                        wait_until(|| waits(&queue, thread.thread().id()));
                    }
                    queue.close();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                // The server sees to the order.
                queue.round(&mut (), |counter| counter.room = None);
                let round = queue.round(&mut (), |counter| counter.next);
                assert_eq!(round.result.to_vec(), handed_in);
                assert_eq!(round.posted, handed_in.iter().sum::<u64>());
            });
        }
    }

    #[test]
    fn a_refused_call_is_let_go_and_not_served() {
        watched(|| {
            let busy = Counter { room: Some(0), ..Counter::default() };
            let queue = DeviceQueue::new(busy, 8);
            thread::scope(|scope| {
                let waiter = scope.spawn(|| queue.call(V0, &access(0), &mut ()));
                let id = waiter.thread().id();
                wait_until(|| waits(&queue, id));
                queue.close();
                assert_eq!(waiter.join().unwrap(), Err(Closed));
            });
            queue.round(&mut (), |counter| counter.room = None);
            assert_eq!(queue.round(&mut (), |counter| counter.served).result, 0);
        });
    }

    #[test]
    fn what_needs_no_room_still_works() {
        let queue = DeviceQueue::new(Counter::default(), 1);
        queue.close();
        for number in 0..10 {
            queue.post(V0, access(number), &mut ()).unwrap();
        }
        assert_eq!(queue.call(V0, &access(10), &mut ()), Ok(10));
    }
}

/// Wakes a device thread that does nothing but sleep, again and again, with nothing but an
/// access that `hand_in` hands in.
fn wake_by(hand_in: fn(&DeviceQueue<Counter>, u64)) {
    watched(move || {
        let queue = DeviceQueue::new(Counter::default(), 4);
        let (end, seen) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                queue.adopt();
                while !end.load(Ordering::SeqCst) {
                    queue.sleep(None, || {
                        let served = queue.round(&mut (), Counter::look).result;
                        let before = seen.swap(served, Ordering::SeqCst);
                        before != served || end.load(Ordering::SeqCst)
                    });
                }
            });
            for number in 0..5_000 {
                hand_in(&queue, number);
                wait_until(|| seen.load(Ordering::SeqCst) == number + 1);
            }
            end.store(true, Ordering::SeqCst);
            queue.rouse();
        });
    });
}

#[test]
fn a_posted_access_wakes_the_device_thread() {
    wake_by(|queue, number| queue.post(V0, access(number), &mut ()).unwrap());
}

#[test]
fn work_that_helping_made_wakes_the_device_thread() {
    wake_by(|queue, number| assert!(queue.call(V0, &access(number), &mut ()).is_ok()));
}

#[test]
fn work_that_a_visitor_made_wakes_the_device_thread() {
    wake_by(|queue, _| queue.visit(|counter| counter.served += 1));
}

/// Serves vCPU 0 and refuses vCPU 1; panics while it is broken.
#[derive(Default)]
struct Fragile {
    broken: bool,
    refused: u64,
}

impl Serve for Fragile {
    type Reply = ();

    fn serve(&mut self, vcpu: VcpuId, _: &Access) -> Result<(), Busy> {
        assert!(!self.broken, "broken");
        if vcpu == V0 {
            return Ok(());
        }
        self.refused += 1;
        Err(Busy)
    }

    fn needs_thread(&self) -> bool {
        false
    }
}

/// Breaks the device, sees `f` panic, and mends it.
fn breaks<R: Debug>(queue: &DeviceQueue<Fragile>, f: impl FnOnce() -> R) {
    queue.visit(|device| device.broken = true);
    panic::catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    queue.visit(|device| device.broken = false);
}

#[test]
fn who_waits_while_a_device_panics_is_let_go() {
    watched(|| {
        let queue = DeviceQueue::new(Fragile::default(), 8);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.call(V1, &access(0), &mut ()));
            wait_until(|| queue.visit(|device| device.refused) > 0);
            // On the device thread; on a vCPU thread that helps, and over its own access.
            queue.post(V0, access(0), &mut ()).unwrap();
            breaks(&queue, || queue.round(&mut (), |_| ()));
            queue.post(V0, access(0), &mut ()).unwrap();
            breaks(&queue, || queue.call(V0, &access(0), &mut ()));
            breaks(&queue, || queue.call(V0, &access(0), &mut ()));
            queue.close();
            assert_eq!(waiter.join().unwrap(), Err(Closed));
        });
    });
}

/// A device that panics takes the access with it.
#[test]
fn who_waits_behind_an_access_that_panics_goes_on() {
    watched(|| {
        let queue = DeviceQueue::new(Fragile::default(), 8);
        queue.post(V1, access(0), &mut ()).unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| queue.call(V0, &access(0), &mut ()));
            wait_until(|| queue.visit(|device| device.refused) > 0);
            breaks(&queue, || queue.round(&mut (), |_| ()));
            queue.round(&mut (), |_| ());
            assert_eq!(waiter.join().unwrap(), Ok(()));
        });
    });
}
