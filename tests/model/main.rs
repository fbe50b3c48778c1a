//! The protocols of minivmm under the loom model checker, which runs every interleaving of
//! the threads of a small scenario, with every value that the memory model lets an atomic load
//! return, and finds a sleep that nobody ends as a deadlock.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --profile model --test model`
//!
//! What runs is the product's own code on the primitives of the `model` half of `sync.rs`.

#![cfg(loom)]

mod bring_up;
mod checker;
mod explore;
mod kick;
mod lockstep;
mod properties;
mod queue;
mod ring;
mod rounds;
mod shutdown;
mod sketch;
mod stream;
