//! Gives the linker `layout.ld`, which says why.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=layout.ld");
    // LLD, rustc's own, and GNU ld understand it. Others may not: whoever chose one gets the
    // linker's own order, and a program that takes more memory.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let chosen = ["linker=", "fuse-ld", "ld-path"].iter().any(|flag| flags.contains(flag));
    if !chosen && env::var_os("RUSTC_LINKER").is_none() {
        let dir = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{dir}/layout.ld");
    }
}
