//! What must hold when everything goes wrong at once: VMs on real KVM, in this process and in the
//! binary, started, kicked, stopped, starved and broken at random moments, again and again.
//!
//! `cargo test --test torture` is the short version; with `MINIVMM_TORTURE=10m` the themes share
//! that time. What is random comes from a seed, which a failure prints, and
//! `MINIVMM_TORTURE_SEED=SEED` repeats that round. docs/testing.md has more.
//!
//! After each round of each theme every byte that a guest has sent is in the output or counted as
//! lost, and the threads and descriptors of the process are what they were before. Nothing here
//! measures a time, but for a watchdog, which shows all threads of what hangs.

#[path = "../support/mod.rs"]
mod support;

mod baseline;
mod device_thread;
mod draw;
mod kicks;
mod limits;
mod many_vcpus;
mod many_vms;
mod panics;
mod readers;
mod recorded;
mod start_stop;
mod stops;
mod suspend;
mod theme;
mod vm;
mod watchdog;
