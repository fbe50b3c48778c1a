//! One KVM vCPU: KVM_RUN, and the translation of what `kvm_run` says into a [`VmExit`]. Used
//! by the vCPU's own thread.
//!
//! The exit is read from `kvm_run` itself (KVM API document, section 5) and not from the enum
//! that kvm-ioctls makes of it, which has no access size and no element count for port I/O.

mod external;
mod halted;

use std::io;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO,
    KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_regs, kvm_run, kvm_segment, kvm_sregs,
};
use kvm_ioctls::VcpuFd;

use crate::assist::{self, Completed};
use crate::exit::{Direction, Gpa, InsnBytes, MmioExit, PioAddr, PioExit, VmExit};
use crate::kvm::assist::Assistance;
use crate::kvm::first_state::{FirstState, MsrList};
use crate::kvm::kick::KvmKick;
use crate::kvm::run_map::{Detail, RunMap};
use crate::kvm::stats::{self, KvmStats};
use crate::vcpu::registers::{Registers, Segment};
use crate::vcpu::{Kick, VcpuRun};

/// The most exits that one instruction is taken to leave open. KVM's emulator goes on with a string
/// instruction for up to 1,024 elements, each of which is an MMIO exit or two, before it looks
/// whether it is to stop.
const LEFT_OPEN_MAX: usize = 1 << 13;

/// See the module's text.
#[derive(Debug)]
pub struct KvmVcpu {
    fd: VcpuFd,
    run: Arc<RunMap>,
    /// What [`VcpuRun::reset`] puts back.
    first: Option<Resettable>,
    /// What it takes to complete instructions, if that is to be done.
    assistance: Option<Box<Assistance>>,
    /// It was given external interrupts, since it was put back.
    interrupted: bool,
}

#[derive(Debug)]
struct Resettable {
    first: Box<FirstState>,
    /// Set if the guest is seen with page tables of its own; shared by the VM's vCPUs.
    paging: Arc<AtomicBool>,
    /// KVM tells ends of interrupts, since the IOAPIC is not in the kernel.
    tells_ends: bool,
}

impl KvmVcpu {
    /// A vCPU that is set up and has not run; `run` is its own.
    pub fn new(fd: VcpuFd, run: RunMap) -> Self {
        Self { fd, run: Arc::new(run), first: None, assistance: None, interrupted: false }
    }

    /// The same vCPU, which can be put back to the state that it has now. It sets `paging` if it is
    /// then seen that the guest has used page tables of its own. `tells_ends` says whether KVM tells
    /// ends of its interrupts.
    ///
    /// # Errors
    ///
    /// What the first ioctl to fail says.
    pub fn resettable(
        self,
        msrs: &MsrList,
        paging: Arc<AtomicBool>,
        tells_ends: bool,
    ) -> io::Result<Self> {
        let first = Box::new(FirstState::of(&self.fd, msrs)?);
        Ok(Self { first: Some(Resettable { first, paging, tells_ends }), ..self })
    }

    /// The same vCPU, which has instructions completed that KVM cannot emulate.
    pub fn assisted(self, assistance: Assistance) -> Self {
        Self { assistance: Some(Box::new(assistance)), ..self }
    }

    /// Has KVM complete what the last exit has left open, such as the register that an IN was to
    /// write: the next KVM_RUN would do so, into the new state (KVM API document, section 5, on
    /// KVM_EXIT_IO). There may be further exits in that.
    fn complete_last_exit(&mut self) -> io::Result<()> {
        for _ in 0..=LEFT_OPEN_MAX {
            self.run.kick();
            if self.run()? == VmExit::Interrupted {
                return Ok(());
            }
        }
        Err(io::Error::other("KVM does not come to the end of an instruction"))
    }

    /// KVM's descriptor of it.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// KVM's own counters of this vCPU.
    ///
    /// # Errors
    ///
    /// The kernel does not have them.
    pub fn stats(&self) -> io::Result<KvmStats> {
        KvmStats::of_vcpu(&self.fd)
    }

    fn exit(&mut self) -> (u32, &Detail) {
        // SAFETY: `self` is borrowed for as long as the result is used, and KVM_RUN is called
        // only through it.
        unsafe { self.run.exit() }
    }
}

/// Where the data of an exit is: offset in `kvm_run` and length in bytes.
fn data_place(reason: u32, detail: &Detail) -> (usize, usize) {
    match reason {
        KVM_EXIT_IO => {
            // SAFETY: the exit reason says that `io` is the member in use.
            let io = unsafe { detail.io };
            let len = u64::from(io.size) * u64::from(io.count);
            (to_usize(io.data_offset), to_usize(len))
        }
        KVM_EXIT_MMIO => {
            // SAFETY: the exit reason says that `mmio` is the member in use.
            let mmio = unsafe { &detail.mmio };
            let in_detail = mmio.data.as_ptr().addr() - std::ptr::from_ref(detail).addr();
            let offset = offset_of!(kvm_run, __bindgen_anon_1) + in_detail;
            (offset, to_usize(u64::from(mmio.len)).min(mmio.data.len()))
        }
        _ => (0, 0),
    }
}

impl VcpuRun for KvmVcpu {
    fn run(&mut self) -> io::Result<VmExit> {
        if let Some(assistance) = &mut self.assistance {
            assistance.place_stop(&self.fd)?;
        }
        match self.fd.run() {
            Ok(_) => {
                let (reason, detail) = self.exit();
                Ok(translate(reason, detail))
            }
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => {
                    self.run.take_back_kick();
                    Ok(VmExit::Interrupted)
                }
                // KVM_RUN fails with EFAULT and leaves an exit where userspace may know more.
                errno => Err(io::Error::from_raw_os_error(errno)),
            },
        }
    }

    fn data(&mut self) -> &mut [u8] {
        let (reason, detail) = self.exit();
        let (offset, len) = data_place(reason, detail);
        // SAFETY: the place is that of this exit's data, `self` is borrowed for as long as the
        // slice, and KVM_RUN is called only through it.
        unsafe { self.run.data(offset, len) }
    }

    fn rip(&mut self) -> Option<u64> {
        self.run.synced_rip()
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        let regs = self.fd.get_regs().ok()?;
        let sregs = self.fd.get_sregs().ok()?;
        // AMD's hardware resets a vCPU that shuts down: then these are not the guest's.
        let is_reset = regs.rip == 0xfff0 && sregs.cs.base == 0xffff_0000;
        if is_reset {
            return None;
        }
        Some(Box::new(to_registers(&regs, &sregs)))
    }

    fn complete(&mut self, insn: &InsnBytes) -> io::Result<Option<Completed>> {
        let Self { fd, assistance, .. } = self;
        match assistance {
            Some(assistance) => {
                let mut cpu = assistance.of(fd);
                let completed = assist::complete(&mut cpu, insn.as_slice())?;
                if completed.is_some() {
                    cpu.find_stop()?;
                }
                Ok(completed)
            }
            None => Ok(None),
        }
    }

    fn complete_syscall(&mut self) -> io::Result<Option<Completed>> {
        let Self { fd, assistance, .. } = self;
        match assistance {
            Some(assistance) => assistance.stopped(fd),
            None => Ok(None),
        }
    }

    fn kernel_stats(&mut self) -> Vec<(String, u64)> {
        stats::counted(self.stats())
    }

    fn can_be_interrupted(&mut self) -> bool {
        self.run.is_ready_for_interrupt()
    }

    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        self.queue_interrupt(vector)
    }

    fn request_window(&mut self, wanted: bool) {
        self.run.request_window(wanted);
    }

    fn run_halted(&mut self) -> io::Result<Option<VmExit>> {
        self.look_while_halted()
    }

    fn reset(&mut self) -> io::Result<()> {
        self.complete_last_exit()?;
        if self.first.as_ref().is_some_and(|first| first.tells_ends) {
            self.forget_untold()?;
        }
        let Resettable { first, paging, .. } =
            self.first.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        if first.has_other_paging(&self.fd)? {
            paging.store(true, Ordering::Release);
        }
        first.put_back(&self.fd)?;
        if self.interrupted {
            self.drop_interrupt()?;
            self.first.as_ref().map_or(Ok(()), |first| first.first.put_back(&self.fd))?;
        }
        Ok(())
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        Box::new(KvmKick::for_this_thread(Arc::clone(&self.run)))
    }
}

fn translate(reason: u32, detail: &Detail) -> VmExit {
    match reason {
        KVM_EXIT_IO => {
            // SAFETY: the exit reason says that `io` is the member in use.
            let io = unsafe { detail.io };
            VmExit::Pio(PioExit {
                port: PioAddr(io.port),
                direction: direction(u32::from(io.direction) == KVM_EXIT_IO_OUT),
                size: io.size,
                count: io.count,
            })
        }
        KVM_EXIT_MMIO => {
            // SAFETY: the exit reason says that `mmio` is the member in use.
            let mmio = unsafe { &detail.mmio };
            let size = u8::try_from(mmio.len.min(8)).unwrap_or(8);
            let direction = direction(mmio.is_write != 0);
            VmExit::Mmio(MmioExit { gpa: Gpa(mmio.phys_addr), direction, size })
        }
        KVM_EXIT_HLT => VmExit::Hlt,
        KVM_EXIT_IRQ_WINDOW_OPEN => VmExit::IrqWindowOpen,
        KVM_EXIT_DEBUG => VmExit::Debug,
        KVM_EXIT_IOAPIC_EOI => {
            // SAFETY: the exit reason says that `eoi` is the member in use.
            VmExit::IoapicEoi { vector: unsafe { detail.eoi.vector } }
        }
        KVM_EXIT_SET_TPR => VmExit::SetTpr,
        KVM_EXIT_SHUTDOWN => VmExit::Shutdown,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: the exit reason says that `fail_entry` is the member in use.
            let fail = unsafe { detail.fail_entry };
            VmExit::FailEntry { reason: fail.hardware_entry_failure_reason, cpu: fail.cpu }
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: the exit reason says that `internal` is in use; its first member is also
            // the first of `emulation_failure`.
            let suberror = unsafe { detail.internal.suberror };
            VmExit::InternalError { suberror, insn: failed_insn(detail, suberror) }
        }
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: the exit reason says that `system_event` is the member in use.
            VmExit::SystemEvent { kind: unsafe { detail.system_event.type_ } }
        }
        reason => VmExit::Unhandled { reason },
    }
}

/// The bytes of the instruction that KVM could not emulate, if it gives them.
fn failed_insn(detail: &Detail, suberror: u32) -> Option<InsnBytes> {
    if suberror != KVM_INTERNAL_ERROR_EMULATION {
        return None;
    }
    // SAFETY: for this suberror `emulation_failure` describes the same bytes; `ndata` says how
    // many 64-bit words of it KVM has filled in, and each word is read only if it counts.
    let failure = unsafe { detail.emulation_failure };
    // The flags are the first word, the length and the bytes the next two.
    let flag = u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    if failure.ndata < 3 || failure.flags & flag == 0 {
        return None;
    }
    // SAFETY: the flag says that this member holds the instruction.
    let insn = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    Some(InsnBytes::new(insn.insn_bytes, insn.insn_size))
}

fn direction(write: bool) -> Direction {
    if write { Direction::Write } else { Direction::Read }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn to_registers(regs: &kvm_regs, sregs: &kvm_sregs) -> Registers {
    let segment = |segment: &kvm_segment| Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
    };
    Registers {
        general: [
            regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rsp, regs.rbp,
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        rflags: regs.rflags,
        segments: [&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss].map(segment),
        control: [sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4],
        efer: sregs.efer,
        idt: (sregs.idt.base, sregs.idt.limit),
        gdt: (sregs.gdt.base, sregs.gdt.limit),
        code_bits: match (sregs.cs.l, sregs.cs.db) {
            (0, 0) => 16,
            (0, _) => 32,
            _ => 64,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14__bindgen_ty_1__bindgen_ty_1 as EmulationInsn;

    #[test]
    fn a_string_access_keeps_its_size_and_count() {
        let mut detail = Detail::default();
        detail.io = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_4 {
            direction: 0,
            size: 2,
            port: 0x3f8,
            count: 16,
            data_offset: 4096,
        };
        let expected =
            PioExit { port: PioAddr(0x3f8), direction: Direction::Read, size: 2, count: 16 };
        assert_eq!(translate(KVM_EXIT_IO, &detail), VmExit::Pio(expected));
        assert_eq!(data_place(KVM_EXIT_IO, &detail), (4096, 32));
    }

    #[test]
    fn instruction_bytes_are_taken_only_when_kvm_gives_them() {
        let mut detail = Detail::default();
        let translated = |detail: &Detail| translate(KVM_EXIT_INTERNAL_ERROR, detail);
        let mut failure = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14 {
            suberror: KVM_INTERNAL_ERROR_EMULATION,
            ndata: 4,
            flags: 1,
            ..Default::default()
        };
        let mut insn_bytes = [0; 15];
        insn_bytes[..2].copy_from_slice(&[0x0f, 0x0b]);
        failure.__bindgen_anon_1.__bindgen_anon_1 = EmulationInsn { insn_size: 2, insn_bytes };
        detail.emulation_failure = failure;
        let VmExit::InternalError { suberror: 1, insn: Some(insn) } = translated(&detail) else {
            panic!("{:?}", translated(&detail));
        };
        assert_eq!(insn.as_slice(), [0x0f, 0x0b]);
        failure.ndata = 1;
        detail.emulation_failure = failure;
        assert_eq!(translated(&detail), VmExit::InternalError { suberror: 1, insn: None });
    }

    #[test]
    fn an_unknown_reason_is_reported_as_it_is() {
        assert_eq!(translate(77, &Detail::default()), VmExit::Unhandled { reason: 77 });
    }
}
