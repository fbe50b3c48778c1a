//! The time of a trace. One clock for all threads of a VM, so that their records can be compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Nanoseconds since the trace's epoch, monotonic (CLOCK_MONOTONIC, some 25 ns a reading).
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Host(Instant),
    Manual { time: Arc<AtomicU64>, step: u64 },
}

impl Clock {
    /// The host's clock; the epoch is now.
    pub fn host() -> Self {
        Self(Kind::Host(Instant::now()))
    }

    /// A clock that shows `time` and lets it go on by `step` at each reading, for tests.
    pub fn manual(time: Arc<AtomicU64>, step: u64) -> Self {
        Self(Kind::Manual { time, step })
    }

    /// The time.
    pub fn now(&self) -> u64 {
        match &self.0 {
            Kind::Host(epoch) => u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Kind::Manual { time, step } => time.fetch_add(*step, Ordering::Relaxed),
        }
    }
}
