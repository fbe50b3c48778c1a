//! The state of KVM's vCPU as the completion of instructions sees it: every look at it is an ioctl,
//! made only for an instruction that KVM could not emulate. Memory is reached past KVM, as a
//! device's direct access would, through vm-memory and `memory.rs`.

use std::io;

use kvm_bindings::{
    KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_SMM, Msrs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xsave,
};
use kvm_ioctls::VcpuFd;

use super::{Assistance, memory};
use crate::assist::cpu::{Cpu, Exception, GeneralRegisters, NoMemory, SystemRegisters};
use crate::boot::state::{Segment, TableRegister};
use crate::exit::Gpa;
use crate::kvm::call::host_error;
use crate::kvm::entry::{from_kvm_segment, to_kvm_segment};

/// CR4.PGE: a change of it drops all translations (Intel SDM vol. 3, section 5.10.4.1).
const CR4_PGE: u64 = 1 << 7;

/// DR6.BS: a single step.
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// #DB's vector.
const DEBUG_EXCEPTION: u8 = 1;

/// KVM_X86_SHADOW_INT_MOV_SS and KVM_X86_SHADOW_INT_STI are all that a shadow can be.
const NO_SHADOW: u8 = 0;

/// See the module's text.
#[derive(Debug)]
pub struct KvmCpu<'a> {
    pub(super) fd: &'a VcpuFd,
    pub(super) assistance: &'a mut Assistance,
    pub(super) sregs: Option<kvm_sregs>,
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

    /// Changes what is injected and blocked; nothing is set that stays as it is, nor what another
    /// vCPU may send meanwhile: whether an NMI is pending, an SMI or an INIT.
    fn change_events(&self, change: impl FnOnce(&mut kvm_vcpu_events)) -> io::Result<()> {
        let before = self.fd.get_vcpu_events().map_err(host_error)?;
        let mut events = before;
        change(&mut events);
        if events == before {
            return Ok(());
        }
        events.flags &= !(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SMM);
        self.fd.set_vcpu_events(&events).map_err(host_error)
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

    fn set_system(&mut self, system: &SystemRegisters) -> io::Result<()> {
        let mut sregs = self.sregs()?;
        let set = |place: &mut kvm_bindings::kvm_segment, segment: Segment| {
            if from_kvm_segment(*place) != segment {
                *place = to_kvm_segment(segment);
            }
        };
        let before = sregs;
        let SystemRegisters { es, cs, ss, ds, fs, gs, .. } = *system;
        let places = [
            (&mut sregs.es, es),
            (&mut sregs.cs, cs),
            (&mut sregs.ss, ss),
            (&mut sregs.ds, ds),
            (&mut sregs.fs, fs),
            (&mut sregs.gs, gs),
        ];
        for (place, segment) in places {
            set(place, segment);
        }
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
        self.change_events(|events| {
            events.exception.injected = 1;
            events.exception.pending = 0;
            events.exception.nr = exception.vector;
            events.exception.has_error_code = u8::from(exception.error_code.is_some());
            events.exception.error_code = exception.error_code.unwrap_or(0);
        })
    }

    fn end_shadow(&mut self) -> io::Result<()> {
        self.change_events(|events| events.interrupt.shadow = NO_SHADOW)
    }

    fn unblock_nmis(&mut self) -> io::Result<()> {
        self.change_events(|events| events.nmi.masked = 0)
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
        let memory = &self.assistance.machine.memory;
        let found = memory::compare_exchange(memory, gpa, len, old, new)?;
        self.note_write(gpa, len);
        Ok(found)
    }
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
}
