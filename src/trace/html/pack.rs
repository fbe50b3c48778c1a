//! How a page carries a trace: as columns, each the values of one field for many records, which
//! are small next to each other and compress well. `page/unpack.js` is the other side.
//!
//! A column is written as its name, its kind, the number of its values, the number of its bytes,
//! and the bytes. A name that comes again continues its column. Numbers are varints: seven bits
//! a byte, the lowest first, the top bit set on all bytes but the last. Texts are their length in
//! bytes as a varint, and UTF-8.

use std::io::{self, Write};

/// The largest number of [`Kind::Wide`] and [`Kind::Delta`]. JavaScript's numbers are exact below
/// 2^53, and the difference of two of these fits with its sign. In nanoseconds it is 52 days.
pub const MOST: u64 = (1 << 52) - 1;

/// What a column holds, which decides how it is packed and what array the page makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers of at most 32 bits.
    Small = 0,
    /// Numbers of which those above [`MOST`] count as that.
    Wide = 1,
    /// The same, each as its difference to the one before it in this part of the column, the sign
    /// in the lowest bit: for what grows steadily.
    Delta = 2,
    /// Numbers of 64 bits, all exact. The page is slow with these.
    Exact = 3,
    /// Texts.
    Text = 4,
}

/// A column, or a part of one.
#[derive(Debug)]
pub struct Column {
    name: &'static str,
    kind: Kind,
    count: u64,
    /// The number before, for [`Kind::Delta`].
    last: u64,
    bytes: Vec<u8>,
}

impl Column {
    /// An empty one.
    pub fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, count: 0, last: 0, bytes: Vec::new() }
    }

    /// The number of its values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a number.
    pub fn push(&mut self, number: u64) {
        let number = match self.kind {
            Kind::Small => number.min(u64::from(u32::MAX)),
            Kind::Wide => number.min(MOST),
            Kind::Delta => {
                let number = number.min(MOST);
                let coded = if number >= self.last {
                    (number - self.last) << 1
                } else {
                    (self.last - number) << 1 | 1
                };
                self.last = number;
                coded
            }
            Kind::Exact | Kind::Text => number,
        };
        self.count += 1;
        put(&mut self.bytes, number);
    }

    /// Adds a text.
    pub fn push_text(&mut self, text: &str) {
        self.count += 1;
        put_text(&mut self.bytes, text);
    }

    /// Writes it; nothing if it is empty, since then the page needs no word of it.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let mut head = Vec::new();
        put_text(&mut head, self.name);
        put(&mut head, self.kind as u64);
        put(&mut head, self.count);
        put(&mut head, length(&self.bytes));
        out.write_all(&head)?;
        out.write_all(&self.bytes)
    }
}

fn length(bytes: &[u8]) -> u64 {
    // A length is below 2^63 on every machine that Rust knows.
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, length(text.as_bytes()));
    bytes.extend_from_slice(text.as_bytes());
}
