//! KVM's vCPU as the completion of instructions sees it (`src/assist/`): every look at its state is
//! an ioctl, made only for an instruction that KVM could not emulate. Used by the vCPU's own
//! thread.
//!
//! Guest memory is reached past KVM, as a device's direct access would: through vm-memory, and for
//! a compare-and-exchange by the host's own atomic instruction on the memory behind the guest's.

use std::arch::{asm, is_x86_feature_detected};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_guest_debug, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use parking_lot::Mutex;

use crate::assist::cpu::{Cpu, Exception, GeneralRegisters, NoMemory, SystemRegisters};
use crate::assist::{Completed, syscall};
use crate::boot::state::{Segment, TableRegister};
use crate::exit::Gpa;
use crate::kvm::entry::{from_kvm_segment, to_kvm_segment};
use crate::kvm::vm::Machine;
use crate::memory::first_image::PAGE;

/// CR4.PGE: a change of it drops all translations (Intel SDM vol. 3, section 5.10.4.1).
const CR4_PGE: u64 = 1 << 7;

/// DR6.BS: a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// DR7: breakpoint 0 is on, for the execution of an instruction; bit 10 is always 1.
const DR7_BREAKPOINT_0: u64 = 1 << 10 | 1;

/// #DB's vector.
const DEBUG_EXCEPTION: u8 = 1;

/// KVM_X86_SHADOW_INT_MOV_SS and KVM_X86_SHADOW_INT_STI are all that a shadow can be.
const NO_SHADOW: u8 = 0;

/// The pages of guest memory that were written past KVM, of which its log of dirty pages does not
/// know. Locked by itself only.
#[derive(Debug, Default)]
pub struct WrittenPages(Mutex<BTreeSet<u64>>);

impl WrittenPages {
    fn add(&self, gpa: Gpa, len: usize) {
        let last = gpa.0.saturating_add(len.saturating_sub(1) as u64);
        let page = PAGE as u64;
        self.0.lock().extend((gpa.0 / page..=last / page).map(|number| number * page));
    }

    /// Hands them out, by the addresses of their first bytes, and forgets them.
    pub fn take(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.0.lock())
    }
}

/// What a vCPU needs to have instructions completed.
#[derive(Debug)]
pub struct Assistance {
    machine: Arc<Machine>,
    /// Where to note what is written, if somebody wants to know.
    written: Option<Arc<WrittenPages>>,
    /// What KVM_GET_CPUID2 says, once it was asked.
    cpuid: Option<CpuId>,
    /// Where this vCPU stops, as [`Machine::stop_at`].
    stop_at: u64,
    /// It makes a step past there.
    steps: bool,
}

impl Assistance {
    /// Assistance with the memory of `machine`; pages that it writes are added to `written`.
    pub fn new(machine: Arc<Machine>, written: Option<Arc<WrittenPages>>) -> Self {
        Self { machine, written, cpuid: None, stop_at: 0, steps: false }
    }

    /// The vCPU `fd`, for one instruction.
    pub fn of<'a>(&'a mut self, fd: &'a VcpuFd) -> KvmCpu<'a> {
        KvmCpu { fd, assistance: self, sregs: None }
    }

    /// After an instruction was completed: KVM emulates ring 0 of this guest, and if the guest uses
    /// SYSCALL, all vCPUs are to stop at the handler of its page faults. They share that: a vCPU
    /// that is yet to be started comes out of KVM_RUN when it is, and not again before its first
    /// process.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    pub fn find_stop(&mut self, fd: &VcpuFd) -> io::Result<()> {
        if self.stop_at == 0
            && let Some(address) = syscall::stop_at(&mut self.of(fd))?
        {
            self.machine.stop_at.store(address, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Before KVM_RUN: the vCPU stops where it is to stop, or nowhere any more.
    ///
    /// # Errors
    ///
    /// The host refuses the breakpoint.
    pub fn place_stop(&mut self, fd: &VcpuFd) -> io::Result<()> {
        let address = self.machine.stop_at.load(Ordering::Relaxed);
        if address == self.stop_at {
            return Ok(());
        }
        self.stop_at = address;
        self.steps = false;
        match address {
            0 => fd.set_guest_debug(&kvm_guest_debug::default()).map_err(host_error),
            address => stop(fd, KVM_GUESTDBG_USE_HW_BP, address),
        }
    }

    /// After KVM_EXIT_DEBUG: completes the SYSCALL for which the vCPU has stopped. If it has for
    /// another reason, it makes the one step past the breakpoint, which RF does not cover, and then
    /// has it back.
    ///
    /// # Errors
    ///
    /// The host refuses a call about the vCPU.
    pub fn stopped(&mut self, fd: &VcpuFd) -> io::Result<Option<Completed>> {
        if std::mem::take(&mut self.steps) {
            stop(fd, KVM_GUESTDBG_USE_HW_BP, self.stop_at)?;
            return Ok(None);
        }
        let completed = syscall::complete(&mut self.of(fd))?;
        if completed.is_none() {
            stop(fd, KVM_GUESTDBG_SINGLESTEP, 0)?;
            self.steps = true;
        }
        Ok(completed)
    }
}

/// Has KVM stop the vCPU: at an address, or after each instruction.
fn stop(fd: &VcpuFd, how: u32, address: u64) -> io::Result<()> {
    let mut debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | how, ..Default::default() };
    debug.arch.debugreg[0] = address;
    debug.arch.debugreg[7] = DR7_BREAKPOINT_0;
    fd.set_guest_debug(&debug).map_err(host_error)
}

/// See the module's text.
#[derive(Debug)]
pub struct KvmCpu<'a> {
    fd: &'a VcpuFd,
    assistance: &'a mut Assistance,
    sregs: Option<kvm_sregs>,
}

impl KvmCpu<'_> {
    fn sregs(&mut self) -> io::Result<kvm_sregs> {
        let sregs = match self.sregs {
            Some(sregs) => sregs,
            None => self.fd.get_sregs().map_err(host_error)?,
        };
        self.sregs = Some(sregs);
        Ok(sregs)
    }

    fn set_sregs(&mut self, sregs: &kvm_sregs) -> io::Result<()> {
        self.sregs = Some(*sregs);
        self.fd.set_sregs(sregs).map_err(host_error)
    }

    /// The host's address of `len` bytes at `gpa`, all in one stretch of memory.
    fn host_address(&self, gpa: Gpa, len: u64) -> Option<u64> {
        let end = gpa.0.checked_add(len)?;
        let mut regions = self.assistance.machine.memory.regions();
        let region = regions.find(|region| {
            region.gpa.0 <= gpa.0 && end <= region.gpa.0.saturating_add(region.len)
        })?;
        Some(region.host_addr + (gpa.0 - region.gpa.0))
    }

    fn note_write(&self, gpa: Gpa, len: usize) {
        if let Some(written) = &self.assistance.written {
            written.add(gpa, len);
        }
    }
}

impl Cpu for KvmCpu<'_> {
    fn registers(&mut self) -> io::Result<GeneralRegisters> {
        Ok(from_kvm_regs(&self.fd.get_regs().map_err(host_error)?))
    }

    fn set_registers(&mut self, registers: &GeneralRegisters) -> io::Result<()> {
        self.fd.set_regs(&to_kvm_regs(registers)).map_err(host_error)
    }

    fn system(&mut self) -> io::Result<SystemRegisters> {
        let sregs = self.sregs()?;
        let table = |table: kvm_bindings::kvm_dtable| TableRegister {
            base: table.base,
            limit: table.limit,
        };
        Ok(SystemRegisters {
            es: from_kvm_segment(sregs.es),
            cs: from_kvm_segment(sregs.cs),
            ss: from_kvm_segment(sregs.ss),
            ds: from_kvm_segment(sregs.ds),
            fs: from_kvm_segment(sregs.fs),
            gs: from_kvm_segment(sregs.gs),
            tr: from_kvm_segment(sregs.tr),
            ldtr: from_kvm_segment(sregs.ldt),
            gdtr: table(sregs.gdt),
            idtr: table(sregs.idt),
            cr0: sregs.cr0,
            cr3: sregs.cr3,
            cr4: sregs.cr4,
            efer: sregs.efer,
        })
    }

    /// Only CS and SS ever change.
    fn set_system(&mut self, system: &SystemRegisters) -> io::Result<()> {
        let mut sregs = self.sregs()?;
        let set = |place: &mut kvm_bindings::kvm_segment, segment: Segment| {
            if from_kvm_segment(*place) != segment {
                *place = to_kvm_segment(segment);
            }
        };
        let before = sregs;
        set(&mut sregs.cs, system.cs);
        set(&mut sregs.ss, system.ss);
        if sregs == before { Ok(()) } else { self.set_sregs(&sregs) }
    }

    fn xcr0(&mut self) -> io::Result<u64> {
        let xcrs = self.fd.get_xcrs().map_err(host_error)?;
        let first = xcrs.xcrs.iter().take(usize::try_from(xcrs.nr_xcrs).unwrap_or(0));
        let xcr0 = first.into_iter().find(|entry| entry.xcr == 0);
        xcr0.map(|entry| entry.value).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn set_xcr0(&mut self, value: u64) -> io::Result<()> {
        let mut xcrs = self.fd.get_xcrs().map_err(host_error)?;
        let entry = xcrs.xcrs.iter_mut().find(|entry| entry.xcr == 0);
        entry.ok_or(io::ErrorKind::NotFound)?.value = value;
        self.fd.set_xcrs(&xcrs).map_err(host_error)
    }

    fn extended(&mut self) -> io::Result<Vec<u8>> {
        let xsave = self.fd.get_xsave().map_err(host_error)?;
        Ok(xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    fn set_extended(&mut self, area: &[u8]) -> io::Result<()> {
        let mut xsave = Box::new(kvm_xsave::default());
        for (word, bytes) in xsave.region.iter_mut().zip(area.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        // SAFETY: the size of the area is that of KVM_GET_XSAVE for all features that were not
        // asked for with arch_prctl(2), which we do not do; what it holds came from there, too.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(host_error)
    }

    fn msr(&mut self, index: u32) -> io::Result<Option<u64>> {
        let mut msrs = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }])
            .map_err(io::Error::other)?;
        let read = self.fd.get_msrs(&mut msrs).map_err(host_error)?;
        let first = msrs.as_slice().first();
        Ok(first.filter(|_| read == 1).map(|entry| entry.data))
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> io::Result<[u32; 4]> {
        let cpuid = match self.assistance.cpuid.take() {
            Some(cpuid) => cpuid,
            None => self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(host_error)?,
        };
        let cpuid = self.assistance.cpuid.insert(cpuid);
        let entry = cpuid.as_slice().iter().find(|entry| {
            let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
            entry.function == leaf && (!indexed || entry.index == subleaf)
        });
        Ok(entry.map_or([0; 4], |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx]))
    }

    fn raise(&mut self, exception: Exception) -> io::Result<()> {
        if let Some(address) = exception.cr2 {
            let mut sregs = self.sregs()?;
            sregs.cr2 = address;
            self.set_sregs(&sregs)?;
        }
        if exception.vector == DEBUG_EXCEPTION {
            let mut debug = self.fd.get_debug_regs().map_err(host_error)?;
            debug.dr6 |= DR6_SINGLE_STEP;
            self.fd.set_debug_regs(&debug).map_err(host_error)?;
        }
        let mut events = self.fd.get_vcpu_events().map_err(host_error)?;
        events.exception.injected = 1;
        events.exception.pending = 0;
        events.exception.nr = exception.vector;
        events.exception.has_error_code = u8::from(exception.error_code.is_some());
        events.exception.error_code = exception.error_code.unwrap_or(0);
        self.fd.set_vcpu_events(&events).map_err(host_error)
    }

    fn end_shadow(&mut self) -> io::Result<()> {
        let mut events = self.fd.get_vcpu_events().map_err(host_error)?;
        if events.interrupt.shadow == NO_SHADOW {
            return Ok(());
        }
        events.interrupt.shadow = NO_SHADOW;
        self.fd.set_vcpu_events(&events).map_err(host_error)
    }

    fn unblock_nmis(&mut self) -> io::Result<()> {
        let mut events = self.fd.get_vcpu_events().map_err(host_error)?;
        if events.nmi.masked == 0 {
            return Ok(());
        }
        events.nmi.masked = 0;
        self.fd.set_vcpu_events(&events).map_err(host_error)
    }

    fn flush_translations(&mut self) -> io::Result<()> {
        let sregs = self.sregs()?;
        let toggled = kvm_sregs { cr4: sregs.cr4 ^ CR4_PGE, ..sregs };
        self.set_sregs(&toggled)?;
        self.set_sregs(&sregs)
    }

    fn read(&mut self, gpa: Gpa, bytes: &mut [u8]) -> Result<(), NoMemory> {
        self.assistance.machine.memory.read_slice(gpa, bytes).map_err(|_| NoMemory)
    }

    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), NoMemory> {
        self.note_write(gpa, bytes.len());
        self.assistance.machine.memory.write_slice(gpa, bytes).map_err(|_| NoMemory)
    }

    fn compare_exchange(
        &mut self,
        gpa: Gpa,
        len: usize,
        old: u128,
        new: u128,
    ) -> Result<u128, NoMemory> {
        let address = self.host_address(gpa, len as u64).ok_or(NoMemory)?;
        let address = usize::try_from(address).map_err(|_| NoMemory)?;
        if !address.is_multiple_of(len) {
            return Err(NoMemory);
        }
        self.note_write(gpa, len);
        match len {
            4 => {
                let (old, new) = (narrow(old), narrow(new));
                let place = std::ptr::with_exposed_provenance_mut(address);
                // SAFETY: the address is that of 4 aligned bytes of guest memory, which lives as
                // long as `machine`; all who share it access it atomically or as volatile.
                let place = unsafe { AtomicU32::from_ptr(place) };
                let result = place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
                Ok(u128::from(result.unwrap_or_else(|found| found)))
            }
            8 => {
                let (old, new) = (narrow(old), narrow(new));
                let place = std::ptr::with_exposed_provenance_mut(address);
                // SAFETY: as above, of 8 bytes.
                let place = unsafe { AtomicU64::from_ptr(place) };
                let result = place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
                Ok(u128::from(result.unwrap_or_else(|found| found)))
            }
            16 if is_x86_feature_detected!("cmpxchg16b") => {
                let place = std::ptr::with_exposed_provenance_mut(address);
                // SAFETY: as above, of 16 bytes, and the CPU has the instruction.
                Ok(unsafe { compare_exchange_16(place, old, new) })
            }
            _ => Err(NoMemory),
        }
    }
}

/// `lock cmpxchg16b`, which Rust has no stable atomic type for: makes `place` be `new` if it is
/// `old`, and returns what it was.
///
/// # Safety
///
/// `place` is aligned to 16 bytes and may be accessed atomically, and the CPU has the instruction.
unsafe fn compare_exchange_16(place: *mut u128, old: u128, new: u128) -> u128 {
    let halves = |value: u128| -> (u64, u64) { (narrow(value & LOW_HALF), narrow(value >> 64)) };
    let ((old_low, old_high), (new_low, new_high)) = (halves(old), halves(new));
    let (low, high): (u64, u64);
    // SAFETY: by this function's contract; RBX, which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "xchg {new_low}, rbx",
            "lock cmpxchg16b [{place}]",
            "mov rbx, {new_low}",
            new_low = inout(reg) new_low => _,
            place = in(reg) place,
            in("rcx") new_high,
            inout("rax") old_low => low,
            inout("rdx") old_high => high,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

/// A mask of the low 64 bits.
const LOW_HALF: u128 = (1 << 64) - 1;

/// The low bytes of a value that has no others.
fn narrow<T: TryFrom<u128> + Default>(value: u128) -> T {
    T::try_from(value).unwrap_or_default()
}

fn from_kvm_regs(regs: &kvm_regs) -> GeneralRegisters {
    GeneralRegisters {
        gpr: [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        rflags: regs.rflags,
    }
}

fn to_kvm_regs(registers: &GeneralRegisters) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] =
        registers.gpr;
    let GeneralRegisters { rip, rflags, .. } = *registers;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

fn host_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_come_back_as_they_went() {
        let mut registers = GeneralRegisters { rip: 17, rflags: 18, ..Default::default() };
        for (place, value) in registers.gpr.iter_mut().zip(1..) {
            *place = value;
        }
        let kvm = to_kvm_regs(&registers);
        assert_eq!((kvm.rcx, kvm.rsp, kvm.r15), (2, 5, 16));
        assert_eq!(from_kvm_regs(&kvm), registers);
    }

    #[test]
    fn sixteen_bytes_are_exchanged_if_they_are_as_expected() {
        if !is_x86_feature_detected!("cmpxchg16b") {
            return;
        }
        let (first, second) = (3u128 << 64 | 5, 7u128 << 64 | 11);
        let mut place = first;
        // SAFETY: a u128 is aligned to 16 bytes, and nobody else knows of it.
        let found = unsafe { compare_exchange_16(&raw mut place, second, 0) };
        assert_eq!((found, place), (first, first));
        // SAFETY: as above.
        let found = unsafe { compare_exchange_16(&raw mut place, first, second) };
        assert_eq!((found, place), (first, second));
    }

    #[test]
    fn all_pages_of_a_write_are_known() {
        let written = WrittenPages::default();
        written.add(Gpa(0x1fff), 2);
        written.add(Gpa(0x1000), 0x1000);
        assert_eq!(written.take(), [0x1000, 0x2000].into());
        assert!(written.take().is_empty());
    }
}
