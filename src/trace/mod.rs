//! VM-exit traces: the records (`record.rs`), where they are kept, and what is made of them.
//!
//! A vCPU's run loop keeps its last exits in the flight recorder (`flight.rs`), always. If more is
//! wanted each thread has a recorder (`recorder.rs`), which counts (`summary/`) and hands records
//! on through a stream (`stream.rs`) to the writer (`writer.rs`), which writes them in some form
//! (`format/`). `tracer.rs` holds this together for one VM, `setup.rs` opens what the user asked
//! for, and `report.rs` reads what was written.

pub mod clock;
pub mod config;
pub mod filter;
pub mod flight;
pub mod format;
pub mod html;
pub mod reason;
pub mod record;
pub mod recorder;
pub mod report;
pub mod setup;
mod shared;
pub mod stream;
pub mod summary;
pub mod symbols;
#[cfg(all(test, not(loom)))]
mod tests;
pub mod tracer;
pub mod writer;
