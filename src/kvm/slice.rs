//! A short scheduler slice for the threads that must run soon when they wake. It is here for
//! its system call, which has no safe wrapper.

/// The scheduler's shortest slice.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` in its first version (sched_setattr(2)).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short slices for the calling thread, which lets it run sooner after it wakes and not
/// longer in all. With more vCPUs spinning than there are CPUs the supervisor would wait for
/// their slices before it sees a signal. Needs Linux 6.12 to have an effect, no privilege, and is
/// only a wish: an error changes nothing.
pub fn prefer_short() {
    const SCHED_OTHER: u32 = 0;
    let Ok(size) = u32::try_from(size_of::<SchedAttr>()) else { return };
    let attr = SchedAttr {
        size,
        policy: SCHED_OTHER,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the pointer is to a valid `sched_attr` of the size that it says; thread 0 is the
    // calling one.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}
