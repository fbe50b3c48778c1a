//! A vCPU and its thread: the run loop (`runner.rs`), what other threads may ask of it
//! (`state.rs`), the thread's life from spawn to report (`handle.rs`), its meeting with the other
//! vCPUs (`rounds.rs`, `turn.rs`), and the running of a guest again and again (`repeat.rs`,
//! `pace.rs`). What a vCPU *is* is behind [`VcpuRun`]: KVM's in the program, a scripted one in
//! tests.

pub mod campaign;
pub mod handle;
pub mod intr;
pub mod pace;
pub mod registers;
pub mod repeat;
pub mod rounds;
pub mod runner;
#[cfg(all(test, not(loom)))]
pub(crate) mod scripted;
pub mod shared;
pub mod state;
pub mod turn;

use std::io;

use crate::assist::Completed;
use crate::devices::GuestEnd;
use crate::exit::{InsnBytes, VcpuId, VmExit};
use crate::irq::{IrqLine, LocalApics, NullIrq};
use crate::trace::clock::Counter;
use registers::Registers;

/// A vCPU that can be run; used by its own thread only.
pub trait VcpuRun {
    /// Enters the guest and returns at its next exit. Data that a read was given through
    /// [`data`](Self::data) reaches the guest with the next call.
    ///
    /// A kick makes it return [`VmExit::Interrupted`], after taking back the kick's request to
    /// exit at once, so that a kick between two calls is not lost.
    ///
    /// # Errors
    ///
    /// The host cannot run the vCPU.
    fn run(&mut self) -> io::Result<VmExit>;

    /// The bytes of the last PIO or MMIO exit: what the guest wrote, or the place for what it
    /// is to read; `size * count` of them.
    fn data(&mut self) -> &mut [u8];

    /// RIP at the last exit, if the vCPU was made so that it is known; costs no call.
    fn rip(&mut self) -> Option<u64> {
        None
    }

    /// Completes the instruction at which the vCPU has exited because the host cannot emulate it,
    /// and of which `insn` are the bytes, so that the guest can run on. None if it is not one that
    /// is known ([`assist`](crate::assist)): then nothing has changed.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    fn complete(&mut self, _insn: &InsnBytes) -> io::Result<Option<Completed>> {
        Ok(None)
    }

    /// Completes the SYSCALL that the host has carried out to a half only, if the vCPU has stopped
    /// for one. None if it has not, and can run on.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    fn complete_syscall(&mut self) -> io::Result<Option<Completed>> {
        Ok(None)
    }

    /// The registers, where the host still has them.
    fn registers(&mut self) -> Option<Box<Registers>>;

    /// The host kernel's own counters about it, by the kernel's names.
    fn kernel_stats(&mut self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Whether the guest could take an external interrupt at the last exit. From here to
    /// [`request_window`](Self::request_window) is for a vCPU whose local APIC takes the interrupts
    /// of PICs that are not in the kernel.
    fn can_be_interrupted(&mut self) -> bool {
        false
    }

    /// Gives the guest an external interrupt, which it can take; once before a [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// The host refuses.
    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        let _ = vector;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// From now on [`VmExit::IrqWindowOpen`] tells that the guest can take an external interrupt,
    /// or not.
    fn request_window(&mut self, wanted: bool) {
        let _ = wanted;
    }

    /// If the vCPU sleeps in a HLT in the host, has the host look whether it has anything to tell
    /// about it, such as the end of an interrupt, without an instruction of the guest's. None if it
    /// does not sleep: then [`run`](Self::run) does as much. Takes kicks back as that does.
    ///
    /// # Errors
    ///
    /// The host refuses.
    fn run_halted(&mut self) -> io::Result<Option<VmExit>> {
        Ok(None)
    }

    /// Puts the vCPU back to how it was before its first run, whatever its last exit was.
    ///
    /// # Errors
    ///
    /// The host refuses; or the vCPU was made for one run only.
    fn reset(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What makes this vCPU leave the guest, for the thread that calls this.
    fn kicker(&mut self) -> Box<dyn Kick>;
}

/// Makes a vCPU leave the guest, from any thread. Valid only while the vCPU and its thread
/// exist, which `state.rs` sees to.
pub trait Kick: Send {
    /// Makes the current or the next [`VcpuRun::run`] return [`VmExit::Interrupted`].
    fn kick(&self);

    /// Takes back a kick that no [`VcpuRun::run`] has answered. To be called while none is running.
    fn take_back(&self);
}

/// Makes vCPUs, each on its own thread.
pub trait BuildVcpu: Send + Sync {
    /// What it makes.
    type Vcpu: VcpuRun;

    /// Makes one vCPU, ready to run.
    ///
    /// # Errors
    ///
    /// The host refuses; the text says what and why.
    fn build(&self, id: VcpuId) -> Result<Self::Vcpu, VcpuError>;

    /// Puts what the vCPUs share, and what they can change of each other, back to how it was before
    /// the first run: memory and interrupt controllers. To be called while no vCPU runs.
    ///
    /// # Errors
    ///
    /// The host refuses; or the VM was made for one run only.
    fn reset(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The local APICs, if they are the host's and the other interrupt controllers are not.
    fn local_apics(&self) -> Option<Box<dyn LocalApics>> {
        None
    }

    /// The line of interrupt `gsi`, a pin of the host's interrupt controllers.
    fn irq_line(&self, gsi: u32) -> Box<dyn IrqLine> {
        let _ = gsi;
        Box::new(NullIrq)
    }

    /// Only vCPU 0 starts by itself; it is to enter the guest last, since the others must be there
    /// to be woken.
    fn starts_alone(&self) -> bool {
        false
    }

    /// The host kernel's own counters about the VM, by the kernel's names.
    fn kernel_stats(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// What a trace can take its time from instead of the host's clock, if there is anything that
    /// is cheaper and as good. To find out takes a file's opening.
    fn counter(&self) -> Option<Counter> {
        None
    }
}

/// A vCPU that the host cannot make or run.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// Something that sets up a vCPU failed.
    #[error("{what}: {source}")]
    Setup {
        /// The call that failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// KVM_RUN itself failed.
    #[error("KVM_RUN: {0}")]
    Run(io::Error),
    /// The thread could not be started.
    #[error("cannot start a thread: {0}")]
    Spawn(io::Error),
}

/// How a vCPU came to its end.
#[derive(Debug)]
pub enum VcpuEnd {
    /// It halted, and nothing can wake it.
    Halted,
    /// The guest ended the VM.
    Guest(GuestEnd),
    /// The guest cannot go on: `exit` says why.
    Fault {
        /// A shutdown, failed entry, internal error, crash or unknown exit.
        exit: VmExit,
        /// The registers at that point.
        registers: Option<Box<Registers>>,
    },
    /// The guest has found an error, and says so.
    Assertion {
        /// Its words.
        text: String,
        /// The registers at that point.
        registers: Option<Box<Registers>>,
    },
    /// It was told to stop.
    Stopped {
        /// The registers at that point; none if it never ran.
        registers: Option<Box<Registers>>,
    },
    /// The host failed it.
    Failed {
        /// What the host said.
        error: VcpuError,
        /// The registers at that point, if the vCPU existed.
        registers: Option<Box<Registers>>,
    },
    /// Its thread panicked, with this message.
    Panicked(String),
}
