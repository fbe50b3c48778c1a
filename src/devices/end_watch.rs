//! Looks after level-triggered interrupts of an IOAPIC that is not in the kernel: while a line is
//! high and nobody has told the end of the interrupt that it made, no other can follow.
//!
//! KVM tells an end at the next entry into the guest. On a host that executes the guest's kernel in
//! its instruction emulator, the guest may come from that end to a HLT without another entry, and
//! then the vCPU sleeps on it. So the vCPUs are asked when a line has waited for `FIRST`, and again
//! at growing intervals; where ends are told at once nobody ever is, unless the guest takes as long
//! to handle an interrupt.
//!
//! Part of the set of all devices; the device thread tells it the time.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(64);

/// See the module's text.
#[derive(Debug, Default)]
pub struct EndWatch {
    watching: Option<Watching>,
}

#[derive(Debug)]
struct Watching {
    /// How many ends had been told.
    ends: u64,
    /// When to ask.
    due: Duration,
    gap: Duration,
}

impl EndWatch {
    /// It is `now`, and a line waits for an end, so many having been told before; or none does.
    /// Whether to ask the vCPUs.
    pub fn follow(&mut self, awaited_after: Option<u64>, now: Duration) -> bool {
        match (&mut self.watching, awaited_after) {
            (Some(watching), Some(ends)) if watching.ends == ends => {
                let ask = now >= watching.due;
                if ask {
                    watching.gap = LONGEST.min(2 * watching.gap);
                    watching.due = now.saturating_add(watching.gap);
                }
                ask
            }
            (watching, Some(ends)) => {
                *watching = Some(Watching { ends, due: now.saturating_add(FIRST), gap: FIRST });
                false
            }
            (watching, None) => {
                *watching = None;
                false
            }
        }
    }

    /// Whether it has been told of a line that waits.
    pub fn is_watching(&self) -> bool {
        self.watching.is_some()
    }

    /// When it is to be told the time.
    pub fn deadline(&self) -> Option<Duration> {
        self.watching.as_ref().map(|watching| watching.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_is_asked_while_ends_come() {
        let mut watch = EndWatch::default();
        assert_eq!(watch.deadline(), None);
        for ends in 0..100 {
            let now = u32::try_from(ends).unwrap() * MS;
            assert!(!watch.follow(Some(ends), now), "{ends}");
            assert_eq!(watch.deadline(), Some(now + FIRST));
        }
        assert!(!watch.follow(None, 200 * MS));
        assert!(!watch.is_watching());
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn an_end_that_does_not_come_is_asked_for_more_and_more_seldom() {
        let mut watch = EndWatch::default();
        let mut asked = Vec::new();
        assert!(!watch.follow(Some(7), Duration::ZERO));
        while asked.len() < 9 {
            let now = watch.deadline().unwrap();
            assert!(!watch.follow(Some(7), now - Duration::from_nanos(1)));
            assert!(watch.follow(Some(7), now));
            asked.push(now.as_millis());
        }
        assert_eq!(asked, [1, 3, 7, 15, 31, 63, 127, 191, 255]);
        // The next one starts anew.
        assert!(!watch.follow(Some(8), 300 * MS));
        assert_eq!(watch.deadline(), Some(301 * MS));
    }
}
