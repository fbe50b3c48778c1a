//! The end of a process whose host has no memory left for it. It is here for its `unsafe`.
//!
//! Without it the standard library aborts: a core dump and exit code 134, with the terminal as the
//! guest had it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outcome::ExitCode;

/// The system's allocator, but when it has nothing left the process ends at once: with a line on
/// standard error and the exit code of a host error. Nothing else would end well: whoever asks for
/// memory may hold locks, and to unwind takes memory too. What the guest has sent and is not
/// written yet is lost.
///
/// For the program, not for those who use the library. It takes from [`Vec::try_reserve`] and the
/// like the right to fail.
#[derive(Debug)]
pub struct OrExit {
    last: OnceLock<fn()>,
    ending: AtomicBool,
}

impl OrExit {
    /// One that does nothing else at the end.
    pub const fn new() -> Self {
        Self { last: OnceLock::new(), ending: AtomicBool::new(false) }
    }

    /// Has `last` called before the end. It must neither allocate nor wait.
    pub fn at_end(&self, last: fn()) {
        let _ = self.last.set(last);
    }

    /// Has the process end in the same way when a thread that was started finds no memory for its
    /// signal stack. The standard library panics there, before any of the thread's own code runs
    /// that could report its end, and then aborts.
    pub fn also_on_panic(&'static self) {
        const NO_STACK: &str = "failed to allocate an alternative stack";

        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| match info.payload_as_str() {
            Some(text) if text.starts_with(NO_STACK) => self.exit(&[text, "\n"]),
            _ => before(info),
        }));
    }

    fn or_exit(&self, memory: *mut u8, wanted: usize) -> *mut u8 {
        if memory.is_null() {
            let mut digits = itoa::Buffer::new();
            self.exit(&["cannot allocate ", digits.format(wanted), " bytes\n"])
        }
        memory
    }

    #[cold]
    fn exit(&self, why: &[&str]) -> ! {
        if self.ending.swap(true, Ordering::Relaxed) {
            // Another thread is at it.
            loop {
                // SAFETY: pause(2) takes nothing and touches no memory.
                unsafe { libc::pause() };
            }
        }
        if let Some(last) = self.last.get() {
            last();
        }
        // In one write(2), so that it stays one line.
        let mut line = [0; 256];
        let mut len = 0;
        for part in ["minivmm: out of memory: "].iter().chain(why) {
            let end = line.len().min(len + part.len());
            line[len..end].copy_from_slice(&part.as_bytes()[..end - len]);
            len = end;
        }
        // SAFETY: the pointer is to `len` bytes of `line`. Should it fail there is nobody to tell.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), len) };
        // SAFETY: _exit(2) takes a number and does not return.
        unsafe { libc::_exit(i32::from(ExitCode::Host as u8)) }
    }
}

impl Default for OrExit {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: all memory is the system allocator's, which keeps the contract; what it returns is
// returned, but for null, at which this does not return, as a function may.
unsafe impl GlobalAlloc for OrExit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        self.or_exit(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same there; the memory
        // came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        self.or_exit(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `realloc`, which is the same there; the memory
        // came from `System`.
        self.or_exit(unsafe { System.realloc(memory, layout, new_size) }, new_size)
    }
}
