//! The minivmm command.

fn main() {}
