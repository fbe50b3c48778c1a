//! Text for people: durations in a fitting unit, shares, tables, bars.

use std::fmt;

/// The most characters of a bar.
const BAR: u64 = 20;

/// A duration with three significant digits, in ns, us, ms or s.
pub fn duration(nanoseconds: u64) -> String {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    // The first unit of which there are less than a thousand, after rounding.
    let rounded = |unit: u64| nanoseconds.saturating_add(unit / 2) / unit;
    let fits = |(_, unit): &(&str, u64)| rounded(*unit) < 1000;
    let (name, unit) = units.into_iter().find(fits).unwrap_or(("s", 1_000_000_000));
    let whole = nanoseconds / unit;
    if unit == 1 || whole >= 100 {
        return format!("{} {name}", rounded(unit));
    }
    let digits = if whole >= 10 { 10 } else { 100 };
    let scaled = rounded(unit / digits);
    let (whole, part) = (scaled / digits, scaled % digits);
    match digits {
        10 => format!("{whole}.{part} {name}"),
        // Rounding up can make it ten, which has one digit fewer.
        _ if whole >= 10 => format!("{whole}.0 {name}"),
        _ => format!("{whole}.{part:02} {name}"),
    }
}

/// A duration, if it is known.
pub fn maybe(nanoseconds: Option<u64>) -> String {
    or_dash(nanoseconds.map(duration))
}

/// What is shown of something that may not be known.
pub fn or_dash(shown: Option<String>) -> String {
    shown.unwrap_or_else(|| "-".to_owned())
}

/// A moment, to the nanosecond.
pub fn moment(nanoseconds: u64) -> String {
    format!("{}.{:09} s", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A number with a comma every three digits.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bar as long as `value` is of `most`; anything but nothing is at least one character.
pub fn bar(value: u64, most: u64) -> String {
    let length = u128::from(value) * u128::from(BAR) / u128::from(most.max(1));
    let length = usize::try_from(length).unwrap_or(0).max(usize::from(value > 0));
    "#".repeat(length)
}

/// A table: a heading line, then rows. Columns are as wide as they must be; names are to the
/// left, figures to the right.
#[derive(Clone, Debug)]
pub struct Grid {
    heading: Vec<String>,
    /// How many columns from the left are names.
    names: usize,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// An empty table, the first `names` columns of which are names.
    pub fn new<const N: usize>(names: usize, heading: [&str; N]) -> Self {
        Self { heading: heading.map(str::to_owned).to_vec(), names, rows: Vec::new() }
    }

    /// Adds a column to the heading.
    pub fn column(&mut self, name: String) {
        self.heading.push(name);
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.heading.len()];
        for row in std::iter::once(&self.heading).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in std::iter::once(&self.heading).chain(&self.rows) {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let width = *width;
                line += "  ";
                line += &if index < self.names {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_three_digits() {
        let shown = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (1_234, "1.23 us"),
            (9_995, "10.0 us"),
            (12_345, "12.3 us"),
            (99_960, "100.0 us"),
            (123_456, "123 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (68_700_000_000, "68.7 s"),
            (4_000_000_000_000, "4000 s"),
        ];
        for (nanoseconds, text) in shown {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    proptest! {
        #[test]
        fn any_duration_is_shown(nanoseconds: u64) {
            prop_assert!(duration(nanoseconds).len() >= 4);
        }
    }

    #[test]
    fn numbers_shares_and_bars() {
        assert_eq!([0, 12, 1234, 1_234_567].map(number), ["0", "12", "1,234", "1,234,567"]);
        assert_eq!(percent(0.1234), "12.3%");
        assert_eq!(moment(12_000_000_345), "12.000000345 s");
        assert_eq!([bar(0, 9), bar(1, 1000), bar(5, 10)], ["", "#", "##########"]);
        assert_eq!(bar(u64::MAX, u64::MAX).len(), 20);
        assert_eq!(bar(1, 0).len(), 20);
    }

    #[test]
    fn tables_are_aligned() {
        let mut grid = Grid::new(1, ["NAME", "N"]);
        grid.row(vec!["a".into(), "100".into()]);
        assert_eq!(grid.to_string(), "  NAME    N\n  a     100\n");
    }
}
