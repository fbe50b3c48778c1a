//! The page of a trace, in a real browser: what it shows, and what it does when it is clicked.

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::fs;
use std::io::BufWriter;

use minivmm::exit::{Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit};
use minivmm::trace::format::{Symbolize, TraceInfo};
use minivmm::trace::html;
use minivmm::trace::record::{Event, Handling, MarkerName, Record, Source, Totals};
use serde_json::json;
use tempfile::NamedTempFile;

use synthetic::{Machine, POLL, PUTC, exit, of_vcpu, pio, service, with_code};
use webdriver::Browser;

/// The page of a trace, as a file.
fn page_with(
    info: &TraceInfo,
    records: Vec<Record>,
    symbolize: Symbolize,
    note: &str,
) -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(".html").tempfile().unwrap();
    let mut out = BufWriter::new(file.as_file());
    html::write(&mut out, info, records.into_iter(), Some(symbolize), || note.into()).unwrap();
    drop(out);
    file
}

fn page(info: &TraceInfo, records: Vec<Record>, note: &str) -> NamedTempFile {
    page_with(info, records, Box::new(synthetic::symbol), note)
}

/// Opens a page, and waits until it is drawn.
#[track_caller]
fn open(browser: &Browser, page: &NamedTempFile) {
    browser.open(page.path());
    settle(browser);
}

#[track_caller]
fn settle(browser: &Browser) {
    browser.wait_for("minivmm.errors.length > 0 || minivmm.ready && minivmm.settled");
    assert_eq!(browser.value("minivmm.errors"), json!([]));
}

/// Where a time in a vCPU's lane is in the window.
#[track_caller]
fn place(browser: &Browser, vcpu: u32, time: u64) -> [i64; 2] {
    let place = browser.value(&format!("minivmm.locate({vcpu}, {time}).map(Math.round)"));
    [0, 1].map(|axis| place[axis].as_i64().unwrap())
}

/// The range that is shown, in nanoseconds.
fn visible(browser: &Browser) -> [f64; 2] {
    let visible = browser.value("minivmm.visible");
    [0, 1].map(|end| visible[end].as_f64().unwrap())
}

#[track_caller]
fn assert_visible(browser: &Browser, expected: [f64; 2]) {
    let visible = visible(browser);
    let close = visible.iter().zip(expected).all(|(is, expected)| (is - expected).abs() < 1e-6);
    assert!(close, "{visible:?} is shown, not {expected:?}");
}

#[track_caller]
fn assert_shown(browser: &Browser, shown: u64) {
    settle(browser);
    assert_eq!(browser.value("minivmm.shown"), json!(shown));
    let total = browser.value("minivmm.total");
    let count = browser.text("document.getElementById('count').textContent");
    assert_eq!(count, format!("{shown} of {total} exits"));
}

/// Brings a field of the filters to a text.
#[track_caller]
fn fill(browser: &Browser, field: &str, text: &str) {
    let selector = format!("#{field}");
    browser.value(&format!("document.querySelector('{selector}').select()"));
    // Backspace, for the empty text.
    browser.type_into(&selector, &format!("\u{e003}{text}"));
}

/// The names and the rest of the rows of a table, as they are shown.
fn rows(browser: &Browser, table: &str) -> Vec<String> {
    let cells = "Array.from(row.cells, (cell) => cell.textContent).join(' | ')";
    let rows = browser.value(&format!(
        "Array.from(document.querySelectorAll('#{table} tbody tr'), (row) => {cells})"
    ));
    rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned()).collect()
}

fn details(browser: &Browser) -> String {
    browser.text("document.getElementById('details-body').innerText.replace(/\\n+/g, ' ')")
}

/// Two vCPUs, six exits, and one of everything else.
fn small() -> Vec<Record> {
    let devices = |time, event| Record { time, source: Source::Devices, event };
    let (write, read) = (Direction::Write, Direction::Read);
    let store = VmExit::Mmio(MmioExit { gpa: Gpa(0xfed0_0000), direction: write, size: 4 });
    let posted = |enqueue| Handling::Posted { enqueue };
    let served = Handling::Served { wait: 300, service: 50 };
    vec![
        of_vcpu(0, 0, Event::Start),
        of_vcpu(0, 450, Event::Marker(MarkerName::new(b"boot"))),
        with_code(exit(0, 1_000, 0, pio(0x3f8, write), posted(100)), PUTC, 0x48),
        with_code(exit(0, 2_000, 1, pio(0x3f8, write), posted(200)), PUTC, 0x69),
        with_code(exit(0, 3_000, 2, pio(0x3fd, read), served), POLL, 0x60),
        service(Source::Vcpu(VcpuId(0)), 3_100, 0, 1, 0x69),
        exit(0, 6_000, 3, VmExit::Hlt, Handling::RunLoop),
        of_vcpu(0, 6_000, Event::Halt),
        exit(1, 1_500, 0, pio(0x402, write), posted(400)),
        exit(1, 4_000, 1, store, posted(1_000)),
        service(Source::Devices, 1_800, 0, 0, 0x48),
        devices(2_500, Event::Output { offset: 0, len: 1, took: 400 }),
        of_vcpu(0, 9_000, Event::Totals(Totals { seen: 9, kept: 4, filtered: 3, dropped: 2 })),
        of_vcpu(1, 9_000, Event::Totals(Totals { seen: 2, kept: 2, filtered: 0, dropped: 0 })),
        Record { time: 9_000, source: Source::Supervisor, event: Event::End },
    ]
}

fn open_small() -> Option<(Browser, NamedTempFile)> {
    let browser = Browser::start(1400, 1000, false)?;
    let page = page(&synthetic::info(2, "hello.bin"), small(), "");
    open(&browser, &page);
    Some((browser, page))
}

#[test]
fn the_head_says_what_the_trace_is_and_what_it_lacks() {
    let Some(browser) = Browser::start(1400, 1000, false) else { return };
    let info = TraceInfo { filter: "port 0x3f8".to_owned(), ..synthetic::info(2, "hello.bin") };
    let page = page(&info, small(), "Some of it was lost.");
    open(&browser, &page);
    let text = |id: &str| browser.text(&format!("document.getElementById('{id}').innerText"));
    assert_eq!(text("guest"), "hello.bin");
    assert_eq!(text("note"), "Some of it was lost.");
    assert_eq!(text("totals").replace('\n', " "), "seen 11 kept 6 filtered 3 dropped 2");
    let facts = text("facts");
    assert!(facts.contains("2 vCPUs") && facts.contains("filter port 0x3f8"), "{facts}");
    assert_eq!(browser.text("document.title"), "hello.bin – minivmm trace");
    assert_shown(&browser, 6);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn zooming_and_moving_show_what_they_should() {
    let Some((browser, _page)) = open_small() else { return };
    let all = [-60.0, 6_060.0];
    assert_visible(&browser, all);
    browser.press("+");
    assert_visible(&browser, [1_470.0, 4_530.0]);
    browser.click("#zoom-in");
    assert_visible(&browser, [2_235.0, 3_765.0]);
    browser.press("-");
    assert_visible(&browser, [1_470.0, 4_530.0]);
    // The right and the left arrow key: a tenth.
    browser.value("document.getElementById('timeline').focus()");
    browser.press("\u{e014}\u{e014}\u{e012}");
    assert_visible(&browser, [1_776.0, 4_836.0]);
    // The end, and no further.
    browser.press("\u{e010}\u{e014}");
    assert_visible(&browser, [3_000.0, 6_060.0]);
    browser.press("0");
    assert_visible(&browser, all);

    // What is under the pointer stays there.
    let before = place(&browser, 1, 4_000);
    browser.wheel(before, -500);
    settle(&browser);
    let [start, end] = visible(&browser);
    assert!((end - start - 6_120.0 / 1_f64.exp()).abs() < 1.0, "{start} to {end}");
    let after = place(&browser, 1, 4_000);
    assert!((before[0] - after[0]).abs() <= 1, "{before:?} and {after:?}");

    // So it does when it is dragged.
    browser.drag(&[after, [after[0] - 60, after[1]], [after[0] - 120, after[1]]]);
    settle(&browser);
    let dragged = place(&browser, 1, 4_000);
    assert!((after[0] - 120 - dragged[0]).abs() <= 1, "{after:?} and {dragged:?}");
    assert_eq!(browser.value("minivmm.selected"), json!(null));

    // With Shift, a range is marked and then fills the timeline, whichever way it goes.
    browser.press("0");
    settle(&browser);
    let [from, to] = [2_000, 1_000].map(|time| place(&browser, 1, time));
    browser.with_shift(|| browser.drag(&[from, to]));
    settle(&browser);
    let [start, end] = visible(&browser);
    let pixel = 6_120.0 / 1_000.0;
    assert!((start - 1_000.0).abs() < pixel && (end - 2_000.0).abs() < pixel, "{start} to {end}");
}

#[test]
fn a_click_on_an_exit_shows_it_and_its_service() {
    let Some((browser, _page)) = open_small() else { return };
    browser.drag(&[place(&browser, 0, 1_800)]);
    settle(&browser);
    assert_eq!(browser.value("minivmm.selected"), json!({ "vcpu": 0, "sequence": 1 }));
    let shown = details(&browser);
    for part in [
        "io-out  0x3f8",
        "vCPU 0",
        "number 1",
        "data 0x69  'i'",
        "RIP 0x10a4",
        "code uart_putc+0x24 (uart.c:31)",
        "exit at 2\u{2009}000 ns",
        "in the guest 500 ns",
        "handling posted in 200 ns",
        "Service served by vCPU 0",
        "begin 3\u{2009}100 ns",
        "waited 800 ns",
        "took 60 ns",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    // The next, which the vCPU served itself, and from there to the last.
    browser.press("n");
    settle(&browser);
    assert!(details(&browser).contains("served in 50 ns after 300 ns"), "{}", details(&browser));
    browser.press("nnn");
    settle(&browser);
    assert_eq!(browser.value("minivmm.selected"), json!({ "vcpu": 0, "sequence": 3 }));
    browser.press("ppppp");
    settle(&browser);
    assert_eq!(browser.value("minivmm.selected"), json!({ "vcpu": 0, "sequence": 0 }));
    assert!(details(&browser).contains("served by devices"), "{}", details(&browser));

    browser.drag(&[place(&browser, 1, 4_500)]);
    settle(&browser);
    assert!(
        details(&browser).contains("Its service is not in the trace."),
        "{}",
        details(&browser)
    );
    // Where nothing is.
    browser.drag(&[place(&browser, 1, 5_900)]);
    settle(&browser);
    assert_eq!(browser.value("minivmm.selected"), json!(null));
}

#[test]
fn what_is_under_the_pointer_is_told() {
    let Some((browser, _page)) = open_small() else { return };
    let tooltip = "document.getElementById('tooltip')";
    browser.hover(place(&browser, 1, 4_500));
    let text = browser.text(&format!("{tooltip}.innerText"));
    assert!(text.starts_with("mmio-write  0xfed00000"), "{text}");
    let [x, y] = place(&browser, 0, 450);
    browser.hover([x, y - 12]);
    let text = browser.text(&format!("{tooltip}.innerText"));
    assert!(text.starts_with("marker boot"), "{text}");
    // The device thread's lane is above.
    let [x, y] = place(&browser, 0, 2_700);
    browser.hover([x, y - 33]);
    let text = browser.text(&format!("{tooltip}.innerText"));
    assert!(text.starts_with("write to the host"), "{text}");
    browser.hover(place(&browser, 1, 5_900));
    assert_eq!(browser.value(&format!("{tooltip}.hidden")), json!(true));
}

#[test]
fn filters_show_exactly_what_they_ask_for() {
    let Some((browser, _page)) = open_small() else { return };
    for (field, text, shown) in [
        ("vcpus", "1", 2),
        ("vcpus", "0-1", 6),
        ("vcpus", "0,7", 4),
        ("address", "0x3f8", 2),
        ("address", "0x3f8-0x3fd", 3),
        ("address", "0xfed00000", 1),
        ("address", "0-0", 0),
        ("address", "port 0x3f8", 2),
        ("address", "mmio 0x3f8", 0),
        ("address", "MMIO 0-0xffffffffffffffff", 1),
        ("code", "PUTC", 2),
        ("code", "0x1088", 1),
        ("code", "0x1000-0x10ff", 3),
        ("code", "nowhere", 0),
        ("busy", "300", 3),
        ("busy", "0.4us", 2),
        ("busy", "1us", 1),
    ] {
        fill(&browser, field, text);
        assert_shown(&browser, shown);
        fill(&browser, field, "");
        assert_shown(&browser, 6);
    }
    // Together; a click on a reason adds it, and takes it out again.
    fill(&browser, "busy", "100");
    browser.click("#reasons button:nth-child(1)");
    assert_shown(&browser, 3);
    browser.click("#reasons button:nth-child(2)");
    assert_shown(&browser, 4);
    browser.click("#reasons button:nth-child(1)");
    assert_shown(&browser, 1);
    browser.click("#clear");
    assert_shown(&browser, 6);
    assert_eq!(browser.value("document.getElementById('busy').value"), json!(""));
}

#[test]
fn a_filter_that_is_not_understood_says_so_and_filters_nothing() {
    let Some((browser, _page)) = open_small() else { return };
    for (field, text) in [("vcpus", "x"), ("address", "0x"), ("busy", "1 parsec")] {
        fill(&browser, field, text);
        assert_shown(&browser, 6);
        let input = format!("document.getElementById('{field}')");
        assert_eq!(browser.text(&format!("{input}.getAttribute('aria-invalid')")), "true");
        assert_eq!(browser.text(&format!("{input}.title")), format!("'{text}' is not understood"));
        fill(&browser, field, "");
    }
}

#[test]
fn the_numbers_can_be_those_of_what_is_in_view() {
    let Some((browser, _page)) = open_small() else { return };
    browser.click("#in-view");
    assert_shown(&browser, 6);
    browser.click("#zoom-in");
    // 1470 to 4530 ns.
    assert_shown(&browser, 4);
    fill(&browser, "vcpus", "0");
    assert_shown(&browser, 2);
    assert_eq!(rows(&browser, "places").len(), 2);
    browser.click("#zoom-all");
    assert_shown(&browser, 4);
}

#[test]
fn tables_sort_by_each_column_and_their_rows_filter() {
    let Some((browser, _page)) = open_small() else { return };
    assert_eq!(rows(&browser, "places")[0], "port 0x3f8 | 2 | 300 ns | 150 ns | 200 ns");
    let names = || -> Vec<String> {
        let rows = rows(&browser, "places");
        rows.iter().map(|row| row.split(" | ").next().unwrap().to_owned()).collect()
    };
    let sort = |column: u32| browser.click(&format!("#places th:nth-child({column}) button"));
    sort(3);
    let by_total = ["mmio 0xfed00000", "port 0x402", "port 0x3fd", "port 0x3f8", "hlt"];
    assert_eq!(names(), by_total);
    sort(3);
    assert_eq!(names(), by_total.into_iter().rev().collect::<Vec<_>>());
    sort(1);
    assert_eq!(names(), ["hlt", "mmio 0xfed00000", "port 0x3f8", "port 0x3fd", "port 0x402"]);
    let sorted = "document.querySelector('#places th').getAttribute('aria-sort')";
    assert_eq!(browser.text(sorted), "ascending");

    let code = rows(&browser, "codes");
    assert_eq!(code[1], "uart_putc+0x24 (uart.c:31) | 2 | 300 ns | 150 ns | 200 ns");
    browser.click("#codes tbody tr:nth-child(2) button");
    assert_shown(&browser, 2);
    assert_eq!(rows(&browser, "codes"), [code[1].as_str()]);
    browser.click("#codes tbody button");
    assert_shown(&browser, 6);
    browser.click("#places tbody tr:nth-child(1) button");
    assert_shown(&browser, 1);
}

#[test]
fn no_name_becomes_markup() {
    let Some(browser) = Browser::start(1400, 1000, false) else { return };
    let hostile = "</script><img src=x onerror=\"pwned=1\"><script>pwned=1</script>";
    let info = TraceInfo { filter: hostile.to_owned(), ..synthetic::info(1, hostile) };
    let mut records = small();
    records.push(of_vcpu(0, 5_000, Event::Marker(MarkerName::new(b"<img src=x onerror=a()>"))));
    let page = page_with(&info, records, Box::new(|_| Some(hostile.to_owned())), hostile);
    open(&browser, &page);
    browser.drag(&[place(&browser, 0, 1_800)]);
    settle(&browser);
    assert!(details(&browser).contains(hostile), "{}", details(&browser));
    let [x, y] = place(&browser, 0, 5_000);
    browser.hover([x, y - 12]);
    let text = browser.text("document.getElementById('tooltip').innerText");
    assert!(text.starts_with("marker <img src=x onerror=a()>"), "{text}");
    assert_eq!(browser.text("document.getElementById('note').textContent"), hostile);
    assert_eq!(browser.text("document.getElementById('guest').textContent"), hostile);
    assert_eq!(browser.value("document.querySelectorAll('img').length"), json!(0));
    assert_eq!(browser.value("typeof pwned"), json!("undefined"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_without_records_and_one_of_nonsense_are_shown() {
    let Some(browser) = Browser::start(1400, 1000, false) else { return };
    let empty = page(&TraceInfo::default(), Vec::new(), "");
    open(&browser, &empty);
    assert_shown(&browser, 0);
    browser.press("+np0");
    settle(&browser);

    let mut nonsense = small();
    nonsense.reverse();
    nonsense.push(exit(9, u64::MAX, u64::MAX, VmExit::Shutdown, Handling::Pending));
    nonsense.push(of_vcpu(7, u64::MAX, Event::Kick { target: VcpuId(u32::MAX) }));
    nonsense.push(service(Source::Supervisor, 7, 300, 5, u64::MAX));
    let nonsense = page(&TraceInfo::default(), nonsense, "");
    open(&browser, &nonsense);
    assert_shown(&browser, 7);
    browser.press("++++++++n0pn");
    settle(&browser);
    // They came backwards, and are in order again.
    fill(&browser, "vcpus", "0");
    assert_shown(&browser, 4);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_lanes_of_many_vcpus_scroll() {
    let Some(browser) = Browser::start(1400, 800, true) else { return };
    let page = page(&synthetic::info(64, "hello.bin"), Machine::run(64, 3), "");
    open(&browser, &page);
    let scrolled = "document.getElementById('scroller').scrollTop";
    assert_eq!(browser.value(scrolled), json!(0));
    let [x, y] = place(&browser, 3, 0);
    browser.wheel([40.min(x), y], 900);
    browser.wait_for(&format!("{scrolled} > 800"));
    settle(&browser);
    // A click now is in another lane.
    let clicked = place(&browser, 25, 20_000 + 25 * 9_000 + 300);
    browser.drag(&[clicked]);
    settle(&browser);
    assert_eq!(browser.value("minivmm.selected.vcpu"), json!(25));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_million_exits_are_as_easy_to_look_at() {
    let Some(browser) = Browser::start(1400, 1000, false) else { return };
    let records = Machine::run(8, 4_100);
    let count = |is: fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let exits = count(|record| record.exit().is_some());
    let outs = count(|record| {
        let exit = record.exit().map(|event| event.exit);
        matches!(exit, Some(VmExit::Pio(PioExit { port: PioAddr(0x3f8), .. })))
    });
    assert!(exits > 1_000_000, "{exits}");
    let page = page(&synthetic::info(8, "hello.bin"), records, "");
    let size = page.as_file().metadata().unwrap().len();
    assert!(size < 20_000_000, "{size} bytes");
    open(&browser, &page);
    assert_eq!(browser.value("minivmm.shown"), json!(exits));
    for _ in 0..12 {
        browser.press("+");
        settle(&browser);
    }
    browser.press("0");
    fill(&browser, "address", "0x3f8");
    settle(&browser);
    assert_eq!(browser.value("minivmm.shown"), json!(outs));
    browser.click("#in-view");
    browser.press("n");
    settle(&browser);
    assert_eq!(browser.value("minivmm.selected.vcpu"), json!(0));
    let load = browser.value("minivmm.loadTime").as_f64().unwrap();
    println!("{exits} exits: {size} bytes, loaded in {load} ms");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// The picture in the documentation; `MINIVMM_SCREENSHOT` says where it goes, if anywhere.
#[test]
fn a_picture_of_the_page_is_small_enough_for_the_documentation() {
    let Some(browser) = Browser::start(1480, 1180, false) else { return };
    let records = Machine::run(4, 12);
    // An exit of vCPU 2 that the device thread served.
    let served = records.iter().filter(|record| record.source == Source::Devices);
    let sequence = served.filter(|record| record.time > 155_000).find_map(|record| {
        let Event::Service(event) = record.event else { return None };
        (event.vcpu == VcpuId(2)).then_some(event.sequence)
    });
    let of_vcpu = records.iter().filter(|record| record.source == Source::Vcpu(VcpuId(2)));
    let mut exits = of_vcpu.filter_map(|record| Some((record.time, record.exit()?.sequence)));
    let (time, _) = exits.find(|(_, number)| Some(*number) == sequence).unwrap();
    let page = page(&synthetic::info(4, "hello.bin"), records, "");
    open(&browser, &page);
    browser.wheel(place(&browser, 2, time), -1_100);
    settle(&browser);
    browser.drag(&[place(&browser, 2, time)]);
    // Out of the timeline, so that no tooltip hides it.
    browser.hover([5, 5]);
    settle(&browser);
    let image = browser.screenshot();
    assert!(image.len() < 200_000, "{} bytes", image.len());
    if let Some(path) = std::env::var_os("MINIVMM_SCREENSHOT") {
        fs::write(path, image).unwrap();
    }
}
