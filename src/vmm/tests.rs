//! Whole VMs with scripted vCPUs: real threads, real run loop, queue, device thread and
//! shutdown. This file has what runs a VM and checks what holds for all of them; `ends` has
//! the ways in which a run ends, `output` those in which its output does, `random` mixes them.

mod ends;
mod output;
mod random;
mod rounds;
mod verdict;

use std::sync::{Mutex, Weak, mpsc};

use super::*;
use crate::console::Output;
use crate::devices::setup::DeviceSetup;
use crate::testing::{wait_until, watched};
use crate::trace::tracer::TraceSetup;
use crate::vcpu::scripted::{Log, Maker, ScriptedVcpu, Scripts, Step};

/// A VM that has not run.
struct TestVm {
    vmm: Vmm<Scripts>,
    logs: Vec<Arc<Log>>,
    /// Held by the VM's builder and its output, and so by each of its threads.
    token: Arc<()>,
}

/// A VM that has run.
struct Ran {
    report: VmReport,
    /// What the output has taken.
    received: Vec<u8>,
    logs: Vec<Arc<Log>>,
    token: Arc<()>,
}

impl TestVm {
    /// One vCPU for each script.
    fn new<I>(scripts: impl IntoIterator<Item = I>) -> Self
    where
        I: IntoIterator<Item = Step>,
        I::IntoIter: Send + 'static,
    {
        let vcpus: Vec<_> = scripts.into_iter().map(ScriptedVcpu::new).collect();
        let logs = vcpus.iter().map(ScriptedVcpu::log).collect();
        let makers = vcpus.into_iter().map(|vcpu| -> Maker { Box::new(|| Ok(vcpu)) }).collect();
        Self { logs, ..Self::with_makers(makers) }
    }

    /// One vCPU for each maker.
    fn with_makers(makers: Vec<Maker>) -> Self {
        let token = Arc::default();
        let count = VcpuCount::new(makers.len().try_into().unwrap()).unwrap();
        let tracer = Tracer::new(TraceSetup::default(), count.get());
        let vmm =
            Vmm::new(Scripts::new(makers, &token), count, |_| None, tracer, DeviceSetup::default())
                .unwrap();
        Self { vmm, logs: Vec::new(), token }
    }

    /// Whether the end of the run was decided, for another thread to ask.
    fn decided(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let control = Arc::clone(&self.vmm.vcpus[0].control);
        move || control.stop_requested()
    }

    /// Runs the VM without a time limit on an output that takes everything.
    fn run(self) -> Ran {
        self.run_with(|bytes| Ok(bytes.len()), None)
    }

    /// Runs the VM; `write` is its output. Fails the test if a byte is unaccounted for or if
    /// anything is left of the VM.
    fn run_with<F>(self, write: F, limit: Option<Duration>) -> Ran
    where
        F: FnMut(&[u8]) -> io::Result<usize> + Send + 'static,
    {
        let ran = self.run_unchecked(write, limit);
        let output = &ran.report.output;
        assert_eq!(output.written, count(&ran.received));
        let account = output.written + output.lost;
        assert_eq!(ran.sent(), account, "sent, written and lost: {output:?}");
        assert_eq!(Arc::strong_count(&ran.token), 1, "a thread was not joined");
        ran
    }

    /// Runs the VM; fails the test only if it hangs.
    fn run_unchecked<F>(self, write: F, limit: Option<Duration>) -> Ran
    where
        F: FnMut(&[u8]) -> io::Result<usize> + Send + 'static,
    {
        let Self { vmm, logs, token } = self;
        let received = Arc::default();
        let sink = Sink { write, received: Arc::clone(&received), _token: Arc::clone(&token) };
        let report = watched(move || vmm.run(Box::new(sink), &mut Host::default(), limit));
        let received = std::mem::take(&mut *received.lock().unwrap());
        Ran { report, received, logs, token }
    }
}

impl Ran {
    /// Bytes sent by all vCPUs.
    fn sent(&self) -> u64 {
        self.logs.iter().map(|log| log.sent()).sum()
    }

    /// Fails the test unless the vCPUs' [`numbered`] bytes have come in order, from the first,
    /// none missing.
    fn check_order(&self) {
        let mut next = [0; 8];
        for byte in &self.received {
            let (vcpu, number) = (usize::from(byte >> 5), byte & 31);
            assert_eq!(number, next[vcpu], "vCPU {vcpu}");
            next[vcpu] = (number + 1) % 32;
        }
    }
}

/// The bytes that vCPU `vcpu`, one of at most 8, sends where order is looked at.
fn numbered(vcpu: u8) -> impl Iterator<Item = Step> + Send {
    (0..32).cycle().map(move |number| Step::send(vcpu << 5 | number))
}

fn count(bytes: &[u8]) -> u64 {
    bytes.len().try_into().unwrap()
}

/// An output in a closure.
struct Sink<F> {
    write: F,
    received: Arc<Mutex<Vec<u8>>>,
    _token: Arc<()>,
}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Send> Output for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = (self.write)(bytes)?;
        self.received.lock().unwrap().extend(&bytes[..len]);
        Ok(len)
    }
}

/// Whether this many vCPUs have reported their ends.
fn have_ended(shared: &Weak<Shared<Scripts>>, vcpus: usize) -> bool {
    shared.upgrade().is_some_and(|shared| shared.exit.waiting() == vcpus)
}
