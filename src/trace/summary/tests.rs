//! Tests of summaries: exact numbers of hand-made records, and what must hold of any.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::exit::{Access, AddressSpace, Direction, Gpa, MmioExit, PioAddr, PioExit, VmExit};
use crate::trace::record::{ExitEvent, Handling, MarkerName, Totals, testing::any_record};

fn diff(a: &Summary, b: &Summary) -> Diff {
    Diff::of(&a.report(), &b.report())
}

fn record(source: Source, time: u64, event: Event) -> Record {
    Record { time, source, event }
}

fn on_vcpu(id: u32, time: u64, event: Event) -> Record {
    record(Source::Vcpu(VcpuId(id)), time, event)
}

fn exit(exit: VmExit, guest: u64, handling: Handling) -> Event {
    Event::Exit(ExitEvent { sequence: 0, exit, data: 0, rip: None, guest, handling })
}

fn out(port: u16) -> VmExit {
    let port = PioAddr(port);
    VmExit::Pio(PioExit { port, direction: Direction::Write, size: 1, count: 1 })
}

fn load(gpa: u64) -> VmExit {
    VmExit::Mmio(MmioExit { gpa: Gpa(gpa), direction: Direction::Read, size: 4 })
}

fn service(wait: u32, service: u32) -> Event {
    Event::Service(ServiceEvent {
        vcpu: VcpuId(0),
        sequence: 0,
        access: Access {
            space: AddressSpace::Pio,
            addr: 0x3f8,
            direction: Direction::Write,
            size: 1,
            data: 0,
        },
        wait,
        service,
    })
}

fn posted(enqueue: u32) -> Handling {
    Handling::Posted { enqueue }
}

/// Two vCPUs and the device thread, for a microsecond.
fn records() -> Vec<Record> {
    let marker = Event::Marker(MarkerName::new(b"phase 1"));
    let totals = Totals { seen: 10, kept: 4, filtered: 5, dropped: 1 };
    vec![
        on_vcpu(0, 100, Event::Start),
        on_vcpu(0, 200, exit(out(0x3f8), 100, posted(10))),
        on_vcpu(0, 300, exit(out(0x3f8), 90, posted(30))),
        on_vcpu(0, 400, exit(load(0xfee0_0010), 70, Handling::Served { wait: 5, service: 15 })),
        on_vcpu(0, 500, exit(VmExit::Hlt, 80, Handling::RunLoop)),
        on_vcpu(0, 600, Event::Halt),
        on_vcpu(1, 250, exit(load(0xfee0_0ff0), 50, Handling::Served { wait: 0, service: 40 })),
        on_vcpu(1, 395, service(150, 5)),
        record(Source::Devices, 360, service(50, 20)),
        record(Source::Devices, 700, Event::Output { offset: 0, len: 12, took: 300 }),
        record(Source::Devices, 900, Event::Interrupt { irq: 4, high: true }),
        record(Source::Supervisor, 1100, Event::Kick { target: VcpuId(1) }),
        on_vcpu(1, 350, marker),
        on_vcpu(1, 340, Event::Recording { on: false }),
        on_vcpu(0, 9999, Event::Totals(totals)),
        record(Source::Supervisor, 9999, Event::End),
    ]
}

fn summary_of(records: &[Record]) -> Summary {
    let info = TraceInfo { vcpus: 2, guest: "hello".into(), ..TraceInfo::default() };
    let mut summary = Summary::for_trace(info);
    records.iter().for_each(|record| summary.add(record));
    summary
}

#[test]
fn exits_are_counted_and_timed() {
    let report = summary_of(&records()).report();
    assert_eq!((report.records, report.first_ns, report.last_ns), (16, 100, 1100));
    let [io, mmio, hlt] = &report.reasons[..] else { panic!("{:?}", report.reasons) };
    assert_eq!([io.reason, mmio.reason, hlt.reason], ["io-out", "mmio-read", "hlt"]);
    assert_eq!([io.count, mmio.count, hlt.count], [2, 2, 1]);
    assert!((io.count_share - 0.4).abs() < 1e-9);
    // The wall time is 500 ns on vCPU 0 and 200 on vCPU 1.
    assert!((io.handling_share - 40.0 / 700.0).abs() < 1e-9);
    assert!((io.guest_share - 190.0 / 700.0).abs() < 1e-9);
    let expected = Times {
        samples: 2,
        total_ns: 40,
        min_ns: 10,
        mean_ns: 20,
        p50_ns: 10,
        p99_ns: 30,
        p99_9_ns: 30,
        max_ns: 30,
        histogram: vec![
            Bin { from_ns: 8, below_ns: 16, count: 1 },
            Bin { from_ns: 16, below_ns: 32, count: 1 },
        ],
    };
    assert_eq!(io.handling.as_ref(), Some(&expected));
    // The run loop's handling is not measured.
    assert_eq!(hlt.handling, None);
    assert_eq!(hlt.guest.as_ref().map(|guest| guest.total_ns), Some(80));

    // Both loads are in one page; it took longer than the port.
    let addresses: Vec<_> =
        report.addresses.iter().map(|row| (row.address.as_deref(), row.count)).collect();
    assert_eq!(addresses, [(Some("0xfee00000"), 2), (Some("0x3f8"), 2)]);
}

#[test]
fn the_time_of_each_thread_adds_up() {
    let report = summary_of(&records()).report();
    let [first, second] = &report.vcpus[..] else { panic!("{:?}", report.vcpus) };
    let time = |wall_ns, guest_ns, handling_ns, idle_ns| TimeReport {
        wall_ns,
        guest_ns,
        handling_ns,
        idle_ns,
    };
    // What is left of the time of vCPU 0 may be that of the exits that are missing.
    assert_eq!((first.vcpu.as_str(), first.time), ("vcpu0", time(500, 340, 60, None)));
    assert_eq!((second.vcpu.as_str(), second.time), ("vcpu1", time(200, 50, 40, Some(110))));
    assert_eq!(report.time, time(700, 390, 100, None));
    let complete: Vec<_> =
        records().into_iter().filter(|record| !matches!(record.event, Event::Totals(_))).collect();
    let report = summary_of(&complete).report();
    assert_eq!(report.vcpus[0].time, time(500, 340, 60, Some(100)));
    assert_eq!(report.time, time(700, 390, 100, Some(210)));
    let devices = DevicesReport { wall_ns: 1000, serving_ns: 20, output_ns: 300, idle_ns: 680 };
    assert_eq!(report.devices, devices);
    assert_eq!((first.kicks, second.kicks, report.kicks), (0, 1, 1));
}

#[test]
fn totals_make_counts_exact() {
    let report = summary_of(&records()).report();
    let counts = ExitCounts { seen: 10, recorded: 4, filtered: 5, dropped: 1 };
    assert_eq!(report.vcpus[0].exits, counts);
    assert_eq!(report.exits, ExitCounts { seen: 11, recorded: 5, ..counts });
    let text = report.text(TextOptions::default()).to_string();
    for line in ["11 exits in 1.00 us, and 1 kicks", "5 were left out", "1 were lost"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.contains("of the 5 exits that were recorded"), "{text}");
}

/// The words of the line that begins with `name`.
fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.first() == Some(&name)).unwrap_or_default()
}

#[test]
fn exits_that_are_missing_show_in_the_vcpus_rows() {
    let report = summary_of(&records()).report();
    let text = report.text(TextOptions::default()).to_string();
    assert_eq!(words(&text, "VCPU")[..6], ["VCPU", "EXITS", "LEFT", "OUT", "LOST", "KICKS"]);
    assert_eq!(words(&text, "vcpu0")[..5], ["vcpu0", "10", "5", "1", "0"]);
    assert!(words(&text, "vcpu0").ends_with(&["-", "-"]), "{text}");
    assert_eq!(words(&text, "vcpu1")[..5], ["vcpu1", "1", "0", "0", "1"]);
    assert!(words(&text, "vcpu1").ends_with(&["110", "ns", "55.0%"]), "{text}");
    assert_eq!(words(&text, "all")[..5], ["all", "11", "5", "1", "1"]);
    assert!(words(&text, "all").ends_with(&["-", "-"]), "{text}");
    let mut json = Vec::new();
    report.write_json(&mut json).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&json["time"]["idle_ns"], &json["vcpus"][1]["time"]["idle_ns"]),
        (&Value::Null, &110.into())
    );

    let complete = summary_of(&records()[..8]);
    let shown = complete.report().text(TextOptions::default()).to_string();
    assert_eq!(words(&shown, "VCPU")[..3], ["VCPU", "EXITS", "KICKS"]);
    let diff = diff(&complete, &summary_of(&records())).to_string();
    assert!(words(&diff, "idle").ends_with(&["-", "-", "-"]), "{diff}");
}

#[test]
fn what_a_file_says_of_itself_is_no_control_sequence() {
    let info =
        TraceInfo { guest: "a\x1b[2Jb".into(), filter: "\n\r".into(), ..TraceInfo::default() };
    let text = Summary::for_trace(info).report().text(TextOptions::default()).to_string();
    assert!(text.starts_with("Guest a\\u{1b}[2Jb, vCPUs: 0\nFilter: \\n\\r\n"), "{text}");
}

#[test]
fn services_output_and_the_rest_are_told() {
    let report = summary_of(&records()).report();
    let services: Vec<_> = report
        .services
        .iter()
        .map(|row| (row.by.as_str(), row.count, row.wait.as_ref().map(|wait| wait.total_ns)))
        .collect();
    assert_eq!(services, [("vcpu1", 1, Some(150)), ("devices", 1, Some(50))]);
    assert_eq!((report.output.writes, report.output.bytes), (1, 12));
    // Two accesses waited for 200 ns in all, both at once for a while.
    assert!((report.queue.mean_depth - 0.2).abs() < 1e-9);
    assert_eq!(report.queue.max_depth, Some(2));
    assert_eq!((report.queue.helps, report.queue.wakes), (None, None));
    assert_eq!(report.interrupts, [InterruptReport { irq: Some(4), raised: 1, lowered: 0 }]);
    let name = "phase 1".to_owned();
    assert_eq!(report.markers, [MarkerReport { time_ns: 350, source: "vcpu1".into(), name }]);
    let off = RecordingReport { time_ns: 340, source: "vcpu1".into(), on: false };
    assert_eq!(report.recording, [off]);
    assert!(report.trace.is_some_and(|trace| trace.complete));
}

#[test]
fn completed_instructions_are_counted_by_mnemonic() {
    let completed = |name: &[u8]| on_vcpu(0, 0, Event::Completed(MarkerName::new(name)));
    let mut summary = summary_of(&[completed(b"popcnt"), completed(b"int3"), completed(b"int3")]);
    summary.merge(&summary_of(&[completed(b"popcnt"), completed(b"popcnt")]));
    let report = summary.report();
    let row = |mnemonic: &str, count| CompletedReport { mnemonic: mnemonic.into(), count };
    assert_eq!(report.completed, [row("popcnt", 3), row("int3", 2)]);
    let text = report.text(TextOptions::default()).to_string();
    assert!(text.contains("Instructions completed for KVM"), "{text}");
    // A trace that somebody made up has no more than 256 of them.
    let mut summary = Summary::new();
    for number in 0..1000 {
        summary.add(&completed(format!("i{number}").as_bytes()));
    }
    let report = summary.report();
    assert_eq!(report.completed.len(), 257);
    assert_eq!(report.completed[256], row("others", 1000 - 256));
}

#[test]
fn what_the_caller_knows_is_shown() {
    let mut summary = Summary::new();
    summary.queue = Some(QueueStats { max_depth: 7, helps: 8, wakes: 9 });
    let counters = vec![("exits".to_owned(), 1234)];
    summary.kernel = Some(KernelStats {
        vcpus: vec![counters.clone(), counters],
        vm: vec![("mmu_cache_miss".to_owned(), 5)],
    });
    let report = summary.report();
    assert_eq!(report.queue.max_depth, Some(7));
    let text = report.text(TextOptions::default()).to_string();
    assert!(text.contains("max depth 7, helps 8, wakes 9"), "{text}");
    assert!(text.contains("2,468") && text.contains("mmu_cache_miss (VM)"), "{text}");
}

#[test]
fn exits_are_counted_by_function() {
    let mut summary = Summary::new();
    for rip in [0x1000, 0x1004, 0x1004, 0x2000, 0x9000] {
        let Event::Exit(event) = exit(out(1), 3, posted(2)) else { return };
        summary.add(&on_vcpu(0, 10, Event::Exit(ExitEvent { rip: Some(rip), ..event })));
    }
    let report = summary.report_with_symbols(|rip| match rip {
        0x1000..0x2000 => Some(format!("main+{:#x} (main.c:{rip})", rip - 0x1000)),
        0x2000 => Some("putc".to_owned()),
        _ => None,
    });
    let symbols: Vec<_> =
        report.symbols.iter().map(|row| (row.symbol.as_str(), row.count, row.guest_ns)).collect();
    assert_eq!(symbols, [("main", 3, 9), ("?", 1, 3), ("putc", 1, 3)]);
    assert_eq!((report.rips[0].rip.as_str(), report.rips[0].count), ("0x1004", 2));
    assert!(summary.report().symbols.is_empty());
}

#[test]
fn every_table_has_a_bound() {
    let mut summary = Summary::new();
    for number in 0..3000u32 {
        let Event::Exit(event) = exit(load(u64::from(number) << 12), 1, posted(1)) else { return };
        let event = ExitEvent { rip: Some(u64::from(number)), ..event };
        summary.add(&on_vcpu(0, 0, Event::Exit(event)));
        summary.add(&on_vcpu(number, 0, Event::Interrupt { irq: number, high: false }));
        summary.add(&on_vcpu(0, 0, Event::Marker(MarkerName::default())));
    }
    let report = summary.report();
    assert_eq!(report.addresses.len(), stats::MAX_ADDRESSES + 1);
    assert_eq!(report.addresses.iter().map(|row| row.count).sum::<u64>(), 3000);
    assert_eq!(report.rips.len(), MAX_RIPS + 1);
    assert_eq!((report.rips[0].rip.as_str(), report.rips[0].count), ("others", 3000 - 1024));
    assert_eq!(report.interrupts.len(), 257);
    assert_eq!(report.interrupts[256].lowered, 3000 - 256);
    assert_eq!((report.markers.len(), report.notes_left_out), (1024, 3000 - 1024));
    assert_eq!(report.vcpus.len(), MAX_VCPUS + 1);
    assert_eq!(report.vcpus[MAX_VCPUS].vcpu, "others");
}

#[test]
fn rows_for_addresses_are_limited_for_all_vcpus_together() {
    let mut summary = Summary::new();
    for number in 0..8192u32 {
        let port = u16::try_from(number % 256).unwrap_or(0);
        summary.add(&on_vcpu(number / 256, 0, exit(out(port), 1, posted(1))));
    }
    let report = summary.report();
    let rows: Vec<_> = report.vcpus.iter().map(|vcpu| vcpu.addresses.len()).collect();
    assert_eq!(rows, [[256; 16], [1; 16]].concat());
    assert_eq!(report.addresses.iter().map(|row| row.count).sum::<u64>(), 8192);
}

#[test]
fn a_difference_has_the_largest_change_first() {
    let one = summary_of(&[
        on_vcpu(0, 10, exit(out(1), 1, posted(10))),
        on_vcpu(0, 20, exit(out(2), 1, posted(10))),
    ]);
    let two = summary_of(&[
        on_vcpu(0, 10, exit(out(1), 1, posted(30))),
        on_vcpu(0, 20, exit(out(1), 1, posted(30))),
        on_vcpu(0, 30, exit(VmExit::Hlt, 1, Handling::RunLoop)),
    ]);
    let diff = diff(&one, &two);
    let rows: Vec<_> = diff
        .addresses
        .iter()
        .map(|row| (row.address.as_deref(), row.count_delta, row.total_delta_ns, row.mean_ratio))
        .collect();
    assert_eq!(rows, [(Some("0x1"), 1, 50, Some(3.0)), (Some("0x2"), -1, -10, None)]);
    assert_eq!(diff.reasons[0].reason, "io-out");
    assert_eq!((diff.reasons[1].reason, diff.reasons[1].a_mean_ns), ("hlt", None));
    let text = diff.to_string();
    assert!(text.contains("+50 ns") && text.contains("3.00") && text.contains("-1"), "{text}");
    let mut json = Vec::new();
    diff.write_json(&mut json).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["addresses"][0]["total_delta_ns"], 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn merging_is_adding(
        a in prop::collection::vec(any_record(), 0..20),
        b in prop::collection::vec(any_record(), 0..20),
    ) {
        let mut merged = summary_of(&a);
        merged.merge(&summary_of(&b));
        prop_assert_eq!(merged.report(), summary_of(&[a, b].concat()).report());
    }

    #[test]
    fn any_records_give_a_text_and_json(
        records in prop::collection::vec(any_record(), 0..40),
    ) {
        let exits = records.iter().filter(|record| {
            record.exit().is_some() && matches!(record.source, Source::Vcpu(_))
        });
        let exits = u64::try_from(exits.count()).unwrap();
        let summary = summary_of(&records);
        let report = summary.report();
        prop_assert!(!report.text(TextOptions::default()).to_string().is_empty());
        let mut json = Vec::new();
        report.write_json(&mut json).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(json["exits"]["recorded"].as_u64(), Some(exits));
        prop_assert_eq!(json["exits"]["seen"].as_u64(), Some(report.exits.seen));
        for (row, shown) in report.reasons.iter().zip(json["reasons"].as_array().unwrap()) {
            prop_assert_eq!(shown["reason"].as_str(), Some(row.reason));
            prop_assert_eq!(shown["count"].as_u64(), Some(row.count));
            let total = row.guest.as_ref().map(|guest| guest.total_ns);
            prop_assert_eq!(shown["guest"]["total_ns"].as_u64(), total);
        }
        let by_reason = report.reasons.iter().map(|row| row.count).sum::<u64>();
        prop_assert_eq!(by_reason, exits);
        let diff = diff(&summary, &Summary::new());
        prop_assert!(!diff.to_string().is_empty());
    }
}
