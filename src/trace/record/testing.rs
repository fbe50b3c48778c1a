//! Any record, for property tests of whatever takes records.

use proptest::prelude::*;

use super::encode::SEQUENCE_BITS;
use super::*;
use crate::exit::{AddressSpace, Direction, Gpa, PioAddr};

fn any_direction() -> impl Strategy<Value = Direction> + Clone {
    prop_oneof![Just(Direction::Read), Just(Direction::Write)]
}

/// Any exit.
pub fn any_exit() -> impl Strategy<Value = VmExit> {
    let size = prop_oneof![Just(1u8), Just(2), Just(4)];
    prop_oneof![
        (any::<u16>(), any_direction(), size, 1..=4096u32).prop_map(
            |(port, direction, size, count)| {
                let port = PioAddr(port);
                VmExit::Pio(PioExit { port, direction, size, count })
            }
        ),
        (any::<u64>(), any_direction(), 1u8..=8).prop_map(|(gpa, direction, size)| {
            VmExit::Mmio(MmioExit { gpa: Gpa(gpa), direction, size })
        }),
        Just(VmExit::Hlt),
        Just(VmExit::Shutdown),
        Just(VmExit::Interrupted),
        Just(VmExit::SetTpr),
        Just(VmExit::IrqWindowOpen),
        Just(VmExit::Debug),
        any::<u8>().prop_map(|vector| VmExit::IoapicEoi { vector }),
        (any::<u64>(), any::<u32>()).prop_map(|(reason, cpu)| VmExit::FailEntry { reason, cpu }),
        any::<u32>().prop_map(|suberror| VmExit::InternalError { suberror, insn: None }),
        any::<u32>().prop_map(|kind| VmExit::SystemEvent { kind }),
        any::<u32>().prop_map(|reason| VmExit::Unhandled { reason }),
    ]
}

/// Any way of handling an exit.
pub fn any_handling() -> impl Strategy<Value = Handling> {
    prop_oneof![
        Just(Handling::Pending),
        Just(Handling::RunLoop),
        any::<u32>().prop_map(|enqueue| Handling::Posted { enqueue }),
        (any::<u32>(), any::<u32>()).prop_map(|(wait, service)| Handling::Served { wait, service }),
    ]
}

fn any_sequence() -> impl Strategy<Value = u64> {
    0..1u64 << SEQUENCE_BITS
}

fn any_vcpu() -> impl Strategy<Value = VcpuId> {
    (0..4096u32).prop_map(VcpuId)
}

fn any_exit_event() -> impl Strategy<Value = ExitEvent> {
    let rest = (any_sequence(), any::<u64>(), any::<Option<u64>>(), any::<u64>());
    (any_exit(), any_handling(), rest).prop_map(|(exit, handling, rest)| {
        let (sequence, data, rip, guest) = rest;
        ExitEvent { sequence, exit, data, rip, guest, handling }
    })
}

fn any_service() -> impl Strategy<Value = ServiceEvent> {
    let space = prop_oneof![Just(AddressSpace::Pio), Just(AddressSpace::Mmio)];
    let access = (space, any::<u64>(), any_direction(), 1u8..=8, any::<u64>()).prop_map(
        |(space, addr, direction, size, data)| Access { space, addr, direction, size, data },
    );
    (any_vcpu(), any_sequence(), access, any::<u32>(), any::<u32>()).prop_map(
        |(vcpu, sequence, access, wait, service)| ServiceEvent {
            vcpu,
            sequence,
            access,
            wait,
            service,
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any_exit_event().prop_map(Event::Exit),
        4 => any_service().prop_map(Event::Service),
        1 => (any::<u64>(), any::<u32>(), any::<u32>())
            .prop_map(|(offset, len, took)| Event::Output { offset, len, took }),
        1 => any_vcpu().prop_map(|target| Event::Kick { target }),
        1 => prop_oneof![Just(Event::Start), Just(Event::Halt), Just(Event::Stop)],
        1 => (any::<u32>(), any::<bool>())
            .prop_map(|(irq, high)| Event::Interrupt { irq, high }),
        1 => prop::collection::vec(any::<u8>(), 0..30)
            .prop_map(|name| Event::Marker(MarkerName::new(&name))),
        1 => "[a-z][a-z0-9]{0,23}"
            .prop_map(|name| Event::Completed(MarkerName::new(name.as_bytes()))),
        1 => any::<bool>().prop_map(|on| Event::Recording { on }),
        1 => any::<[u64; 4]>().prop_map(|[seen, kept, filtered, dropped]| {
            Event::Totals(Totals { seen, kept, filtered, dropped })
        }),
    ]
}

/// Any record but [`Event::End`].
pub fn any_record() -> impl Strategy<Value = Record> {
    let source = prop_oneof![
        4 => any_vcpu().prop_map(Source::Vcpu),
        1 => Just(Source::Devices),
        1 => Just(Source::Supervisor),
    ];
    (any::<u64>(), source, any_event()).prop_map(|(time, source, event)| Record {
        time,
        source,
        event,
    })
}
