//! [`Topology`]: how the vCPUs are arranged in sockets, cores and threads, and the APIC id that
//! each has by that.
//!
//! Only the arithmetic lives here. CPUID (`kvm/cpuid.rs`), the MADT and the MP table
//! (`boot/tables/`) and KVM's own number of a vCPU all take the id from [`ApicId::of`], so they
//! cannot disagree.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::VcpuCount;
use crate::exit::VcpuId;
use crate::number::{NumberError, parse_u64};

/// So many sockets of so many cores of so many threads, one vCPU each: at least 1 of everything,
/// and at most [`VcpuCount::MAX`] vCPUs.
///
/// The threads of a core have consecutive vCPU indices, and so have the cores of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Topology {
    sockets: u32,
    cores: u32,
    threads: u32,
}

/// Why a text is no [`Topology`], or not that of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopologyError {
    /// Not three numbers.
    #[error("'{0}' is not a topology: expected SOCKETS:CORES:THREADS, such as 1:4:2")]
    Form(String),
    /// One of them is 0.
    #[error("a topology has at least 1 socket, 1 core and 1 thread, and not {0}")]
    Zero(String),
    /// More vCPUs than there can be.
    #[error("{0} has more than the limit of {max} vCPUs", max = VcpuCount::MAX)]
    TooMany(String),
    /// Not as many vCPUs as the VM has.
    #[error("--topology {topology} is for {} vCPUs, and --vcpus is {vcpus}", topology.vcpus())]
    Mismatch {
        /// The topology.
        topology: Topology,
        /// The VM's number of vCPUs.
        vcpus: VcpuCount,
    },
    /// One of the three is not a number.
    #[error(transparent)]
    Number(#[from] NumberError),
}

impl Topology {
    /// One socket of cores of one thread.
    pub fn flat(vcpus: VcpuCount) -> Self {
        Self { sockets: 1, cores: vcpus.get(), threads: 1 }
    }

    /// The number of vCPUs.
    pub fn vcpus(self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// The number of cores in a socket.
    pub fn cores(self) -> u32 {
        self.cores
    }

    /// The number of threads in a core.
    pub fn threads(self) -> u32 {
        self.threads
    }

    /// The number of low bits of an APIC id that tell the threads of a core apart.
    pub fn thread_bits(self) -> u32 {
        bits_for(self.threads)
    }

    /// The number of bits above those that tell the cores of a socket apart.
    pub fn core_bits(self) -> u32 {
        bits_for(self.cores)
    }

    /// The socket of a vCPU.
    pub fn socket_of(self, vcpu: VcpuId) -> u32 {
        vcpu.0 / (self.cores * self.threads)
    }

    /// The core of a vCPU within its socket.
    pub fn core_of(self, vcpu: VcpuId) -> u32 {
        vcpu.0 / self.threads % self.cores
    }

    /// The largest APIC id.
    pub fn max_apic_id(self) -> ApicId {
        ApicId::of(self, VcpuId(self.vcpus() - 1))
    }

    /// All vCPUs, with their APIC ids, which grow.
    pub fn apic_ids(self) -> impl Iterator<Item = (VcpuId, ApicId)> {
        (0..self.vcpus()).map(VcpuId).map(move |vcpu| (vcpu, ApicId::of(self, vcpu)))
    }
}

/// The number of bits for the numbers below `count`.
fn bits_for(count: u32) -> u32 {
    count.next_power_of_two().ilog2()
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.sockets, self.cores, self.threads)
    }
}

impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, TopologyError> {
        let numbers = text.split(':').map(parse_u64).collect::<Result<Vec<_>, _>>()?;
        let [sockets, cores, threads] = numbers[..] else {
            return Err(TopologyError::Form(text.to_owned()));
        };
        if numbers.contains(&0) {
            return Err(TopologyError::Zero(text.to_owned()));
        }
        let product = sockets.checked_mul(cores).and_then(|cores| cores.checked_mul(threads));
        if product.is_none_or(|vcpus| vcpus > VcpuCount::MAX.into()) {
            return Err(TopologyError::TooMany(text.to_owned()));
        }
        // None is larger than the product.
        let number =
            |number| u32::try_from(number).map_err(|_| TopologyError::TooMany(text.to_owned()));
        Ok(Self { sockets: number(sockets)?, cores: number(cores)?, threads: number(threads)? })
    }
}

/// The id of a local APIC, of 32 bits as in x2APIC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicId(pub u32);

impl ApicId {
    /// The id of a vCPU: the numbers of its thread, its core and its socket, from the lowest bit
    /// up, each in as many whole bits as it takes (Intel SDM vol. 3, section 10.9.1, "Hierarchical
    /// Mapping of Shared Resources"). Ids have gaps where a number is not a power of two.
    pub fn of(topology: Topology, vcpu: VcpuId) -> Self {
        let thread = vcpu.0 % topology.threads;
        let core = topology.core_of(vcpu) << topology.thread_bits();
        let socket = topology.socket_of(vcpu) << (topology.thread_bits() + topology.core_bits());
        Self(socket | core | thread)
    }

    /// The id as a local APIC in xAPIC mode has it, if it can have this one: of 8 bits, of which
    /// all ones is everybody (Intel SDM vol. 3, section 12.6.2.1).
    pub fn xapic(self) -> Option<u8> {
        u8::try_from(self.0).ok().filter(|id| *id != u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn topology(text: &str) -> Topology {
        text.parse().unwrap()
    }

    #[test]
    fn ids_have_a_field_for_each_level() {
        let ids = |text| -> Vec<u32> {
            topology(text).apic_ids().map(|(_, apic_id)| apic_id.0).collect()
        };
        assert_eq!(ids("1:5:1"), [0, 1, 2, 3, 4]);
        assert_eq!(ids("2:2:2"), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(ids("2:3:1"), [0, 1, 2, 4, 5, 6], "a gap at the fourth core");
        assert_eq!(ids("2:1:3"), [0, 1, 2, 4, 5, 6], "and at the fourth thread");
        assert_eq!(ids("1:3:2"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(ids("3:1:1"), [0, 1, 2]);
        assert_eq!(topology("2:3:1").max_apic_id(), ApicId(6));
    }

    #[test]
    fn an_id_of_all_ones_is_none_for_xapic() {
        let xapic = [0, 1, 254, 255, 256].map(|id| ApicId(id).xapic());
        assert_eq!(xapic, [Some(0), Some(1), Some(254), None, None]);
    }

    #[test]
    fn what_is_no_topology_says_why() {
        let error = |text: &str| text.parse::<Topology>().unwrap_err().to_string();
        let form = "is not a topology: expected SOCKETS:CORES:THREADS, such as 1:4:2";
        for text in ["4", "2:2", "1:2:3:4"] {
            assert_eq!(error(text), format!("'{text}' {form}"));
        }
        assert!(error("").contains("'' is not a number"));
        assert!(error("1:x:1").contains("'x' is not a number"));
        assert!(error("1:0:1").contains("at least 1 socket, 1 core and 1 thread, and not 1:0:1"));
        assert_eq!(error("256:256:1"), "256:256:1 has more than the limit of 65535 vCPUs");
        let huge = format!("{0}:{0}:{0}", u64::MAX);
        assert!(error(&huge).contains("more than the limit"));
    }

    proptest! {
        #[test]
        fn ids_are_unique_and_their_fields_are_the_vcpus_place(
            sockets in 1..9_u32, cores in 1..40_u32, threads in 1..9_u32,
        ) {
            let topology = topology(&format!("{sockets}:{cores}:{threads}"));
            let mut seen = HashSet::new();
            let mut expected = Vec::new();
            for socket in 0..sockets {
                for core in 0..cores {
                    expected.extend((0..threads).map(|thread| (socket, core, thread)));
                }
            }
            let (low, high) = (topology.thread_bits(), topology.core_bits());
            for ((vcpu, apic_id), place) in topology.apic_ids().zip(expected) {
                let ApicId(id) = apic_id;
                let field = |shift: u32, bits: u32| id >> shift & ((1 << bits) - 1);
                let socket = id >> (low + high);
                prop_assert_eq!((socket, field(low, high), field(0, low)), place);
                prop_assert_eq!(topology.socket_of(vcpu), place.0);
                prop_assert_eq!(topology.core_of(vcpu), place.1);
                prop_assert!(id >= vcpu.0 && seen.insert(id) && apic_id <= topology.max_apic_id());
            }
            prop_assert_eq!(u32::try_from(seen.len()).unwrap(), topology.vcpus());
            prop_assert_eq!(topology.to_string().parse(), Ok(topology));
        }

        #[test]
        fn without_gaps_an_id_is_the_index(vcpus in 1..=VcpuCount::MAX) {
            let topology = Topology::flat(VcpuCount::new(vcpus).unwrap());
            prop_assert_eq!(ApicId::of(topology, VcpuId(vcpus / 2)), ApicId(vcpus / 2));
            prop_assert_eq!(topology.max_apic_id(), ApicId(vcpus - 1));
            prop_assert_eq!(topology.vcpus(), vcpus);
        }
    }
}
