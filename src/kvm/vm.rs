//! One VM on the host's KVM: KVM_CREATE_VM and what follows, the vCPUs, and putting all back.
//! `docs/kvm-api.md` walks through these steps.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm};
use parking_lot::Mutex;

use crate::boot::{self, BootError, BootedGuest, EntryPlan, Platform};
use crate::config::{Assist, IrqChip, StartVcpus, VmConfig};
use crate::exit::{Gpa, VcpuId};
use crate::irq::{IrqLine, LocalApics};
use crate::kvm::assist::{Assistance, WrittenPages};
use crate::kvm::call::{host_error, uninterrupted};
use crate::kvm::cpuid;
use crate::kvm::entry::{apply_sregs, to_kvm_regs};
use crate::kvm::first_state::MsrList;
pub use crate::kvm::host::{KVM_DEVICE, KvmError};
use crate::kvm::host::{check_memory, check_vcpus, failed, name_of, open};
use crate::kvm::irqchip::{self, FirstIrqChip, FirstLapic, IrqChipError};
use crate::kvm::local_apics::KvmLocalApics;
use crate::kvm::machine::Machine;
use crate::kvm::run_map::RunMap;
use crate::kvm::stats::{self, KvmStats};
use crate::kvm::tsc;
use crate::kvm::vcpu::KvmVcpu;
use crate::kvm::vcpu_setup::VcpuSetup;
use crate::memory::first_image::{FirstImage, PAGE};
use crate::memory::{BOOT_AREA, HOLE, MemoryRegion};
use crate::trace::clock::Counter;
use crate::vcpu::{BuildVcpu, VcpuError};

/// Three pages that VMX needs in the guest's address space for its real mode, where nothing
/// else is; KVM's document asks for it on every Intel host (section 4.34, KVM_SET_TSS_ADDR).
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A VM with its memory in place, which makes its own vCPUs.
#[derive(Debug)]
pub struct KvmVm {
    machine: Arc<Machine>,
    platform: Platform,
    /// What it takes to put the VM back to how it was before its first run.
    first: Option<First>,
    entry: EntryPlan,
    vcpus: VcpuSetup,
    /// KVM_GET_VCPU_MMAP_SIZE.
    run_len: usize,
    /// vCPUs are to show RIP at every exit.
    sync_rip: bool,
    /// Instructions that KVM cannot emulate are completed.
    assist: Assist,
}

#[derive(Debug)]
struct First {
    image: FirstImage,
    msrs: MsrList,
    irqchip: FirstIrqChip,
    /// Of each vCPU, if it has a local APIC.
    lapics: Mutex<Vec<FirstLapic>>,
    /// A vCPU was seen with page tables of the guest's own, once: it may be again.
    paging: Arc<AtomicBool>,
    /// What was written past KVM since the last iteration.
    written: Arc<WrittenPages>,
}

impl KvmVm {
    /// Makes the VM that `config` describes, on the KVM device at `path`.
    ///
    /// # Errors
    ///
    /// The device is not usable, the host refuses, or the guest cannot be loaded.
    pub fn new(path: &Path, config: &VmConfig) -> Result<Self, KvmError> {
        let kvm = open(path)?;
        check_vcpus(&kvm, config.vcpus)?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        check_memory(cpuid::physical_address_bits(cpuid.as_slice()), config.memory)?;
        let gib_pages = cpuid::has_gib_pages(cpuid.as_slice(), &config.platform.cpu);
        let booted = boot::load(config, gib_pages)?;
        let vm = uninterrupted(|| kvm.create_vm()).map_err(failed("KVM_CREATE_VM"))?;
        let BootedGuest { memory, entry, platform, loaded } = booted;
        let machine = Machine::new(vm, memory, config.stress.is_some())?;
        let vm = &machine.vm;
        vm.set_tss_address(TSS_ADDRESS).map_err(failed("KVM_SET_TSS_ADDR"))?;
        irqchip::create(vm, platform.irqchip)?;
        let first = config.stress.as_ref().map(|_| first(&kvm, &machine, platform, &loaded));
        let first = first.transpose()?;
        let vcpus = VcpuSetup::new(&kvm, vm, cpuid.as_slice(), config, platform)?;
        let run_len = vm.run_size();
        let sync_rip = config.trace.needs_rip();
        if sync_rip && !kvm.check_extension(Cap::SyncRegs) {
            let (path, capability, since) = (name_of(path), "KVM_CAP_SYNC_REGS", "4.17");
            return Err(KvmError::Lacks { path, capability, since });
        }
        Ok(Self {
            machine: Arc::new(machine),
            platform,
            first,
            entry,
            vcpus,
            run_len,
            sync_rip,
            assist: config.platform.assist,
        })
    }

    /// KVM's own counters of this VM.
    ///
    /// # Errors
    ///
    /// The kernel does not have them.
    pub fn stats(&self) -> io::Result<KvmStats> {
        KvmStats::of_vm(&self.machine.vm)
    }
}

impl KvmVm {
    /// The same vCPU, with assistance if that is wanted.
    fn assisted(&self, vcpu: KvmVcpu) -> KvmVcpu {
        let written = || self.first.as_ref().map(|first| Arc::clone(&first.written));
        match self.assist {
            Assist::On => vcpu.assisted(Assistance::new(Arc::clone(&self.machine), written())),
            Assist::Off => vcpu,
        }
    }

    /// Has KVM drop what it has made of the guest's page tables, its own tables and TLBs: to delete
    /// a memory slot does that. This one is a page in the hole that the guest never sees. Takes
    /// some 150 µs on a KVM without hardware below it, and as long again in page faults.
    fn forget_translations(&self) -> io::Result<()> {
        let regions: Vec<_> = self.machine.memory.regions().collect();
        let slot = u32::try_from(regions.len()).unwrap_or(u32::MAX);
        let page = regions.first().ok_or(io::ErrorKind::NotFound)?;
        for memory_size in [PAGE as u64, 0] {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: HOLE.start,
                memory_size,
                userspace_addr: page.host_addr,
            };
            // SAFETY: the page is the first one of `self.machine.memory`, which outlives the VM,
            // and the slot is gone again before any vCPU runs.
            uninterrupted(|| unsafe { self.machine.vm.set_user_memory_region(region) })
                .map_err(host_error)?;
        }
        Ok(())
    }
}

/// What there is to put back between two iterations.
fn first(
    kvm: &Kvm,
    machine: &Machine,
    platform: Platform,
    loaded: &[Range<u64>],
) -> Result<First, KvmError> {
    let image = FirstImage::of(&machine.memory, loaded).map_err(BootError::Memory)?;
    let msrs = MsrList::of(kvm)
        .map_err(|source| KvmError::Call { call: "KVM_GET_MSR_INDEX_LIST", source })?;
    let irqchip = FirstIrqChip::of(&machine.vm, platform.irqchip)
        .map_err(|source| KvmError::Call { call: "reading the interrupt controllers", source })?;
    Ok(First {
        image,
        msrs,
        irqchip,
        lapics: Mutex::default(),
        paging: Arc::default(),
        written: Arc::default(),
    })
}

impl BuildVcpu for KvmVm {
    type Vcpu = KvmVcpu;

    fn kernel_stats(&self) -> Vec<(String, u64)> {
        stats::counted(self.stats())
    }

    /// KVM_GET_DIRTY_LOG tells which pages the guest has written to since the last time; only those
    /// are touched. KVM does not see that we write to page tables, so if any may be among them it
    /// has to forget all that it knows of them.
    fn reset(&self) -> io::Result<()> {
        let first = self.first.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut tables = first.paging.load(Ordering::Acquire);
        for page in first.written.take() {
            first.image.put_back(&self.machine.memory, Gpa(page)).map_err(io::Error::other)?;
            tables |= is_boot_area(page);
        }
        for (slot, MemoryRegion { gpa, len, .. }) in (0..).zip(self.machine.memory.regions()) {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            let dirty = self.machine.vm.get_dirty_log(slot, len).map_err(host_error)?;
            for page in set_bits(&dirty) {
                let page = Gpa(gpa.0 + page * PAGE as u64);
                first.image.put_back(&self.machine.memory, page).map_err(io::Error::other)?;
                tables |= is_boot_area(page.0);
            }
        }
        self.machine.stop_at.store(0, Ordering::Relaxed);
        first.irqchip.put_back(&self.machine.vm)?;
        for lapic in &*first.lapics.lock() {
            lapic.put_back()?;
        }
        if tables { self.forget_translations() } else { Ok(()) }
    }

    fn irq_line(&self, gsi: u32) -> Box<dyn IrqLine> {
        irqchip::line(&self.machine, self.platform.irqchip, gsi)
    }

    fn local_apics(&self) -> Option<Box<dyn LocalApics>> {
        (self.platform.irqchip == IrqChip::Split)
            .then(|| -> Box<dyn LocalApics> { Box::new(KvmLocalApics::of(&self.machine)) })
    }

    fn starts_alone(&self) -> bool {
        self.platform.start == StartVcpus::Bsp
    }

    fn counter(&self) -> Option<Counter> {
        tsc::counter(&self.machine.vm)
    }

    fn build(&self, id: VcpuId) -> Result<KvmVcpu, VcpuError> {
        let setup = |what: &'static str| {
            move |error: kvm_ioctls::Error| VcpuError::Setup { what, source: host_error(error) }
        };
        let fd = self.vcpus.create(&self.machine.vm, id)?;
        if self.platform.starts(id) {
            let state = self.entry.state(id);
            let mut sregs = fd.get_sregs().map_err(setup("KVM_GET_SREGS"))?;
            apply_sregs(&state, &mut sregs);
            fd.set_sregs(&sregs).map_err(setup("KVM_SET_SREGS"))?;
            fd.set_regs(&to_kvm_regs(&state.regs)).map_err(setup("KVM_SET_REGS"))?;
        }
        let Platform { irqchip, start } = self.platform;
        if irqchip != IrqChip::None {
            irqchip::connect_vcpu(&fd, id, start)
                .map_err(|IrqChipError { call, source }| VcpuError::Setup { what: call, source })?;
        }
        let run = RunMap::new(&fd, self.run_len)
            .map_err(|source| VcpuError::Setup { what: "mapping kvm_run", source })?;
        if self.sync_rip {
            run.sync_registers();
        }
        let vcpu = self.assisted(KvmVcpu::new(fd, run));
        let Some(first) = &self.first else { return Ok(vcpu) };
        let reading = |source| VcpuError::Setup { what: "reading the vCPU's state", source };
        if irqchip != IrqChip::None {
            let lapic = FirstLapic::of(&self.machine.vm, vcpu.fd()).map_err(reading)?;
            first.lapics.lock().push(lapic);
        }
        let tells_ends = irqchip == IrqChip::Split;
        vcpu.resettable(&first.msrs, Arc::clone(&first.paging), tells_ends).map_err(reading)
    }
}

/// Whether a page may be one of the page tables that the guest was given.
fn is_boot_area(page: u64) -> bool {
    (BOOT_AREA.0..HOLE.end).contains(&page)
}

/// The numbers of the bits that are set.
fn set_bits(words: &[u64]) -> impl Iterator<Item = u64> + '_ {
    (0..).step_by(64).zip(words).flat_map(|(first, word)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
            left &= left - 1;
            Some(first + bit)
        })
    })
}
