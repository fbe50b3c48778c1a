//! The events against the schema of the Trace Event Format, and what they say of a run.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use crate::exit::{Access, AddressSpace, Direction, VcpuId};
use crate::trace::format::TraceFormat;
use crate::trace::format::testing::*;
use crate::trace::record::testing::any_record;
use crate::trace::record::{Event, Handling, Record, ServiceEvent, Source};

fn events(records: &[Record]) -> Vec<Value> {
    serde_json::from_slice(&trace(TraceFormat::Perfetto, records)).unwrap()
}

fn is(phase: &str, event: &Value) -> bool {
    event["ph"] == *phase
}

/// The time of an event in nanoseconds.
fn nanoseconds(event: &Value, field: &str) -> i64 {
    let text = event[field].to_string();
    let (micros, rest) = text.split_once('.').unwrap();
    // Zeros at the end are lost when the number is read.
    assert!(rest.len() <= 3, "{text}");
    micros.parse::<i64>().unwrap() * 1000 + format!("{rest:0<3}").parse::<i64>().unwrap()
}

/// What the format demands of an event.
fn check(event: &Value) {
    let object = event.as_object().unwrap();
    for name in ["pid", "tid"] {
        assert!(object[name].is_u64(), "{event}");
    }
    assert!(object["name"].is_string() && object["ts"].is_number(), "{event}");
    let fields: &[&str] = match object["ph"].as_str().unwrap() {
        "X" => {
            assert!(object["dur"].is_number());
            &["dur", "args"]
        }
        "i" => {
            assert_eq!(object["s"], "t");
            &["s", "args"]
        }
        "s" => &["cat", "id"],
        "f" => {
            assert_eq!(object["bp"], "e");
            &["bp", "cat", "id"]
        }
        "C" => {
            assert!(object["args"]["accesses"].is_u64());
            &["args"]
        }
        "M" => {
            let arg = match object["name"].as_str().unwrap() {
                "process_name" | "thread_name" => "name",
                "process_labels" => "labels",
                "thread_sort_index" => "sort_index",
                other => panic!("unknown metadata {other}"),
            };
            assert_eq!(object["args"].as_object().unwrap().keys().collect::<Vec<_>>(), [arg]);
            &["args"]
        }
        other => panic!("unknown phase {other}"),
    };
    for field in object.keys() {
        let common = ["name", "ph", "ts", "pid", "tid"].contains(&field.as_str());
        assert!(common || fields.contains(&field.as_str()), "{event}");
    }
}

/// The slices of a track either do not overlap or are one within the other.
fn check_nesting(events: &[Value]) {
    let mut tracks: BTreeMap<u64, Vec<(i64, i64)>> = BTreeMap::new();
    for event in events.iter().filter(|event| is("X", event)) {
        let (start, dur) = (nanoseconds(event, "ts"), nanoseconds(event, "dur"));
        tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((start, start + dur));
    }
    for slices in tracks.values_mut() {
        slices.sort_by_key(|&(start, end)| (start, -end));
        let mut open: Vec<(i64, i64)> = Vec::new();
        for &(start, end) in &*slices {
            open.retain(|outer| outer.1 > start);
            for outer in &open {
                assert!(end <= outer.1, "{start}..{end} and {outer:?}");
            }
            open.push((start, end));
        }
    }
}

proptest! {
    #[test]
    fn each_event_is_well_formed(records in prop::collection::vec(any_record(), 0..40)) {
        let events = events(&records);
        events.iter().for_each(check);
        let named: BTreeSet<u64> = events
            .iter()
            .filter(|event| event["name"] == "thread_name")
            .map(|event| event["tid"].as_u64().unwrap())
            .collect();
        for event in &events {
            prop_assert!(named.contains(&event["tid"].as_u64().unwrap()), "{}", event);
        }
    }

    /// A vCPU's exits with what it serves for others, each time rounded by itself.
    #[test]
    fn slices_do_not_overlap(
        steps in prop::collection::vec((0..50u64, 0..50u32, 0..50u32, 0..3usize), 1..30),
        jitter in prop::collection::vec(0..2u64, 200),
        inner_first in any::<bool>(),
    ) {
        let access = Access {
            space: AddressSpace::Pio, addr: 1, direction: Direction::Write, size: 1, data: 0,
        };
        let mut jitter = jitter.into_iter().cycle();
        let mut round = move |time: u64| time + jitter.next().unwrap_or(0);
        let mut records = Vec::new();
        let mut now = 1000;
        for (sequence, (guest, wait, service, inner)) in (0..).zip(steps) {
            let mut exit = out(sequence, None, Handling::Posted { enqueue: 0 });
            exit.guest = round(guest);
            now += guest + 1;
            let time = round(now);
            let mut services = Vec::new();
            for _ in 0..inner {
                let served = ServiceEvent {
                    vcpu: VcpuId(1), sequence, access, wait: 0, service: service + 1,
                };
                let event = Event::Service(served);
                services.push(Record { time: round(now).max(time), source: VCPU0, event });
                now += u64::from(service) + 2;
            }
            now += u64::from(wait);
            let wait = u32::try_from(round(now.saturating_sub(time))).unwrap();
            exit.handling = Handling::Served { wait, service: 0 };
            let exit = Record { time, source: VCPU0, event: Event::Exit(exit) };
            now += 3;
            if inner_first {
                records.extend(services);
                records.push(exit);
            } else {
                records.push(exit);
                records.extend(services);
            }
        }
        check_nesting(&events(&records));
    }
}

#[test]
fn the_tracks_of_a_run() {
    let events = events(&sample());
    let names: Vec<(u64, &str)> = events
        .iter()
        .filter(|event| event["name"] == "thread_name")
        .map(|event| (event["tid"].as_u64().unwrap(), event["args"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [(1, "supervisor"), (2, "devices"), (100, "vcpu0"), (101, "vcpu1")]);
    let order = |tid: u64| {
        let found =
            events.iter().find(|event| event["name"] == "thread_sort_index" && event["tid"] == tid);
        found.unwrap()["args"]["sort_index"].as_i64().unwrap()
    };
    assert!(order(100) < order(101) && order(101) < order(2) && order(2) < order(1));
    check_nesting(&events);
}

#[test]
fn the_slices_of_a_posted_exit() {
    let events = events(&sample());
    let slices: Vec<String> = events
        .iter()
        .filter(|event| event["tid"] == 100 && is("X", event))
        .take(2)
        .map(|event| format!("{} {} {}", event["name"], event["ts"], event["dur"]))
        .collect();
    assert_eq!(slices, [r#""guest" 7.656 12.345"#, r#""io-out" 20.001 0.212"#]);
    let flows: Vec<&Value> =
        events.iter().filter(|event| is("s", event) || is("f", event)).collect();
    assert_eq!(flows.len(), 2);
    assert_eq!(flows[0]["id"], flows[1]["id"]);
    assert_eq!((nanoseconds(flows[0], "ts"), &flows[0]["tid"]), (20_001, &100.into()));
    assert_eq!((nanoseconds(flows[1], "ts"), &flows[1]["tid"]), (270_100, &2.into()));
    let depths: Vec<&Value> = events
        .iter()
        .filter(|event| is("C", event))
        .map(|event| &event["args"]["accesses"])
        .collect();
    assert_eq!(depths, [1, 0]);
}

#[test]
fn a_service_that_comes_before_its_exit_does_not_upset_the_depth() {
    let mut records = sample();
    records.sort_by_key(|record| record.source != Source::Devices);
    let events = events(&records);
    let depths: Vec<&Value> = events
        .iter()
        .filter(|event| is("C", event))
        .map(|event| &event["args"]["accesses"])
        .collect();
    assert_eq!(depths, [0, 0]);
}

#[test]
fn a_trace_that_is_cut_is_an_array_without_its_end() {
    let text = String::from_utf8(trace(TraceFormat::Perfetto, &sample())).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"]"));
    for len in 1..lines.len() - 1 {
        // What a reader does who finds no `]`.
        let cut = lines[..len].join("\n");
        let cut = cut.trim_end_matches(',').to_owned() + "]";
        assert!(serde_json::from_str::<Vec<Value>>(&cut).is_ok());
    }
}
