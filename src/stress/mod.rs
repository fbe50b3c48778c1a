//! Stress: one guest run many times, and what came out of it.
//!
//! [`seed`] says which randomness each iteration gets and [`shard`] which machine runs it;
//! [`histogram`] counts what the guest reports, [`condition`] and [`requirement`] say what is
//! wanted of it, and [`skew`] how far apart the vCPUs started. [`result`] is all of that for a
//! campaign, as a value and as a file, which [`report`] shows and [`merge`] adds up. Nothing here
//! knows of KVM or of threads.

pub mod condition;
pub mod histogram;
pub mod merge;
mod printable;
pub mod report;
pub mod requirement;
pub mod result;
pub mod seed;
pub mod shard;
pub mod skew;
