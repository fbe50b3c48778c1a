//! The threads and descriptors of this process, before a round and after it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to forget a thread that was joined: it does so in a moment.
const LIMIT: Duration = Duration::from_secs(30);

/// See the module's text: the name of each thread, the file of each descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    threads: BTreeMap<String, String>,
    files: BTreeMap<String, PathBuf>,
}

impl Baseline {
    pub fn take() -> Self {
        let entries = |directory: &str| {
            let entries = fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap()).collect::<Vec<_>>()
        };
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        // One that goes at this moment is gone: it cannot be read any more.
        let threads = entries("/proc/self/task").into_iter().filter_map(|entry| {
            Some((name(&entry), fs::read_to_string(entry.path().join("comm")).ok()?))
        });
        let files = entries("/proc/self/fd").into_iter().filter_map(|entry| {
            // The descriptor of the directory itself is closed by now.
            Some((name(&entry), fs::read_link(entry.path()).ok()?))
        });
        Self { threads: threads.collect(), files: files.collect() }
    }

    /// Fails unless threads and descriptors are the same as they were.
    #[track_caller]
    pub fn assert_restored(&self) {
        let began = Instant::now();
        let mut now = Self::take();
        while now != *self && began.elapsed() < LIMIT {
            thread::yield_now();
            now = Self::take();
        }
        assert_eq!(now, *self, "threads or descriptors are not what they were");
    }
}
