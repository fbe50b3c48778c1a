//! Comma-separated values (RFC 4180, with `\n` as line end): a header line, then a line a record.
//! The first of them is no record: it has `info` in the column `kind`, and in the column `info`
//! what is known of the trace, as JSON. No field has a line end in it, so that the file may be
//! cut at each of them.

use std::io::{self, BufRead, Write};

use ::csv::{StringRecord, Writer, WriterBuilder};
use csv_core::ReadRecordResult;

use super::error::{Fault, TraceProblem};
use super::jsonl::{info_text, read_info};
use super::lines::Lines;
use super::row::{COLUMNS, Kind, Row};
use super::{Sink, Symbols, TraceInfo};
use crate::trace::record::Record;

/// How much is written to the host at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Writes a CSV trace.
pub(super) struct CsvSink {
    out: Writer<Box<dyn Write + Send>>,
    symbols: Symbols,
}

impl CsvSink {
    /// Writes the header line and the line with what is known of the trace.
    pub fn new(out: Box<dyn Write + Send>, info: &TraceInfo, symbols: Symbols) -> io::Result<Self> {
        let mut out =
            WriterBuilder::new().has_headers(false).buffer_capacity(BUFFER).from_writer(out);
        out.write_record(COLUMNS)?;
        let info = Some(info_text(info)?.into());
        out.serialize(Row { kind: Kind::Info, info, ..Row::default() }.cells().as_slice())?;
        out.flush()?;
        Ok(Self { out, symbols })
    }
}

impl Sink for CsvSink {
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        for record in records {
            let symbol = self.symbols.of(record);
            self.out.serialize(Row::of(record, symbol.as_deref()).cells().as_slice())?;
        }
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads the records of a CSV trace.
pub(super) struct CsvReader<R> {
    pub lines: Lines<R>,
    fields: Fields,
}

/// A line taken apart. One more end than there are columns, to see that there are too many.
struct Fields {
    parser: csv_core::Reader,
    text: Vec<u8>,
    ends: [usize; COLUMNS.len() + 1],
    record: StringRecord,
}

impl<R: BufRead> CsvReader<R> {
    /// Reads the first two lines.
    pub fn new(input: R) -> Result<(Self, TraceInfo), Fault> {
        let header = COLUMNS.join(",");
        let mut lines = Lines::new(input);
        match lines.next()? {
            Some(line) if line == header.as_bytes() => {}
            Some(_) => return Err(lines.fault(TraceProblem::NotATrace)),
            None => return Err(lines.cut_header(&header)),
        }
        if lines.next()?.is_none() {
            return Err(Fault::new(TraceProblem::CutHeader, lines.offset()));
        }
        let mut fields = Fields {
            parser: csv_core::Reader::new(),
            text: Vec::new(),
            ends: [0; COLUMNS.len() + 1],
            record: StringRecord::new(),
        };
        let info = fields.row(lines.last()).and_then(|row| {
            let text = row.info.filter(|_| row.kind == Kind::Info);
            read_info(text.ok_or(TraceProblem::NotATrace)?.as_bytes())
        });
        let info = info.map_err(|problem| lines.fault(problem))?;
        Ok((Self { lines, fields }, info))
    }

    /// The next record; `None` after the last whole line.
    pub fn next(&mut self) -> Result<Option<Record>, Fault> {
        let Some(line) = self.lines.next()? else {
            return Ok(None);
        };
        let record = self.fields.row(line).and_then(|row| Ok(row.record()?));
        record.map(Some).map_err(|problem| self.lines.fault(problem))
    }
}

impl Fields {
    /// The fields of a line.
    fn row(&mut self, line: &[u8]) -> Result<Row<'_>, TraceProblem> {
        let broken = |why: &str| TraceProblem::Csv(why.to_owned());
        self.parser.reset();
        // Fields are no longer than what they are read from.
        self.text.resize(line.len(), 0);
        let (result, read, _, count) =
            self.parser.read_record(line, &mut self.text, &mut self.ends);
        let (result, count) = match result {
            // The line's end, which would end the record, is not part of `line`.
            ReadRecordResult::InputEmpty => {
                let (result, _, _, more) =
                    self.parser.read_record(&[], &mut [], &mut self.ends[count..]);
                (result, count + more)
            }
            other => (other, count),
        };
        if !matches!(result, ReadRecordResult::Record) || read != line.len() {
            return Err(broken("the line is no record of comma-separated values"));
        }
        if count != COLUMNS.len() {
            return Err(broken("the line has not as many fields as the header"));
        }
        self.record.clear();
        let mut start = 0;
        for &end in &self.ends[..count] {
            let field = self.text.get(start..end).map(str::from_utf8);
            let Some(Ok(field)) = field else {
                return Err(broken("a field is not UTF-8"));
            };
            self.record.push_field(field);
            start = end;
        }
        self.record.deserialize(None).map_err(|error| TraceProblem::Csv(describe(&error)))
    }
}

/// Why a field cannot be read. Which one it is, csv knows of numbers only.
fn describe(error: &::csv::Error) -> String {
    let ::csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
        return error.to_string();
    };
    let column = err.field().and_then(|field| COLUMNS.get(usize::try_from(field).ok()?));
    match column {
        Some(column) => format!("the field '{column}': {}", err.kind()),
        None => err.kind().to_string(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::trace::format::TraceFormat;
    use crate::trace::format::testing::*;
    use crate::trace::record::testing::any_record;
    use proptest::prelude::*;

    /// The lines as another reader has them, each as its fields that are not empty.
    fn rows(bytes: &[u8]) -> Vec<Vec<(String, String)>> {
        let mut reader = ::csv::Reader::from_reader(bytes);
        let header = reader.headers().unwrap().clone();
        let row = |record: StringRecord| {
            let fields = header.iter().zip(&record).filter(|(_, value)| !value.is_empty());
            fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        reader.records().map(|record| row(record.unwrap())).collect()
    }

    proptest! {
        #[test]
        fn it_has_the_fields_of_json_lines(
            records in prop::collection::vec(any_record(), 1..20)
        ) {
            let csv = rows(&trace(TraceFormat::Csv, &records));
            prop_assert_eq!(csv.len(), records.len() + 1);
            let jsonl = String::from_utf8(trace(TraceFormat::Jsonl, &records)).unwrap();
            for (row, line) in csv.iter().zip(jsonl.lines()).skip(1) {
                let mut object: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
                object.retain(|_, value| value != "");
                let text = |value: &serde_json::Value| {
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                };
                prop_assert_eq!(row.len(), object.len());
                for (name, value) in row {
                    prop_assert_eq!(object.get(name).map(text), Some(value.clone()), "{}", name);
                }
            }
        }
    }

    #[test]
    fn lines() {
        let text = String::from_utf8(trace(TraceFormat::Csv, &sample())).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 18);
        assert_eq!(lines[0], COLUMNS.join(","));
        assert!(lines[1].starts_with("0,supervisor,info,"), "{}", lines[1]);
        assert_eq!(
            lines[4],
            "20001,vcpu0,exit,io-out,0,0x3f8,,write,1,1,0x41,,,0x1007,\
             \"f?\"\"x\"\",0x1007 (é.c:7)\",12345,posted,212,,,,,,,,,,,,,,"
        );
        let info_row = &rows(text.as_bytes())[0];
        let (name, info_field) = info_row.last().unwrap();
        assert_eq!(name, "info");
        assert_eq!(read_info(info_field.as_bytes()).unwrap(), info());
    }

    #[test]
    fn errors_tell_the_line_and_the_field() {
        let text = String::from_utf8(trace(TraceFormat::Csv, &sample()[..3])).unwrap();
        for (from, to, expected) in [
            (
                "io-out,0,0x3f8",
                "io-out,0,",
                "a record of this kind has a field 'port', which is missing",
            ),
            ("io-out,0,0x3f8", "io-out,x,0x3f8", "the field 'seq': invalid digit found in string"),
            (
                "write,1,1",
                "write,256,1",
                "the field 'size': number too large to fit in target type",
            ),
            ("write,1,1", "write,1", "the line has not as many fields as the header"),
            ("write,1,1", "write,1,1,1", "the line has not as many fields as the header"),
            ("20001,vcpu0", "20001,cpu0", "invalid value: string \"cpu0\""),
            ("20001,vcpu0", "20001\r,vcpu0", "the line is no record of comma-separated values"),
            ("20001,", "\n20001,", "the line is no record of comma-separated values"),
        ] {
            let text = text.replacen(from, to, 1);
            let message = read(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
            assert!(message.starts_with("some.trace: line 5, at byte "), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }
}
