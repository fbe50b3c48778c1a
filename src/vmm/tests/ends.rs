//! Each way for a run to end: what it is called, that the other threads end with it, and that
//! what was sent before it arrives.

use std::sync::OnceLock;

use super::*;
use crate::devices::GuestEnd;
use crate::exit::VmExit;

/// A guest that sends one byte and then does `last`, among three that spin.
fn one_among_spinners(last: Step) -> Ran {
    let spinner = |byte| vec![Step::send(byte), Step::Spin, Step::panic("ran on")];
    let vm =
        TestVm::new([spinner(b'0'), spinner(b'1'), vec![Step::send(b'!'), last], spinner(b'3')]);
    let ran = vm.run();
    assert!(ran.received.contains(&b'!'));
    assert_eq!(ran.report.output.lost, 0);
    ran
}

fn out_of_memory(what: &'static str) -> VcpuError {
    VcpuError::Setup { what, source: io::ErrorKind::OutOfMemory.into() }
}

/// A maker of a vCPU that must not be entered.
fn idle() -> Maker {
    Box::new(|| Ok(ScriptedVcpu::new([Step::panic("ran, though not all were ready")])))
}

fn assert_never_ran(report: &VmReport) {
    assert!(report.vcpus.iter().all(|vcpu| vcpu.count == 0), "{report:?}");
}

mod by_the_guest {
    use super::*;

    #[test]
    fn all_halt_and_every_byte_arrives_in_order() {
        let vm = TestVm::new((0..4).map(|vcpu| numbered(vcpu).take(2_000)));
        let ran = vm.run();
        assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{:?}", ran.report);
        assert_eq!(ran.report.output.written, 8_000);
        ran.check_order();
        assert!(ran.report.vcpus.iter().all(|vcpu| vcpu.count == 2_001));
    }

    #[test]
    fn an_exit_ends_those_that_spin() {
        let ran = one_among_spinners(Step::out8(0xf4, 3));
        let VmOutcome::Guest { vcpu: VcpuId(2), end: GuestEnd::Exit(3) } = ran.report.outcome
        else {
            panic!("{:?}", ran.report)
        };
        // The others say where they were stopped; this one ended by itself.
        let stopped: Vec<_> =
            ran.report.vcpus.iter().map(|vcpu| vcpu.registers.is_some()).collect();
        assert_eq!(stopped, [true, true, false, true]);
    }

    #[test]
    fn a_fault_ends_those_that_spin() {
        let ran = one_among_spinners(Step::Exit(VmExit::Shutdown));
        let VmOutcome::Fault { vcpu: VcpuId(2), exit: VmExit::Shutdown, registers: Some(_) } =
            ran.report.outcome
        else {
            panic!("{:?}", ran.report)
        };
    }

    #[test]
    fn a_halt_of_some_is_no_end() {
        let shared = Arc::new(OnceLock::new());
        let its_shared = Arc::clone(&shared);
        let wait = Step::call(move || {
            wait_until(|| its_shared.get().is_some_and(|shared| have_ended(shared, 2)));
        });
        let halt = || vec![Step::Exit(VmExit::Hlt)];
        let vm = TestVm::new([halt(), vec![wait, Step::send(b'x')], halt()]);
        shared.set(Arc::downgrade(&vm.vmm.shared)).unwrap();
        let ran = vm.run();
        assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{:?}", ran.report);
        assert_eq!(ran.received, b"x");
    }
}

mod by_failure {
    use super::*;

    #[test]
    fn a_vcpu_that_cannot_be_made_is_named_and_nobody_runs() {
        for failing in 0..4 {
            let mut makers: Vec<_> = (0..4).map(|_| idle()).collect();
            makers[failing] = Box::new(|| Err(out_of_memory("KVM_SET_CPUID2")));
            let ran = TestVm::with_makers(makers).run();
            let VmOutcome::VcpuFailed { vcpu, error } = &ran.report.outcome else {
                panic!("{:?}", ran.report)
            };
            assert_eq!(vcpu.index(), failing);
            assert_eq!(error.to_string(), "KVM_SET_CPUID2: out of memory");
            assert_never_ran(&ran.report);
        }
    }

    #[test]
    fn a_panic_while_a_vcpu_is_made_is_reported_and_nobody_runs() {
        let panics: Maker = Box::new(|| panic!("made of glass"));
        let ran = TestVm::with_makers(vec![idle(), panics, idle()]).run();
        let VmOutcome::VcpuPanicked { vcpu: VcpuId(1), message } = &ran.report.outcome else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(message, "made of glass");
        assert_never_ran(&ran.report);
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_named_and_nobody_runs() {
        fn refuse(
            refused: &str,
            name: String,
            body: Box<dyn FnOnce() + Send>,
        ) -> io::Result<JoinHandle<()>> {
            if name == refused {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            thread::Builder::new().name(name).spawn(body)
        }
        let table: [(Spawn, u32); 3] = [
            (|name, body| refuse("vcpu0", name, body), 0),
            (|name, body| refuse("vcpu1", name, body), 1),
            (|name, body| refuse("vcpu2", name, body), 2),
        ];
        for (spawn, refused) in table {
            let mut vm = TestVm::with_makers(vec![idle(), idle(), idle()]);
            vm.vmm.spawn = spawn;
            let ran = vm.run();
            let VmOutcome::VcpuFailed { vcpu, error: VcpuError::Spawn(_) } = &ran.report.outcome
            else {
                panic!("{:?}", ran.report)
            };
            assert_eq!(vcpu.0, refused);
            assert_never_ran(&ran.report);
        }
        // The vCPUs may run already, but not for long.
        let mut vm = TestVm::new([[Step::Spin], [Step::Spin]]);
        vm.vmm.spawn = |name, body| refuse("devices", name, body);
        let ran = vm.run();
        let outcome = &ran.report.outcome;
        let VmOutcome::ThreadNotStarted { thread: "device thread", error } = outcome else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        // The host is at fault, as it is if a vCPU's thread cannot be started.
        assert_eq!(outcome.exit_code(), 4);
    }

    #[test]
    fn a_panic_of_a_vcpu_ends_the_others() {
        let ran = one_among_spinners(Step::panic("out of script"));
        let VmOutcome::VcpuPanicked { vcpu: VcpuId(2), message } = &ran.report.outcome else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(message, "out of script");
    }

    #[test]
    fn a_vcpu_that_cannot_be_run_ends_the_others() {
        let ran = one_among_spinners(Step::Fail(io::ErrorKind::InvalidData));
        let VmOutcome::VcpuFailed { vcpu: VcpuId(2), error: VcpuError::Run(error) } =
            &ran.report.outcome
        else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_a_vcpu_does_once_the_end_is_decided_changes_nothing() {
        type Question = Box<dyn Fn() -> bool + Send + Sync>;
        let decided: Arc<OnceLock<Question>> = Arc::default();
        let question = Arc::clone(&decided);
        let (entered, has_entered) = mpsc::channel();
        let late = Step::call(move || {
            entered.send(()).unwrap();
            wait_until(question.get().unwrap());
            panic!("too late");
        });
        let wait = Step::call(move || has_entered.recv().unwrap());
        let vm = TestVm::new([vec![wait, Step::out8(0xf4, 3)], vec![late]]);
        assert!(decided.set(Box::new(vm.decided())).is_ok());
        let ran = vm.run();
        let VmOutcome::Guest { vcpu: VcpuId(0), end: GuestEnd::Exit(3) } = ran.report.outcome
        else {
            panic!("{:?}", ran.report)
        };
        // It did panic: it has no registers to show.
        assert!(ran.report.vcpus[1].registers.is_none());
    }

    #[test]
    fn a_stuck_vcpu_is_named_with_its_last_exit() {
        let (release, released) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        // Deaf from when it says so: a step by itself would look for a kick first.
        let deaf = Step::call(move || {
            ready.send(()).unwrap();
            let _ = released.recv();
        });
        let last = vec![Step::call(move || is_ready.recv().unwrap()), Step::out8(0xf4, 1)];
        let mut vm = TestVm::new([vec![Step::Spin], vec![Step::send(b'x'), deaf], last]);
        vm.vmm.stop_limit = Duration::from_millis(50);
        let ran = vm.run_unchecked(|bytes| Ok(bytes.len()), None);
        let VmOutcome::Stuck(threads) = &ran.report.outcome else { panic!("{:?}", ran.report) };
        let expected =
            "vCPU 1 (last exit: io-out port=0x3f8 size=1 count=1 data=0x78 handler=posted)";
        assert_eq!(threads, &[expected]);
        assert_eq!(ran.received, b"x");
        // Its thread was left behind; let it go.
        drop(release);
        wait_until(|| Arc::strong_count(&ran.token) == 1);
    }
}

mod from_outside {
    use super::*;

    #[test]
    fn a_guest_that_runs_too_long_is_timed_out() {
        let limit = Duration::from_millis(10);
        let vm = TestVm::new([vec![Step::send(b'x'), Step::Spin], vec![Step::Spin]]);
        let ran = vm.run_with(|bytes| Ok(bytes.len()), Some(limit));
        assert!(matches!(ran.report.outcome, VmOutcome::TimedOut(l) if l == limit));
        assert!(ran.report.ran >= limit);
        assert_eq!(ran.report.output.lost, 0);
    }

    #[test]
    fn a_stop_from_another_thread_ends_all() {
        let (running, runs) = mpsc::channel();
        let spinner = |_| {
            let running = running.clone();
            [Step::call(move || running.send(()).unwrap()), Step::Spin, Step::panic("ran on")]
        };
        let vm = TestVm::new([0, 1, 2].map(spinner));
        let stop = vm.vmm.stop_handle();
        let stopper = thread::spawn(move || {
            runs.iter().take(3).for_each(drop);
            stop.stop();
        });
        let ran = vm.run();
        stopper.join().unwrap();
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{:?}", ran.report);
        assert!(ran.report.vcpus.iter().all(|vcpu| vcpu.registers.is_some()));
    }

    #[test]
    fn a_stop_before_the_run_is_not_lost() {
        let vm = TestVm::new([[Step::Spin], [Step::Spin]]);
        vm.vmm.stop_handle().stop();
        let ran = vm.run();
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{:?}", ran.report);
    }

    #[test]
    fn a_stop_before_all_are_ready_is_not_lost() {
        // Given once the VM is made: what stops it, and how the vCPU that is not ready sees it.
        let vmm: Arc<OnceLock<(StopHandle, Arc<VcpuControl>)>> = Arc::default();
        let of_maker = Arc::clone(&vmm);
        let stops: Maker = Box::new(move || {
            let (stop, control) = of_maker.get().unwrap();
            stop.stop();
            wait_until(|| control.stop_requested());
            Ok(ScriptedVcpu::new([Step::panic("ran after the stop")]))
        });
        let vm = TestVm::with_makers(vec![idle(), stops, idle()]);
        let control = Arc::clone(&vm.vmm.vcpus[1].control);
        assert!(vmm.set((vm.vmm.stop_handle(), control)).is_ok());
        let ran = vm.run();
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{:?}", ran.report);
        assert_never_ran(&ran.report);
    }

    #[test]
    fn a_stop_ends_vcpus_in_the_middle_of_their_exits() {
        // They never wait, so the kick finds them anywhere between two entries.
        let busy = |port| std::iter::repeat_with(move || Step::in8(port));
        let vm = TestVm::new([0x3fd, 0x3ff, 0x80].map(busy));
        let stop = vm.vmm.stop_handle();
        let controls: Vec<_> = vm.vmm.vcpus.iter().map(|vcpu| Arc::clone(&vcpu.control)).collect();
        let stopper = thread::spawn(move || {
            wait_until(|| controls.iter().all(|control| control.exits.count() > 10));
            stop.stop();
        });
        let ran = vm.run();
        stopper.join().unwrap();
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{:?}", ran.report);
    }
}

/// In a process of its own, because threads and descriptors are counted by process.
#[test]
fn threads_and_descriptors_are_back_at_the_baseline() {
    const ALONE: &str = "MINIVMM_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "vmm::tests::ends::threads_and_descriptors_are_back_at_the_baseline";
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let entries = |directory| std::fs::read_dir(directory).unwrap().count();
    let (threads, descriptors) = (entries("/proc/self/task"), entries("/proc/self/fd"));
    for _ in 0..10 {
        one_among_spinners(Step::out8(0xf4, 0));
        one_among_spinners(Step::panic("as planned"));
        TestVm::with_makers(vec![idle(), Box::new(|| Err(out_of_memory("no")))]).run();
        TestVm::new([[Step::send(b'x')]])
            .run_with(|_| Err(io::ErrorKind::StorageFull.into()), None);
    }
    assert_eq!(entries("/proc/self/fd"), descriptors);
    // The kernel takes a thread off the list a moment after its join.
    wait_until(|| entries("/proc/self/task") == threads);
}
