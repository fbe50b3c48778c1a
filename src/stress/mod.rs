//! Stress: one guest run many times, and what came out of it (docs/stress.md).
//!
//! [`seed`] says which randomness each iteration gets and [`shard`] which machine runs it;
//! [`histogram`] counts what the guest reports, [`condition`] and [`requirement`] say what is
//! wanted of it, and [`skew`] how far apart the vCPUs started. [`result`] is all of that for a
//! campaign, as a value and as a file, which [`report`] shows and [`merge`] adds up. What a vCPU's
//! run loop has of it is in [`ports`], by which a guest reports, [`chaos`], the perturbations,
//! [`lockstep`], the one-at-a-time schedule, and [`start`]. Nothing here knows of KVM; what runs
//! the VMs is `campaign/`.

pub mod chaos;
pub mod condition;
pub mod config;
pub mod histogram;
pub mod iteration;
pub mod lockstep;
pub mod merge;
pub mod ports;
mod printable;
pub mod purpose;
pub mod report;
pub mod requirement;
pub mod result;
pub mod seed;
pub mod shard;
pub mod skew;
pub mod start;
