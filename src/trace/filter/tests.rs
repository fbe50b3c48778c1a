//! What filters are accepted, refused and printed, and what they keep.

use proptest::prelude::*;

use super::*;
use crate::exit::{Gpa, MmioExit, PioAddr, PioExit};
use crate::trace::record::{Handling, testing};

fn filter(text: &str) -> TraceFilter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An OUT, of which a case changes what it is about.
fn out(port: u16) -> ExitEvent {
    let exit = VmExit::Pio(PioExit {
        port: PioAddr(port),
        direction: Direction::Write,
        size: 1,
        count: 1,
    });
    let handling = Handling::Served { wait: 30, service: 12 };
    ExitEvent { sequence: 0, exit, data: 0, rip: None, guest: 0, handling }
}

fn load(gpa: u64) -> ExitEvent {
    let exit = VmExit::Mmio(MmioExit { gpa: Gpa(gpa), direction: Direction::Read, size: 8 });
    ExitEvent { exit, ..out(0) }
}

fn hlt() -> ExitEvent {
    ExitEvent { exit: VmExit::Hlt, ..out(0) }
}

fn service(vcpu: u32, space: AddressSpace, addr: u64, direction: Direction) -> ServiceEvent {
    let access = Access { space, addr, direction, size: 1, data: 0 };
    ServiceEvent { vcpu: VcpuId(vcpu), sequence: 0, access, wait: 0, service: 0 }
}

#[test]
fn what_is_accepted_is_printed_in_one_form() {
    for (text, printed) in [
        ("", ""),
        ("  ", ""),
        ("vcpu=0", "vcpu=0"),
        ("vcpu=0-1+3,vcpu=0x10", "vcpu=0-1+3+16"),
        ("vcpu=2-2", "vcpu=2"),
        ("reason=mmio+hlt,reason=io-out", "reason=io-out+mmio-write+mmio-read+hlt"),
        ("reason=io", "reason=io-out+io-in"),
        ("port=1016-1023", "port=0x3f8-0x3ff"),
        ("gpa=0xf_ffff_f000-0xffffffffffffffff", "gpa=0xffffff000-0xffffffffffffffff"),
        ("rip=0x1000+8192", "rip=0x1000+0x2000"),
        (" every=10 , after=1500us ", "after=1ms 500us,every=10"),
        ("min=4294967295ns,before=1m", "before=1m,min=4s 294ms 967us 295ns"),
        ("every=1,after=0s,min=0s", ""),
        (
            "vcpu=0-1,reason=io-out,port=0x3f8-0x3ff,rip=0x1000-0x2000,after=1ms,every=10",
            "vcpu=0-1,reason=io-out,port=0x3f8-0x3ff,rip=0x1000-0x2000,after=1ms,every=10",
        ),
    ] {
        assert_eq!(filter(text).to_string(), printed, "reading {text:?}");
        assert_eq!(filter(text), filter(printed), "reading {text:?}");
    }
    assert_eq!(filter(""), TraceFilter::default());
}

#[test]
fn what_is_refused() {
    let reasons = "not an exit reason: expected io, mmio, io-out, io-in, mmio-write, mmio-read, \
                   hlt, shutdown, fail-entry, internal-error, system-event, interrupted, set-tpr, \
                   irq-window-open, ioapic-eoi, debug, unhandled";
    for (text, message) in [
        ("vcpu", "'vcpu' is not a term: expected KEY=VALUE"),
        ("vcpu=0,", "'' is not a term: expected KEY=VALUE"),
        (
            "prot=1",
            "unknown key 'prot': expected vcpu, reason, port, gpa, rip, after, before, min, every",
        ),
        (
            "VCPU=1",
            "unknown key 'VCPU': expected vcpu, reason, port, gpa, rip, after, before, min, every",
        ),
        ("port=0x3ff-0x3f8", "port=0x3ff-0x3f8: the range is empty"),
        ("port=0x3f8+0x10000", "port=0x10000: the highest possible is 65535 (0xffff)"),
        ("vcpu=65535", "vcpu=65535: the highest possible is 65534 (0xfffe)"),
        ("vcpu=", "vcpu=: '' is not a number: expected decimal, or hexadecimal after 0x"),
        ("vcpu=0++1", "vcpu=: '' is not a number: expected decimal, or hexadecimal after 0x"),
        ("rip=1-", "rip=1-: '' is not a number: expected decimal, or hexadecimal after 0x"),
        (
            "gpa=1-2-3",
            "gpa=1-2-3: '2-3' is not a number: expected decimal, or hexadecimal after 0x",
        ),
        (
            "gpa=0x10000000000000000",
            "gpa=0x10000000000000000: 0x10000000000000000 does not fit in 64 bits",
        ),
        ("reason=out", &format!("reason=out: {reasons}")),
        (
            "after=1",
            "after=1: not a duration such as 1ms: time unit needed, for example 1sec or 1ms",
        ),
        ("after=1ms+2ms", "after=1ms+2ms: not a duration such as 1ms: invalid character at 3"),
        ("after=1ms,after=2ms", "after is there twice: it takes one value"),
        ("every=1,every=1", "every is there twice: it takes one value"),
        (
            "before=600years",
            "before=600years: longer than the longest possible, 584years 6months 15days 8h 12m \
             57s 709ms 551us 615ns",
        ),
        (
            "min=4294967296ns",
            "min=4294967296ns: longer than the longest possible, 4s 294ms 967us 295ns",
        ),
        ("after=2ms,before=1ms", "after=2ms, before=1ms: no time is between them"),
        ("before=0s", "after=0s, before=0s: no time is between them"),
        ("every=0", "every=0: at least 1 is needed"),
        ("every=x", "every=x: 'x' is not a number: expected decimal, or hexadecimal after 0x"),
    ] {
        let error = text.parse::<TraceFilter>().expect_err(text);
        assert_eq!(error.to_string(), message, "reading {text:?}");
    }
}

#[test]
fn what_is_kept() {
    let wide = |port, size| {
        let pio = PioExit { port: PioAddr(port), direction: Direction::Read, size, count: 1 };
        ExitEvent { exit: VmExit::Pio(pio), ..out(0) }
    };
    let at = |rip| ExitEvent { rip: Some(rip), ..out(0) };
    // The filter, the vCPU, the time, the exit, and whether it is kept.
    for (text, vcpu, time, exit, kept) in [
        ("", 7, 0, hlt(), true),
        ("vcpu=0-1+3", 1, 0, hlt(), true),
        ("vcpu=0-1+3", 2, 0, hlt(), false),
        ("vcpu=0-1+3", 3, 0, hlt(), true),
        ("reason=io-in+mmio", 0, 0, out(1), false),
        ("reason=io-in+mmio", 0, 0, load(1), true),
        ("reason=io", 0, 0, out(1), true),
        ("reason=hlt", 0, 0, hlt(), true),
        ("port=0x3f8-0x3ff", 0, 0, out(0x3f7), false),
        ("port=0x3f8-0x3ff", 0, 0, out(0x3f8), true),
        ("port=0x3f8-0x3ff", 0, 0, out(0x3ff), true),
        ("port=0x3f8-0x3ff", 0, 0, out(0x400), false),
        // A wide access is an access to each of its bytes.
        ("port=0x3f8", 0, 0, wide(0x3f5, 4), true),
        ("port=0x3f8", 0, 0, wide(0x3f4, 4), false),
        ("port=0xffff", 0, 0, wide(0xfffe, 2), true),
        ("port=0", 0, 0, wide(0xffff, 4), false),
        ("port=0-0xffff", 0, 0, load(0), false),
        ("port=0-0xffff", 0, 0, hlt(), false),
        ("gpa=0x1000-0x1fff", 0, 0, load(0xff9), true),
        ("gpa=0x1000-0x1fff", 0, 0, load(0xff8), false),
        ("gpa=0xffffffffffffffff", 0, 0, load(u64::MAX - 1), true),
        ("gpa=0-0xffffffffffffffff", 0, 0, out(0), false),
        ("port=1,gpa=2", 0, 0, out(1), true),
        ("port=1,gpa=2", 0, 0, load(2), true),
        ("port=1,gpa=2", 0, 0, out(2), false),
        ("port=1,gpa=2", 0, 0, load(3), false),
        ("rip=0x1000-0x2000", 0, 0, out(0), false),
        ("rip=0x1000-0x2000", 0, 0, at(0x1000), true),
        ("rip=0x1000-0x2000", 0, 0, at(0x2000), true),
        ("rip=0x1000-0x2000", 0, 0, at(0x2001), false),
        ("after=1us", 0, 999, hlt(), false),
        ("after=1us", 0, 1000, hlt(), true),
        ("before=1us", 0, 999, hlt(), true),
        ("before=1us", 0, 1000, hlt(), false),
        ("min=42ns", 0, 0, out(0), true),
        ("min=43ns", 0, 0, out(0), false),
        ("vcpu=0,port=1", 0, 0, out(1), true),
        ("vcpu=0,port=1", 1, 0, out(1), false),
        ("vcpu=0,port=1", 0, 0, out(2), false),
    ] {
        let keeps = filter(text).keeps(time, VcpuId(vcpu), &exit, &mut 0);
        assert_eq!(keeps, kept, "{text:?} and {exit:?} of vCPU {vcpu} at {time}");
    }
}

#[test]
fn which_services_are_kept() {
    let uart = service(1, AddressSpace::Pio, 0x3f8, Direction::Write);
    let store = service(1, AddressSpace::Mmio, 0x3f8, Direction::Write);
    for (text, service, kept) in [
        ("", uart, true),
        ("vcpu=1,reason=io-out,port=0x3f8,after=1us,before=2us", uart, true),
        ("vcpu=0", uart, false),
        ("reason=io-in", uart, false),
        ("reason=mmio", uart, false),
        ("reason=mmio", store, true),
        ("port=0x3f9", uart, false),
        ("port=0x3f8", store, false),
        ("gpa=0x3f8", store, true),
        ("after=2us", uart, false),
        ("before=1us", uart, false),
        // What a service does not tell.
        ("rip=0-0xffffffffffffffff", uart, false),
        ("min=1ns", uart, false),
        ("every=2", uart, false),
    ] {
        assert_eq!(filter(text).keeps_service(1500, &service), kept, "{text:?} and {service:?}");
    }
}

#[test]
fn only_rip_needs_the_rip() {
    assert!(filter("rip=0").needs_rip());
    assert!(!filter("vcpu=0,every=3").needs_rip());
    assert!(!filter("").needs_rip());
    assert_eq!(filter(""), TraceFilter::default());
    assert_ne!(filter("vcpu=0"), TraceFilter::default());
}

#[test]
fn every_counts_only_what_the_other_terms_let_through() {
    let filter = filter("port=1,every=3");
    let mut matched = 0;
    let kept: Vec<usize> =
        (0..20).filter(|n| filter.keeps(0, VcpuId(0), &out([1, 2][n % 2]), &mut matched)).collect();
    assert_eq!(kept, [0, 6, 12, 18]);
    assert_eq!(matched, 10);
}

/// A filter's parts, as text and for an evaluation that shares nothing with `keeps`.
#[derive(Clone, Debug, Default)]
struct Parts {
    vcpus: Vec<(u64, u64)>,
    reasons: Vec<&'static str>,
    ports: Vec<(u64, u64)>,
    gpas: Vec<(u64, u64)>,
    rips: Vec<(u64, u64)>,
    after: u64,
    before: Option<u64>,
    min: u64,
}

impl Parts {
    fn text(&self) -> String {
        let mut terms = Vec::new();
        let spans = [("vcpu", &self.vcpus), ("port", &self.ports), ("gpa", &self.gpas)];
        for (key, spans) in spans.into_iter().chain([("rip", &self.rips)]) {
            terms.extend(spans.iter().map(|(first, last)| format!("{key}={first}-{last}")));
        }
        terms.extend(self.reasons.iter().map(|name| format!("reason={name}")));
        terms.extend(self.before.map(|before| format!("before={before}ns")));
        terms.push(format!("after={}ns", self.after));
        terms.push(format!("min={}ns", self.min));
        terms.join(",")
    }

    fn keeps(&self, time: u64, vcpu: VcpuId, exit: &ExitEvent) -> bool {
        let any = |spans: &[(u64, u64)], value| {
            spans.iter().any(|&(first, last)| (first..=last).contains(&value))
        };
        let any_byte = |spans: &[(u64, u64)], addr: u64, size: u8| {
            (0..u64::from(size)).any(|offset| any(spans, addr + offset))
        };
        let place = match exit.exit {
            VmExit::Pio(pio) => any_byte(&self.ports, pio.port.0.into(), pio.size),
            VmExit::Mmio(mmio) => any_byte(&self.gpas, mmio.gpa.0, mmio.size),
            _ => false,
        };
        let name = Reason::of(&exit.exit).name();
        let named = |wanted: &&str| name == *wanted || name.starts_with(&format!("{wanted}-"));
        (self.vcpus.is_empty() || any(&self.vcpus, vcpu.0.into()))
            && (self.reasons.is_empty() || self.reasons.iter().any(named))
            && (self.ports.is_empty() && self.gpas.is_empty() || place)
            && (self.rips.is_empty() || exit.rip.is_some_and(|rip| any(&self.rips, rip)))
            && time >= self.after
            && time < self.before.unwrap_or(u64::MAX)
            && exit.handling_time() >= self.min
    }
}

/// Few and small numbers, so that terms hold about as often as not.
fn any_spans(highest: u64) -> impl Strategy<Value = Vec<(u64, u64)>> {
    let span = (0..=highest, 0..=highest / 2);
    prop::collection::vec(span.prop_map(|(first, more)| (first, first + more)), 0..3)
}

fn any_reason_names() -> impl Strategy<Value = Vec<&'static str>> {
    let names = ["io", "mmio"].into_iter().chain(Reason::ALL.map(Reason::name));
    prop::sample::subsequence(names.collect::<Vec<_>>(), 0..3)
}

fn any_parts() -> impl Strategy<Value = Parts> {
    let spans = (any_spans(3), any_spans(15), any_spans(15), any_spans(7));
    let times = (0..50u64, prop::option::of(50..100u64), 0..10u64);
    (spans, any_reason_names(), times).prop_map(|(spans, reasons, times)| {
        let (vcpus, ports, gpas, rips) = spans;
        let (after, before, min) = times;
        Parts { vcpus, reasons, ports, gpas, rips, after, before, min }
    })
}

/// An exit, mostly an access, near what [`any_parts`] asks for.
fn any_near_exit() -> impl Strategy<Value = ExitEvent> {
    let handling = prop_oneof![
        Just(Handling::RunLoop),
        (0..20u32).prop_map(|enqueue| Handling::Posted { enqueue }),
        (0..10u32, 0..10u32).prop_map(|(wait, service)| Handling::Served { wait, service }),
    ];
    let rip = prop::option::weighted(0.8, 0..12u64);
    (testing::any_exit(), 0..20u16, rip, handling).prop_map(|(mut exit, addr, rip, handling)| {
        match &mut exit {
            VmExit::Pio(pio) => pio.port = PioAddr(addr),
            VmExit::Mmio(mmio) => mmio.gpa = Gpa(addr.into()),
            _ => {}
        }
        ExitEvent { sequence: 0, exit, data: 0, rip, guest: 0, handling }
    })
}

proptest! {
    #[test]
    fn filters_round_trip(
        vcpus in any_spans(40_000),
        reasons in any_reason_names(),
        ports in any_spans(40_000),
        gpas in any_spans(u64::MAX / 2),
        times in (any::<u32>(), 0..u64::MAX, any::<u32>(), 1..u64::MAX),
    ) {
        let (after, more, min, every) = times;
        let before = u64::from(after).checked_add(1 + more);
        let after = after.into();
        let rips = gpas.clone();
        let parts =
            Parts { vcpus, reasons, ports, gpas, rips, after, before, min: min.into() };
        let filter = filter(&format!("{},every={every}", parts.text()));
        prop_assert_eq!(filter.to_string().parse(), Ok(filter));
    }

    #[test]
    fn no_text_makes_it_panic_and_what_is_accepted_round_trips(
        text in prop_oneof![
            "\\PC*",
            "((vcpu|reason|port|gpa|rip|after|before|min|every)=[-+0-9xa-fnmsio]{0,6},?){0,4}",
        ],
    ) {
        if let Ok(filter) = text.parse::<TraceFilter>() {
            prop_assert_eq!(filter.to_string().parse(), Ok(filter));
        }
    }

    #[test]
    fn it_keeps_what_a_plain_evaluation_keeps(
        parts in any_parts(),
        exits in prop::collection::vec((0..100u64, 0..5u32, any_near_exit()), 1..50),
    ) {
        let filter = filter(&parts.text());
        for (time, vcpu, exit) in exits {
            let keeps = filter.keeps(time, VcpuId(vcpu), &exit, &mut 0);
            prop_assert_eq!(keeps, parts.keeps(time, VcpuId(vcpu), &exit), "{:?}", exit);
        }
    }

    #[test]
    fn every_keeps_the_first_and_then_each_nth(
        parts in any_parts(),
        every in 1..8u64,
        exits in prop::collection::vec(any_near_exit(), 0..100),
    ) {
        let all = filter(&parts.text());
        let some = filter(&format!("{},every={every}", parts.text()));
        let mut matched = 0;
        let matching = exits.iter().filter(|exit| all.keeps(50, VcpuId(0), exit, &mut 0)).count();
        let kept = exits.iter().filter(|exit| some.keeps(50, VcpuId(0), exit, &mut matched));
        prop_assert_eq!(kept.count() as u64, (matching as u64).div_ceil(every));
    }
}
