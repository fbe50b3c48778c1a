use std::collections::BTreeMap;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::DeflateDecoder;
use proptest::prelude::*;

use super::pack::MOST;
use super::{PAGE, SCRIPTS, STYLES, write};
use crate::exit::{
    Access, AddressSpace, Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit,
};
use crate::trace::format::{Symbolize, TraceInfo};
use crate::trace::record::{
    Event, ExitEvent, Handling, MarkerName, Reason, Record, ServiceEvent, Source, Totals, testing,
};

const DATA_START: &str = r#"id="data">"#;

fn page_of(
    info: &TraceInfo,
    records: &[Record],
    symbolize: Option<Symbolize>,
    note: &str,
) -> String {
    let mut page = Vec::new();
    write(&mut page, info, records.iter().copied(), symbolize, || note.into()).unwrap();
    String::from_utf8(page).unwrap()
}

/// A page without its data, and the data.
fn split(page: &str) -> (String, &str) {
    let (before, rest) = page.split_once(DATA_START).unwrap();
    let (data, after) = rest.split_once("</script>").unwrap();
    (before.to_owned() + after, data)
}

/// The columns of a page: numbers and texts.
#[derive(Default)]
struct Columns {
    numbers: BTreeMap<String, Vec<u64>>,
    texts: BTreeMap<String, Vec<String>>,
}

impl Columns {
    fn of_page(page: &str) -> Self {
        let packed = STANDARD.decode(split(page).1).unwrap();
        let mut bytes = Vec::new();
        DeflateDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
        let (mut columns, mut rest) = (Self::default(), bytes.as_slice());
        while !rest.is_empty() {
            columns.part(&mut rest);
        }
        columns
    }

    fn of(records: &[Record]) -> Self {
        Self::of_page(&page_of(&TraceInfo::default(), records, None, ""))
    }

    fn part(&mut self, rest: &mut &[u8]) {
        let name = text(rest);
        let (kind, count, length) = (number(rest), number(rest), number(rest));
        let (mut values, after) = rest.split_at(usize::try_from(length).unwrap());
        *rest = after;
        let mut last = 0;
        for _ in 0..count {
            match kind {
                2 => {
                    let coded = number(&mut values);
                    last = if coded & 1 == 0 { last + (coded >> 1) } else { last - (coded >> 1) };
                    self.numbers.entry(name.clone()).or_default().push(last);
                }
                4 => self.texts.entry(name.clone()).or_default().push(text(&mut values)),
                _ => self.numbers.entry(name.clone()).or_default().push(number(&mut values)),
            }
        }
        assert!(values.is_empty(), "{name}");
    }

    fn numbers(&self, name: &str) -> &[u64] {
        self.numbers.get(name).map_or(&[], Vec::as_slice)
    }

    fn texts(&self, name: &str) -> &[String] {
        self.texts.get(name).map_or(&[], Vec::as_slice)
    }

    fn info(&self, key: &str) -> &str {
        let place = self.texts("info.key").iter().position(|one| one == key).unwrap();
        &self.texts("info.value")[place]
    }

    /// For each row of a table the thread that it is of.
    fn sources(&self, counts: &str) -> Vec<Source> {
        let lanes = self.numbers("lane.source").iter().zip(self.numbers(counts));
        lanes.flat_map(|(&source, &count)| (0..count).map(move |_| source_of(source))).collect()
    }

    fn exits(&self) -> Vec<Record> {
        let sources = self.sources("lane.exits").into_iter().enumerate();
        sources.map(|(row, source)| self.exit(row, source)).collect()
    }

    fn exit(&self, row: usize, source: Source) -> Record {
        let of = |name: &str| self.numbers(&format!("exit.{name}"))[row];
        let site = usize::try_from(of("site")).unwrap();
        let [first, second] = ["first", "second"].map(|name| small(of(name)));
        let handling = match of("handling") {
            0 => Handling::Pending,
            1 => Handling::RunLoop,
            2 => Handling::Posted { enqueue: first },
            _ => Handling::Served { wait: first, service: second },
        };
        let code = usize::try_from(self.numbers("site.code")[site]).unwrap();
        let event = ExitEvent {
            sequence: of("sequence"),
            exit: self.site(site),
            data: of("dataLow") | of("dataHigh") << 32,
            rip: code.checked_sub(1).map(|code| self.numbers("code.rip")[code]),
            guest: of("guest"),
            handling,
        };
        Record { time: of("time"), source, event: Event::Exit(event) }
    }

    fn site(&self, site: usize) -> VmExit {
        let of = |name: &str| self.numbers(&format!("site.{name}"))[site];
        let size = u8::try_from(of("size")).unwrap();
        let number = small(of("number"));
        let pio = |direction| {
            let port = PioAddr(u16::try_from(of("address")).unwrap());
            VmExit::Pio(PioExit { port, direction, size, count: number })
        };
        let mmio = |direction| VmExit::Mmio(MmioExit { gpa: Gpa(of("address")), direction, size });
        let reason = usize::try_from(of("reason")).unwrap();
        match Reason::named(&self.texts("reason.name")[reason]).unwrap() {
            Reason::IoOut => pio(Direction::Write),
            Reason::IoIn => pio(Direction::Read),
            Reason::MmioWrite => mmio(Direction::Write),
            Reason::MmioRead => mmio(Direction::Read),
            Reason::Hlt => VmExit::Hlt,
            Reason::Shutdown => VmExit::Shutdown,
            Reason::FailEntry => VmExit::FailEntry { reason: of("address"), cpu: number },
            Reason::InternalError => VmExit::InternalError { suberror: number, insn: None },
            Reason::SystemEvent => VmExit::SystemEvent { kind: number },
            Reason::Interrupted => VmExit::Interrupted,
            Reason::SetTpr => VmExit::SetTpr,
            Reason::IrqWindowOpen => VmExit::IrqWindowOpen,
            Reason::Debug => VmExit::Debug,
            Reason::IoapicEoi => VmExit::IoapicEoi { vector: number.try_into().unwrap() },
            Reason::Unhandled => VmExit::Unhandled { reason: number },
        }
    }

    fn services(&self) -> Vec<Record> {
        let sources = self.sources("lane.services").into_iter().enumerate();
        sources.map(|(row, source)| self.service(row, source)).collect()
    }

    fn service(&self, row: usize, source: Source) -> Record {
        let of = |name: &str| self.numbers(&format!("service.{name}"))[row];
        let site = usize::try_from(of("site")).unwrap();
        let reason = Reason::ALL[usize::try_from(self.numbers("site.reason")[site]).unwrap()];
        let is_pio = matches!(reason, Reason::IoOut | Reason::IoIn);
        let is_write = matches!(reason, Reason::IoOut | Reason::MmioWrite);
        let access = Access {
            space: if is_pio { AddressSpace::Pio } else { AddressSpace::Mmio },
            addr: self.numbers("site.address")[site],
            direction: if is_write { Direction::Write } else { Direction::Read },
            size: u8::try_from(self.numbers("site.size")[site]).unwrap(),
            data: of("dataLow") | of("dataHigh") << 32,
        };
        let event = ServiceEvent {
            vcpu: VcpuId(small(of("vcpu"))),
            sequence: of("sequence"),
            access,
            wait: small(of("wait")),
            service: small(of("took")),
        };
        Record { time: of("time"), source, event: Event::Service(event) }
    }
}

fn number(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    value
}

fn text(rest: &mut &[u8]) -> String {
    let length = usize::try_from(number(rest)).unwrap();
    let (bytes, after) = rest.split_at(length);
    *rest = after;
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap()
}

fn source_of(number: u64) -> Source {
    match small(number) {
        u32::MAX => Source::Devices,
        number if number == u32::MAX - 1 => Source::Supervisor,
        id => Source::Vcpu(VcpuId(id)),
    }
}

/// A record as a page has it, whose times end at some point.
fn in_page(mut record: Record) -> Record {
    record.time = record.time.min(MOST);
    if let Event::Exit(exit) = &mut record.event {
        exit.guest = exit.guest.min(MOST);
    }
    record
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(
        records in prop::collection::vec(testing::any_record(), 0..40)
    ) {
        let columns = Columns::of(&records);
        let mut expected: Vec<Record> = records.iter().copied().map(in_page).collect();
        // Stable: each thread's stay in their order.
        expected.sort_by_key(|record| record.source);
        let (services, rest): (Vec<Record>, Vec<Record>) =
            expected.iter().partition(|record| matches!(record.event, Event::Service(_)));
        let exits: Vec<Record> =
            rest.into_iter().filter(|record| record.exit().is_some()).collect();
        prop_assert_eq!(columns.exits(), exits);
        prop_assert_eq!(columns.services(), services);
    }
}

fn vcpu(id: u32, time: u64, event: Event) -> Record {
    Record { time, source: Source::Vcpu(VcpuId(id)), event }
}

fn hlt(id: u32, time: u64, sequence: u64) -> Record {
    let (exit, handling) = (VmExit::Hlt, Handling::RunLoop);
    let event = ExitEvent { sequence, exit, data: 0, rip: Some(0x1000), guest: 5, handling };
    vcpu(id, time, Event::Exit(event))
}

#[test]
fn a_page_is_one_file_that_may_load_nothing() {
    let page = page_of(&TraceInfo::default(), &[hlt(0, 9, 0)], None, "");
    assert!(page.starts_with("<!doctype html>\n"));
    assert!(page.trim_end().ends_with("</html>"));
    assert!(page.contains("content=\"default-src 'none'; script-src 'unsafe-inline';"));
    for part in ["{{styles}}", "{{scripts}}", "{{data}}"] {
        assert_eq!(PAGE.matches(part).count(), 1, "{part}");
        assert!(!page.contains(part), "{part}");
    }
    let (page, _) = split(&page);
    for loads in ["src=", "href=", "url(", "http:", "https:", "import ", "fetch("] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert!(page.contains(STYLES[1]));
}

#[test]
fn scripts_make_no_markup_and_do_not_end_early() {
    for script in SCRIPTS {
        for part in ["</script", "<!--", "innerHTML", "outerHTML", "insertAdjacent", "eval("] {
            assert!(!script.contains(part), "{part} in {}", script.lines().next().unwrap());
        }
    }
}

#[test]
fn nothing_of_a_trace_is_in_the_page_but_in_its_data() {
    let hostile = "</script><script>x()</script><!--<b>\"'&\u{2028}\0";
    let info = TraceInfo {
        vcpus: 1,
        guest: hostile.to_owned(),
        filter: hostile.to_owned(),
        ..TraceInfo::default()
    };
    let marker = MarkerName::new(b"</script><b>");
    let records = [hlt(0, 9, 0), vcpu(0, 10, Event::Marker(marker))];
    let symbolize: Symbolize = Box::new(move |_| Some(hostile.to_owned()));
    let page = page_of(&info, &records, Some(symbolize), hostile);
    let plain = page_of(&TraceInfo::default(), &[], None, "");
    assert_eq!(split(&page).0, split(&plain).0);
    assert!(split(&page).1.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)));

    let columns = Columns::of_page(&page);
    assert_eq!(columns.info("guest"), hostile);
    assert_eq!(columns.info("filter"), hostile);
    assert_eq!(columns.info("note"), hostile);
    assert_eq!(columns.texts("code.name"), [hostile]);
    assert_eq!(columns.texts("point.name"), ["</script><b>"]);
}

#[test]
fn a_trace_without_records_is_a_page() {
    let columns = Columns::of(&[]);
    assert_eq!(columns.exits(), []);
    assert_eq!(columns.numbers("lane.source"), [u64::from(u32::MAX)]);
    assert_eq!(columns.info("complete"), "");
}

#[test]
fn each_vcpu_has_a_lane_even_if_nothing_is_known_of_it() {
    let info = TraceInfo { vcpus: 3, ..TraceInfo::default() };
    let columns = Columns::of_page(&page_of(&info, &[hlt(1, 9, 0), hlt(7, 9, 0)], None, ""));
    assert_eq!(columns.numbers("lane.source"), [0, 1, 2, 7, u64::from(u32::MAX)]);
    assert_eq!(columns.numbers("lane.exits"), [0, 1, 0, 1, 0]);
}

#[test]
fn a_damaged_number_of_vcpus_does_not_fill_the_memory() {
    let info = TraceInfo { vcpus: u32::MAX, ..TraceInfo::default() };
    let columns = Columns::of_page(&page_of(&info, &[], None, ""));
    assert_eq!(columns.numbers("lane.source").len(), 4097);
}

#[test]
fn points_outputs_and_totals_are_in_the_page() {
    let totals = Totals { seen: u64::MAX, kept: 2, filtered: 3, dropped: 4 };
    let output = Event::Output { offset: 7, len: 8, took: 9 };
    let records = [
        vcpu(0, 1, Event::Start),
        Record { time: 2, source: Source::Devices, event: output },
        Record { time: 3, source: Source::Supervisor, event: Event::Kick { target: VcpuId(5) } },
        Record { time: 4, source: Source::Devices, event: Event::Interrupt { irq: 4, high: true } },
        vcpu(0, 5, Event::Marker(MarkerName::new(b"a\xff"))),
        vcpu(0, 6, Event::Recording { on: false }),
        vcpu(0, 7, Event::Totals(totals)),
        Record { time: 8, source: Source::Supervisor, event: Event::End },
    ];
    let columns = Columns::of(&records);
    let kinds = ["start", "kick", "interrupt", "marker", "recording"];
    assert_eq!(columns.texts("point.kind"), kinds);
    assert_eq!(columns.texts("point.name"), ["", "", "", "a\\xff", ""]);
    assert_eq!(columns.numbers("point.time"), [1, 3, 4, 5, 6]);
    assert_eq!(columns.numbers("point.number"), [0, 5, 4, 0, 0]);
    assert_eq!(columns.numbers("point.on"), [1, 1, 1, 1, 0]);
    let output =
        ["offset", "len", "took"].map(|name| columns.numbers(&format!("output.{name}"))[0]);
    assert_eq!(output, [7, 8, 9]);
    assert_eq!(columns.numbers("totals.seen"), [u64::MAX]);
    assert_eq!(columns.numbers("totals.dropped"), [4]);
    assert_eq!(columns.info("complete"), "yes");
}

#[test]
fn an_address_is_symbolized_once() {
    let mut calls = 0;
    let symbolize: Symbolize = Box::new(move |rip| {
        calls += 1;
        Some(format!("{rip:#x} at call {calls}"))
    });
    let records = [hlt(0, 1, 0), hlt(0, 2, 1), hlt(1, 3, 0)];
    let page = page_of(&TraceInfo::default(), &records, Some(symbolize), "");
    assert_eq!(Columns::of_page(&page).texts("code.name"), ["0x1000 at call 1"]);
}

#[test]
fn a_disk_that_is_full_is_an_error() {
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let records = [hlt(0, 1, 0)];
    let whole = page_of(&TraceInfo::default(), &records, None, "").len();
    for room in (0..whole).step_by(997).chain([whole - 1]) {
        let records = records.iter().copied();
        let error =
            write(&mut Full(room), &TraceInfo::default(), records, None, String::new).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{room} bytes");
    }
}
