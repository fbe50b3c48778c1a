//! The synchronization primitives that the concurrent parts are written in, in one place, so
//! that the same code runs under a model checker: crossbeam, parking_lot and std in the
//! program, versions built on loom's primitives when compiled with `--cfg loom`.
//!
//! Only what the model-checked protocols use is here: the device queue
//! (`devices/queue.rs`), the kick and the start gate (`vcpu/state.rs`), the ring of recent exits
//! (`trace/ring.rs`).

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

    pub use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
    pub use parking_lot::{Condvar, Mutex, MutexGuard};

    /// Where one thread sleeps until others wake it. A wake-up that comes first is kept: the
    /// next sleep returns at once.
    #[derive(Debug, Default)]
    pub struct Parker {
        sleeper: OnceLock<Thread>,
    }

    impl Parker {
        /// Names the calling thread as the one that sleeps here. To be called once, before
        /// anything can want to wake it.
        pub fn adopt(&self) {
            let _ = self.sleeper.set(thread::current());
        }

        /// Sleeps until woken, or for `timeout`, or for no reason at all.
        pub fn park(&self, timeout: Option<Duration>) {
            match timeout {
                Some(timeout) => thread::park_timeout(timeout),
                None => thread::park(),
            }
        }

        /// Wakes the sleeper.
        pub fn unpark(&self) {
            if let Some(sleeper) = self.sleeper.get() {
                sleeper.unpark();
            }
        }
    }
}

#[cfg(loom)]
mod model {
    use std::collections::VecDeque;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

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

    /// See the real one. Built on a mutex because loom loses a wake-up that reaches a thread
    /// while it waits for a mutex.
    #[derive(Debug, Default)]
    pub struct Parker {
        token: Mutex<bool>,
        given: Condvar,
    }

    impl Parker {
        /// Nothing to do here: whoever parks is the sleeper.
        pub fn adopt(&self) {}

        /// Waits for the token; a wait with a time limit lets the others run and returns.
        pub fn park(&self, timeout: Option<Duration>) {
            if timeout.is_some() {
                loom::thread::yield_now();
                *self.token.lock() = false;
                return;
            }
            let mut token = self.token.lock();
            while !*token {
                self.given.wait(&mut token);
            }
            *token = false;
        }

        /// Gives the token.
        pub fn unpark(&self) {
            *self.token.lock() = true;
            self.given.notify_all();
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

    /// The channel under test is crossbeam's, not ours; this one has the weakest order that
    /// crossbeam's promises: a receiver that sees no message has synchronized with nobody.
    /// Hence the count outside the mutex, which a receiver may read stale.
    #[derive(Debug)]
    struct Channel<T> {
        capacity: usize,
        len: AtomicUsize,
        messages: Mutex<VecDeque<T>>,
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
            len: AtomicUsize::new(0),
            messages: Mutex::new(VecDeque::new()),
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        /// Sends unless the channel is full.
        pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
            let mut messages = self.0.messages.lock();
            if messages.len() == self.0.capacity {
                return Err(TrySendError::Full(message));
            }
            messages.push_back(message);
            self.0.len.fetch_add(1, Ordering::Release);
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        /// Receives unless the channel looks empty.
        pub fn try_recv(&self) -> Result<T, ()> {
            if self.0.len.load(Ordering::Acquire) == 0 {
                return Err(());
            }
            self.0.len.fetch_sub(1, Ordering::AcqRel);
            self.0.messages.lock().pop_front().ok_or(())
        }
    }
}
