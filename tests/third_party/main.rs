//! Guests that other people have built, unchanged, from Debian's packages: memtest86+, iPXE and the
//! stock kernel of its cloud images, with a shell of busybox. docs/third-party.md shows them by
//! hand.
//!
//! A guest that is not there is skipped, and that is said; with `MINIVMM_REQUIRE_THIRD_PARTY=1` it
//! is a failure. What is waited for is a text on the guest's console, as long as it takes, up to a
//! limit that only a hang should reach. How fast anything is, nobody looks at.

#[path = "../support/mod.rs"]
mod support;

mod console;
mod initramfs;
mod ipxe;
mod linux;
mod memtest;
mod packages;
mod screen;
