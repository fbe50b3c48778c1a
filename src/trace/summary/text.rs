//! A summary as text for people: tables, and bars for the histograms.

use std::fmt;

use crate::trace::summary::layout::{Grid, bar, duration, maybe, moment, number, or_dash, percent};
use crate::trace::summary::make::share;
use crate::trace::summary::report::{
    Bin, ExitCounts, KernelReport, Report, Row, TimeReport, Times, TraceReport,
};

/// How many vCPUs have a column of their own among KVM's counters.
const MAX_KERNEL_COLUMNS: usize = 8;

/// What the text of a report has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextOptions {
    /// Each vCPU's exits, besides those of all.
    pub per_vcpu: bool,
    /// Histograms.
    pub histograms: bool,
    /// The most rows of addresses, functions, markers and the like in one table.
    pub rows: usize,
}

impl Default for TextOptions {
    /// Everything, with twenty rows.
    fn default() -> Self {
        Self { per_vcpu: true, histograms: true, rows: 20 }
    }
}

/// A report's text: see [`Report::text`].
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    report: &'a Report,
    options: TextOptions,
}

impl Report {
    /// The report as text.
    pub fn text(&self, options: TextOptions) -> Text<'_> {
        Text { report: self, options }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, options } = *self;
        self.head(f)?;
        self.vcpus(f)?;
        self.devices(f)?;
        let reasons: Vec<_> = report.reasons.iter().map(|row| ("", row)).collect();
        self.exits(f, "Exits by reason", &reasons, false)?;
        let addresses: Vec<_> = report.addresses.iter().map(|row| ("", row)).collect();
        self.exits(f, "Exits by port and page", &addresses, true)?;
        if options.per_vcpu && report.vcpus.len() > 1 {
            let of = |rows: fn(&super::VcpuReport) -> &Vec<Row>| -> Vec<_> {
                let vcpus = report.vcpus.iter();
                vcpus.flat_map(|v| rows(v).iter().map(|row| (v.vcpu.as_str(), row))).collect()
            };
            self.exits(f, "Exits by vCPU and reason", &of(|vcpu| &vcpu.reasons), false)?;
            self.exits(f, "Exits by vCPU, port and page", &of(|vcpu| &vcpu.addresses), true)?;
        }
        if options.histograms {
            self.histograms(f)?;
        }
        self.services(f)?;
        self.timeline(f)?;
        self.code(f)?;
        report.kernel.iter().try_for_each(|kernel| self.kernel(f, kernel))
    }
}

impl Text<'_> {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        if let Some(TraceReport { guest, vcpus, filter, cut, .. }) = &report.trace {
            // Whatever is in a file, it is not for the terminal to act on.
            writeln!(f, "Guest {}, vCPUs: {vcpus}", guest.escape_debug())?;
            if !filter.is_empty() {
                writeln!(f, "Filter: {}", filter.escape_debug())?;
            }
            if let Some(cut) = cut {
                writeln!(f, "The trace was {cut}: what came then is missing.")?;
            }
        }
        let exits = report.exits;
        let (seen, span) = (number(exits.seen), duration(report.span_ns));
        writeln!(f, "{seen} exits in {span}, and {} kicks", number(report.kicks))?;
        let missing = [(exits.filtered, "left out"), (exits.dropped, "lost")];
        for (count, what) in missing.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "{} were {what}", number(count))?;
        }
        if exits.seen != exits.recorded {
            let recorded = number(exits.recorded);
            writeln!(f, "All that follows is of the {recorded} exits that were recorded.")?;
        }
        Ok(())
    }

    fn vcpus(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        writeln!(f, "\nTime of each vCPU")?;
        let mut grid = Grid::new(1, ["VCPU", "EXITS"]);
        let missing = report.exits.misses_some().then_some(["LEFT OUT", "LOST"]);
        let parts = ["KICKS", "WALL", "GUEST", "%", "HANDLING", "%", "IDLE", "%"];
        let heading = missing.into_iter().flatten().chain(parts);
        heading.for_each(|name| grid.column(name.to_owned()));
        let mut row = |name: &str, exits: ExitCounts, kicks: u64, time: TimeReport| {
            let mut cells = vec![name.to_owned(), number(exits.seen)];
            if missing.is_some() {
                cells.extend([number(exits.filtered), number(exits.dropped)]);
            }
            cells.extend([number(kicks), duration(time.wall_ns)]);
            for part in [Some(time.guest_ns), Some(time.handling_ns), time.idle_ns] {
                let share = part.map(|part| percent(share(part, time.wall_ns)));
                cells.extend([maybe(part), or_dash(share)]);
            }
            grid.row(cells);
        };
        for vcpu in &report.vcpus {
            row(&vcpu.vcpu, vcpu.exits, vcpu.kicks, vcpu.time);
        }
        if report.vcpus.len() > 1 {
            row("all", report.exits, report.kicks, report.time);
        }
        write!(f, "{grid}")
    }

    fn devices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nTime of the device thread")?;
        let devices = self.report.devices;
        let mut grid = Grid::new(0, ["WALL", "SERVING", "%", "OUTPUT", "%", "IDLE", "%"]);
        let mut cells = vec![duration(devices.wall_ns)];
        for part in [devices.serving_ns, devices.output_ns, devices.idle_ns] {
            cells.extend([duration(part), percent(share(part, devices.wall_ns))]);
        }
        grid.row(cells);
        write!(f, "{grid}")
    }

    /// Two tables of the same rows: their handling, and the guest's time before them. Each row
    /// has the name of its vCPU, or none.
    fn exits(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        rows: &[(&str, &Row)],
        limited: bool,
    ) -> fmt::Result {
        let shown = if limited { self.options.rows.min(rows.len()) } else { rows.len() };
        let (shown, left_out) = rows.split_at(shown);
        if shown.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{title}: handling")?;
        write!(f, "{}", exit_grid(shown, |row| (&row.handling, row.handling_share)))?;
        more(f, left_out.len())?;
        writeln!(f, "\n{title}: in the guest before")?;
        write!(f, "{}", exit_grid(shown, |row| (&row.guest, row.guest_share)))?;
        more(f, left_out.len())
    }

    fn histograms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.report.reasons {
            let bins = |times: &Option<Times>| match times {
                Some(times) => times.histogram.clone(),
                None => Vec::new(),
            };
            let (handling, guest) = (bins(&row.handling), bins(&row.guest));
            writeln!(f, "\nHistogram of {}", row.reason)?;
            write!(f, "{}", histogram(&handling, &guest))?;
        }
        Ok(())
    }

    fn services(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        if !report.services.is_empty() {
            writeln!(f, "\nPosted accesses, by who served them: wait in the channel")?;
            let rows = report.services.iter();
            write!(
                f,
                "{}",
                times_grid("BY", rows.clone().map(|row| (row.by.as_str(), &row.wait)))
            )?;
            writeln!(f, "\nPosted accesses, by who served them: service")?;
            write!(f, "{}", times_grid("BY", rows.map(|row| (row.by.as_str(), &row.service))))?;
        }
        let queue = report.queue;
        write!(f, "\nChannel: mean depth {:.3}", queue.mean_depth)?;
        let known =
            [("max depth", queue.max_depth), ("helps", queue.helps), ("wakes", queue.wakes)];
        for (name, value) in known.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(f, ", {name} {}", number(value))?;
        }
        writeln!(f)?;
        let output = &report.output;
        let (writes, bytes) = (number(output.writes), number(output.bytes));
        writeln!(f, "\nOutput to the host: {writes} writes, {bytes} bytes")?;
        if output.time.is_some() {
            write!(f, "{}", times_grid("", [("write", &output.time)]))?;
        }
        Ok(())
    }

    fn timeline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, rows) = (self.report, self.options.rows);
        if !report.interrupts.is_empty() {
            writeln!(f, "\nInterrupt lines")?;
            let mut grid = Grid::new(1, ["LINE", "RAISED", "LOWERED"]);
            for line in report.interrupts.iter().take(rows) {
                let irq = line.irq.map_or_else(|| "others".to_owned(), |irq| irq.to_string());
                grid.row(vec![irq, number(line.raised), number(line.lowered)]);
            }
            write!(f, "{grid}")?;
            more(f, report.interrupts.len().saturating_sub(rows))?;
        }
        self.completed(f)?;
        let markers = report.markers.iter().map(|m| (m.time_ns, &m.source, m.name.as_str()));
        let switches = report.recording.iter().map(|switch| {
            let what = if switch.on { "recording on" } else { "recording off" };
            (switch.time_ns, &switch.source, what)
        });
        let mut notes: Vec<_> = markers.chain(switches).collect();
        notes.sort_by_key(|(time, ..)| *time);
        if notes.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nMarkers and switches")?;
        let mut grid = Grid::new(3, ["TIME", "BY", "WHAT"]);
        for (time, source, what) in notes.iter().take(rows) {
            grid.row(vec![moment(*time), (*source).clone(), (*what).to_owned()]);
        }
        write!(f, "{grid}")?;
        let left_out = usize::try_from(report.notes_left_out).unwrap_or(usize::MAX);
        more(f, notes.len().saturating_sub(rows).saturating_add(left_out))
    }

    fn completed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (completed, rows) = (&self.report.completed, self.options.rows);
        if completed.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nInstructions completed for KVM")?;
        let mut grid = Grid::new(1, ["MNEMONIC", "COUNT"]);
        for row in completed.iter().take(rows) {
            grid.row(vec![row.mnemonic.clone(), number(row.count)]);
        }
        write!(f, "{grid}")?;
        more(f, completed.len().saturating_sub(rows))
    }

    fn code(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (report, rows) = (self.report, self.options.rows);
        if !report.symbols.is_empty() {
            writeln!(f, "\nExits by function")?;
            let mut grid = Grid::new(1, ["FUNCTION", "COUNT", "HANDLING", "GUEST"]);
            for row in report.symbols.iter().take(rows) {
                let times = [duration(row.handling_ns), duration(row.guest_ns)];
                grid.row([vec![row.symbol.clone(), number(row.count)], times.to_vec()].concat());
            }
            write!(f, "{grid}")?;
            more(f, report.symbols.len().saturating_sub(rows))?;
        }
        if report.rips.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nExits by RIP")?;
        let mut grid = Grid::new(2, ["RIP", "CODE", "COUNT", "HANDLING", "GUEST"]);
        for row in report.rips.iter().take(rows) {
            let code = row.symbol.clone().unwrap_or_default();
            let times = [duration(row.handling_ns), duration(row.guest_ns)];
            grid.row([vec![row.rip.clone(), code, number(row.count)], times.to_vec()].concat());
        }
        write!(f, "{grid}")?;
        more(f, report.rips.len().saturating_sub(rows))
    }

    fn kernel(&self, f: &mut fmt::Formatter<'_>, kernel: &KernelReport) -> fmt::Result {
        writeln!(f, "\nKVM's own counters, which include exits that KVM handles itself")?;
        let columns = if kernel.vcpus.len() <= MAX_KERNEL_COLUMNS { kernel.vcpus.len() } else { 0 };
        let mut grid = Grid::new(1, ["COUNTER", "TOTAL"]);
        (0..columns).for_each(|id| grid.column(format!("VCPU{id}")));
        let mut names: Vec<_> = kernel.vcpus.iter().flat_map(|counters| counters.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let of = |id: usize| kernel.vcpus.get(id).and_then(|c| c.get(name)).copied();
            let values = (0..kernel.vcpus.len()).filter_map(of);
            let mut cells = vec![name.clone(), number(values.fold(0, u64::saturating_add))];
            cells.extend((0..columns).map(|id| number(of(id).unwrap_or(0))));
            grid.row(cells);
        }
        for (name, value) in &kernel.vm {
            grid.row(vec![format!("{name} (VM)"), number(*value)]);
        }
        write!(f, "{grid}")
    }
}

fn more(f: &mut fmt::Formatter<'_>, left_out: usize) -> fmt::Result {
    if left_out > 0 { writeln!(f, "  and {left_out} more") } else { Ok(()) }
}

/// The cells of a distribution, and the heading above them.
const TIMES: [&str; 7] = ["TOTAL", "MIN", "MEAN", "P50", "P99", "P99.9", "MAX"];

fn times_cells(times: &Option<Times>) -> Vec<String> {
    let Some(times) = times else { return vec!["-".to_owned(); TIMES.len()] };
    let Times { total_ns, min_ns, mean_ns, p50_ns, p99_ns, p99_9_ns, max_ns, .. } = *times;
    [total_ns, min_ns, mean_ns, p50_ns, p99_ns, p99_9_ns, max_ns].map(duration).to_vec()
}

fn times_grid<'a>(
    heading: &str,
    rows: impl IntoIterator<Item = (&'a str, &'a Option<Times>)>,
) -> Grid {
    let mut grid = Grid::new(1, [heading, "COUNT"]);
    TIMES.into_iter().for_each(|name| grid.column(name.to_owned()));
    for (name, times) in rows {
        let count = times.as_ref().map_or(0, |times| times.samples);
        grid.row([vec![name.to_owned(), number(count)], times_cells(times)].concat());
    }
    grid
}

fn exit_grid(rows: &[(&str, &Row)], times: fn(&Row) -> (&Option<Times>, f64)) -> Grid {
    let has_vcpu = rows.iter().any(|(vcpu, _)| !vcpu.is_empty());
    let has_address = rows.iter().any(|(_, row)| row.address.is_some());
    let names = [(has_vcpu, "VCPU"), (true, "REASON"), (has_address, "ADDRESS")];
    let names: Vec<_> = names.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    let mut grid = Grid::new(names.len(), []);
    let heading = names.into_iter().chain(["COUNT", "%", "TIME%"]).chain(TIMES);
    heading.for_each(|name| grid.column(name.to_owned()));
    for (vcpu, row) in rows {
        let (times, time_share) = times(row);
        let mut cells = Vec::new();
        cells.extend(has_vcpu.then(|| (*vcpu).to_owned()));
        cells.push(row.reason.to_owned());
        cells.extend(has_address.then(|| row.address.clone().unwrap_or_default()));
        cells.extend([number(row.count), percent(row.count_share), percent(time_share)]);
        cells.extend(times_cells(times));
        grid.row(cells);
    }
    grid
}

/// Two histograms side by side, from the lowest power of two of both to the highest.
fn histogram(handling: &[Bin], guest: &[Bin]) -> Grid {
    let mut grid = Grid::new(1, ["FROM", "HANDLING"]);
    // Bars have all the same width, so that they begin below each other.
    grid.column(format!("{:20}", ""));
    grid.column("GUEST".to_owned());
    grid.column(format!("{:20}", ""));
    let mut starts: Vec<_> = handling.iter().chain(guest).map(|bin| bin.from_ns).collect();
    starts.sort_unstable();
    let (Some(first), Some(last)) = (starts.first(), starts.last()) else { return grid };
    let most = |bins: &[Bin]| bins.iter().map(|bin| bin.count).max().unwrap_or(0);
    let tops = [most(handling), most(guest)];
    let mut start = *first;
    while start <= *last {
        let mut cells = vec![duration(start)];
        for (bins, top) in [handling, guest].into_iter().zip(tops) {
            let found = bins.iter().find(|bin| bin.from_ns == start);
            let count = found.map_or(0, |bin| bin.count);
            cells.extend([number(count), format!("{:20}", bar(count, top))]);
        }
        grid.row(cells);
        start = if start == 0 { 2 } else { start.saturating_mul(2) };
    }
    grid
}
