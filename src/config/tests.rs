//! What each type of `config` accepts, refuses and prints.

use std::ffi::OsStr;
use std::fmt::{Debug, Display};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use proptest::prelude::*;

use super::*;
use crate::exit::VcpuId;
use crate::number::parse_bits64;

/// Asserts that a text is read as `expected`, where an error stands for its message.
#[track_caller]
fn assert_reads<T>(text: &str, expected: Result<T, &str>)
where
    T: FromStr<Err: Display> + Debug + PartialEq,
{
    let read = text.parse::<T>().map_err(|error| error.to_string());
    assert_eq!(read, expected.map_err(str::to_owned), "reading {text:?}");
}

#[track_caller]
fn assert_round_trip<T>(value: &T)
where
    T: FromStr<Err: Debug + PartialEq> + Display + Debug + PartialEq,
{
    assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(value), "printed as {value}");
}

#[test]
fn numbers() {
    let invalid = |text: &str| Err(NumberError::Invalid(text.to_owned()));
    let too_large = |text: &str| Err(NumberError::TooLarge(text.to_owned()));
    for (text, expected) in [
        ("0", Ok(0)),
        ("007", Ok(7)),
        ("4_096", Ok(4096)),
        ("0x1000", Ok(4096)),
        ("0XfF", Ok(255)),
        ("0x1_0000_0000", Ok(1 << 32)),
        ("18446744073709551615", Ok(u64::MAX)),
        ("18446744073709551616", too_large("18446744073709551616")),
        ("0x10000000000000000", too_large("0x10000000000000000")),
        ("", invalid("")),
        ("0x", invalid("0x")),
        ("_1", invalid("_1")),
        ("1_", invalid("1_")),
        ("0x_1", invalid("0x_1")),
        ("+1", invalid("+1")),
        ("-1", invalid("-1")),
        ("1f", invalid("1f")),
        (" 1", invalid(" 1")),
        ("\u{661}", invalid("\u{661}")),
    ] {
        assert_eq!(parse_u64(text), expected, "reading {text:?}");
    }
}

#[test]
fn negative_numbers_are_twos_complement() {
    let invalid = |text: &str| Err(NumberError::Invalid(text.to_owned()));
    let too_large = |text: &str| Err(NumberError::TooLarge(text.to_owned()));
    for (text, expected) in [
        ("1", Ok(1)),
        ("-0", Ok(0)),
        ("-1", Ok(u64::MAX)),
        ("-0x10", Ok(0xffff_ffff_ffff_fff0)),
        ("-9223372036854775808", Ok(1 << 63)),
        ("-9223372036854775809", too_large("-9223372036854775809")),
        ("-18446744073709551616", too_large("-18446744073709551616")),
        ("-", invalid("-")),
        ("--1", invalid("--1")),
    ] {
        assert_eq!(parse_bits64(text), expected, "reading {text:?}");
    }
}

#[test]
fn vcpu_counts() {
    assert_reads("1", Ok(VcpuCount(1)));
    assert_reads("65535", Ok(VcpuCount(65_535)));
    assert_reads::<VcpuCount>("0", Err("at least 1 vCPU is needed"));
    assert_reads::<VcpuCount>("65536", Err("65536 vCPUs are more than the limit of 65535"));
    // 2^32 + 1 must not come out as 1.
    assert_reads::<VcpuCount>(
        "4294967297",
        Err("4294967297 vCPUs are more than the limit of 65535"),
    );
    assert_reads::<VcpuCount>(
        "two",
        Err("'two' is not a number: expected decimal, or hexadecimal after 0x"),
    );
    assert_eq!(VcpuCount::new(3).map(VcpuCount::get), Ok(3));
    assert_eq!(VcpuCount::new(u32::MAX), Err(VcpuCountError::TooMany { count: 4_294_967_295 }));
}

#[test]
fn memory_sizes() {
    for (text, bytes) in [
        ("4096", 4096),
        ("8192B", 8192),
        ("4k", 4 << 10),
        ("4KB", 4 << 10),
        ("4KiB", 4 << 10),
        ("128M", 128 << 20),
        ("128 MiB", 128 << 20),
        ("128mib", 128 << 20),
        ("1_024 m", 1 << 30),
        ("2g", 2 << 30),
        ("64T", 1 << 46),
    ] {
        assert_reads(text, Ok(MemorySize::from_bytes(bytes).unwrap()));
    }
}

#[test]
fn memory_sizes_refused() {
    for (text, message) in [
        ("0", "at least one page of 4 KiB is needed"),
        ("0G", "at least one page of 4 KiB is needed"),
        ("4095", "4095 bytes are not a whole number of 4 KiB pages"),
        ("5K", "5120 bytes are not a whole number of 4 KiB pages"),
        ("65T", "71468255805440 bytes are more than the limit of 64 TiB"),
        ("70368744177665", "70368744177665 bytes are more than the limit of 64 TiB"),
        // 2^64 bytes, which must not come out as none.
        ("16777216T", "18446744073709551616 bytes are more than the limit of 64 TiB"),
        ("18446744073709551616", "18446744073709551616 does not fit in 64 bits"),
        ("1P", "'P' is not a unit of memory: expected K, M, G or T"),
        ("1Mi", "'Mi' is not a unit of memory: expected K, M, G or T"),
        ("1  M", "'  M' is not a unit of memory: expected K, M, G or T"),
        ("1.5G", "'.5G' is not a unit of memory: expected K, M, G or T"),
        ("1iB", "'iB' is not a unit of memory: expected K, M, G or T"),
        ("M", "'M' is not a number: expected decimal, or hexadecimal after 0x"),
        ("", "'' is not a number: expected decimal, or hexadecimal after 0x"),
        ("-1M", "'-1M' is not a number: expected decimal, or hexadecimal after 0x"),
    ] {
        assert_reads::<MemorySize>(text, Err(message));
    }
}

#[test]
fn memory_sizes_print_in_the_largest_exact_unit() {
    for (bytes, text) in [
        (4096, "4 KiB"),
        (128 << 20, "128 MiB"),
        (1536 << 20, "1536 MiB"),
        ((1 << 30) + 4096, "1048580 KiB"),
        (3 << 30, "3 GiB"),
        (1 << 46, "64 TiB"),
    ] {
        assert_eq!(MemorySize::from_bytes(bytes).unwrap().to_string(), text);
    }
    assert_eq!(MemorySize::default().pages(), 32_768);
}

#[test]
fn cpu_modes() {
    for mode in CpuMode::ALL {
        assert_round_trip(&mode);
    }
    assert_reads("LONG", Ok(CpuMode::Long));
    assert_reads::<CpuMode>(
        "virtual",
        Err("'virtual' is not a CPU mode: expected real, protected, long or user"),
    );
}

#[test]
fn registers() {
    for (i, register) in Register::ALL.into_iter().enumerate() {
        assert_eq!(register as usize, i, "{register} is out of order");
        assert_round_trip(&register);
    }
    assert_reads("RFlags", Ok(Register::Rflags));
    assert_reads::<Register>(
        "eax",
        Err("'eax' is not a register: expected rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, \
             r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags"),
    );
}

#[test]
fn serial_connections() {
    assert_reads("stdio", Ok(SerialConfig::Stdio));
    assert_reads("null", Ok(SerialConfig::Null));
    assert_reads("pty", Ok(SerialConfig::Pty));
    assert_reads("kept", Ok(SerialConfig::Kept));
    assert_reads("file:a:b", Ok(SerialConfig::File(PathBuf::from("a:b"))));
    assert_reads::<SerialConfig>("file:", Err("file: needs a path after it"));
    assert_reads::<SerialConfig>(
        "file",
        Err("'file' is not a serial connection: expected stdio, null, pty, kept or file:PATH"),
    );
    assert_reads::<SerialConfig>(
        "",
        Err("'' is not a serial connection: expected stdio, null, pty, kept or file:PATH"),
    );
    let not_utf8 = SerialConfig::from_os_str(OsStr::from_bytes(b"file:\xff"));
    assert_eq!(not_utf8, Ok(SerialConfig::File(OsStr::from_bytes(b"\xff").into())));
}

#[test]
fn cpu_lists() {
    for (text, cpus) in [
        ("0", vec![0]),
        ("0,2-3", vec![0, 2, 3]),
        ("3,1,1", vec![3, 1, 1]),
        ("2-2", vec![2]),
        ("1022-1023", vec![1022, 1023]),
    ] {
        assert_reads(text, Ok(CpuList::new(cpus).unwrap()));
    }
    for (text, message) in [
        ("", "at least one CPU is needed"),
        (",", "'' is neither a CPU number nor a range such as 2-3"),
        ("0,", "'' is neither a CPU number nor a range such as 2-3"),
        ("a", "'a' is neither a CPU number nor a range such as 2-3"),
        ("1-", "'1-' is neither a CPU number nor a range such as 2-3"),
        ("-1", "'-1' is neither a CPU number nor a range such as 2-3"),
        ("1-2-3", "'1-2-3' is neither a CPU number nor a range such as 2-3"),
        ("0, 1", "' 1' is neither a CPU number nor a range such as 2-3"),
        ("3-1", "the range 3-1 runs backwards"),
        ("1024", "CPU 1024 is above the highest that can be named, 1023"),
        ("0-999999999999", "CPU 999999999999 is above the highest that can be named, 1023"),
    ] {
        assert_reads::<CpuList>(text, Err(message));
    }
    assert_eq!(CpuList::new(vec![]), Err(CpuListError::Empty));
    assert_eq!(CpuList::new(vec![0, 1024]), Err(CpuListError::TooHigh { cpu: 1024 }));
}

#[test]
fn pinning_goes_round_and_round() {
    let list = Pinning::Cpus(CpuList::new(vec![5, 7]).unwrap());
    let cpus = |pinning: &Pinning, available: &[usize]| {
        [0, 1, 2, u32::MAX].map(|vcpu| pinning.cpu_for(VcpuId(vcpu), available))
    };
    assert_eq!(cpus(&list, &[]), [Some(5), Some(7), Some(5), Some(7)]);
    assert_eq!(cpus(&Pinning::Auto, &[1, 3, 4]), [Some(1), Some(3), Some(4), Some(1)]);
    assert_eq!(cpus(&Pinning::Auto, &[]), [None; 4]);
    assert_reads("AUTO", Ok(Pinning::Auto));
    assert_round_trip(&Pinning::Auto);
    assert_round_trip(&list);
}

#[test]
fn the_defaults_of_a_file() {
    let config = VmConfig::new(GuestSource::File("guest.bin".into()));
    let expected = VmConfig {
        guest: GuestSource::File("guest.bin".into()),
        boot: BootConfig::default(),
        platform: PlatformConfig::default(),
        vcpus: VcpuCount(1),
        memory: MemorySize::from_bytes(128 << 20).unwrap(),
        mode: None,
        load_addr: None,
        entry: None,
        regs: vec![],
        timeout: None,
        serial: SerialConfig::Stdio,
        pin: None,
        trace: TraceConfig::default(),
        stress: None,
    };
    assert_eq!(config, expected);
    assert_eq!((config.flat_mode(), config.flat_load_addr()), (CpuMode::Real, Gpa(0x1000)));
}

#[test]
fn a_demo_starts_in_its_own_mode() {
    use minivmm_guests::{Guest, Kind, Mode};

    static DEMO: Guest =
        Guest { name: "demo", summary: "", kind: Kind::Demo, mode: Mode::User, image: &[] };
    assert_eq!(VmConfig::new(GuestSource::Demo(&DEMO)).flat_mode(), CpuMode::User);
    let modes = [Mode::Real, Mode::Protected, Mode::Long, Mode::User].map(CpuMode::from);
    assert_eq!(modes, CpuMode::ALL);
}

proptest! {
    #[test]
    fn numbers_round_trip(value: u64) {
        prop_assert_eq!(parse_u64(&value.to_string()), Ok(value));
        prop_assert_eq!(parse_u64(&format!("{value:#x}")), Ok(value));
    }

    #[test]
    fn signed_numbers_round_trip(value: i64) {
        prop_assert_eq!(parse_bits64(&value.to_string()), Ok(value.cast_unsigned()));
    }

    #[test]
    fn vcpu_counts_round_trip(count in 1..=VcpuCount::MAX) {
        assert_round_trip(&VcpuCount::new(count).unwrap());
    }

    #[test]
    fn memory_sizes_round_trip(
        pages in 1..=MemorySize::MAX_BYTES / MemorySize::PAGE,
        zeros in 0..34_u32,
    ) {
        // Without the shift almost no size would be a whole number of MiB or more.
        let pages: u64 = ((pages >> zeros) << zeros).max(1);
        let size = MemorySize::from_bytes(pages * MemorySize::PAGE).unwrap();
        prop_assert_eq!(size.pages(), pages);
        assert_round_trip(&size);
    }

    #[test]
    fn cpu_lists_round_trip(
        runs in prop::collection::vec((0..CpuList::LIMIT, 1..5_usize), 1..20),
    ) {
        let cpus = runs.into_iter().flat_map(|(first, n)| first..CpuList::LIMIT.min(first + n));
        assert_round_trip(&CpuList::new(cpus.collect()).unwrap());
    }

    #[test]
    fn serial_paths_round_trip(path in "\\PC+") {
        assert_round_trip(&SerialConfig::File(path.into()));
    }

    #[test]
    fn what_is_accepted_round_trips(
        text in prop_oneof!["\\PC*", "-?[0-9]{1,22}[-,_ 0-9KMGTkmgtiB]{0,8}"],
    ) {
        text.parse().iter().for_each(assert_round_trip::<VcpuCount>);
        text.parse().iter().for_each(assert_round_trip::<MemorySize>);
        text.parse().iter().for_each(assert_round_trip::<Pinning>);
        if let Ok(value) = parse_u64(&text) {
            prop_assert_eq!(parse_bits64(&text), Ok(value));
        }
    }
}
