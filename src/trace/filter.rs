//! [`TraceFilter`]: which exits a trace keeps, and how users write it.
//!
//! A filter is a list of terms `KEY=VALUE` with commas between them. The terms of different keys
//! must all hold; of several values of one key, joined by `+` or given with the key again, one
//! must. The exception is `port` and `gpa`, which no exit has both of: there, too, one must hold.
//!
//! What a filter decides on is [`keeps`](TraceFilter::keeps), which each vCPU's thread asks at
//! each exit, so it takes no lock and no memory. The text is read by `parse.rs`.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU64;

use crate::exit::{Access, AddressSpace, Direction, VcpuId, VmExit};
use crate::trace::record::{ExitEvent, Reason, ServiceEvent};

pub use parse::{TraceFilterError, ValueError};

/// Which exits a trace keeps. The default keeps all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// `None` if there are no terms, so that an unfiltered trace pays for one branch.
    terms: Option<Box<Terms>>,
}

/// The terms. An empty list, zero or `None` stands for a term that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Terms {
    vcpus: Vec<Span>,
    reasons: ReasonSet,
    ports: Vec<Span>,
    gpas: Vec<Span>,
    rips: Vec<Span>,
    /// Nanoseconds since the trace's epoch, as all times here.
    after: u64,
    before: Option<u64>,
    /// The least handling time, in nanoseconds.
    min: u64,
    /// Never 1, which is the same as none.
    every: Option<NonZeroU64>,
}

/// The numbers from `first` to `last`, both included; `first` is not above `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
}

/// A set of reasons: bit n stands for `Reason::ALL[n]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReasonSet(u16);

impl TraceFilter {
    /// Whether it can decide only on exits that have their RIP; without one it keeps none.
    pub fn needs_rip(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| !terms.rips.is_empty())
    }

    /// Whether the exit of `vcpu` at `record_time` (nanoseconds since the trace's epoch) is kept.
    ///
    /// `matched` counts, for `every`, the exits of this vCPU for which all other terms held: the
    /// caller has one for each vCPU, from 0, and otherwise leaves it alone.
    #[inline]
    pub fn keeps(
        &self,
        record_time: u64,
        vcpu: VcpuId,
        exit: &ExitEvent,
        matched: &mut u64,
    ) -> bool {
        match &self.terms {
            None => true,
            Some(terms) => terms.keep(record_time, vcpu, exit, matched),
        }
    }

    /// Whether the service of a posted access, begun at `record_time`, is kept.
    ///
    /// `vcpu`, `reason`, `port` and `gpa` look at the access, `after` and `before` at the time of
    /// the service. `rip`, `min` and `every` choose exits by what a service does not tell. With
    /// one of these no service is kept: the services of the few exits that they leave would be
    /// lost among those of all others.
    #[inline]
    pub fn keeps_service(&self, record_time: u64, service: &ServiceEvent) -> bool {
        match &self.terms {
            None => true,
            Some(terms) => terms.keep_service(record_time, service),
        }
    }
}

impl Terms {
    fn keep(&self, time: u64, vcpu: VcpuId, exit: &ExitEvent, matched: &mut u64) -> bool {
        let place = match &exit.exit {
            VmExit::Pio(pio) => {
                Some((AddressSpace::Pio, Span::of_access(pio.port.0.into(), pio.size)))
            }
            VmExit::Mmio(mmio) => {
                Some((AddressSpace::Mmio, Span::of_access(mmio.gpa.0, mmio.size)))
            }
            _ => None,
        };
        self.has_time(time)
            && has(&self.vcpus, vcpu.0.into())
            && self.reasons.has(Reason::of(&exit.exit))
            && self.has_place(place)
            && (self.rips.is_empty() || exit.rip.is_some_and(|rip| has(&self.rips, rip)))
            && exit.handling_time() >= self.min
            && self.is_due(matched)
    }

    fn keep_service(&self, time: u64, service: &ServiceEvent) -> bool {
        let Access { space, addr, size, .. } = service.access;
        self.rips.is_empty()
            && self.min == 0
            && self.every.is_none()
            && self.has_time(time)
            && has(&self.vcpus, service.vcpu.0.into())
            && self.reasons.has(reason_of(&service.access))
            && self.has_place(Some((space, Span::of_access(addr, size))))
    }

    fn has_time(&self, time: u64) -> bool {
        self.after <= time && self.before.is_none_or(|before| time < before)
    }

    /// Whether an access to these addresses passes; `None` is an exit that is no access.
    fn has_place(&self, place: Option<(AddressSpace, Span)>) -> bool {
        if self.ports.is_empty() && self.gpas.is_empty() {
            return true;
        }
        place.is_some_and(|(space, accessed)| {
            let wanted = match space {
                AddressSpace::Pio => &self.ports,
                AddressSpace::Mmio => &self.gpas,
            };
            wanted.iter().any(|span| span.overlaps(accessed))
        })
    }

    /// Counts an exit for which all other terms hold: the first of every N is kept.
    fn is_due(&self, matched: &mut u64) -> bool {
        let Some(every) = self.every else { return true };
        let due = *matched % every == 0;
        *matched = matched.wrapping_add(1);
        due
    }
}

/// Whether `value` is in one of these, or there are none to choose by.
fn has(spans: &[Span], value: u64) -> bool {
    spans.is_empty() || spans.iter().any(|span| span.contains(value))
}

/// The reason of the exit that an access came from.
fn reason_of(access: &Access) -> Reason {
    match (access.space, access.direction) {
        (AddressSpace::Pio, Direction::Write) => Reason::IoOut,
        (AddressSpace::Pio, Direction::Read) => Reason::IoIn,
        (AddressSpace::Mmio, Direction::Write) => Reason::MmioWrite,
        (AddressSpace::Mmio, Direction::Read) => Reason::MmioRead,
    }
}

impl Span {
    /// The addresses of an access of `size` bytes.
    fn of_access(first: u64, size: u8) -> Self {
        Self { first, last: first.saturating_add(u64::from(size.saturating_sub(1))) }
    }

    fn contains(self, value: u64) -> bool {
        self.first <= value && value <= self.last
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl ReasonSet {
    fn insert(&mut self, reason: Reason) {
        self.0 |= Self::bit(reason);
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn contains(self, reason: Reason) -> bool {
        self.0 & Self::bit(reason) != 0
    }

    /// Whether the reason is in it, or it has none to choose by.
    fn has(self, reason: Reason) -> bool {
        self.is_empty() || self.contains(reason)
    }

    fn bit(reason: Reason) -> u16 {
        1 << reason as u16
    }
}

impl fmt::Display for TraceFilter {
    /// The terms in a fixed order, the values of each key together: `vcpu=0-1+3,reason=io-out`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(terms) = &self.terms else { return Ok(()) };
        let decimal = |span: &Span| match span {
            Span { first, last } if first == last => format!("{first}"),
            Span { first, last } => format!("{first}-{last}"),
        };
        let hex = |span: &Span| match span {
            Span { first, last } if first == last => format!("{first:#x}"),
            Span { first, last } => format!("{first:#x}-{last:#x}"),
        };
        let duration = |nanoseconds| parse::format_ns(nanoseconds).to_string();
        let unless_zero = |nanoseconds: u64| (nanoseconds != 0).then(|| duration(nanoseconds));
        let reasons = Reason::ALL.into_iter().filter(|&reason| terms.reasons.contains(reason));
        let written: [(&str, Vec<String>); 9] = [
            ("vcpu", terms.vcpus.iter().map(decimal).collect()),
            ("reason", reasons.map(|reason| reason.name().to_owned()).collect()),
            ("port", terms.ports.iter().map(hex).collect()),
            ("gpa", terms.gpas.iter().map(hex).collect()),
            ("rip", terms.rips.iter().map(hex).collect()),
            ("after", unless_zero(terms.after).into_iter().collect()),
            ("before", terms.before.map(duration).into_iter().collect()),
            ("min", unless_zero(terms.min).into_iter().collect()),
            ("every", terms.every.map(|every| every.to_string()).into_iter().collect()),
        ];
        let mut comma = "";
        for (key, values) in written.iter().filter(|(_, values)| !values.is_empty()) {
            write!(f, "{comma}{key}={}", values.join("+"))?;
            comma = ",";
        }
        Ok(())
    }
}
