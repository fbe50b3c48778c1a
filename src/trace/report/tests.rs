//! What becomes of the files: none is made of a trace that cannot be read, and no trace is lost.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::exit::{VcpuId, VmExit};
use crate::trace::format::TraceInfo;
use crate::trace::record::{Event, ExitEvent, Handling, Source};

/// A directory with a trace in it.
struct Place {
    dir: TempDir,
    trace: PathBuf,
}

impl Place {
    fn new(format: TraceFormat) -> Self {
        let dir = TempDir::new().unwrap();
        let trace = dir.path().join("a.trace");
        let out = Box::new(File::create(&trace).unwrap());
        let mut sink = format::sink(format, out, &TraceInfo::default(), None).unwrap();
        let exit = ExitEvent {
            sequence: 0,
            exit: VmExit::Hlt,
            data: 0,
            rip: None,
            guest: 5,
            handling: Handling::RunLoop,
        };
        for event in [Event::Start, Event::Exit(exit), Event::Halt, Event::End] {
            let record = Record { time: 10, source: Source::Vcpu(VcpuId(0)), event };
            sink.write(&[record]).unwrap();
        }
        sink.finish().unwrap();
        Self { dir, trace }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Both jobs that write a file, to that path.
    fn jobs(&self, path: &Path) -> [ReportJob; 2] {
        let (trace, symbols) = (self.trace.clone(), None);
        let page = path.to_owned();
        let (file, format) = (path.to_owned(), TraceFormat::Csv);
        [
            ReportJob::Html { trace: trace.clone(), symbols: None, page },
            ReportJob::Export { trace, symbols, file, format },
        ]
    }

    /// Makes the trace's last 40 bytes none of a trace.
    fn spoil(&self) {
        let mut bytes = fs::read(&self.trace).unwrap();
        let len = bytes.len();
        bytes[len - 40] ^= 0xff;
        fs::write(&self.trace, bytes).unwrap();
    }
}

#[test]
fn a_trace_is_not_replaced_by_what_is_made_of_it() {
    let place = Place::new(TraceFormat::Binary);
    let before = fs::read(&place.trace).unwrap();
    symlink(&place.trace, place.file("soft")).unwrap();
    fs::hard_link(&place.trace, place.file("hard")).unwrap();
    let dotted = place.dir.path().join(".").join("a.trace");
    for path in [place.trace.clone(), place.file("soft"), place.file("hard"), dotted] {
        for job in place.jobs(&path) {
            let error = run(&job).unwrap_err();
            assert!(matches!(error, ReportError::Itself { .. }), "{error}");
            assert!(error.to_string().ends_with(" is what the report is made of"), "{error}");
            assert_eq!(fs::read(&place.trace).unwrap(), before);
        }
    }
}

#[test]
fn what_is_made_replaces_any_other_file() {
    let place = Place::new(TraceFormat::Jsonl);
    let path = place.file("made");
    for job in place.jobs(&path) {
        fs::write(&path, "x".repeat(1 << 20)).unwrap();
        run(&job).unwrap();
        let made = fs::read_to_string(&path).unwrap();
        assert!(made.starts_with('<') || made.starts_with("time_ns,"), "{made}");
        assert!(!made.contains("xxxx"));
    }
}

#[test]
fn nothing_is_made_of_a_trace_that_is_broken() {
    for format in [TraceFormat::Binary, TraceFormat::Jsonl] {
        let place = Place::new(format);
        place.spoil();
        let path = place.file("made");
        for job in place.jobs(&path) {
            let error = run(&job).unwrap_err();
            assert!(matches!(error, ReportError::Trace(_)), "{error}");
            assert!(!path.exists(), "{format}");
        }
    }
}

#[test]
fn only_regular_files_are_removed() {
    let place = Place::new(TraceFormat::Jsonl);
    place.spoil();
    let (link, fifo) = (place.file("link"), place.file("fifo"));
    symlink("made", &link).unwrap();
    for job in place.jobs(&link) {
        run(&job).unwrap_err();
        assert!(link.is_symlink() && link.exists());
    }
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    // A page is more than the pipe takes.
    let [_, export] = place.jobs(&fifo);
    run(&export).unwrap_err();
    assert!(fifo.exists());
    drop(reader);
}

#[test]
fn what_cannot_be_written_is_said() {
    let place = Place::new(TraceFormat::Binary);
    let full = place.file("full");
    symlink("/dev/full", &full).unwrap();
    for path in [full, place.file("none/made")] {
        for job in place.jobs(&path) {
            let error = run(&job).unwrap_err();
            assert!(matches!(error, ReportError::Write { .. }), "{error}");
        }
    }
}
