//! What becomes of the output when the host does not take it: not at all, not now, not in one
//! piece. In each of these every byte that the guest has sent is either in the output or
//! counted as lost; `TestVm::run_with` sees to that.

use std::io::{PipeReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::devices::GuestEnd;
use crate::devices::serial::OUTPUT_CAPACITY;

/// A pipe whose reader need not read, and what can be seen of it.
struct Pipe {
    reader: PipeReader,
    /// Bytes written or about to be.
    passed: Arc<AtomicU64>,
}

/// A pipe, and its end for the VM.
fn pipe() -> (Pipe, impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) {
    let (reader, mut writer) = io::pipe().unwrap();
    let passed = Arc::new(AtomicU64::new(0));
    let mut written = 0;
    let pass = Arc::clone(&passed);
    let write = move |bytes: &[u8]| {
        pass.store(written + count(bytes), Ordering::SeqCst);
        // One write(2); a signal ends it with `Interrupted`.
        let len = writer.write(bytes)?;
        written += count(&bytes[..len]);
        Ok(len)
    };
    (Pipe { reader, passed }, write)
}

impl Pipe {
    /// Waits until the serial port is full, its transmitter too, and a byte is held up behind
    /// it. The guest must be sending that much.
    fn wait_until_full(&self, logs: &[Arc<Log>]) {
        let held = u64::try_from(OUTPUT_CAPACITY + 2).unwrap();
        wait_until(|| {
            let passed = self.passed.load(Ordering::SeqCst);
            let sent: u64 = logs.iter().map(|log| log.sent()).sum();
            sent >= passed + held
        });
    }

    /// What was written and is not read yet, once the VM is gone.
    fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// Two vCPUs that send without end, and one that reads the line status.
fn flood() -> [Box<dyn Iterator<Item = Step> + Send>; 3] {
    let reads = std::iter::repeat_with(|| Step::in8(0x3fd));
    [Box::new(numbered(0)), Box::new(reads), Box::new(numbered(2))]
}

fn error_of(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

mod stalled {
    use super::*;

    #[test]
    fn a_stop_counts_what_a_stalled_reader_has_not_taken() {
        let vm = TestVm::new(flood());
        let (pipe, write) = pipe();
        let (logs, stop) = (vm.logs.clone(), vm.vmm.stop_handle());
        let stopper = thread::spawn(move || {
            pipe.wait_until_full(&logs);
            stop.stop();
            pipe
        });
        let ran = vm.run_with(write, None);
        assert!(matches!(ran.report.outcome, VmOutcome::Stopped), "{:?}", ran.report);
        // More was sent than a pipe takes.
        assert!(ran.report.output.lost > 0, "{:?}", ran.report.output);
        ran.check_order();
        assert_eq!(stopper.join().unwrap().rest(), ran.received);
    }

    #[test]
    fn a_time_out_counts_what_a_stalled_reader_has_not_taken() {
        let vm = TestVm::new(flood());
        let (pipe, write) = pipe();
        let ran = vm.run_with(write, Some(Duration::from_millis(100)));
        assert!(matches!(ran.report.outcome, VmOutcome::TimedOut(_)), "{:?}", ran.report);
        assert_eq!(pipe.rest(), ran.received);
    }

    #[test]
    fn a_reader_that_comes_back_gets_everything() {
        // Far more than fits in the VM and the pipe, then an exit.
        let sender = numbered(1).take(200_000).chain([Step::out8(0xf4, 5)]);
        let spinner = [Step::Spin];
        let vm = TestVm::new([
            Box::new(sender) as Box<dyn Iterator<Item = Step> + Send>,
            Box::new(spinner.into_iter()),
        ]);
        let (pipe, write) = pipe();
        let logs = vm.logs.clone();
        let reader = thread::spawn(move || {
            pipe.wait_until_full(&logs);
            pipe.rest()
        });
        let ran = vm.run_with(write, None);
        let VmOutcome::Guest { vcpu: VcpuId(0), end: GuestEnd::Exit(5) } = ran.report.outcome
        else {
            panic!("{:?}", ran.report)
        };
        assert_eq!((ran.report.output.written, ran.report.output.lost), (200_000, 0));
        ran.check_order();
        assert_eq!(reader.join().unwrap(), ran.received);
    }

    #[test]
    fn a_stop_ends_the_wait_for_the_reader_of_the_last_output() {
        // More than a pipe takes, but the guest gets rid of it and halts.
        let data = vec![b'x'; OUTPUT_CAPACITY + 8192];
        let vm = TestVm::new([[Step::Out { port: 0x3f8, size: 1, data }]]);
        let (pipe, write) = pipe();
        let (decided, stop) = (vm.decided(), vm.vmm.stop_handle());
        let stopper = thread::spawn(move || {
            wait_until(decided);
            stop.stop();
            pipe
        });
        let ran = vm.run_with(write, None);
        assert!(ran.report.output.lost > 0, "{:?}", ran.report);
        assert_eq!(stopper.join().unwrap().rest(), ran.received);
    }

    #[test]
    fn a_device_thread_that_nothing_gets_out_of_its_write_is_named() {
        let (release, released) = mpsc::channel::<()>();
        let mut vm = TestVm::new([[Step::send(b'x'), Step::Spin]]);
        vm.vmm.stop_limit = Duration::from_millis(50);
        let stop = vm.vmm.stop_handle();
        let write = move |_: &[u8]| {
            stop.stop();
            let _ = released.recv();
            Err(error_of(libc::EINTR))
        };
        let ran = vm.run_unchecked(write, None);
        let VmOutcome::Stuck(threads) = &ran.report.outcome else { panic!("{:?}", ran.report) };
        assert_eq!(threads, &["the device thread"]);
        drop(release);
        wait_until(|| Arc::strong_count(&ran.token) == 1);
    }
}

mod failing {
    use super::*;

    #[test]
    fn a_full_disk_ends_the_run() {
        let mut room = 5_000;
        let write = move |bytes: &[u8]| {
            let len = bytes.len().min(room);
            room -= len;
            if len > 0 { Ok(len) } else { Err(error_of(libc::ENOSPC)) }
        };
        let ran = TestVm::new(flood()).run_with(write, None);
        let VmOutcome::OutputFailed(error) = &ran.report.outcome else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(ran.report.output.written, 5_000);
        ran.check_order();
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_run() {
        let (pipe, write) = pipe();
        drop(pipe);
        let ran = TestVm::new(flood()).run_with(write, None);
        assert!(matches!(ran.report.outcome, VmOutcome::OutputClosed), "{:?}", ran.report);
        assert_eq!(ran.report.output.written, 0);
    }

    #[test]
    fn a_failure_after_all_have_halted_is_a_failure() {
        let vm = TestVm::new([vec![Step::send(b'x')], vec![Step::send(b'y')]]);
        let decided = vm.decided();
        let ran = vm.run_with(
            move |_| {
                wait_until(&decided);
                Err(error_of(libc::EIO))
            },
            None,
        );
        let VmOutcome::OutputFailed(error) = &ran.report.outcome else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert_eq!(ran.report.output.lost, 2);
    }

    #[test]
    fn an_output_that_takes_little_and_is_interrupted_gets_everything_in_order() {
        let mut calls = 0;
        let write = move |bytes: &[u8]| {
            calls += 1;
            if calls % 3 == 0 { Err(error_of(libc::EINTR)) } else { Ok(bytes.len().min(7)) }
        };
        let ran = TestVm::new([0, 1].map(|vcpu| numbered(vcpu).take(3_000))).run_with(write, None);
        assert!(matches!(ran.report.outcome, VmOutcome::AllHalted), "{:?}", ran.report);
        assert_eq!(ran.report.output.lost, 0);
        ran.check_order();
    }
}

mod panicking {
    use super::*;

    fn assert_devices_failed(ran: &Ran) {
        let VmOutcome::DeviceThreadFailed(message) = &ran.report.outcome else {
            panic!("{:?}", ran.report)
        };
        assert_eq!(message, "paper jam");
        assert_eq!((ran.report.output.written, ran.report.output.lost), (0, ran.sent()));
    }

    #[test]
    fn a_device_thread_that_dies_ends_the_run() {
        let vm = TestVm::new([vec![Step::send(b'x'), Step::Spin], vec![Step::Spin]]);
        assert_devices_failed(&vm.run_with(|_| panic!("paper jam"), None));
    }

    #[test]
    fn a_device_thread_that_dies_leaves_no_vcpu_waiting_for_room() {
        let vm = TestVm::new(flood());
        let (pipe, _) = pipe();
        let logs = vm.logs.clone();
        let write = move |bytes: &[u8]| {
            pipe.passed.store(count(bytes), Ordering::SeqCst);
            pipe.wait_until_full(&logs);
            panic!("paper jam")
        };
        assert_devices_failed(&vm.run_with(write, None));
    }

    #[test]
    fn a_device_thread_that_dies_after_all_have_halted_is_a_failure() {
        let vm = TestVm::new([[Step::send(b'x')], [Step::send(b'y')]]);
        let decided = vm.decided();
        let write = move |_: &[u8]| {
            wait_until(&decided);
            panic!("paper jam")
        };
        assert_devices_failed(&vm.run_with(write, None));
    }
}
