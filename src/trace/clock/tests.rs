use std::cell::Cell;
use std::sync::LazyLock;
use std::thread;

use proptest::prelude::*;

use super::*;

const YEAR_SECONDS: u64 = 31_557_600;

fn khz(khz: u32) -> NonZeroU32 {
    NonZeroU32::new(khz).unwrap()
}

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
}

/// A counter of this thread, in the test's hand.
fn by_hand(khz: u32) -> Counter {
    Counter { read: || TICKS.get(), khz: self::khz(khz) }
}

/// One that is CLOCK_MONOTONIC itself.
fn monotonic() -> Counter {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    LazyLock::force(&START);
    let read = || u64::try_from(START.elapsed().as_nanos()).unwrap();
    Counter { read, khz: khz(1_000_000) }
}

#[test]
fn whole_nanoseconds_are_exact() {
    // 1 kHz, 1 MHz, 500 MHz and 1 GHz have a whole number of nanoseconds a tick, 2 and 4 GHz a
    // power of two a nanosecond.
    for (rate, ticks, nanoseconds) in [
        (1, 3, 3_000_000),
        (1000, 7, 7000),
        (500_000, 1, 2),
        (1_000_000, 1, 1),
        (1_000_000, u64::MAX, u64::MAX),
        (2_000_000, 5, 2),
        (4_000_000, u64::MAX, u64::MAX / 4),
        (u32::MAX, 0, 0),
    ] {
        let scaled = Scale::of(khz(rate)).nanoseconds(ticks);
        assert_eq!(scaled, nanoseconds, "{ticks} ticks at {rate} kHz");
    }
}

#[test]
fn what_is_too_much_stays_at_the_end() {
    assert_eq!(Scale::of(khz(1)).nanoseconds(u64::MAX), u64::MAX);
    assert_eq!(Scale::of(khz(999_999)).nanoseconds(u64::MAX), u64::MAX);
    TICKS.set(0);
    let late = Counted::from_now(by_hand(1000), || u64::MAX - 5);
    TICKS.set(1);
    assert_eq!(late.now(), Some(u64::MAX));
}

proptest! {
    /// Never ahead, and behind by no more than a nanosecond and a millionth of a millionth.
    #[test]
    fn a_hundred_years_are_scaled(
        rate in 1_000u32..=5_000_000,
        milliseconds in 0..100 * YEAR_SECONDS * 1000,
    ) {
        let scaled = Scale::of(khz(rate)).nanoseconds(milliseconds * u64::from(rate));
        let exact = milliseconds * 1_000_000;
        prop_assert!(scaled <= exact, "{scaled} ns for {exact}");
        prop_assert!(exact - scaled <= 1 + exact / 1_000_000_000_000, "{scaled} ns for {exact}");
    }

    /// More ticks are no less time.
    #[test]
    fn the_scale_is_monotonic(rate in 1..=u32::MAX, ticks: u64, more in 0..1000u64) {
        let scale = Scale::of(khz(rate));
        prop_assert!(scale.nanoseconds(ticks) <= scale.nanoseconds(ticks.saturating_add(more)));
    }
}

#[test]
fn the_time_goes_on_where_it_was() {
    TICKS.set(1 << 60);
    let clock = Clock::host();
    let monotonic = || match &clock.0 {
        Kind::Host(clock) => clock.monotonic(),
        Kind::Manual { .. } => unreachable!(),
    };
    let before = clock.now();
    clock.use_counter(by_hand(2_000_000));
    let first = clock.now();
    assert!((before..=monotonic()).contains(&first), "{first} after {before}");
    // From there it is the counter and nothing else.
    assert_eq!(clock.now(), first);
    TICKS.set((1 << 60) + 7000);
    assert_eq!(clock.clone().now(), first + 3500);
}

#[test]
fn only_the_first_counter_counts() {
    let clock = Clock::host();
    clock.use_counter(by_hand(1000));
    let first = clock.now();
    clock.use_counter(monotonic());
    assert_eq!(clock.now(), first);
}

#[test]
fn the_look_that_took_least_is_taken() {
    thread_local! {
        // What each reading of the counter goes on by: two readings a look.
        static STEPS: Cell<&'static [u64]> = const { Cell::new(&[0, 900, 0, 20, 0, 50, 0, 20]) };
    }
    TICKS.set(1000);
    let read = || {
        let (step, rest) = STEPS.get().split_first().unwrap_or((&0, &[]));
        STEPS.set(rest);
        TICKS.set(TICKS.get() + step);
        TICKS.get()
    };
    let time = Cell::new(0);
    let monotonic = || {
        time.set(time.get() + 1);
        time.get()
    };
    let counted = Counted::from_now(Counter { read, khz: khz(1_000_000) }, monotonic);
    // The second of the four.
    assert_eq!((counted.base, counted.time), (1900, 2));
}

#[test]
fn a_counter_that_was_reset_is_given_up() {
    TICKS.set(1000);
    let clock = Clock::host();
    clock.use_counter(by_hand(1_000_000));
    let first = clock.now();
    TICKS.set(999);
    let monotonic = clock.now();
    assert!(monotonic >= first);
    // Also when it is ahead of its base again.
    TICKS.set(u64::MAX);
    assert!(clock.now() < u64::MAX / 2);
}

#[test]
fn no_thread_sees_a_step_back_at_the_change_over() {
    for _ in 0..100 {
        let clock = Clock::host();
        // What any thread has read, so that each can compare with all.
        let latest = AtomicU64::new(0);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        let before = latest.load(Ordering::Acquire);
                        let now = clock.now();
                        assert!(now >= before, "{now} after {before}");
                        latest.fetch_max(now, Ordering::AcqRel);
                    }
                });
            }
            while latest.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            clock.use_counter(monotonic());
            let changed = clock.now();
            while latest.load(Ordering::Acquire) <= changed {
                thread::yield_now();
            }
            done.store(true, Ordering::Release);
        });
    }
}
