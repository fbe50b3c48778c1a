//! Stress: one guest run many times, and what came out of it.
//!
//! [`seed`] says which randomness each iteration gets and [`shard`] which machine runs it;
//! [`histogram`] counts what the guest reports and [`condition`] says what is wanted of it. All of
//! this is pure: nothing here knows of KVM or of threads.

pub mod condition;
pub mod histogram;
pub mod seed;
pub mod shard;
