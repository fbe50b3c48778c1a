//! The CPU's time-stamp counter as a clock: for those who need the time at every exit, a reading
//! takes a third of the time that clock_gettime(2) does.

use std::arch::x86_64::_rdtsc;
use std::fs;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use kvm_ioctls::VmFd;

use crate::trace::clock::Counter;

/// `_IO(KVMIO, 0xa3)`; kvm-ioctls has it for vCPUs only.
const KVM_GET_TSC_KHZ: libc::Ioctl = 0xaea3;

/// What the kernel itself keeps time by.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// The time-stamp counter of this host, if it can be trusted and its frequency is known.
///
/// Trusted it is if the kernel itself keeps time by it. That says more than CPUID's bit for an
/// invariant counter: the kernel has also seen that the CPUs' counters agree, and goes on looking
/// where that is not certain. The frequency is that of the guest of `vm`, which is the host's
/// unless someone sets another; Linux has told it of a VM since 5.18.
///
/// Takes some 20 µs, to open a file, and so is not for the way to the guest's first instruction.
pub fn counter(vm: &VmFd) -> Option<Counter> {
    trusted(khz_of(vm), || fs::read(CLOCK_SOURCE).unwrap_or_default())
}

/// The frequency of the guest's counter in kHz, if KVM tells it of a VM.
pub fn khz(vm: &VmFd) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(khz_of(vm)).ok()?)
}

fn khz_of(vm: &VmFd) -> i32 {
    // SAFETY: the descriptor is open, being borrowed, and KVM's; this ioctl takes no argument and
    // touches no memory of ours.
    unsafe { libc::ioctl(vm.as_raw_fd(), KVM_GET_TSC_KHZ, 0) }
}

/// The counter, if KVM has said a frequency and `source` is the counter.
fn trusted(khz: i32, source: impl FnOnce() -> Vec<u8>) -> Option<Counter> {
    let khz = NonZeroU32::new(u32::try_from(khz).ok()?)?;
    // There is also "tsc-early", whose frequency is not certain yet.
    (source().trim_ascii() == b"tsc").then_some(Counter { read, khz })
}

/// The host's counter now.
pub fn read() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction. A process that was forbidden it (PR_SET_TSC)
    // would not have come here: the kernel's clock, where it goes by the counter, uses it too.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_the_kernel_does_not_go_by_is_none() {
        let khz = |khz, source: &[u8]| trusted(khz, || source.to_vec()).map(|tsc| tsc.khz.get());
        assert_eq!(khz(2_596_134, b"tsc\n"), Some(2_596_134));
        for source in [&b"tsc-early\n"[..], b"kvm-clock\n", b"hpet\n", b"acpi_pm\n", b"\n", b""] {
            assert_eq!(khz(2_596_134, source), None, "{source:?}");
        }
        // An error, and what KVM gives where the counter stops or varies.
        assert_eq!(khz(-1, b"tsc\n"), None);
        assert_eq!(khz(0, b"tsc\n"), None);
    }
}
