//! The time that the devices are told: how long ago the machine was made, and what time of day it
//! was then. Only the set of all devices reads it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// Since the beginning of 1970, in UTC.
    unix: Duration,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        // A host that is set to before 1970 has that for its time.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), unix }
    }

    /// How long ago it began.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time of day at `now`, since the beginning of 1970.
    pub fn unix_at(&self, now: Duration) -> Duration {
        self.unix.saturating_add(now)
    }

    /// When `now` returns `time`; never if that is beyond what the host can say.
    pub fn instant(&self, time: Duration) -> Option<Instant> {
        self.started.checked_add(time)
    }
}
