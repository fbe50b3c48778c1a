//! A vCPU that plays a script in place of a guest, so that the real run loop, queue, device
//! thread and shutdown run without /dev/kvm. Only in tests.
//!
//! It keeps the contract of [`VcpuRun`] the way KVM does: a kick is remembered until the next
//! entry, which takes it back and returns [`VmExit::Interrupted`]; what a read was given is
//! looked at on that entry, and the guest of a script that has ended halts. A [`ScriptedVcpu`]
//! belongs to its vCPU's thread; its [`Log`] is shared with the test.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::devices::COM1_BASE;
use crate::exit::{Direction, Gpa, MmioExit, PioAddr, PioExit, VcpuId, VmExit};
use crate::trace::clock::Counter;
use crate::vcpu::registers::Registers;
use crate::vcpu::{BuildVcpu, Kick, VcpuError, VcpuRun};

type Steps = Box<dyn Iterator<Item = Step> + Send>;

/// What the guest does next.
pub(crate) enum Step {
    /// An OUT of `size` bytes at a time.
    Out { port: u16, size: u8, data: Vec<u8> },
    /// `count` INs of `size` bytes.
    In { port: u16, size: u8, count: u32 },
    /// A store to MMIO.
    Store { gpa: u64, data: Vec<u8> },
    /// A load from MMIO.
    Load { gpa: u64, size: u8 },
    /// An exit without data.
    Exit(VmExit),
    /// Runs until it is kicked.
    Spin,
    /// No exit: from now on the host has this one to tell of a vCPU that sleeps.
    Untold(VmExit),
    /// No exit: something that the test does here; a panic, for one.
    Do(Box<dyn FnOnce() + Send>),
    /// KVM_RUN fails.
    Fail(io::ErrorKind),
}

impl Step {
    /// Sends one byte.
    pub(crate) fn send(byte: u8) -> Self {
        Self::out8(0x3f8, byte)
    }

    /// A one-byte OUT.
    pub(crate) fn out8(port: u16, byte: u8) -> Self {
        Self::Out { port, size: 1, data: vec![byte] }
    }

    /// A one-byte IN.
    pub(crate) fn in8(port: u16) -> Self {
        Self::In { port, size: 1, count: 1 }
    }

    /// See [`Step::Do`].
    pub(crate) fn call(action: impl FnOnce() + Send + 'static) -> Self {
        Self::Do(Box::new(action))
    }

    /// Panics with `message`.
    pub(crate) fn panic(message: &'static str) -> Self {
        Self::call(move || panic!("{message}"))
    }
}

/// What became of a script.
#[derive(Debug, Default)]
pub(crate) struct Log {
    reads: Mutex<Vec<Vec<u8>>>,
    sent: AtomicU64,
    interrupts: Mutex<Vec<Offer>>,
}

/// What the run loop says of external interrupts before an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The guest is given this one.
    Vector(u8),
    /// It is to exit as soon as it can take one.
    Window,
}

impl Log {
    /// What each read exit was given, in order.
    pub(crate) fn reads(&self) -> Vec<Vec<u8>> {
        self.reads.lock().unwrap().clone()
    }

    /// What was said of external interrupts, in order.
    pub(crate) fn interrupts(&self) -> Vec<Offer> {
        self.interrupts.lock().unwrap().clone()
    }

    /// Bytes written to COM1's transmitter by one-byte exits, counted as the exit happens.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// See the module's text.
pub(crate) struct ScriptedVcpu {
    steps: Steps,
    /// Makes the steps of another iteration.
    again: Option<Box<dyn FnMut() -> Steps + Send>>,
    data: Vec<u8>,
    reading: bool,
    /// What [`VcpuRun::run_halted`] returns.
    untold: Option<VmExit>,
    /// The last exit was one at which the guest can take an external interrupt.
    open: bool,
    /// The number of entries is in RIP.
    registers: Registers,
    kicks: Arc<Kicks>,
    log: Arc<Log>,
}

impl ScriptedVcpu {
    /// A vCPU that takes these steps, which may be without end.
    pub(crate) fn new<I>(steps: I) -> Self
    where
        I: IntoIterator<Item = Step>,
        I::IntoIter: Send + 'static,
    {
        Self {
            steps: Box::new(steps.into_iter()),
            again: None,
            data: Vec::new(),
            reading: false,
            untold: None,
            open: false,
            registers: Registers::default(),
            kicks: Arc::default(),
            log: Arc::default(),
        }
    }

    /// A vCPU that takes the steps that `steps` makes, in each iteration.
    pub(crate) fn repeating<I>(mut steps: impl FnMut() -> I + Send + 'static) -> Self
    where
        I: IntoIterator<Item = Step>,
        I::IntoIter: Send + 'static,
    {
        let first = steps();
        let again: Box<dyn FnMut() -> Steps + Send> =
            Box::new(move || Box::new(steps().into_iter()));
        Self { again: Some(again), ..Self::new(first) }
    }

    /// What becomes of it.
    pub(crate) fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    fn play(&mut self, step: Step) -> io::Result<VmExit> {
        Ok(match step {
            Step::Out { port, size, data } => {
                if u64::from(port) == COM1_BASE && size == 1 {
                    self.log.sent.fetch_add(data.len().try_into().unwrap(), Ordering::SeqCst);
                }
                self.data = data;
                self.pio(port, Direction::Write, size)
            }
            Step::In { port, size, count } => {
                // Not zero, so that a read that gets no data shows.
                self.data = vec![0xa5; usize::from(size) * usize::try_from(count).unwrap()];
                self.pio(port, Direction::Read, size)
            }
            Step::Store { gpa, data } => {
                self.data = data;
                self.mmio(gpa, Direction::Write)
            }
            Step::Load { gpa, size } => {
                self.data = vec![0xa5; size.into()];
                self.mmio(gpa, Direction::Read)
            }
            Step::Exit(exit) => {
                self.open = exit == VmExit::IrqWindowOpen;
                exit
            }
            Step::Spin => {
                self.kicks.wait();
                VmExit::Interrupted
            }
            Step::Do(_) | Step::Untold(_) => unreachable!("no exit"),
            Step::Fail(kind) => return Err(kind.into()),
        })
    }

    fn pio(&mut self, port: u16, direction: Direction, size: u8) -> VmExit {
        self.reading = direction == Direction::Read;
        let count = (self.data.len() / usize::from(size)).try_into().unwrap();
        VmExit::Pio(PioExit { port: PioAddr(port), direction, size, count })
    }

    fn mmio(&mut self, gpa: u64, direction: Direction) -> VmExit {
        self.reading = direction == Direction::Read;
        let size = self.data.len().try_into().unwrap();
        VmExit::Mmio(MmioExit { gpa: Gpa(gpa), direction, size })
    }
}

impl VcpuRun for ScriptedVcpu {
    fn run(&mut self) -> io::Result<VmExit> {
        self.registers.rip += 1;
        self.open = false;
        if std::mem::take(&mut self.reading) {
            self.log.reads.lock().unwrap().push(std::mem::take(&mut self.data));
        }
        loop {
            if self.kicks.take() {
                return Ok(VmExit::Interrupted);
            }
            match self.steps.next() {
                Some(Step::Do(action)) => action(),
                Some(Step::Untold(exit)) => self.untold = Some(exit),
                Some(step) => return self.play(step),
                None => return Ok(VmExit::Hlt),
            }
        }
    }

    fn data(&mut self) -> &mut [u8] {
        &mut self.data
    }

    fn can_be_interrupted(&mut self) -> bool {
        self.open
    }

    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        self.log.interrupts.lock().unwrap().push(Offer::Vector(vector));
        Ok(())
    }

    fn request_window(&mut self, wanted: bool) {
        if wanted {
            self.log.interrupts.lock().unwrap().push(Offer::Window);
        }
    }

    fn run_halted(&mut self) -> io::Result<Option<VmExit>> {
        Ok(self.untold.take())
    }

    fn kernel_stats(&mut self) -> Vec<(String, u64)> {
        vec![("exits".into(), self.registers.rip)]
    }

    fn rip(&mut self) -> Option<u64> {
        Some(self.registers.rip)
    }

    fn registers(&mut self) -> Option<Box<Registers>> {
        Some(Box::new(self.registers.clone()))
    }

    fn reset(&mut self) -> io::Result<()> {
        self.reading = false;
        self.steps = self.again.as_mut().ok_or(io::ErrorKind::Unsupported)?();
        Ok(())
    }

    fn kicker(&mut self) -> Box<dyn Kick> {
        Box::new(Arc::clone(&self.kicks))
    }
}

/// KVM's `immediate_exit` and the signal in one.
#[derive(Debug, Default)]
struct Kicks {
    immediate_exit: Mutex<bool>,
    kicked: Condvar,
}

impl Kicks {
    /// Takes a kick back, if there was one.
    fn take(&self) -> bool {
        std::mem::take(&mut self.immediate_exit.lock().unwrap())
    }

    /// Waits for a kick and takes it back.
    fn wait(&self) {
        let exit = self.immediate_exit.lock().unwrap();
        *self.kicked.wait_while(exit, |exit| !*exit).unwrap() = false;
    }
}

impl Kick for Arc<Kicks> {
    fn kick(&self) {
        *self.immediate_exit.lock().unwrap() = true;
        self.kicked.notify_all();
    }

    fn take_back(&self) {
        self.take();
    }
}

/// Makes one vCPU, or fails to.
pub(crate) type Maker = Box<dyn FnOnce() -> Result<ScriptedVcpu, VcpuError> + Send>;

/// Makes the vCPUs of one VM, each once.
pub(crate) struct Scripts {
    makers: Mutex<Vec<Option<Maker>>>,
    /// What the times are to be taken from.
    pub(crate) counter: Option<Counter>,
    /// Dropped with the VM, so that a test can see that nothing holds on to it.
    _token: Arc<()>,
}

impl Scripts {
    /// The maker of each vCPU, by index.
    pub(crate) fn new(makers: Vec<Maker>, token: &Arc<()>) -> Self {
        let makers = makers.into_iter().map(Some).collect();
        Self { makers: Mutex::new(makers), counter: None, _token: Arc::clone(token) }
    }
}

impl BuildVcpu for Scripts {
    type Vcpu = ScriptedVcpu;

    /// There is none.
    fn reset(&self) -> io::Result<()> {
        Ok(())
    }

    fn build(&self, id: VcpuId) -> Result<ScriptedVcpu, VcpuError> {
        let maker = self.makers.lock().unwrap()[id.index()].take();
        maker.expect("each vCPU is made once")()
    }

    fn counter(&self) -> Option<Counter> {
        self.counter
    }
}
