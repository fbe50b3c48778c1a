//! What is counted: of a vCPU, of a reason for exits, of an address, of a thread.

use std::collections::BTreeMap;

use crate::exit::VmExit;
use crate::trace::record::{ExitEvent, Handling, MarkerName, Reason, ServiceEvent, Source, Totals};
use crate::trace::summary::distribution::Distribution;
use crate::trace::summary::table::Table;

/// How many addresses are told apart for a vCPU and a reason; the rest are "others".
pub const MAX_ADDRESSES: usize = 256;

/// How many notes are kept.
const MAX_NOTES: usize = 1024;

/// How many interrupt lines are told apart.
const MAX_LINES: usize = 256;

/// How many mnemonics are told apart; a trace that somebody made up may have any.
const MAX_MNEMONICS: usize = 256;

/// The length of the pages by which MMIO is counted.
const PAGE: u64 = 4096;

/// From the beginning of a thread's first record to the end of its last.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

impl Default for Span {
    /// No record at all.
    fn default() -> Self {
        Self { first: u64::MAX, last: 0 }
    }
}

impl Span {
    pub fn extend(&mut self, from: u64, to: u64) {
        self.first = self.first.min(from);
        self.last = self.last.max(to);
    }

    pub fn merge(&mut self, other: Self) {
        self.extend(other.first, other.last);
    }

    pub fn length(self) -> u64 {
        self.last.saturating_sub(self.first)
    }

    pub fn is_empty(self) -> bool {
        self.first > self.last
    }
}

/// Exits, how long they were handled, and how long the guest ran before them.
#[derive(Clone, Debug, Default)]
pub struct ExitTimes {
    pub exits: u64,
    /// Only exits whose handling was measured.
    pub handling: Distribution,
    pub guest: Distribution,
}

impl ExitTimes {
    fn add(&mut self, exit: &ExitEvent) {
        self.exits = self.exits.saturating_add(1);
        self.guest.add(exit.guest);
        // The others' time is not known, which is not the same as none.
        if let Handling::Posted { .. } | Handling::Served { .. } = exit.handling {
            self.handling.add(exit.handling_time());
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.exits = self.exits.saturating_add(other.exits);
        self.handling.merge(&other.handling);
        self.guest.merge(&other.guest);
    }
}

/// The exits of one reason.
#[derive(Clone, Debug)]
pub struct ReasonStats {
    /// Those without an address.
    plain: ExitTimes,
    /// By port, or by the address of the page.
    pub addresses: Table<ExitTimes>,
    /// Those for which there was no room in the table.
    pub others: Option<Box<ExitTimes>>,
}

impl Default for ReasonStats {
    fn default() -> Self {
        let addresses = Table::new(MAX_ADDRESSES);
        Self { plain: ExitTimes::default(), addresses, others: None }
    }
}

impl ReasonStats {
    /// Adds an exit; `room` is how many more addresses may have a row of their own. Each exit is
    /// counted in one place, and what several have in common is added up for the report.
    fn add(&mut self, exit: &ExitEvent, room: &mut usize) {
        let times = match exit.exit {
            VmExit::Pio(pio) => self.address(u64::from(pio.port.0), room),
            VmExit::Mmio(mmio) => self.address(mmio.gpa.0 & !(PAGE - 1), room),
            _ => &mut self.plain,
        };
        times.add(exit);
    }

    /// What its exits are divided into.
    pub fn parts(&self) -> impl Iterator<Item = &ExitTimes> {
        let addresses = self.addresses.iter().map(|(_, times)| times);
        [&self.plain].into_iter().chain(addresses).chain(self.others.as_deref())
    }

    /// All of them.
    pub fn all(&self) -> ExitTimes {
        let mut all = ExitTimes::default();
        self.parts().for_each(|times| all.merge(times));
        all
    }

    fn merge(&mut self, other: &Self, room: &mut usize) {
        self.plain.merge(&other.plain);
        for (address, times) in other.addresses.iter() {
            self.address(address, room).merge(times);
        }
        if let Some(times) = &other.others {
            self.rest().merge(times);
        }
    }

    fn rest(&mut self) -> &mut ExitTimes {
        self.others.get_or_insert_default()
    }

    fn address(&mut self, address: u64, room: &mut usize) -> &mut ExitTimes {
        let has_room = *room > 0 || self.addresses.contains(address);
        if has_room
            && let Some(times) = self.addresses.entry(address, || {
                *room -= 1;
                ExitTimes::default()
            })
        {
            return times;
        }
        self.others.get_or_insert_default()
    }
}

/// Posted accesses that a thread served.
#[derive(Clone, Debug, Default)]
pub struct ServiceStats {
    pub wait: Distribution,
    pub service: Distribution,
}

impl ServiceStats {
    pub fn merge(&mut self, other: &Self) {
        self.wait.merge(&other.wait);
        self.service.merge(&other.service);
    }
}

/// What any thread has.
#[derive(Clone, Debug, Default)]
pub struct ThreadStats {
    pub span: Span,
    pub served: Option<Box<ServiceStats>>,
    pub totals: Option<Totals>,
}

impl ThreadStats {
    pub fn add_service(&mut self, service: &ServiceEvent) {
        let served = self.served.get_or_insert_default();
        served.wait.add(u64::from(service.wait));
        served.service.add(u64::from(service.service));
    }

    pub fn add_totals(&mut self, more: &Totals) {
        let totals = self.totals.get_or_insert_default();
        totals.seen = totals.seen.saturating_add(more.seen);
        totals.kept = totals.kept.saturating_add(more.kept);
        totals.filtered = totals.filtered.saturating_add(more.filtered);
        totals.dropped = totals.dropped.saturating_add(more.dropped);
    }

    pub fn merge(&mut self, other: &Self) {
        self.span.merge(other.span);
        if let Some(served) = &other.served {
            self.served.get_or_insert_default().merge(served);
        }
        if let Some(totals) = &other.totals {
            self.add_totals(totals);
        }
    }
}

/// One vCPU.
#[derive(Clone, Debug, Default)]
pub struct VcpuStats {
    pub thread: ThreadStats,
    /// By the order of [`Reason::ALL`].
    pub reasons: [Option<Box<ReasonStats>>; Reason::ALL.len()],
    /// How often it was kicked.
    pub kicks: u64,
}

impl VcpuStats {
    /// Adds an exit; `room` is how many more addresses may have a row of their own.
    pub fn add_exit(&mut self, time: u64, exit: &ExitEvent, room: &mut usize) {
        let (from, to) =
            (time.saturating_sub(exit.guest), time.saturating_add(exit.handling_time()));
        self.thread.span.extend(from, to);
        if let Some(stats) = self.reasons.get_mut(Reason::of(&exit.exit) as usize) {
            stats.get_or_insert_default().add(exit, room);
        }
    }

    pub fn merge(&mut self, other: &Self, room: &mut usize) {
        self.thread.merge(&other.thread);
        self.kicks = self.kicks.saturating_add(other.kicks);
        for (ours, theirs) in self.reasons.iter_mut().zip(&other.reasons) {
            if let Some(theirs) = theirs {
                ours.get_or_insert_default().merge(theirs, room);
            }
        }
    }

    /// The reasons that it has.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, &ReasonStats)> {
        let pairs = Reason::ALL.into_iter().zip(&self.reasons);
        pairs.filter_map(|(reason, stats)| Some((reason, stats.as_deref()?)))
    }

    /// The number of exits that it has records of.
    pub fn exits(&self) -> u64 {
        let parts = self.reasons().flat_map(|(_, stats)| stats.parts());
        parts.fold(0, |sum, times| sum.saturating_add(times.exits))
    }
}

/// The guest's output to the host.
#[derive(Clone, Debug, Default)]
pub struct OutputStats {
    pub bytes: u64,
    /// One sample a write.
    pub time: Distribution,
}

/// How often an interrupt line changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineStats {
    pub raised: u64,
    pub lowered: u64,
}

impl LineStats {
    fn merge(&mut self, other: Self) {
        self.raised = self.raised.saturating_add(other.raised);
        self.lowered = self.lowered.saturating_add(other.lowered);
    }
}

/// All interrupt lines.
#[derive(Clone, Debug)]
pub struct Lines {
    pub lines: Table<LineStats>,
    /// Those for which there was no room.
    pub others: LineStats,
}

impl Default for Lines {
    fn default() -> Self {
        Self { lines: Table::new(MAX_LINES), others: LineStats::default() }
    }
}

impl Lines {
    pub fn add(&mut self, irq: u32, high: bool) {
        let one = LineStats { raised: u64::from(high), lowered: u64::from(!high) };
        self.line(u64::from(irq)).merge(one);
    }

    pub fn merge(&mut self, other: &Self) {
        for (irq, line) in other.lines.iter() {
            self.line(irq).merge(*line);
        }
        self.others.merge(other.others);
    }

    fn line(&mut self, irq: u64) -> &mut LineStats {
        match self.lines.entry(irq, LineStats::default) {
            Some(line) => line,
            None => &mut self.others,
        }
    }
}

/// Something that the guest put into the timeline.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    Marker(MarkerName),
    Recording(bool),
}

/// The first notes, each with its time and whose it is.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub kept: Vec<(u64, Source, Note)>,
    pub left_out: u64,
}

impl Notes {
    pub fn add(&mut self, time: u64, source: Source, note: Note) {
        if self.kept.len() < MAX_NOTES {
            self.kept.push((time, source, note));
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for (time, source, note) in &other.kept {
            self.add(*time, *source, *note);
        }
        self.left_out = self.left_out.saturating_add(other.left_out);
    }
}

/// How often each instruction was completed that the host cannot emulate.
#[derive(Clone, Debug, Default)]
pub struct Completions {
    pub counts: BTreeMap<MarkerName, u64>,
    /// Those for which there was no room.
    pub others: u64,
}

impl Completions {
    pub fn add(&mut self, mnemonic: MarkerName) {
        self.count(mnemonic, 1);
    }

    pub fn merge(&mut self, other: &Self) {
        for (mnemonic, count) in &other.counts {
            self.count(*mnemonic, *count);
        }
        self.others = self.others.saturating_add(other.others);
    }

    fn count(&mut self, mnemonic: MarkerName, more: u64) {
        let has_room = self.counts.len() < MAX_MNEMONICS || self.counts.contains_key(&mnemonic);
        let count =
            if has_room { self.counts.entry(mnemonic).or_default() } else { &mut self.others };
        *count = count.saturating_add(more);
    }
}

/// The exits at one address of the guest's code.
#[derive(Clone, Copy, Debug, Default)]
pub struct RipStats {
    pub exits: u64,
    pub handling: u64,
    pub guest: u64,
}

impl RipStats {
    pub fn merge(&mut self, other: Self) {
        self.exits = self.exits.saturating_add(other.exits);
        self.handling = self.handling.saturating_add(other.handling);
        self.guest = self.guest.saturating_add(other.guest);
    }
}

/// Exits by RIP, for those that have one.
#[derive(Clone, Debug)]
pub struct Rips {
    pub kept: BTreeMap<u64, RipStats>,
    /// Those at addresses for which there was no room.
    pub others: RipStats,
    limit: usize,
}

impl Rips {
    /// At most `limit` addresses.
    pub fn new(limit: usize) -> Self {
        Self { kept: BTreeMap::new(), others: RipStats::default(), limit }
    }

    pub fn add(&mut self, rip: u64, exit: &ExitEvent) {
        let (handling, guest) = (exit.handling_time(), exit.guest);
        self.rip(rip).merge(RipStats { exits: 1, handling, guest });
    }

    pub fn merge(&mut self, other: &Self) {
        for (rip, stats) in &other.kept {
            self.rip(*rip).merge(*stats);
        }
        self.others.merge(other.others);
    }

    fn rip(&mut self, rip: u64) -> &mut RipStats {
        if self.kept.len() >= self.limit && !self.kept.contains_key(&rip) {
            return &mut self.others;
        }
        self.kept.entry(rip).or_default()
    }
}
