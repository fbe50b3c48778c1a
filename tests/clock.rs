//! The clock of a trace on this host: the counter that KVM's frequency makes a clock of, beside
//! CLOCK_MONOTONIC.

mod support;

use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use minivmm::config::{GuestSource, VmConfig};
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::trace::clock::{Clock, Counter};
use minivmm::vcpu::BuildVcpu;

use support::{image, require_kvm, skipped};

/// Long enough for 0.1 % of it to be far more than two readings.
const SPAN: Duration = Duration::from_millis(20);

/// This host's counter; without one, which has then been said, the test is to return.
fn counter() -> Option<Counter> {
    if !require_kvm() {
        return None;
    }
    let guest = image(&[0xf4]);
    let config = VmConfig::new(GuestSource::File(guest.path().to_owned()));
    let counter = KvmVm::new(Path::new(KVM_DEVICE), &config).unwrap().counter();
    if counter.is_none() {
        skipped("this host's kernel does not keep time by a counter whose frequency KVM tells");
    }
    counter
}

/// A reading of `clock`, and CLOCK_MONOTONIC before and after it.
fn look(clock: &Clock) -> (u64, RangeInclusive<Instant>) {
    let before = Instant::now();
    let time = clock.now();
    (time, before..=Instant::now())
}

/// Works for at least [`SPAN`].
fn work() {
    let started = Instant::now();
    while started.elapsed() < SPAN {
        std::hint::spin_loop();
    }
}

/// How long it was between the two looks is known to within how long they took, however long that
/// was: being interrupted makes the bounds wider.
fn check(from: &(u64, RangeInclusive<Instant>), to: &(u64, RangeInclusive<Instant>)) {
    let by_clock = Duration::from_nanos(to.0.checked_sub(from.0).unwrap());
    let least = *to.1.start() - *from.1.end();
    let most = *to.1.end() - *from.1.start();
    assert!(by_clock >= least - least / 1000, "{by_clock:?} for {least:?} at least");
    assert!(by_clock <= most + most / 1000, "{by_clock:?} for {most:?} at most");
}

#[test]
fn the_counter_keeps_the_hosts_time() {
    let Some(counter) = counter() else { return };
    let clock = Clock::host();
    let monotonic = look(&clock);
    work();
    clock.use_counter(counter);
    let first = look(&clock);
    check(&monotonic, &first);
    work();
    let second = look(&clock);
    check(&first, &second);
    // On another thread, which may be on another CPU.
    let third = thread::scope(|scope| {
        let look = || {
            work();
            look(&clock)
        };
        scope.spawn(look).join().unwrap()
    });
    check(&first, &third);
    check(&second, &third);
}

#[test]
fn a_thread_never_sees_the_counter_go_back() {
    let Some(counter) = counter() else { return };
    let clock = Clock::host();
    let spin = || {
        let mut last = 0;
        for _ in 0..1_000_000 {
            let now = clock.now();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(spin);
        }
        clock.use_counter(counter);
    });
}
