//! A JSON object a line: the first tells what is known of the trace, each other is a record.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::error::{Fault, TraceProblem, json_message};
use super::lines::Lines;
use super::row::{Kind, Row};
use super::{Sink, Symbols, TraceInfo, VERSION};
use crate::trace::record::Record;

/// How the first line begins. [`InfoLine`] has these fields in this order.
pub(super) const INFO_START: &str = r#"{"kind":"info","format":"minivmm-trace","#;

const FORMAT: &str = "minivmm-trace";

/// The first line; in CSV the text in the column `info`.
#[derive(Serialize)]
struct InfoLine<'a> {
    kind: &'static str,
    format: &'static str,
    version: u32,
    #[serde(flatten)]
    info: &'a TraceInfo,
}

/// What has to be known of an [`InfoLine`] to read the rest.
#[derive(Deserialize)]
struct InfoHead {
    version: u32,
}

/// The text that tells what is known of a trace.
pub(super) fn info_text(info: &TraceInfo) -> io::Result<String> {
    let line = InfoLine { kind: Kind::Info.name(), format: FORMAT, version: VERSION, info };
    Ok(serde_json::to_string(&line)?)
}

/// The opposite of [`info_text`].
pub(super) fn read_info(text: &[u8]) -> Result<TraceInfo, TraceProblem> {
    if !text.starts_with(INFO_START.as_bytes()) {
        return Err(TraceProblem::NotATrace);
    }
    let broken = |error| TraceProblem::Info(json_message(&error));
    let head: InfoHead = serde_json::from_slice(text).map_err(broken)?;
    if head.version != VERSION {
        return Err(TraceProblem::UnknownVersion(head.version));
    }
    serde_json::from_slice(text).map_err(broken)
}

/// Writes a JSON Lines trace.
pub(super) struct JsonlSink {
    out: Box<dyn Write + Send>,
    symbols: Symbols,
    lines: Vec<u8>,
}

impl JsonlSink {
    /// Writes the first line.
    pub fn new(
        mut out: Box<dyn Write + Send>,
        info: &TraceInfo,
        symbols: Symbols,
    ) -> io::Result<Self> {
        let line = info_text(info)? + "\n";
        out.write_all(line.as_bytes())?;
        out.flush()?;
        Ok(Self { out, symbols, lines: Vec::new() })
    }
}

impl Sink for JsonlSink {
    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        self.lines.clear();
        for record in records {
            let symbol = self.symbols.of(record);
            serde_json::to_writer(&mut self.lines, &Row::of(record, symbol.as_deref()))?;
            self.lines.push(b'\n');
        }
        self.out.write_all(&self.lines)?;
        self.out.flush()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads the records of a JSON Lines trace.
pub(super) struct JsonlReader<R> {
    pub lines: Lines<R>,
}

impl<R: BufRead> JsonlReader<R> {
    /// Reads the first line.
    pub fn new(input: R) -> Result<(Self, TraceInfo), Fault> {
        let mut lines = Lines::new(input);
        if lines.next()?.is_none() {
            return Err(lines.cut_header(INFO_START));
        }
        let info = read_info(lines.last()).map_err(|problem| lines.fault(problem))?;
        Ok((Self { lines }, info))
    }

    /// The next record; `None` after the last whole line.
    pub fn next(&mut self) -> Result<Option<Record>, Fault> {
        let Some(line) = self.lines.next()? else {
            return Ok(None);
        };
        let record = serde_json::from_slice::<Row>(line)
            .map_err(|error| TraceProblem::Json(json_message(&error)))
            .and_then(|row| Ok(row.record()?));
        record.map(Some).map_err(|problem| self.lines.fault(problem))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::trace::format::testing::*;
    use crate::trace::format::{TraceFormat, TraceInfo};
    use crate::trace::record::testing::any_record;
    use proptest::prelude::*;
    use serde_json::Value;

    fn values(records: &[Record]) -> Vec<Value> {
        let text = String::from_utf8(trace(TraceFormat::Jsonl, records)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines() {
        let text = String::from_utf8(trace(TraceFormat::Jsonl, &sample())).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(INFO_START), "{}", lines[0]);
        assert_eq!(
            lines[3],
            r#"{"time_ns":20001,"source":"vcpu0","kind":"exit","reason":"io-out","seq":0,"port":"0x3f8","dir":"write","size":1,"count":1,"data":"0x41","rip":"0x1007","symbol":"f?\"x\",0x1007 (é.c:7)","guest_ns":12345,"handler":"posted","enqueue_ns":212}"#
        );
        assert_eq!(
            lines[8],
            r#"{"time_ns":270100,"source":"devices","kind":"service","reason":"io-out","seq":0,"port":"0x3f8","dir":"write","size":1,"data":"0x41","wait_ns":250000,"service_ns":95,"vcpu":"vcpu0"}"#
        );
        assert_eq!(lines[16], r#"{"time_ns":9000000,"source":"supervisor","kind":"end"}"#);
    }

    #[test]
    fn the_first_line_tells_of_the_trace() {
        let mut first = values(&[]).remove(0);
        let fields = first.as_object_mut().unwrap();
        assert_eq!(fields.remove("kind"), Some("info".into()));
        assert_eq!(fields.remove("format"), Some("minivmm-trace".into()));
        assert_eq!(fields.remove("version"), Some(1.into()));
        assert_eq!(serde_json::from_value::<TraceInfo>(first).unwrap(), info());
    }

    proptest! {
        #[test]
        fn each_line_is_a_flat_object(record in any_record()) {
            for value in values(&[record]) {
                for (name, value) in value.as_object().unwrap() {
                    prop_assert!(!value.is_object() && !value.is_array() && !value.is_null());
                    prop_assert_eq!(value.is_number(), name.ends_with("_ns") || value.is_u64());
                }
            }
        }
    }

    #[test]
    fn errors_tell_the_line() {
        let text = String::from_utf8(trace(TraceFormat::Jsonl, &sample()[..3])).unwrap();
        let start = text.lines().take(3).map(|line| line.len() + 1).sum::<usize>();
        for (from, to, expected) in [
            (
                "\"port\":\"0x3f8\",",
                "",
                "a record of this kind has a field 'port', which is missing",
            ),
            (
                "0x3f8",
                "0x13f8f",
                "the field 'port' has a value that it cannot have in a record of this kind",
            ),
            (
                "\"size\":1,",
                "\"size\":256,",
                "column 113: invalid value: integer `256`, expected u8",
            ),
            (
                "\"io-out\"",
                "\"io\"",
                "column 61: invalid value: string \"io\", expected the name of an exit reason",
            ),
            ("\"exit\"", "\"exits\"", "column 48: unknown variant `exits`"),
            ("\"exit\"", "\"info\"", "the field 'kind' has a value"),
        ] {
            let text = text.replace(from, to);
            let message = read(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
            let start = format!("some.trace: line 4, at byte {start}: {expected}");
            assert!(message.starts_with(&start), "{message}");
        }
        let other = text.replacen("\"version\":1", "\"version\":7", 1);
        let message = read(other.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("version 7 of the trace format is unknown"), "{message}");
    }
}
