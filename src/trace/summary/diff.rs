//! Two summaries side by side: what changed from A to B, the largest change of time first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Serialize;

use crate::trace::summary::layout::{Grid, duration, maybe, number, or_dash};
use crate::trace::summary::make::share;
use crate::trace::summary::report::{Report, Row, TimeReport, Times};

/// How many rows of addresses the text has.
const ADDRESS_ROWS: usize = 40;

/// What changed from a summary A to a summary B, of all vCPUs. Its `Display` is a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// `minivmm-diff`.
    pub format: &'static str,
    /// The version of these names.
    pub version: u32,
    /// From the first record to the end of the last, in A.
    pub a_span_ns: u64,
    /// The same in B.
    pub b_span_ns: u64,
    /// Where the vCPUs' time went in A.
    pub a_time: TimeReport,
    /// The same in B.
    pub b_time: TimeReport,
    /// By reason.
    pub reasons: Vec<DiffRow>,
    /// By reason and address.
    pub addresses: Vec<DiffRow>,
}

/// A reason, or an address, in both. All times are of the handling.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiffRow {
    /// The reason.
    pub reason: &'static str,
    /// The port, or the beginning of the page, in hexadecimal; `others` for what has no row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Exits in A.
    pub a_count: u64,
    /// Exits in B.
    pub b_count: u64,
    /// How many more in B.
    pub count_delta: i64,
    /// The sum in A.
    pub a_total_ns: u64,
    /// The sum in B.
    pub b_total_ns: u64,
    /// How much more in B.
    pub total_delta_ns: i64,
    /// The mean in A.
    pub a_mean_ns: Option<u64>,
    /// The mean in B.
    pub b_mean_ns: Option<u64>,
    /// The mean of B by that of A; none without both.
    pub mean_ratio: Option<f64>,
    /// What 99 % do not exceed in A.
    pub a_p99_ns: Option<u64>,
    /// The same in B.
    pub b_p99_ns: Option<u64>,
    /// That of B by that of A; none without both.
    pub p99_ratio: Option<f64>,
}

impl Diff {
    /// What changed from one report to another.
    pub fn of(a: &Report, b: &Report) -> Self {
        Self {
            format: "minivmm-diff",
            version: 1,
            a_span_ns: a.span_ns,
            b_span_ns: b.span_ns,
            a_time: a.time,
            b_time: b.time,
            reasons: pairs(&a.reasons, &b.reasons),
            addresses: pairs(&a.addresses, &b.addresses),
        }
    }

    /// Writes it as one JSON object, on lines for people to read.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write_json(&self, mut out: impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }
}

fn pairs(a: &[Row], b: &[Row]) -> Vec<DiffRow> {
    let mut pairs = BTreeMap::<_, (Option<&Row>, Option<&Row>)>::new();
    for row in a {
        pairs.entry((row.reason, &row.address)).or_default().0 = Some(row);
    }
    for row in b {
        pairs.entry((row.reason, &row.address)).or_default().1 = Some(row);
    }
    let row = |((reason, address), (a, b)): ((&'static str, &Option<String>), _)| {
        diff_row(reason, address.clone(), a, b)
    };
    let mut rows: Vec<_> = pairs.into_iter().map(row).collect();
    rows.sort_by_key(|row| {
        Reverse((row.total_delta_ns.unsigned_abs(), row.count_delta.unsigned_abs()))
    });
    rows
}

fn diff_row(
    reason: &'static str,
    address: Option<String>,
    a: Option<&Row>,
    b: Option<&Row>,
) -> DiffRow {
    let count = |row: Option<&Row>| row.map_or(0, |row| row.count);
    let times = |row: Option<&Row>, of: fn(&Times) -> u64| row?.handling.as_ref().map(of);
    let total = |row| times(row, |times| times.total_ns).unwrap_or(0);
    let mean = |row| times(row, |times| times.mean_ns);
    let p99 = |row| times(row, |times| times.p99_ns);
    DiffRow {
        reason,
        address,
        a_count: count(a),
        b_count: count(b),
        count_delta: delta(count(a), count(b)),
        a_total_ns: total(a),
        b_total_ns: total(b),
        total_delta_ns: delta(total(a), total(b)),
        a_mean_ns: mean(a),
        b_mean_ns: mean(b),
        mean_ratio: ratio(mean(a), mean(b)),
        a_p99_ns: p99(a),
        b_p99_ns: p99(b),
        p99_ratio: ratio(p99(a), p99(b)),
    }
}

fn delta(a: u64, b: u64) -> i64 {
    let difference = i128::from(b) - i128::from(a);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

fn ratio(a: Option<u64>, b: Option<u64>) -> Option<f64> {
    a.zip(b).filter(|(a, _)| *a > 0).map(|(a, b)| share(b, a))
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Time of all vCPUs")?;
        let mut grid = Grid::new(1, ["", "A", "B", "DELTA", "B/A"]);
        let times = [
            ("span", Some(self.a_span_ns), Some(self.b_span_ns)),
            ("wall", Some(self.a_time.wall_ns), Some(self.b_time.wall_ns)),
            ("guest", Some(self.a_time.guest_ns), Some(self.b_time.guest_ns)),
            ("handling", Some(self.a_time.handling_ns), Some(self.b_time.handling_ns)),
            ("idle", self.a_time.idle_ns, self.b_time.idle_ns),
        ];
        for (name, a, b) in times {
            let change = a.zip(b).map(|(a, b)| signed(delta(a, b), duration));
            let cells = [maybe(a), maybe(b), or_dash(change), show_ratio(ratio(a, b))];
            grid.row([vec![name.to_owned()], cells.to_vec()].concat());
        }
        write!(f, "{grid}")?;
        writeln!(f, "\nHandling by reason, the largest change first")?;
        write!(f, "{}", grid_of(&self.reasons))?;
        let (shown, left_out) = self.addresses.split_at(ADDRESS_ROWS.min(self.addresses.len()));
        if !shown.is_empty() {
            writeln!(f, "\nHandling by port and page, the largest change first")?;
            write!(f, "{}", grid_of(shown))?;
        }
        if !left_out.is_empty() {
            writeln!(f, "  and {} more", left_out.len())?;
        }
        Ok(())
    }
}

fn grid_of(rows: &[DiffRow]) -> Grid {
    let has_address = rows.iter().any(|row| row.address.is_some());
    let mut grid = Grid::new(1 + usize::from(has_address), ["REASON"]);
    let figures = ["COUNT A", "COUNT B", "DELTA", "TOTAL DELTA", "MEAN A", "MEAN B", "B/A"];
    let heading = has_address.then_some("ADDRESS").into_iter().chain(figures);
    heading.chain(["P99 A", "P99 B", "B/A"]).for_each(|name| grid.column(name.to_owned()));
    for row in rows {
        let mut cells = vec![row.reason.to_owned()];
        cells.extend(has_address.then(|| row.address.clone().unwrap_or_default()));
        cells.extend([
            number(row.a_count),
            number(row.b_count),
            signed(row.count_delta, number),
            signed(row.total_delta_ns, duration),
            maybe(row.a_mean_ns),
            maybe(row.b_mean_ns),
            show_ratio(row.mean_ratio),
            maybe(row.a_p99_ns),
            maybe(row.b_p99_ns),
            show_ratio(row.p99_ratio),
        ]);
        grid.row(cells);
    }
    grid
}

fn signed(value: i64, show: fn(u64) -> String) -> String {
    let sign = match value {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", show(value.unsigned_abs()))
}

fn show_ratio(ratio: Option<f64>) -> String {
    or_dash(ratio.map(|ratio| format!("{ratio:.2}")))
}
