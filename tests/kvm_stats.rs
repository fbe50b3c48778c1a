//! KVM's own counters, on real KVM: what a guest of a few instructions does is in them.

mod support;

use std::path::Path;

use minivmm::config::{GuestSource, VmConfig};
use minivmm::exit::{VcpuId, VmExit};
use minivmm::kvm::stats::KvmStats;
use minivmm::kvm::vm::{KVM_DEVICE, KvmVm};
use minivmm::vcpu::{BuildVcpu, VcpuRun};

use support::{image, require_kvm, skipped};

/// Real mode: `mov cx, 100; again: out 0x80, al; loop again; hlt`.
const GUEST: [u8; 8] = [0xb9, 100, 0, 0xe6, 0x80, 0xe2, 0xfc, 0xf4];

fn value(stats: &KvmStats, name: &str) -> u64 {
    let counters = stats.read().unwrap();
    counters.into_iter().find(|(other, _)| other == name).map_or(0, |(_, value)| value)
}

#[test]
fn the_guests_exits_are_counted() {
    if !require_kvm() {
        return;
    }
    let guest = image(&GUEST);
    let config = VmConfig::new(GuestSource::File(guest.path().to_owned()));
    let vm = KvmVm::new(Path::new(KVM_DEVICE), &config).unwrap();
    let mut vcpu = vm.build(VcpuId(0)).unwrap();
    let stats = match vcpu.stats() {
        Ok(stats) => stats,
        Err(error) => return skipped(&format!("no KVM_GET_STATS_FD: {error}")),
    };
    assert_eq!(value(&stats, "exits"), 0);
    let mut outs = 0;
    while vcpu.run().unwrap() != VmExit::Hlt {
        outs += 1;
    }
    assert_eq!(outs, 100);
    // Which other counters an exit adds to differs from host to host.
    let exits = value(&stats, "exits");
    assert!(exits >= 100, "{:?}", stats.read());
    // They can be read when the vCPU is gone, and the VM's own as well.
    drop(vcpu);
    assert_eq!(value(&stats, "exits"), exits);
    let of_vm = vm.stats().unwrap().read().unwrap();
    assert!(of_vm.iter().all(|(name, value)| !name.is_empty() && *value > 0), "{of_vm:?}");
}
