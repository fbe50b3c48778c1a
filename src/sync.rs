//! The synchronization primitives that the concurrent parts are written in, in one place, so
//! that the same code runs under a model checker: crossbeam, parking_lot and std in the
//! program, versions built on loom's primitives when compiled with `--cfg loom`.
//!
//! Only what the model-checked protocols use is here: the device queue (`devices/queue.rs`), the
//! kick (`vcpu/state.rs`, `vcpu/intr.rs`), the turnstile (`vcpu/rounds.rs`), lockstep (`stress/lockstep.rs`), the
//! ring of recent exits (`trace/flight.rs`), the streams of a trace (`trace/stream.rs`).
//! `tests/model/` has the scenarios they are checked in.

#[cfg(not(loom))]
pub use real::*;

#[cfg(loom)]
pub use model::*;

#[cfg(not(loom))]
mod real {
    use std::sync::OnceLock;
    use std::thread::{self, Thread};
    use std::time::Duration;

    pub use std::sync::Arc;
    pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
    pub use std::thread::{ThreadId, current as current_thread};

    pub use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
    pub use parking_lot::{Condvar, Mutex, MutexGuard};

    /// Where one thread sleeps until others wake it. A wake-up that comes first is kept: the
    /// next sleep returns at once. A thread may have several, and each keeps its own wake-ups:
    /// std has one for a thread, which a sleep elsewhere would use up.
    #[derive(Debug, Default)]
    pub struct Parker {
        sleeper: OnceLock<Thread>,
        woken: AtomicBool,
    }

    impl Parker {
        /// Names the calling thread as the one that sleeps here. To be called once, before
        /// anything can want to wake it.
        pub fn adopt(&self) {
            let _ = self.sleeper.set(thread::current());
        }

        /// Sleeps until woken, or for `timeout` at most.
        pub fn park(&self, timeout: Option<Duration>) {
            while !self.woken.swap(false, Ordering::Acquire) {
                match timeout {
                    Some(timeout) => {
                        thread::park_timeout(timeout);
                        self.woken.swap(false, Ordering::Acquire);
                        return;
                    }
                    None => thread::park(),
                }
            }
        }

        /// Wakes the sleeper.
        pub fn unpark(&self) {
            self.woken.store(true, Ordering::Release);
            if let Some(sleeper) = self.sleeper.get() {
                sleeper.unpark();
            }
        }
    }
}

#[cfg(loom)]
mod model {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    use loom::sync::{Notify, atomic};

    pub use loom::sync::atomic::Ordering;
    pub use loom::thread::{ThreadId, current as current_thread};
    pub use std::sync::Arc;

    /// An atomic whose accesses are tried in every order. When loom 0.7 asks what a store could
    /// have come before, it looks at the last access only, and if that was a load by the same
    /// thread it forgets the loads by others before it. So each access is preceded by one to
    /// `order` of a kind that loom tries in every order; it synchronizes with nobody.
    #[derive(Debug, Default)]
    pub struct Ordered<A> {
        order: atomic::AtomicBool,
        value: A,
    }

    macro_rules! ordered {
        ($($name:ident of $value:ty),*) => {
            $(
                /// See [`Ordered`].
                pub type $name = Ordered<atomic::$name>;

                impl $name {
                    /// An atomic `value`.
                    pub fn new(value: $value) -> Self {
                        let order = atomic::AtomicBool::default();
                        Self { order, value: atomic::$name::new(value) }
                    }
                }
            )*
        };
    }

    ordered!(AtomicBool of bool, AtomicU64 of u64, AtomicUsize of usize);

    impl AtomicBool {
        /// A store, as a swap: loom 0.7 lets a plain one come between the two halves of a swap
        /// by another thread, and then sees errors where there are none.
        pub fn store(&self, value: bool, ordering: Ordering) {
            self.swap(value, ordering);
        }
    }

    impl<A> Deref for Ordered<A> {
        type Target = A;

        fn deref(&self) -> &A {
            // Fails, always; `Deref` because an access is a method called on what it returns.
            let _ = self.order.compare_exchange(true, true, Ordering::Relaxed, Ordering::Relaxed);
            &self.value
        }
    }

    loom::thread_local! {
        static FENCELESS: Cell<bool> = Cell::new(false);
    }

    /// A fence, unless the calling thread is inside [`without_fences`].
    pub fn fence(ordering: Ordering) {
        if !FENCELESS.with(Cell::get) {
            loom::sync::atomic::fence(ordering);
        }
    }

    /// Runs `f` as if its fences were not there: the checker has to find what they are for.
    pub fn without_fences<R>(f: impl FnOnce() -> R) -> R {
        FENCELESS.with(|fenceless| fenceless.set(true));
        let result = f();
        FENCELESS.with(|fenceless| fenceless.set(false));
        result
    }

    /// A mutex with parking_lot's interface.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    /// Access to what a [`Mutex`] guards; empty only inside [`Condvar::wait`].
    #[derive(Debug)]
    pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        /// A mutex around `value`.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Waits for the mutex.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap()))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_deref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_deref_mut().unwrap()
        }
    }

    /// A condition variable with parking_lot's interface.
    #[derive(Debug, Default)]
    pub struct Condvar(loom::sync::Condvar);

    impl Condvar {
        /// A condition variable nobody waits for.
        pub fn new() -> Self {
            Self::default()
        }

        /// Lets go of the mutex, waits, and takes the mutex again.
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let inner = guard.0.take().unwrap();
            guard.0 = Some(self.0.wait(inner).unwrap());
        }

        /// Wakes all who wait.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// See the real one. A wake-up orders what came before it before the end of the sleep, and
    /// nothing else. Not loom's own park, which loses a wake-up that reaches a thread while it
    /// waits for a mutex.
    #[derive(Debug, Default)]
    pub struct Parker {
        token: AtomicBool,
        bell: Notify,
    }

    impl Parker {
        /// Nothing to do here: whoever parks is the sleeper.
        pub fn adopt(&self) {}

        /// Waits for the token; a wait with a time limit lets the others run and returns.
        pub fn park(&self, timeout: Option<Duration>) {
            if timeout.is_some() {
                loom::thread::yield_now();
                self.token.swap(false, Ordering::Acquire);
                return;
            }
            while !self.token.swap(false, Ordering::Acquire) {
                self.bell.wait();
            }
        }

        /// Gives the token.
        pub fn unpark(&self) {
            self.token.swap(true, Ordering::Release);
            self.bell.notify();
        }
    }

    /// What `try_send` gives back.
    #[derive(Debug)]
    pub enum TrySendError<T> {
        /// No room.
        Full(T),
        /// Never returned here; crossbeam has it.
        Disconnected(T),
    }

    /// What `try_recv` gives back when it sees no message.
    #[derive(Debug)]
    pub struct TryRecvError;

    /// The channel under test is crossbeam's, not ours; this one is no stronger than crossbeam's
    /// promises, so that nothing rests on more than them. Messages are taken in the order in
    /// which they were sent, and a receiver has synchronized with those who sent what it takes.
    /// With nobody else: a sender learns nothing from receivers or other senders, and what
    /// looks empty or full may just be an old view. But nobody's view is older than what
    /// happened before: a sender sees its own message.
    #[derive(Debug)]
    struct Channel<T> {
        capacity: usize,
        /// How many messages have been sent, and how many received.
        sent: AtomicUsize,
        received: AtomicUsize,
        /// Invisible to the checker, which switches threads only before an operation on one of
        /// its own types: each access here is one step with the operation above it.
        messages: std::sync::Mutex<VecDeque<T>>,
    }

    /// The sending side.
    #[derive(Debug)]
    pub struct Sender<T>(Arc<Channel<T>>);

    /// The receiving side.
    #[derive(Debug)]
    pub struct Receiver<T>(Arc<Channel<T>>);

    /// A bounded channel.
    pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            capacity,
            sent: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            messages: std::sync::Mutex::new(VecDeque::new()),
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        /// How many messages there seem to be.
        pub fn len(&self) -> usize {
            let Channel { sent, received, .. } = &*self.0;
            sent.load(Ordering::Relaxed).saturating_sub(received.load(Ordering::Relaxed))
        }

        /// Sends unless the channel looks full.
        pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            let Channel { capacity, sent, received, messages } = &*self.0;
            let received = received.load(Ordering::Relaxed);
            let room = |sent: usize| (sent < received + capacity).then_some(sent + 1);
            match sent.fetch_update(Ordering::Release, Ordering::Relaxed, room) {
                Ok(_) => {
                    messages.lock().unwrap().push_back(message);
                    Ok(())
                }
                Err(_) => Err(TrySendError::Full(message)),
            }
        }
    }

    impl<T> Receiver<T> {
        /// How many messages there seem to be.
        pub fn len(&self) -> usize {
            let Channel { sent, received, .. } = &*self.0;
            sent.load(Ordering::Relaxed).saturating_sub(received.load(Ordering::Relaxed))
        }

        /// Receives unless the channel looks empty.
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let Channel { sent, received, messages, .. } = &*self.0;
            let sent = sent.load(Ordering::Acquire);
            let next = |received| (received < sent).then_some(received + 1);
            match received.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
                Ok(_) => messages.lock().unwrap().pop_front().ok_or(TryRecvError),
                Err(_) => Err(TryRecvError),
            }
        }
    }
}
