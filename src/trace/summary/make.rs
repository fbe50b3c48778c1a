//! From what was counted to the figures.

use std::collections::BTreeMap;

use crate::trace::record::{Reason, Source};
use crate::trace::summary::distribution::{Distribution, LONGEST_NS};
use crate::trace::summary::report::{
    Bin, CompletedReport, DevicesReport, ExitCounts, FORMAT, InterruptReport, KernelReport,
    MarkerReport, OutputReport, QueueReport, RecordingReport, Report, RipReport, Row,
    ServiceReport, SymbolReport, TimeReport, Times, TotalsReport, TraceReport, VERSION, VcpuReport,
};
use crate::trace::summary::stats::{ExitTimes, Note, RipStats, Span, ThreadStats, VcpuStats};
use crate::trace::summary::{KernelStats, MAX_VCPUS, Summary};

/// The name of a row for what has no row of its own.
const OTHERS: &str = "others";

impl Summary {
    /// The figures.
    pub fn report(&self) -> Report {
        self.report_with_symbols(|_| None)
    }

    /// The figures, with the names that `symbolize` has for addresses of the guest's code. It is
    /// asked once for each of the addresses that are told apart.
    pub fn report_with_symbols(&self, symbolize: impl FnMut(u64) -> Option<String>) -> Report {
        let span = self.span();
        let vcpus: Vec<_> = self.vcpus().map(|(name, stats)| vcpu_report(name, stats)).collect();
        let mut all = VcpuStats::default();
        let mut room = usize::MAX;
        for (_, stats) in self.vcpus() {
            all.merge(stats, &mut room);
        }
        let none = TimeReport { wall_ns: 0, guest_ns: 0, handling_ns: 0, idle_ns: Some(0) };
        let time = vcpus.iter().fold(none, |sum, vcpu| add_time(sum, vcpu.time));
        let (reasons, addresses) = rows(&all, time.wall_ns);
        let (rips, symbols) = self.rips(symbolize);
        Report {
            format: FORMAT,
            version: VERSION,
            trace: self.trace(),
            records: self.records,
            first_ns: if span.is_empty() { 0 } else { span.first },
            last_ns: span.last,
            span_ns: span.length(),
            exits: vcpus.iter().fold(ExitCounts::default(), |sum, one| add_counts(sum, one.exits)),
            time,
            reasons,
            addresses,
            kicks: all.kicks,
            vcpus,
            devices: self.devices(span),
            services: self.services(),
            output: OutputReport {
                writes: self.output.time.samples(),
                bytes: self.output.bytes,
                time: times(&self.output.time),
            },
            queue: self.queue(span),
            interrupts: self.interrupts(),
            completed: self.completed(),
            markers: self.markers(),
            recording: self.recording(),
            notes_left_out: self.notes.left_out,
            totals: self.totals(),
            rips,
            symbols,
            kernel: self.kernel.as_ref().map(kernel),
        }
    }

    fn trace(&self) -> Option<TraceReport> {
        let info = self.info.as_ref()?;
        Some(TraceReport {
            guest: info.guest.clone(),
            vcpus: info.vcpus,
            filter: info.filter.clone(),
            epoch_unix_ns: info.epoch_unix_ns,
            complete: self.complete,
            cut: self.cut,
        })
    }

    fn vcpus(&self) -> impl Iterator<Item = (String, &VcpuStats)> {
        let rows = self.vcpus.iter().enumerate();
        rows.filter_map(|(id, stats)| {
            let name = if id < MAX_VCPUS { format!("vcpu{id}") } else { OTHERS.to_owned() };
            Some((name, stats.as_deref()?))
        })
    }

    fn threads(&self) -> impl Iterator<Item = (String, &ThreadStats)> {
        let others = [(Source::Devices, &self.devices), (Source::Supervisor, &self.supervisor)];
        let others = others.map(|(source, thread)| (source.to_string(), thread));
        self.vcpus().map(|(name, stats)| (name, &stats.thread)).chain(others)
    }

    fn span(&self) -> Span {
        self.threads().fold(Span::default(), |mut span, (_, thread)| {
            span.merge(thread.span);
            span
        })
    }

    fn devices(&self, span: Span) -> DevicesReport {
        let served = self.devices.served.as_ref();
        let serving_ns = served.map_or(0, |served| served.service.total());
        let (wall_ns, output_ns) = (span.length(), self.output.time.total());
        let idle_ns = wall_ns.saturating_sub(serving_ns).saturating_sub(output_ns);
        DevicesReport { wall_ns, serving_ns, output_ns, idle_ns }
    }

    fn services(&self) -> Vec<ServiceReport> {
        let served = self.threads().filter_map(|(by, thread)| Some((by, thread.served.as_ref()?)));
        let report = served.map(|(by, served)| ServiceReport {
            by,
            count: served.service.samples(),
            wait: times(&served.wait),
            service: times(&served.service),
        });
        report.collect()
    }

    /// The mean depth is exact whatever the order of the records: each access is one for as long
    /// as it waits.
    fn queue(&self, span: Span) -> QueueReport {
        let served = self.threads().filter_map(|(_, thread)| thread.served.as_ref());
        let waited = served.fold(0u64, |sum, served| sum.saturating_add(served.wait.total()));
        let known = self.queue.map(|queue| queue.max_depth);
        QueueReport {
            mean_depth: share(waited, span.length()),
            max_depth: known.or_else(|| self.depth.as_ref().map(|depth| depth.max())),
            helps: self.queue.map(|queue| queue.helps),
            wakes: self.queue.map(|queue| queue.wakes),
        }
    }

    fn interrupts(&self) -> Vec<InterruptReport> {
        let lines = self.lines.lines.iter().map(|(irq, line)| (Some(irq), *line));
        let others = self.lines.others;
        let has_others = others.raised > 0 || others.lowered > 0;
        let mut lines: Vec<_> = lines
            .chain(has_others.then_some((None, others)))
            .map(|(irq, line)| InterruptReport { irq, raised: line.raised, lowered: line.lowered })
            .collect();
        lines.sort_by_key(|line| (line.irq.is_none(), line.irq));
        lines
    }

    fn completed(&self) -> Vec<CompletedReport> {
        let row = |(mnemonic, count)| CompletedReport { mnemonic, count };
        let counts = &self.completed.counts;
        let kept = counts.iter().map(|(mnemonic, count)| (mnemonic.to_string(), *count));
        let mut rows: Vec<_> = kept.map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        let others = self.completed.others;
        rows.extend((others > 0).then(|| row((OTHERS.to_owned(), others))));
        rows
    }

    fn markers(&self) -> Vec<MarkerReport> {
        let marker = |&(time_ns, source, note): &(u64, Source, Note)| match note {
            Note::Marker(name) => {
                Some(MarkerReport { time_ns, source: source.to_string(), name: name.to_string() })
            }
            Note::Recording(_) => None,
        };
        let mut markers: Vec<_> = self.notes.kept.iter().filter_map(marker).collect();
        markers.sort_by_key(|marker| marker.time_ns);
        markers
    }

    fn recording(&self) -> Vec<RecordingReport> {
        let switch = |&(time_ns, source, note): &(u64, Source, Note)| match note {
            Note::Recording(on) => {
                Some(RecordingReport { time_ns, source: source.to_string(), on })
            }
            Note::Marker(_) => None,
        };
        let mut switches: Vec<_> = self.notes.kept.iter().filter_map(switch).collect();
        switches.sort_by_key(|switch| switch.time_ns);
        switches
    }

    fn totals(&self) -> Vec<TotalsReport> {
        let totals = self.threads().filter_map(|(source, thread)| Some((source, thread.totals?)));
        let report = totals.map(|(source, totals)| TotalsReport {
            source,
            seen: totals.seen,
            kept: totals.kept,
            filtered: totals.filtered,
            dropped: totals.dropped,
        });
        report.collect()
    }

    fn rips(
        &self,
        mut symbolize: impl FnMut(u64) -> Option<String>,
    ) -> (Vec<RipReport>, Vec<SymbolReport>) {
        let mut functions = BTreeMap::<String, RipStats>::new();
        let mut rows: Vec<_> = Vec::new();
        let mut any_name = false;
        let kept = self.rips.kept.iter().map(|(rip, stats)| (Some(*rip), *stats));
        let others = (self.rips.others.exits > 0).then_some((None, self.rips.others));
        for (rip, stats) in kept.chain(others) {
            let symbol = rip.and_then(&mut symbolize);
            any_name |= symbol.is_some();
            let function = symbol.as_deref().map_or("?", function_of);
            functions.entry(function.to_owned()).or_default().merge(stats);
            rows.push(RipReport {
                rip: rip.map_or_else(|| OTHERS.to_owned(), |rip| format!("{rip:#x}")),
                symbol,
                count: stats.exits,
                handling_ns: stats.handling,
                guest_ns: stats.guest,
            });
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        let mut symbols: Vec<_> = functions
            .into_iter()
            .filter(|_| any_name)
            .map(|(symbol, stats)| SymbolReport {
                symbol,
                count: stats.exits,
                handling_ns: stats.handling,
                guest_ns: stats.guest,
            })
            .collect();
        symbols.sort_by_key(|row| std::cmp::Reverse(row.count));
        (rows, symbols)
    }
}

/// The function in a name such as `main+0x12 (main.c:7)`.
fn function_of(name: &str) -> &str {
    name.rsplit_once("+0x").map_or(name, |(function, _)| function)
}

/// How much of `whole` is `part`; 0 if there is no whole.
pub fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with a few digits")]
    let quotient = part as f64 / whole as f64;
    if whole == 0 { 0.0 } else { quotient }
}

fn kernel(stats: &KernelStats) -> KernelReport {
    let map = |counters: &Vec<(String, u64)>| counters.iter().cloned().collect();
    KernelReport { vm: map(&stats.vm), vcpus: stats.vcpus.iter().map(map).collect() }
}

fn add_time(sum: TimeReport, more: TimeReport) -> TimeReport {
    TimeReport {
        wall_ns: sum.wall_ns.saturating_add(more.wall_ns),
        guest_ns: sum.guest_ns.saturating_add(more.guest_ns),
        handling_ns: sum.handling_ns.saturating_add(more.handling_ns),
        idle_ns: sum.idle_ns.zip(more.idle_ns).map(|(sum, more)| sum.saturating_add(more)),
    }
}

fn add_counts(sum: ExitCounts, more: ExitCounts) -> ExitCounts {
    ExitCounts {
        seen: sum.seen.saturating_add(more.seen),
        recorded: sum.recorded.saturating_add(more.recorded),
        filtered: sum.filtered.saturating_add(more.filtered),
        dropped: sum.dropped.saturating_add(more.dropped),
    }
}

fn vcpu_report(vcpu: String, stats: &VcpuStats) -> VcpuReport {
    let recorded = stats.exits();
    // Without totals nothing is known to be missing.
    let exits = match stats.thread.totals {
        Some(totals) => ExitCounts {
            seen: totals.seen,
            recorded,
            filtered: totals.filtered,
            dropped: totals.dropped,
        },
        None => ExitCounts { seen: recorded, recorded, ..ExitCounts::default() },
    };
    let time = time_of(stats, !exits.misses_some());
    let (reasons, addresses) = rows(stats, time.wall_ns);
    VcpuReport { vcpu, exits, time, kicks: stats.kicks, reasons, addresses }
}

/// Where the time of a vCPU went; `complete` if all of its exits were recorded.
fn time_of(stats: &VcpuStats, complete: bool) -> TimeReport {
    let sum = |of: fn(&ExitTimes) -> &Distribution| {
        let parts = stats.reasons().flat_map(|(_, reason)| reason.parts());
        parts.fold(0, |sum: u64, times| sum.saturating_add(of(times).total()))
    };
    let wall_ns = stats.thread.span.length();
    let (guest_ns, handling_ns) = (sum(|times| &times.guest), sum(|times| &times.handling));
    let rest = wall_ns.saturating_sub(guest_ns).saturating_sub(handling_ns);
    let idle_ns = complete.then_some(rest);
    TimeReport { wall_ns, guest_ns, handling_ns, idle_ns }
}

/// The rows of the reasons and of the addresses.
fn rows(stats: &VcpuStats, wall: u64) -> (Vec<Row>, Vec<Row>) {
    let exits = stats.exits();
    let row = |reason: Reason, address: Option<String>, one: &ExitTimes| Row {
        reason: reason.name(),
        address,
        count: one.exits,
        count_share: share(one.exits, exits),
        handling_share: share(one.handling.total(), wall),
        guest_share: share(one.guest.total(), wall),
        handling: times(&one.handling),
        guest: times(&one.guest),
    };
    let mut by_address = Vec::new();
    for (reason, stats) in stats.reasons() {
        let addresses = stats.addresses.iter().map(|(address, one)| (Some(address), one));
        let others = stats.others.as_deref().map(|others| (None, others));
        by_address.extend(addresses.chain(others).map(|(address, one)| (reason, address, one)));
    }
    by_address.sort_by_key(|(reason, address, one)| {
        let most_first = std::cmp::Reverse((one.handling.total(), one.exits));
        (most_first, *reason, address.is_none(), *address)
    });
    let by_address = by_address.into_iter().map(|(reason, address, one)| {
        let address = address.map_or_else(|| OTHERS.to_owned(), |address| format!("{address:#x}"));
        row(reason, Some(address), one)
    });
    let by_reason = stats.reasons().map(|(reason, stats)| row(reason, None, &stats.all()));
    (by_reason.collect(), by_address.collect())
}

/// The figures of a distribution; none without samples.
fn times(of: &Distribution) -> Option<Times> {
    if of.samples() == 0 {
        return None;
    }
    let bins = (0u32..).zip(of.by_power_of_two()).filter(|(_, count)| *count > 0);
    let bin = |(power, count)| Bin {
        from_ns: if power == 0 { 0 } else { 1u64 << power },
        // The last one also has what is longer.
        below_ns: if power < LONGEST_NS.ilog2() { 2u64 << power } else { u64::MAX },
        count,
    };
    Some(Times {
        samples: of.samples(),
        total_ns: of.total(),
        min_ns: of.min(),
        mean_ns: of.mean(),
        p50_ns: of.quantile(0.5),
        p99_ns: of.quantile(0.99),
        p99_9_ns: of.quantile(0.999),
        max_ns: of.max(),
        histogram: bins.map(bin).collect(),
    })
}
