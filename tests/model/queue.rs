//! The product's queue, in every scenario; and without its two fences, for each of which the
//! checker has to find the sleep that never ends.

use minivmm::devices::queue::{Closed, DeviceQueue, Round};
use minivmm::exit::{Access, VcpuId};
use minivmm::sync::without_fences;

use crate::explore;
use crate::properties::{self, Log, Protocol, Seen};

impl Protocol for DeviceQueue<Log> {
    fn post(&self, vcpu: VcpuId, access: Access) -> Result<(), Closed> {
        self.post(vcpu, access, &mut ())
    }

    fn call(&self, vcpu: VcpuId, access: &Access) -> Result<Seen, Closed> {
        self.call(vcpu, access, &mut ())
    }

    fn round<R>(&self, f: impl FnOnce(&mut Log) -> R) -> Round<R> {
        self.round(&mut (), f)
    }

    fn sleep(&self, look: impl FnOnce() -> bool) {
        self.sleep(None, look);
    }

    fn close(&self) {
        self.close();
    }

    fn rouse(&self) {
        self.rouse();
    }
}

fn product(log: Log, capacity: usize) -> DeviceQueue<Log> {
    DeviceQueue::new(log, capacity)
}

/// With room for more than its limit allows.
fn limited(log: Log, capacity: usize) -> DeviceQueue<Log> {
    let queue = DeviceQueue::new(log, capacity + 1);
    queue.set_limit(capacity);
    queue
}

#[test]
fn posts_arrive_once_and_in_order() {
    explore::bounded(3, || properties::posts_arrive_once_and_in_order(product));
}

#[test]
fn a_read_sees_own_writes() {
    explore::bounded(3, || properties::a_read_sees_own_writes(product));
}

#[test]
fn a_read_sees_refused_writes() {
    explore::bounded(3, || properties::a_read_sees_refused_writes(product));
}

#[test]
fn a_read_sees_ordered_writes() {
    explore::all(|| properties::a_read_sees_ordered_writes(product));
}

#[test]
fn calls_take_effect_once_and_in_order() {
    explore::all(|| properties::calls_take_effect_once_and_in_order(product));
}

#[test]
fn a_post_ends_the_sleep() {
    explore::all(|| properties::a_post_ends_the_sleep(product));
}

#[test]
fn two_posts_end_the_sleep() {
    explore::bounded(4, || properties::two_posts_end_the_sleep(product));
}

#[test]
fn posts_of_two_end_the_sleep() {
    explore::bounded(3, || properties::posts_of_two_end_the_sleep(product));
}

#[test]
fn help_ends_the_sleep() {
    explore::all(|| properties::help_ends_the_sleep(product));
}

#[test]
fn help_beside_a_post_ends_the_sleep() {
    explore::bounded(3, || properties::help_beside_a_post_ends_the_sleep(product));
}

#[test]
fn rouse_ends_the_sleep() {
    explore::all(|| properties::rouse_ends_the_sleep(product));
}

#[test]
fn a_full_channel_loses_nothing() {
    explore::bounded(2, || properties::a_full_channel_loses_nothing(product));
}

#[test]
fn a_channel_at_its_limit_loses_nothing() {
    explore::bounded(2, || properties::a_full_channel_loses_nothing(limited));
}

#[test]
fn a_full_channel_holds_up_all() {
    explore::bounded(2, || properties::a_full_channel_holds_up_all(product));
}

#[test]
fn a_refused_call_gets_room() {
    explore::bounded(4, || properties::a_refused_call_gets_room(product));
}

#[test]
fn close_frees_a_refused_call() {
    explore::all(|| properties::close_frees_a_refused_call(product));
}

#[test]
fn close_frees_who_waits() {
    explore::bounded(4, || properties::close_frees_who_waits(product));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_its_fence_a_post_wakes_nobody() {
    explore::all(|| {
        properties::a_post_ends_the_sleep(|log, capacity| Fenceless {
            queue: product(log, capacity),
            side: Side::Post,
        });
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_its_fence_the_sleep_begins_too_late() {
    explore::all(|| {
        properties::a_post_ends_the_sleep(|log, capacity| Fenceless {
            queue: product(log, capacity),
            side: Side::Sleep,
        });
    });
}

/// Which of the two fences is left out.
#[derive(PartialEq)]
enum Side {
    Post,
    Sleep,
}

/// The product's queue without one of its fences.
struct Fenceless {
    queue: DeviceQueue<Log>,
    side: Side,
}

impl Protocol for Fenceless {
    fn post(&self, vcpu: VcpuId, access: Access) -> Result<(), Closed> {
        let post = || self.queue.post(vcpu, access, &mut ());
        if self.side == Side::Post { without_fences(post) } else { post() }
    }

    fn call(&self, vcpu: VcpuId, access: &Access) -> Result<Seen, Closed> {
        self.queue.call(vcpu, access, &mut ())
    }

    fn round<R>(&self, f: impl FnOnce(&mut Log) -> R) -> Round<R> {
        self.queue.round(&mut (), f)
    }

    fn sleep(&self, look: impl FnOnce() -> bool) {
        let sleep = || self.queue.sleep(None, look);
        if self.side == Side::Sleep { without_fences(sleep) } else { sleep() }
    }

    fn close(&self) {
        self.queue.close();
    }

    fn rouse(&self) {
        self.queue.rouse();
    }
}
