//! Sorts the records of a trace into columns: those of each thread by themselves, since they come
//! in the order of their times, so that the page can search them and packs only differences.
//!
//! What is the same for many exits, their reason, address and RIP, is kept once, as a [`Site`].
//! The page then filters and groups sites, of which there are few, and not exits.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use crate::exit::{Access, AddressSpace, Direction, VcpuId, VmExit};
use crate::trace::format::{Symbolize, TraceInfo};
use crate::trace::html::pack::{Column, Kind};
use crate::trace::record::{
    Event, ExitEvent, Handling, MarkerName, Reason, Record, ServiceEvent, Source, Totals,
};

/// The most vCPUs that get a lane without a record of theirs. It is KVM's limit; only a damaged
/// trace says more.
const MOST_EMPTY_LANES: u32 = 4096;

/// What exits and services have in common with many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Site {
    reason: Reason,
    size: u8,
    /// The number of accesses, or what else the reason comes with.
    number: u32,
    address: u64,
    rip: Option<u64>,
}

impl Site {
    fn of_exit(event: &ExitEvent) -> Self {
        let (size, number, address) = match event.exit {
            VmExit::Pio(pio) => (pio.size, pio.count, u64::from(pio.port.0)),
            VmExit::Mmio(mmio) => (mmio.size, 1, mmio.gpa.0),
            VmExit::FailEntry { reason, cpu } => (0, cpu, reason),
            VmExit::InternalError { suberror, .. } => (0, suberror, 0),
            VmExit::SystemEvent { kind } => (0, kind, 0),
            VmExit::Unhandled { reason } => (0, reason, 0),
            VmExit::IoapicEoi { vector } => (0, vector.into(), 0),
            VmExit::Hlt
            | VmExit::Shutdown
            | VmExit::SetTpr
            | VmExit::IrqWindowOpen
            | VmExit::Debug
            | VmExit::Interrupted => (0, 0, 0),
        };
        Self { reason: Reason::of(&event.exit), size, number, address, rip: event.rip }
    }

    fn of_access(access: &Access) -> Self {
        let reason = match (access.space, access.direction) {
            (AddressSpace::Pio, Direction::Write) => Reason::IoOut,
            (AddressSpace::Pio, Direction::Read) => Reason::IoIn,
            (AddressSpace::Mmio, Direction::Write) => Reason::MmioWrite,
            (AddressSpace::Mmio, Direction::Read) => Reason::MmioRead,
        };
        Self { reason, size: access.size, number: 1, address: access.addr, rip: None }
    }
}

/// Things that many records name, by the order in which they first did.
#[derive(Debug)]
struct Distinct<T> {
    numbers: HashMap<T, u64>,
    items: Vec<T>,
}

impl<T: Copy + Eq + std::hash::Hash> Distinct<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), items: Vec::new() }
    }

    fn number(&mut self, item: T) -> u64 {
        let next = u64::try_from(self.items.len()).unwrap_or(u64::MAX);
        *self.numbers.entry(item).or_insert_with(|| {
            self.items.push(item);
            next
        })
    }
}

/// Makes a struct of columns, with the names that they have in the page.
macro_rules! columns {
    ($(#[$doc:meta])* $table:ident { $($field:ident: $kind:ident $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        struct $table { $($field: Column,)* }

        impl $table {
            fn new() -> Self {
                Self { $($field: Column::new($name, Kind::$kind),)* }
            }

            fn write(&self, out: &mut impl Write) -> io::Result<()> {
                $(self.$field.write(out)?;)*
                Ok(())
            }
        }
    };
}

columns! {
    /// The exits of one vCPU.
    Exits {
        time: Delta "exit.time",
        guest: Wide "exit.guest",
        sequence: Delta "exit.sequence",
        site: Small "exit.site",
        handling: Small "exit.handling",
        first: Small "exit.first",
        second: Small "exit.second",
        data_low: Small "exit.dataLow",
        data_high: Small "exit.dataHigh",
    }
}

columns! {
    /// What one thread served.
    Services {
        time: Delta "service.time",
        vcpu: Small "service.vcpu",
        sequence: Delta "service.sequence",
        site: Small "service.site",
        wait: Small "service.wait",
        took: Small "service.took",
        data_low: Small "service.dataLow",
        data_high: Small "service.dataHigh",
    }
}

columns! {
    /// Everything else.
    Others {
        output_time: Delta "output.time",
        output_offset: Wide "output.offset",
        output_len: Small "output.len",
        output_took: Small "output.took",
        point_time: Wide "point.time",
        point_source: Small "point.source",
        point_kind: Text "point.kind",
        point_number: Small "point.number",
        point_on: Small "point.on",
        point_name: Text "point.name",
        totals_source: Small "totals.source",
        totals_seen: Exact "totals.seen",
        totals_kept: Exact "totals.kept",
        totals_filtered: Exact "totals.filtered",
        totals_dropped: Exact "totals.dropped",
    }
}

columns! {
    /// What the tables above refer to, and what is said once.
    Names {
        lane_source: Small "lane.source",
        lane_exits: Small "lane.exits",
        lane_services: Small "lane.services",
        site_reason: Small "site.reason",
        site_size: Small "site.size",
        site_number: Small "site.number",
        site_address: Exact "site.address",
        site_code: Small "site.code",
        code_rip: Exact "code.rip",
        code_name: Text "code.name",
        reason_name: Text "reason.name",
        info_key: Text "info.key",
        info_value: Text "info.value",
    }
}

/// The number that stands for a thread in the page.
fn source_number(source: Source) -> u64 {
    match source {
        Source::Vcpu(id) => u64::from(id.0),
        Source::Devices => u64::from(u32::MAX),
        Source::Supervisor => u64::from(u32::MAX - 1),
    }
}

fn halves(data: u64) -> (u64, u64) {
    (data & u64::from(u32::MAX), data >> 32)
}

/// The columns of a trace.
#[derive(Debug)]
pub struct Collected {
    lanes: BTreeMap<Source, (Exits, Services)>,
    others: Others,
    sites: Distinct<Site>,
    complete: bool,
}

impl Collected {
    /// Those of `records`.
    pub fn new(info: &TraceInfo, records: impl Iterator<Item = Record>) -> Self {
        let mut collected = Self {
            lanes: BTreeMap::new(),
            others: Others::new(),
            sites: Distinct::new(),
            complete: false,
        };
        for id in 0..info.vcpus.min(MOST_EMPTY_LANES) {
            collected.lane(Source::Vcpu(VcpuId(id)));
        }
        collected.lane(Source::Devices);
        for record in records {
            collected.add(&record);
        }
        collected
    }

    fn lane(&mut self, source: Source) -> &mut (Exits, Services) {
        self.lanes.entry(source).or_insert_with(|| (Exits::new(), Services::new()))
    }

    fn add(&mut self, record: &Record) {
        match &record.event {
            Event::Exit(event) => self.add_exit(record, event),
            Event::Service(event) => self.add_service(record, event),
            Event::Output { offset, len, took } => {
                self.others.output_time.push(record.time);
                self.others.output_offset.push(*offset);
                self.others.output_len.push(u64::from(*len));
                self.others.output_took.push(u64::from(*took));
            }
            Event::Kick { target } => self.add_point(record, "kick", target.0, true),
            Event::Start => self.add_point(record, "start", 0, true),
            Event::Halt => self.add_point(record, "halt", 0, true),
            Event::Stop => self.add_point(record, "stop", 0, true),
            Event::Interrupt { irq, high } => self.add_point(record, "interrupt", *irq, *high),
            Event::Marker(name) => self.add_named_point(record, "marker", 0, true, *name),
            Event::Completed(name) => self.add_named_point(record, "completed", 0, true, *name),
            Event::Recording { on } => self.add_point(record, "recording", 0, *on),
            Event::Totals(totals) => self.add_totals(record.source, totals),
            Event::End => self.complete = true,
        }
    }

    fn add_exit(&mut self, record: &Record, event: &ExitEvent) {
        let site = self.sites.number(Site::of_exit(event));
        let (handling, first, second) = match event.handling {
            Handling::Pending => (0, 0, 0),
            Handling::RunLoop => (1, 0, 0),
            Handling::Posted { enqueue } => (2, enqueue, 0),
            Handling::Served { wait, service } => (3, wait, service),
        };
        let (low, high) = halves(event.data);
        let (exits, _) = self.lane(record.source);
        exits.time.push(record.time);
        exits.guest.push(event.guest);
        exits.sequence.push(event.sequence);
        exits.site.push(site);
        exits.handling.push(handling);
        exits.first.push(u64::from(first));
        exits.second.push(u64::from(second));
        exits.data_low.push(low);
        exits.data_high.push(high);
    }

    fn add_service(&mut self, record: &Record, event: &ServiceEvent) {
        let site = self.sites.number(Site::of_access(&event.access));
        let (low, high) = halves(event.access.data);
        let (_, services) = self.lane(record.source);
        services.time.push(record.time);
        services.vcpu.push(u64::from(event.vcpu.0));
        services.sequence.push(event.sequence);
        services.site.push(site);
        services.wait.push(u64::from(event.wait));
        services.took.push(u64::from(event.service));
        services.data_low.push(low);
        services.data_high.push(high);
    }

    fn add_point(&mut self, record: &Record, kind: &str, number: u32, on: bool) {
        self.add_named_point(record, kind, number, on, MarkerName::default());
    }

    fn add_named_point(
        &mut self,
        record: &Record,
        kind: &str,
        number: u32,
        on: bool,
        name: MarkerName,
    ) {
        self.lane(record.source);
        self.others.point_time.push(record.time);
        self.others.point_source.push(source_number(record.source));
        self.others.point_kind.push_text(kind);
        self.others.point_number.push(u64::from(number));
        self.others.point_on.push(u64::from(on));
        self.others.point_name.push_text(&name.to_string());
    }

    fn add_totals(&mut self, source: Source, totals: &Totals) {
        self.others.totals_source.push(source_number(source));
        self.others.totals_seen.push(totals.seen);
        self.others.totals_kept.push(totals.kept);
        self.others.totals_filtered.push(totals.filtered);
        self.others.totals_dropped.push(totals.dropped);
    }

    /// Writes all columns.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(
        self,
        out: &mut impl Write,
        info: &TraceInfo,
        symbolize: Option<Symbolize>,
        note: &str,
    ) -> io::Result<()> {
        self.names(info, symbolize, note).write(out)?;
        for (exits, services) in self.lanes.values() {
            exits.write(out)?;
            services.write(out)?;
        }
        self.others.write(out)
    }

    fn names(&self, info: &TraceInfo, mut symbolize: Option<Symbolize>, note: &str) -> Names {
        let mut names = Names::new();
        for (source, (exits, services)) in &self.lanes {
            names.lane_source.push(source_number(*source));
            names.lane_exits.push(exits.time.count());
            names.lane_services.push(services.time.count());
        }
        let mut codes = Distinct::new();
        for site in &self.sites.items {
            names.site_reason.push(reason_number(site.reason));
            names.site_size.push(u64::from(site.size));
            names.site_number.push(u64::from(site.number));
            names.site_address.push(site.address);
            // 0 is for an exit without a RIP.
            names.site_code.push(site.rip.map_or(0, |rip| codes.number(rip) + 1));
        }
        for rip in codes.items {
            let name = symbolize.as_mut().and_then(|symbolize| symbolize(rip));
            names.code_rip.push(rip);
            names.code_name.push_text(&name.unwrap_or_default());
        }
        for reason in Reason::ALL {
            names.reason_name.push_text(reason.name());
        }
        for (key, value) in [
            ("guest", info.guest.as_str()),
            ("filter", &info.filter),
            ("vcpus", &info.vcpus.to_string()),
            ("epochNs", &info.epoch_unix_ns.to_string()),
            ("note", note),
            ("complete", if self.complete { "yes" } else { "" }),
        ] {
            names.info_key.push_text(key);
            names.info_value.push_text(value);
        }
        names
    }
}

fn reason_number(reason: Reason) -> u64 {
    let place = Reason::ALL.iter().position(|&one| one == reason);
    place.and_then(|place| u64::try_from(place).ok()).unwrap_or_default()
}
