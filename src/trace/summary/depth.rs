//! How many posted accesses waited at once, from the records of their services.
//!
//! An access is in the channel from `time - wait` of its service to `time`. The channel keeps
//! the order, so that in the order of services the beginnings are ordered as well; then those
//! waiting when an access enters are the services before it that are not over yet. Records of
//! several threads are mixed up a little in a trace, so a window of them is sorted first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// How many services are held back to be sorted: 1 MiB of them.
const WINDOW: usize = 1 << 16;

/// More accesses than any channel holds; a trace that has more is no honest one.
const DEEPEST: usize = 1 << 16;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct DepthMeter {
    /// Services that are not looked at yet: when served, when posted.
    window: BinaryHeap<Reverse<(u64, u64)>>,
    /// When those that wait are served.
    waiting: VecDeque<u64>,
    /// When the last one that was looked at was served.
    last: u64,
    max: usize,
}

impl DepthMeter {
    /// Adds an access that was served at `time` after it had waited for `wait` nanoseconds.
    pub fn add(&mut self, time: u64, wait: u32) {
        self.window.push(Reverse((time, time.saturating_sub(u64::from(wait)))));
        if self.window.len() > WINDOW {
            self.take_first();
        }
    }

    /// Adds what `other` has; exact if together they are no more than the window holds.
    pub fn merge(&mut self, other: &Self) {
        self.max = self.max.max(other.max);
        self.last = self.last.max(other.last);
        self.window.extend(other.window.iter().copied());
        while self.window.len() > WINDOW {
            self.take_first();
        }
    }

    /// The most that waited at once.
    pub fn max(&self) -> u64 {
        let mut rest = self.clone();
        while !rest.window.is_empty() {
            rest.take_first();
        }
        u64::try_from(rest.max).unwrap_or(u64::MAX)
    }

    fn take_first(&mut self) {
        let Some(Reverse((served, posted))) = self.window.pop() else { return };
        // It comes too late to be put in its place: the depth is then at least what it says.
        if served < self.last {
            return;
        }
        self.last = served;
        while self.waiting.front().is_some_and(|first| *first <= posted) {
            self.waiting.pop_front();
        }
        if self.waiting.len() < DEEPEST {
            self.waiting.push_back(served);
        }
        self.max = self.max.max(self.waiting.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_those_that_overlap() {
        let mut meter = DepthMeter::default();
        assert_eq!(meter.max(), 0);
        // Posted at 10, 20, 30 and 60; served at 40, 45, 50 and 60.
        for (time, wait) in [(45, 25), (40, 30), (60, 0), (50, 20)] {
            meter.add(time, wait);
        }
        assert_eq!(meter.max(), 3);
        // One that enters as another leaves does not make two.
        let mut meter = DepthMeter::default();
        meter.add(10, 10);
        meter.add(20, 10);
        assert_eq!(meter.max(), 1);
    }

    #[test]
    fn what_comes_too_late_is_left_out() {
        let mut meter = DepthMeter::default();
        for time in 0..2 * u64::try_from(WINDOW).unwrap() {
            meter.add(1_000_000 + 10 * time, 5);
        }
        (0..9).for_each(|time| meter.add(time, 9));
        assert_eq!(meter.max(), 1);
    }

    proptest! {
        #[test]
        fn is_what_a_channel_holds(
            steps in prop::collection::vec((any::<bool>(), 1..50u64), 0..200),
        ) {
            let (mut now, mut channel, mut deepest) = (0, VecDeque::new(), 0);
            let mut meter = DepthMeter::default();
            for (post, time) in steps {
                now += time;
                if post {
                    channel.push_back(now);
                } else if let Some(posted) = channel.pop_front() {
                    meter.add(now, u32::try_from(now - posted).unwrap());
                }
                deepest = deepest.max(channel.len());
            }
            // Those that are left are served, or nothing would be known of them.
            for posted in channel {
                now += 1;
                meter.add(now, u32::try_from(now - posted).unwrap());
            }
            prop_assert_eq!(meter.max(), u64::try_from(deepest).unwrap());
        }
    }
}
