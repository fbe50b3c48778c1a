//! The time of a trace. One clock for all threads of a VM, so that their records can be compared.
//!
//! It begins as CLOCK_MONOTONIC, which takes some 25 ns a reading and would be most of what an
//! exit's record costs. Shortly after the guest's start it goes on as a counter of the CPU, some
//! 10 ns a reading, if the host has one that will do ([`Clock::use_counter`]).
//!
//! What is guaranteed:
//!
//! - With CLOCK_MONOTONIC no reading is less than one that came before it, on whatever thread.
//! - The change-over is no step back: a reading by the counter is no less than any by
//!   CLOCK_MONOTONIC that came before it. It may be a step forward, by the time that the shortest
//!   of a few looks at both takes: less than 0.1 µs, unless every one is interrupted.
//! - With the counter a thread's readings do not go back if the CPUs' counters agree. Those of two
//!   threads are comparable to within what the counters differ by and how early a CPU reads its
//!   own, which it does not in the strict order of the program: some ten nanoseconds each.
//!   So a difference of two times is always taken with `saturating_sub`.
//! - If the counter is ever behind where it was at the change-over, because it has been reset,
//!   it is given up for good and the time is CLOCK_MONOTONIC again.
//! - The counter has the frequency that the kernel has found for it, and CLOCK_MONOTONIC is steered
//!   by NTP as well: they drift apart by some millionths.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How often the counter and CLOCK_MONOTONIC are looked at together, for one look that was not
/// interrupted.
const LOOKS: usize = 4;

/// Nanoseconds since the trace's epoch. What is guaranteed of them is in the module's text.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Host(Arc<HostClock>),
    Manual { time: Arc<AtomicU64>, step: u64 },
}

/// A counter that goes on at a constant rate and is the same on all CPUs. A function, so that
/// this module need not know where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Reads it.
    pub read: fn() -> u64,
    /// How often it counts: in thousands a second.
    pub khz: NonZeroU32,
}

impl Clock {
    /// The host's clock; the epoch is now.
    pub fn host() -> Self {
        Self(Kind::Host(Arc::new(HostClock { epoch: Instant::now(), counted: OnceLock::new() })))
    }

    /// A clock that shows `time` and lets it go on by `step` at each reading, for tests.
    pub fn manual(time: Arc<AtomicU64>, step: u64) -> Self {
        Self(Kind::Manual { time, step })
    }

    /// The time.
    pub fn now(&self) -> u64 {
        match &self.0 {
            Kind::Host(clock) => clock.now(),
            Kind::Manual { time, step } => time.fetch_add(*step, Ordering::Relaxed),
        }
    }

    /// From now on the host's clock goes by `counter`, for all who have this clock. Only the first
    /// one counts.
    pub fn use_counter(&self, counter: Counter) {
        if let Kind::Host(clock) = &self.0 {
            clock.counted.get_or_init(|| Counted::from_now(counter, || clock.monotonic()));
        }
    }
}

#[derive(Debug)]
struct HostClock {
    epoch: Instant,
    counted: OnceLock<Counted>,
}

impl HostClock {
    fn now(&self) -> u64 {
        self.counted.get().and_then(Counted::now).unwrap_or_else(|| self.monotonic())
    }

    fn monotonic(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A counter, and how its values become times.
#[derive(Debug)]
struct Counted {
    read: fn() -> u64,
    scale: Scale,
    /// The counter at the change-over, and the time then.
    base: u64,
    time: u64,
    /// It has been seen behind its base.
    lost: AtomicBool,
}

impl Counted {
    /// The time goes on as `monotonic` has it now.
    fn from_now(counter: Counter, monotonic: impl Fn() -> u64) -> Self {
        let Counter { read, khz } = counter;
        // The counter first: so the time that belongs to it is late, if anything, and all that is
        // counted from it no less than what `monotonic` says meanwhile.
        let look = |_| {
            let (base, time) = (read(), monotonic());
            (read().saturating_sub(base), base, time)
        };
        let (_, base, time) = (1..LOOKS).map(look).fold(look(0), |best, look| best.min(look));
        Self { read, scale: Scale::of(khz), base, time, lost: AtomicBool::new(false) }
    }

    /// The time; none if the counter has been lost.
    fn now(&self) -> Option<u64> {
        if self.lost.load(Ordering::Relaxed) {
            return None;
        }
        let Some(ticks) = (self.read)().checked_sub(self.base) else {
            self.lost.store(true, Ordering::Relaxed);
            return None;
        };
        Some(self.time.saturating_add(self.scale.nanoseconds(ticks)))
    }
}

/// Nanoseconds for a tick, times 2^[`SHIFT`](Self::SHIFT).
#[derive(Clone, Copy, Debug)]
struct Scale(u64);

impl Scale {
    /// The most with which a counter of 1 kHz, the slowest, has its scale in 64 bits. At 5 GHz it
    /// is off by less than 3e-13, a millisecond in 100 years.
    const SHIFT: u32 = 44;

    fn of(khz: NonZeroU32) -> Self {
        const NANOSECONDS_AT_1_KHZ: u64 = 1_000_000;
        Self((NANOSECONDS_AT_1_KHZ << Self::SHIFT) / u64::from(khz.get()))
    }

    fn nanoseconds(self, ticks: u64) -> u64 {
        let scaled = (u128::from(ticks) * u128::from(self.0)) >> Self::SHIFT;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
