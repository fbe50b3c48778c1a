//! VM-exit traces: the records (`record.rs`), where they are kept, and what is made of them.

pub mod filter;
pub mod format;
pub mod html;
pub mod record;
pub mod ring;
pub mod summary;
pub mod symbols;
