//! minivmm's own trace file (`.mvt`): a header, then blocks of records as they are in memory.
//!
//! ```text
//! header  8 bytes  89 'M' 'V' 'T' 0d 0a 1a 0a, which shows damage by text conversions too
//!         u32      version
//!         u32      length of the JSON text, in bytes
//!         u32      CRC-32 of the JSON text
//!         u32      CRC-32 of the 20 bytes before
//!         ...      a TraceInfo as JSON
//! block   4 bytes  'M' 'V' 'B' 'K'
//!         u32      number of records, 1 to 16384
//!         u32      CRC-32 of the records
//!         u32      CRC-32 of the 12 bytes before
//!         ...      the records, 64 bytes each
//! ```
//!
//! Numbers are little-endian. A block goes out in one write(2), so a writer that is killed leaves
//! whole blocks; a full disk may leave a part of one, whose whole records are still read.

use std::io::{self, BufRead, Read, Write};

use super::error::{Fault, TraceProblem, json_message};
use super::{Sink, TraceInfo, VERSION};
use crate::trace::record::{RECORD_LEN, Record};

/// How a file begins.
pub(super) const MAGIC: [u8; 8] = *b"\x89MVT\r\n\x1a\n";

const BLOCK_MAGIC: [u8; 4] = *b"MVBK";
const HEADER_LEN: usize = 24;
const BLOCK_HEADER_LEN: usize = 16;

/// The most records in a block, so that a reader needs no more than 1 MiB.
const MAX_RECORDS: usize = 16384;

/// The longest text in the header, in bytes: two paths, escaped, and room to spare.
const MAX_INFO: usize = 1 << 20;

/// Writes a binary trace.
pub(super) struct BinarySink {
    out: Box<dyn Write + Send>,
    block: Vec<u8>,
}

impl BinarySink {
    /// Writes the header.
    pub fn new(mut out: Box<dyn Write + Send>, info: &TraceInfo) -> io::Result<Self> {
        let text = serde_json::to_vec(info)?;
        let len = u32::try_from(text.len()).ok().filter(|_| text.len() <= MAX_INFO);
        let len = len.ok_or_else(|| io::Error::other("what is known of the trace is too long"))?;
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(len.to_le_bytes());
        header.extend(crc32fast::hash(&text).to_le_bytes());
        header.extend(crc32fast::hash(&header).to_le_bytes());
        header.extend(text);
        out.write_all(&header)?;
        Ok(Self { out, block: Vec::new() })
    }
}

impl Sink for BinarySink {
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        for records in records.chunks(MAX_RECORDS) {
            self.block.clear();
            self.block.resize(BLOCK_HEADER_LEN, 0);
            for record in records {
                self.block.extend_from_slice(&record.to_bytes());
            }
            let header = block_header(&self.block[BLOCK_HEADER_LEN..]);
            self.block[..BLOCK_HEADER_LEN].copy_from_slice(&header);
            self.out.write_all(&self.block)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The header of a block with these records.
fn block_header(records: &[u8]) -> [u8; BLOCK_HEADER_LEN] {
    // A sink cuts its records into blocks far below 2^32.
    let count = u32::try_from(records.len() / RECORD_LEN).unwrap_or(u32::MAX);
    let mut header = [0; BLOCK_HEADER_LEN];
    header[..4].copy_from_slice(&BLOCK_MAGIC);
    header[4..8].copy_from_slice(&count.to_le_bytes());
    header[8..12].copy_from_slice(&crc32fast::hash(records).to_le_bytes());
    let check = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&check.to_le_bytes());
    header
}

/// Reads the records of a binary trace, a block at a time.
pub(super) struct BinaryReader<R> {
    input: R,
    /// The records of the current block.
    block: Vec<u8>,
    /// How many bytes of the block have been read.
    taken: usize,
    /// Where the block's records begin in the file, in bytes.
    start: u64,
}

impl<R: BufRead> BinaryReader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<(Self, TraceInfo), Fault> {
        let mut header = Vec::new();
        read_up_to(&mut input, HEADER_LEN, &mut header).map_err(|error| Fault::new(error, 0))?;
        let Ok(header) = <[u8; HEADER_LEN]>::try_from(header.as_slice()) else {
            return Err(Fault::new(TraceProblem::CutHeader, header.len() as u64));
        };
        let [version, len, check, own_check] = [8, 12, 16, 20].map(|at| number(&header, at));
        if crc32fast::hash(&header[..20]) != own_check {
            return Err(Fault::new(TraceProblem::Checksum("header"), 0));
        }
        if version != VERSION {
            return Err(Fault::new(TraceProblem::UnknownVersion(version), 8));
        }
        let Some(text_len) = usize::try_from(len).ok().filter(|&len| len <= MAX_INFO) else {
            return Err(Fault::new(TraceProblem::HeaderLength(len), 12));
        };
        let start = HEADER_LEN as u64;
        let mut text = Vec::new();
        read_up_to(&mut input, text_len, &mut text).map_err(|error| Fault::new(error, start))?;
        let end = start + text.len() as u64;
        if text.len() < text_len {
            return Err(Fault::new(TraceProblem::CutHeader, end));
        }
        if crc32fast::hash(&text) != check {
            return Err(Fault::new(TraceProblem::Checksum("header"), start));
        }
        let info = serde_json::from_slice(&text)
            .map_err(|error| Fault::new(TraceProblem::Info(json_message(&error)), start))?;
        Ok((Self { input, block: Vec::new(), taken: 0, start: end }, info))
    }

    /// The next record; `None` at the end of the file, or of its last whole record.
    pub fn next(&mut self) -> Result<Option<Record>, Fault> {
        if self.taken == self.block.len() && !self.read_block()? {
            return Ok(None);
        }
        let Some(bytes) = self.block[self.taken..].first_chunk::<RECORD_LEN>() else {
            return Ok(None);
        };
        let Some(record) = Record::from_bytes(bytes) else {
            return Err(Fault::new(TraceProblem::NoRecord, self.offset()));
        };
        self.taken += RECORD_LEN;
        Ok(Some(record))
    }

    /// Where the last record that was read ends, in bytes from the beginning of the file.
    pub fn offset(&self) -> u64 {
        self.start + self.taken as u64
    }

    /// Whether nothing follows the last record that was read. Waits for what does, if it is a
    /// pipe.
    pub fn at_end(&mut self) -> Result<bool, Fault> {
        if self.taken < self.block.len() {
            return Ok(false);
        }
        let rest = self.input.fill_buf().map(<[u8]>::is_empty);
        rest.map_err(|error| Fault::new(error, self.offset()))
    }

    /// Reads the next block; false if there is none, or only a part of its header.
    fn read_block(&mut self) -> Result<bool, Fault> {
        self.start = self.offset();
        self.taken = 0;
        let start = self.start;
        let io_error = |error: io::Error| Fault::new(error, start);
        read_up_to(&mut self.input, BLOCK_HEADER_LEN, &mut self.block).map_err(io_error)?;
        let Ok(header) = <[u8; BLOCK_HEADER_LEN]>::try_from(self.block.as_slice()) else {
            self.block.clear();
            return Ok(false);
        };
        self.block.clear();
        if header[..4] != BLOCK_MAGIC {
            return Err(Fault::new(TraceProblem::NoBlock, start));
        }
        let [count, check, own_check] = [4, 8, 12].map(|at| number(&header, at));
        if crc32fast::hash(&header[..12]) != own_check {
            return Err(Fault::new(TraceProblem::Checksum("block's header"), start));
        }
        let records = usize::try_from(count).ok().filter(|count| (1..=MAX_RECORDS).contains(count));
        let Some(records) = records else {
            return Err(Fault::new(TraceProblem::BlockLength(count), start + 4));
        };
        self.start += BLOCK_HEADER_LEN as u64;
        let len = records * RECORD_LEN;
        read_up_to(&mut self.input, len, &mut self.block).map_err(io_error)?;
        if self.block.len() < len {
            // The file ends here, and the checksum is that of records which are not there.
            self.block.truncate(self.block.len() / RECORD_LEN * RECORD_LEN);
        } else if crc32fast::hash(&self.block) != check {
            let start = self.start;
            self.block.clear();
            return Err(Fault::new(TraceProblem::Checksum("block"), start));
        }
        Ok(true)
    }
}

/// The number at an offset of a header.
fn number(header: &[u8], at: usize) -> u32 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().map(u32::from_le_bytes).unwrap_or_default()
}

/// Fills `buffer` with the next `len` bytes, or with what there is before the end.
fn read_up_to(input: &mut impl Read, len: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.reserve_exact(len);
    input.take(len as u64).read_to_end(buffer).map(drop)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::trace::format::testing::*;
    use crate::trace::format::{TraceFormat, sink};
    use crate::trace::record::{Event, Source};

    fn message(bytes: &[u8]) -> String {
        read(bytes).map(|_| ()).expect_err("it should not be read").to_string()
    }

    /// A header around these bytes, with checksums that are right.
    fn header(version: u32, len: u32, text: &[u8]) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        for number in [version, len, crc32fast::hash(text)] {
            header.extend(number.to_le_bytes());
        }
        header.extend(crc32fast::hash(&header).to_le_bytes());
        [header.as_slice(), text].concat()
    }

    #[test]
    fn each_block_is_one_write() {
        let written = Written::default();
        let mut sink = sink(TraceFormat::Binary, Box::new(written.clone()), &info(), None).unwrap();
        let start = Record { time: 0, source: Source::Devices, event: Event::Start };
        let many = vec![start; MAX_RECORDS + 1];
        for records in [&many[..0], &many[..3], &many] {
            sink.write(records).unwrap();
        }
        sink.finish().unwrap();
        let lens: Vec<usize> = written.calls()[1..].iter().map(Vec::len).collect();
        let block = |records| BLOCK_HEADER_LEN + records * RECORD_LEN;
        assert_eq!(lens, [block(3), block(MAX_RECORDS), block(1)]);
        assert_eq!(read(&written.calls().concat()).unwrap().1.len(), MAX_RECORDS + 4);
    }

    #[test]
    fn each_byte_counts() {
        let bytes = trace(TraceFormat::Binary, &sample());
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(read(&bytes).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn each_byte_of_a_block_that_is_cut_is_safe() {
        let bytes = trace(TraceFormat::Binary, &sample()[..5]);
        let bytes = &bytes[..bytes.len() - 1];
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= flip;
                let _ = read(&bytes);
            }
        }
    }

    #[test]
    fn headers_that_cannot_be() {
        let text = serde_json::to_vec(&info()).unwrap();
        let len = u32::try_from(text.len()).unwrap();
        assert_eq!(read(&header(VERSION, len, &text)).unwrap().0, info());
        for (bytes, expected) in [
            (
                header(2, len, &text),
                "at byte 8: version 2 of the trace format is unknown; this minivmm reads version 1",
            ),
            (header(1, u32::MAX, &text), "at byte 12: a header of 4294967295 bytes cannot be"),
            (header(1, len + 1, &text), "it ends within the header"),
            (
                header(1, 3, b"{}\n"),
                "at byte 24: what is known of the trace: column 2: missing field `vcpus`",
            ),
        ] {
            assert!(message(&bytes).ends_with(expected), "{}", message(&bytes));
        }
    }

    #[test]
    fn blocks_that_cannot_be() {
        let start = trace(TraceFormat::Binary, &[]);
        let with = |block: &[u8]| message(&[&start, block].concat());
        let at = start.len();
        assert_eq!(
            with(&[0; 16]),
            format!("some.trace: at byte {at}: no block of records begins here")
        );
        let mut long = BLOCK_MAGIC.to_vec();
        long.extend([0xff; 8]);
        long.extend(crc32fast::hash(&long).to_le_bytes());
        assert_eq!(
            with(&long),
            format!("some.trace: at byte {}: a block of 4294967295 records cannot be", at + 4)
        );
        let none = block_header(&[]);
        assert!(with(&none).ends_with("a block of 0 records cannot be"));
        let zeros = [block_header(&[0; 64]).as_slice(), &[0; 64]].concat();
        assert_eq!(
            with(&zeros),
            format!("some.trace: at byte {}: these bytes are no record", at + 16)
        );
    }
}
