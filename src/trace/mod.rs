//! What is kept of the exits of every vCPU.

pub mod ring;
