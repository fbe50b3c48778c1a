//! What all forms that can be read back have in common: nothing is lost, a cut shows, and nothing
//! in a file makes the reader panic.

use std::io::Cursor;

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::trace::record::testing::any_record;

const READABLE: [TraceFormat; 3] = [TraceFormat::Binary, TraceFormat::Jsonl, TraceFormat::Csv];

fn message(bytes: &[u8]) -> String {
    read(bytes).map(|_| ()).expect_err("it should not be read").to_string()
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(any_record(), 0..40)) {
        let records = [records, vec![END]].concat();
        for format in READABLE {
            let (info_read, records_read, cut) = read(&trace(format, &records)).unwrap();
            prop_assert_eq!(&info_read, &info(), "{}", format);
            prop_assert_eq!(&records_read, &records, "{}", format);
            prop_assert_eq!(cut, None, "{}", format);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        keep in 0..2000usize,
    ) {
        let _ = read(&bytes);
        for format in READABLE {
            let mut file = trace(format, &sample());
            file.truncate(keep);
            file.extend(&bytes);
            let _ = read(&file);
        }
    }
}

#[test]
fn a_pipe_is_read() {
    for format in READABLE {
        let bytes = trace(format, &sample());
        let read = read_from(Trickle(Cursor::new(bytes)));
        assert_eq!(read.unwrap(), (info(), sample(), None), "{format}");
    }
}

#[test]
fn a_trace_that_is_cut_anywhere_gives_what_is_whole() {
    for format in READABLE {
        let (bytes, records) = (trace(format, &sample()), sample());
        let mut most = 0;
        for len in 0..bytes.len() {
            match read(&bytes[..len]) {
                Ok((_, read, cut)) => {
                    assert!(records.starts_with(&read), "{format} at {len}");
                    assert!(read.len() >= most, "{format} at {len}");
                    most = read.len();
                    let cut = cut.unwrap_or_else(|| panic!("{format} at {len} is not cut"));
                    assert_eq!(cut.records, read.len() as u64);
                    assert!(cut.offset <= len as u64);
                    // Nothing of a whole record is left.
                    assert!(len as u64 - cut.offset < 700, "{format} at {len}: {cut}");
                }
                Err(error) => {
                    assert_eq!(most, 0, "{format} at {len}: {error}");
                    assert!(
                        matches!(error.problem(), TraceProblem::CutHeader)
                            || matches!(error.problem(), TraceProblem::Empty) && len == 0
                            || matches!(error.problem(), TraceProblem::NotATrace) && len < 8,
                        "{format} at {len}: {error}"
                    );
                }
            }
        }
        assert_eq!(most, records.len() - 1, "{format}");
        assert_eq!(read(&bytes).unwrap().2, None, "{format}");
    }
}

#[test]
fn a_trace_without_an_end_is_cut() {
    for format in READABLE {
        let bytes = trace(format, &sample()[..3]);
        let (_, records, cut) = read(&bytes).unwrap();
        assert_eq!(records, sample()[..3]);
        assert_eq!(cut, Some(Cut { records: 3, offset: bytes.len() as u64 }), "{format}");
    }
    let cut = Cut { records: 3, offset: 350 };
    assert_eq!(cut.to_string(), "cut after 3 records, at byte 350");
}

#[test]
fn nothing_may_follow_the_end() {
    for format in READABLE {
        let twice = [sample(), vec![END]].concat();
        let error = message(&trace(format, &twice));
        assert!(error.ends_with("something follows the end of the trace"), "{error}");
        let mut more = trace(format, &sample());
        more.push(b'x');
        let error = message(&more);
        assert!(error.ends_with("something follows the end of the trace"), "{error}");
    }
}

#[test]
fn after_an_error_there_is_nothing() {
    for format in READABLE {
        let mut bytes = trace(format, &sample());
        let len = bytes.len();
        bytes[len - 40] = 0xff;
        let mut reader = TraceReader::new("x", Box::new(Cursor::new(bytes))).unwrap();
        assert_eq!(reader.by_ref().filter(Result::is_err).count(), 1, "{format}");
        assert!(reader.next().is_none());
        assert_eq!(reader.cut(), None);
    }
}

#[test]
fn foreign_files() {
    for foreign in [
        b"x".as_slice(),
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        b"{\"a\":1}\n",
        b"{\"kind\":\"exit\"}\n",
        b"{\"kind\":\"exit\"}",
        b"[]\n",
        b"a,b\n1,2\n",
        b"time_ns,x\n1,2\n",
        &[0; 100_000],
    ] {
        let error = message(foreign);
        assert!(error.ends_with("at byte 0: not a minivmm trace"), "{error}");
    }
    assert_eq!(message(b""), "some.trace: at byte 0: it is empty");
    for format in [TraceFormat::Text, TraceFormat::Perfetto] {
        assert_eq!(
            message(&trace(format, &sample())),
            format!(
                "some.trace: a trace in the form '{format}' cannot be read back; binary, jsonl \
                 and csv can"
            )
        );
    }
}

#[test]
fn files_that_cannot_be_opened() {
    let error = TraceReader::open("/nonexistent/x.mvt").unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/x.mvt: No such file or directory (os error 2)");
    let error = TraceReader::open("/").unwrap_err();
    assert_eq!(error.to_string(), "/: Is a directory (os error 21)");
}

#[test]
fn a_line_without_an_end_does_not_fill_the_memory() {
    for format in [TraceFormat::Jsonl, TraceFormat::Csv] {
        let mut bytes = trace(format, &sample()[..2]);
        let start = bytes.len();
        bytes.resize(start + 300_000, b' ');
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error.problem(), TraceProblem::LongLine), "{error}");
        assert_eq!(error.offset(), start as u64);
    }
}

#[test]
fn formats_go_by_the_suffix() {
    for (name, format) in [
        ("a.mvt", TraceFormat::Binary),
        ("a", TraceFormat::Binary),
        ("a.txt", TraceFormat::Text),
        ("a.jsonl", TraceFormat::Jsonl),
        ("a.csv", TraceFormat::Csv),
        ("a.json", TraceFormat::Perfetto),
    ] {
        assert_eq!(TraceFormat::of_path(Path::new(name)), format, "{name}");
    }
    for format in TraceFormat::ALL {
        assert_eq!(format.name().parse(), Ok(format));
    }
    assert_eq!("xml".parse::<TraceFormat>(), Err(UnknownTraceFormat("xml".to_owned())));
}
