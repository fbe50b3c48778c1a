//! The timer's interrupt where the timer is not in the kernel: when output 0 of the 8254 has risen,
//! line 0 gets an edge.
//!
//! No edge is lost because the host was late, or the guest: as KVM's own timer does, each that was
//! missed is made up for, one as soon as the 8259s know of the end of the one before. A guest that
//! takes it by the IOAPIC gets one each 0.2 ms (`GAP`), for nobody here hears of an end then. Nor
//! does the timer ask for the host more often than that, so that a period of a few ticks does not
//! keep it busy. Missed edges that are more than 1,000 (`OWED_MAX`) are dropped, since a machine
//! that was stopped for an hour need not catch up on it, and so are all when the guest sets the
//! timer up anew.

use std::time::Duration;

use crate::devices::pit8254::Pit8254;
use crate::irq::Pin;

/// KVM's shortest period of a timer, too.
const GAP: Duration = Duration::from_micros(200);
/// How often to look whether an interrupt that others wait behind has come to its end, where nobody
/// tells: an 8259 with automatic EOI has it end as the vCPU takes it.
const LOOK: Duration = Duration::from_millis(1);
/// A second, for most guests.
const OWED_MAX: u64 = 1000;

/// See the module's text.
#[derive(Debug)]
pub struct TimerIrq {
    pin: Pin,
    /// Edges to come.
    owed: u64,
    /// When the next may come, unless the one before is ended sooner.
    open: Duration,
    /// The one before waits, or is served.
    busy: bool,
    /// When to look again whether it still does.
    look: Duration,
}

impl TimerIrq {
    /// The interrupt of a timer that leads to `pin`.
    pub fn new(pin: Pin) -> Self {
        Self { pin, owed: 0, open: Duration::ZERO, busy: false, look: Duration::ZERO }
    }

    /// The line follows the output of `pit`, as of the time told last; it is `now`. `is_busy` says
    /// whether the interrupt before has not come to its end.
    pub fn follow(&mut self, pit: &mut Pit8254, is_busy: impl Fn() -> bool, now: Duration) {
        if pit.take_restart_0() {
            self.owed = 0;
        }
        self.owed = self.owed.saturating_add(pit.take_rises_0()).min(OWED_MAX);
        let was_busy = self.busy;
        if self.owed > 0 || was_busy {
            self.busy = is_busy();
        }
        if self.owed > 0 && !self.busy && (was_busy || now >= self.open) {
            self.owed -= 1;
            self.open = now.saturating_add(GAP);
            self.pin.set(false);
            self.pin.set(true);
            self.busy = is_busy();
        }
        self.look = now.saturating_add(LOOK);
        if !pit.output_0() {
            self.pin.set(false);
        }
    }

    /// When [`follow`](Self::follow) next has something to do, if nothing is written meanwhile.
    pub fn deadline(&self, pit: &Pit8254) -> Option<Duration> {
        match self.owed {
            0 => Some(pit.next_rise_0()?.max(self.open)),
            _ if self.busy => Some(self.look),
            _ => Some(self.open),
        }
    }

    /// The state after a reset.
    pub fn reset(&mut self) {
        self.owed = 0;
        self.busy = false;
        self.pin.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irq::recording::Changes;

    const MS: Duration = Duration::from_millis(1);

    struct Bench {
        pit: Pit8254,
        timer: TimerIrq,
        changes: Changes,
    }

    impl Bench {
        /// Counter 0 in mode 2 with this count.
        fn new(count: u16) -> Self {
            let changes = Changes::default();
            let mut pit = Pit8254::new();
            pit.write(3, 0x34, Duration::ZERO);
            for byte in count.to_le_bytes() {
                pit.write(0, byte, Duration::ZERO);
            }
            let timer = TimerIrq::new(Pin::new(changes.line(0)));
            Self { pit, timer, changes }
        }

        /// How many edges the line makes.
        fn edges(&mut self, busy: bool, now: Duration) -> usize {
            self.pit.advance(now);
            self.timer.follow(&mut self.pit, || busy, now);
            self.changes.take().iter().filter(|(_, high)| *high).count()
        }

        fn deadline(&self) -> Option<Duration> {
            self.timer.deadline(&self.pit)
        }
    }

    #[test]
    fn each_period_is_an_edge() {
        let mut bench = Bench::new(1193);
        assert_eq!(bench.edges(false, Duration::ZERO), 0);
        for _ in 0..5 {
            let due = bench.deadline().unwrap();
            assert_eq!(bench.edges(false, due - Duration::from_nanos(1)), 0);
            assert_eq!(bench.edges(false, due), 1);
        }
        let after = bench.deadline().unwrap();
        assert!(after > 5 * MS && after < 7 * MS, "{after:?}");
    }

    #[test]
    fn missed_edges_come_one_after_the_end_of_another() {
        let mut bench = Bench::new(1193);
        let now = 3 * MS + MS / 2;
        assert_eq!(bench.edges(false, now), 1);
        for _ in 0..2 {
            // It waits, or is served: somebody tells of its end, or else a look finds it.
            assert_eq!(bench.edges(true, now), 0);
            assert_eq!(bench.deadline(), Some(now + LOOK));
            assert_eq!(bench.edges(false, now), 1);
        }
        assert_eq!(bench.edges(true, now), 0);
        assert_eq!(bench.edges(false, now), 0, "all caught up");
        assert!(bench.deadline().unwrap() > 4 * MS - MS / 4);
    }

    #[test]
    fn an_end_that_nobody_tells_of_is_found() {
        let mut bench = Bench::new(1193);
        let mut now = 3 * MS + MS / 2;
        assert_eq!(bench.edges(false, now), 1);
        for _ in 0..5 {
            assert_eq!(bench.edges(true, now), 0);
            now = bench.deadline().unwrap();
        }
        assert_eq!(bench.edges(false, now), 1);
    }

    #[test]
    fn missed_edges_whose_ends_nobody_tells_come_one_by_one() {
        let mut bench = Bench::new(1193);
        let mut now = 3 * MS + MS / 2;
        assert_eq!(bench.edges(false, now), 1);
        for _ in 0..2 {
            assert_eq!(bench.edges(false, now), 0, "too soon");
            assert_eq!(bench.deadline(), Some(now + GAP));
            now += GAP;
            assert_eq!(bench.edges(false, now), 1);
        }
        assert_eq!(bench.edges(false, now), 0, "all caught up");
    }

    #[test]
    fn a_long_stop_is_not_caught_up_on() {
        let mut bench = Bench::new(1193);
        let mut now = Duration::from_secs(3600);
        let mut edges = bench.edges(false, now);
        while bench.deadline() == Some(now + GAP) {
            now += GAP;
            edges += bench.edges(false, now);
        }
        assert!((1000..2000).contains(&edges), "{edges}");
    }

    #[test]
    fn a_short_period_keeps_nobody_busy() {
        let mut bench = Bench::new(2);
        let mut now = Duration::ZERO;
        bench.edges(false, now);
        for _ in 0..100 {
            let due = bench.deadline().unwrap();
            assert!(due >= now + GAP || now == Duration::ZERO, "{now:?} {due:?}");
            now = due;
            assert_eq!(bench.edges(false, now), 1);
        }
    }

    #[test]
    fn a_timer_that_is_set_up_anew_owes_nothing() {
        let mut bench = Bench::new(1193);
        let now = 5 * MS;
        assert_eq!(bench.edges(false, now), 1);
        bench.pit.write(3, 0x30, now);
        assert_eq!((bench.edges(false, now + GAP), bench.deadline()), (0, None));
        for byte in [0xff, 0xff] {
            bench.pit.write(0, byte, now + GAP);
        }
        assert_eq!(bench.edges(false, now + 2 * GAP), 0);
        assert!(bench.deadline().unwrap() > 50 * MS);
    }

    #[test]
    fn a_reset_takes_all_back() {
        let mut bench = Bench::new(1193);
        assert_eq!(bench.edges(false, 10 * MS), 1);
        bench.pit = Pit8254::new();
        bench.timer.reset();
        assert_eq!(bench.changes.take(), [(0, false)]);
        assert_eq!((bench.edges(false, 20 * MS), bench.deadline()), (0, None));
    }
}
