//! What can be seen of the device protocol: who serves which access when, what is written, and a
//! few counts. The queue and the device thread tell it to a [`Watch`], without knowing what it is
//! for; in the program it is a trace's recorder.

use crate::exit::{Access, VcpuId};

/// A posted access, in the channel or served from it.
#[derive(Clone, Copy, Debug)]
pub struct Posted {
    /// Whose it is.
    pub vcpu: VcpuId,
    /// The access.
    pub access: Access,
    /// What its vCPU's [`Watch`] has put on it.
    pub ticket: Ticket,
}

/// Where a posted access comes from, for those who watch it being served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    /// The number of the exit.
    pub sequence: u64,
    /// When the exit happened, by the watch's clock.
    pub entered: u64,
}

/// Told what its thread serves: a trace, or `()`, which costs nothing. All but `now` and `ticket`
/// is called with the devices held, and so must not wait for anything.
pub trait Watch {
    /// The time in nanoseconds; 0 if it does not matter.
    fn now(&self) -> u64;

    /// What to put on the accesses that this thread posts.
    fn ticket(&self) -> Ticket;

    /// A posted access, be it this thread's or another's, was served from `began` to now.
    fn served(&mut self, posted: &Posted, began: u64);

    /// The thread begins to serve an access that it did not post.
    fn serving(&mut self);

    /// It has served it.
    fn served_own(&mut self);
}

impl Watch for () {
    fn now(&self) -> u64 {
        0
    }

    fn ticket(&self) -> Ticket {
        Ticket::default()
    }

    fn served(&mut self, _: &Posted, _: u64) {}

    fn serving(&mut self) {}

    fn served_own(&mut self) {}
}

impl<W: Watch> Watch for Option<Box<W>> {
    fn now(&self) -> u64 {
        self.as_ref().map_or(0, |watch| watch.now())
    }

    fn ticket(&self) -> Ticket {
        self.as_ref().map_or_else(Ticket::default, |watch| watch.ticket())
    }

    fn served(&mut self, posted: &Posted, began: u64) {
        if let Some(watch) = self {
            watch.served(posted, began);
        }
    }

    fn serving(&mut self) {
        if let Some(watch) = self {
            watch.serving();
        }
    }

    fn served_own(&mut self) {
        if let Some(watch) = self {
            watch.served_own();
        }
    }
}

/// Told what the device thread does, besides what it serves. Without the devices: it may wait.
pub trait WatchOutput: Watch {
    /// The devices have been let go of.
    fn let_go(&mut self);

    /// `len` bytes of output, of which there were `offset` before, were written from `began` to
    /// now.
    fn wrote(&mut self, began: u64, offset: u64, len: usize);
}

impl WatchOutput for () {
    fn let_go(&mut self) {}

    fn wrote(&mut self, _: u64, _: u64, _: usize) {}
}

/// What a queue counts, for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// The most accesses that one look of the device thread, or one vCPU that helped, served.
    pub deepest: u64,
    /// How often a vCPU served others first, to get to its own access.
    pub helps: u64,
    /// How often the device thread was woken from its long sleep.
    pub wakes: u64,
}
