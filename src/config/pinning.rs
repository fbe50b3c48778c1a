//! [`Pinning`]: which host CPU each vCPU thread is bound to, and the CPU lists users write.
//!
//! Only the choice lives here. The binding itself is done by each vCPU thread for itself, and
//! whether the host has the CPU is for the host to say then.

use std::fmt;
use std::str::FromStr;

use nix::sched::CpuSet;
use thiserror::Error;

use crate::exit::VcpuId;
use crate::number::parse_u64;

/// Which host CPUs the vCPU threads are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// vCPU i on the i-th CPU that the process may use, round and round.
    Auto,
    /// vCPU i on the i-th CPU of this list, round and round.
    Cpus(CpuList),
}

impl Pinning {
    /// The host CPU for a vCPU, where `available` are the CPUs that the process may use.
    ///
    /// That the CPUs of a list are available is for the caller to see to. `None` means that the
    /// choice is automatic and nothing is available.
    pub fn cpu_for(&self, vcpu: VcpuId, available: &[usize]) -> Option<usize> {
        let cpus = match self {
            Self::Auto => available,
            Self::Cpus(list) => list.as_slice(),
        };
        cpus.get(vcpu.index().checked_rem(cpus.len())?).copied()
    }
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpus(list) => list.fmt(f),
        }
    }
}

impl FromStr for Pinning {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Cpus)
    }
}

/// Host CPU numbers in the order in which vCPUs get them: never empty, each below
/// [`CpuList::LIMIT`]. A CPU may be there twice; two vCPUs then share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

/// Why numbers or a text are no [`CpuList`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CpuListError {
    /// No CPU at all.
    #[error("at least one CPU is needed")]
    Empty,
    /// A CPU number that no affinity mask has a bit for.
    #[error("CPU {cpu} is above the highest that can be named, {}", CpuList::LIMIT - 1)]
    TooHigh {
        /// The number.
        cpu: u64,
    },
    /// A range whose end is before its start.
    #[error("the range {first}-{last} runs backwards")]
    Backwards {
        /// The CPU before the dash.
        first: u64,
        /// The CPU after the dash.
        last: u64,
    },
    /// An item that is neither a number nor a range.
    #[error("'{0}' is neither a CPU number nor a range such as 2-3")]
    Item(String),
}

impl CpuList {
    /// One more than the highest CPU number: the size of the affinity mask that
    /// sched_setaffinity(2) is called with.
    pub const LIMIT: usize = CpuSet::count();

    /// The list, if it is not empty and no number is out of range.
    pub fn new(cpus: Vec<usize>) -> Result<Self, CpuListError> {
        if cpus.is_empty() {
            return Err(CpuListError::Empty);
        }
        match cpus.iter().find(|&&cpu| cpu >= Self::LIMIT) {
            // A CPU number that does not fit in 64 bits would be too high just the same.
            Some(&cpu) => {
                Err(CpuListError::TooHigh { cpu: u64::try_from(cpu).unwrap_or(u64::MAX) })
            }
            None => Ok(Self(cpus)),
        }
    }

    /// The CPU numbers.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for CpuList {
    /// The list with neighbours that count upwards drawn together: `0,2-3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|cpu, next| cpu + 1 == *next);
        for (i, run) in runs.enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [cpu] => write!(f, "{comma}{cpu}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    /// Reads CPU numbers and ranges with commas between them, as the kernel and taskset(1)
    /// write them, except that the order counts.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        if text.is_empty() {
            return Err(CpuListError::Empty);
        }
        let mut cpus = Vec::new();
        for item in text.split(',') {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (Ok(first), Ok(last)) = (parse_u64(first), parse_u64(last)) else {
                return Err(CpuListError::Item(item.to_owned()));
            };
            if first > last {
                return Err(CpuListError::Backwards { first, last });
            }
            // Before the range is written out, or `0-999999999999` would fill the memory.
            let end = index_below_limit(last)?;
            cpus.extend(index_below_limit(first)?..=end);
        }
        Self::new(cpus)
    }
}

/// A CPU number, if an affinity mask has a bit for it.
fn index_below_limit(cpu: u64) -> Result<usize, CpuListError> {
    usize::try_from(cpu)
        .ok()
        .filter(|&cpu| cpu < CpuList::LIMIT)
        .ok_or(CpuListError::TooHigh { cpu })
}
