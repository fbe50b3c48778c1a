//! A trace as one web page, which shows it as a timeline, with histograms, tables and filters.
//! The page is a single file and loads nothing: its Content-Security-Policy forbids it.
//!
//! Of the trace, and of everything else that a guest or a user chose, nothing is in the page but
//! as base64 of compressed columns (`pack.rs`), which the page's scripts unpack and show as text.
//! So no name can be taken for markup.

mod collect;
mod pack;

#[cfg(test)]
mod tests;

use std::io;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::trace::format::{Symbolize, TraceInfo};
use crate::trace::record::Record;
use collect::Collected;

/// The page, with a line of its own for each thing that is put into it.
const PAGE: &str = include_str!("page/page.html");
const STYLES: [&str; 2] = [include_str!("page/page.css"), include_str!("page/panels.css")];

/// The scripts, which together make one module; each uses only what is above it, but for
/// functions that are called later.
const SCRIPTS: [&str; 18] = [
    include_str!("page/hook.js"),
    include_str!("page/dom.js"),
    include_str!("page/units.js"),
    include_str!("page/unpack.js"),
    include_str!("page/search.js"),
    include_str!("page/trace.js"),
    include_str!("page/describe.js"),
    include_str!("page/spans.js"),
    include_str!("page/filter.js"),
    include_str!("page/stats.js"),
    include_str!("page/paint.js"),
    include_str!("page/view.js"),
    include_str!("page/timeline.js"),
    include_str!("page/draw.js"),
    include_str!("page/overview.js"),
    include_str!("page/pointer.js"),
    include_str!("page/panels.js"),
    include_str!("page/main.js"),
];

/// Writes the page of a trace. `note` is asked once the records have been read for a sentence to
/// the reader of the page, such as that the trace was cut; empty if there is nothing to say.
///
/// All of the records are kept in memory, packed, which takes some 20 bytes each.
///
/// # Errors
///
/// Those of `out`.
pub fn write(
    out: &mut dyn io::Write,
    info: &TraceInfo,
    records: impl Iterator<Item = Record>,
    symbolize: Option<Symbolize>,
    note: impl FnOnce() -> String,
) -> io::Result<()> {
    let collected = Collected::new(info, records);
    let (before, after) = PAGE.split_once("{{data}}").unwrap_or((PAGE, ""));
    write_sources(out, before)?;
    let base64 = EncoderWriter::new(&mut *out, &STANDARD);
    let mut packed = DeflateEncoder::new(base64, Compression::fast());
    collected.write(&mut packed, info, symbolize, &note())?;
    packed.finish()?.finish()?;
    write_sources(out, after)?;
    out.flush()
}

/// Writes a part of the page, with the style and the scripts where it asks for them.
fn write_sources(out: &mut dyn io::Write, part: &str) -> io::Result<()> {
    for line in part.split_inclusive('\n') {
        match line.trim() {
            "{{styles}}" => out.write_all(STYLES.concat().as_bytes())?,
            "{{scripts}}" => out.write_all(SCRIPTS.concat().as_bytes())?,
            _ => out.write_all(line.as_bytes())?,
        }
    }
    Ok(())
}
