//! Numbers as text, without the cost of `format!`: a trace has some ten of them a record.

/// Appends `value` in decimal.
pub fn push_decimal(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends nanoseconds as microseconds with three decimals: exact, and never with an exponent.
pub fn push_micros(out: &mut Vec<u8>, nanoseconds: u64) {
    push_decimal(out, nanoseconds / 1000);
    out.push(b'.');
    let rest = nanoseconds % 1000;
    for place in [100, 10, 1] {
        out.push(DIGITS[index(rest / place % 10)]);
    }
}

/// Appends `value` as [`Hex`] shows it.
pub fn push_hex(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(Hex::new(value).as_str().as_bytes());
}

/// A number as `0x` and hexadecimal digits in lower case, without leading zeros.
#[derive(Debug)]
pub struct Hex {
    text: [u8; 18],
    start: usize,
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The lowest hexadecimal digit, as an index into `DIGITS`.
fn index(value: u64) -> usize {
    usize::from(value.to_le_bytes()[0] & 15)
}

impl Hex {
    /// The text of `value`.
    pub fn new(mut value: u64) -> Self {
        let mut text = [b'0'; 18];
        let mut start = text.len();
        loop {
            start -= 1;
            text[start] = DIGITS[index(value)];
            value >>= 4;
            if value == 0 {
                break;
            }
        }
        start -= 2;
        text[start + 1] = b'x';
        Self { text, start }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // It is ASCII, so the default never shows.
        str::from_utf8(&self.text[self.start..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_writes_them(
            value in any::<u64>(),
            shift in 0..64u32,
        ) {
            let value = value >> shift;
            let mut out = Vec::new();
            push_decimal(&mut out, value);
            out.push(b' ');
            push_micros(&mut out, value);
            out.push(b' ');
            push_hex(&mut out, value);
            let expected = format!("{value} {}.{:03} {value:#x}", value / 1000, value % 1000);
            prop_assert_eq!(String::from_utf8(out), Ok(expected));
        }
    }
}
