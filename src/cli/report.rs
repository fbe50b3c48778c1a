//! `minivmm report`: what is to be done with traces that were written before.

use std::path::PathBuf;

use clap::{Parser, ValueHint};

use crate::trace::format::TraceFormat;
use crate::trace::report::ReportJob;

/// The word that the command line begins with.
pub(super) const NAME: &str = "report";

/// Show what is in a trace: a summary, a page, a comparison, or the trace in another form.
#[derive(Debug, Parser)]
#[command(name = NAME, bin_name = "minivmm report")]
pub(super) struct ReportArgs {
    /// Trace, as --trace has written it: binary, jsonl or csv
    #[arg(value_name = "TRACE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present = "diff", conflicts_with = "diff")]
    trace: Option<PathBuf>,

    /// Compare two runs
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["html", "export", "symbols"])]
    diff: Option<Vec<PathBuf>>,

    /// Write one page with a timeline, histograms and tables, that needs no network
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["export", "json"])]
    html: Option<PathBuf>,

    /// Write the trace in another form, that of the file's suffix or of --format
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "json")]
    export: Option<PathBuf>,

    /// Form of the exported trace
    #[arg(long, requires = "export")]
    format: Option<TraceFormat>,

    /// ELF file with the names of the guest's code, if the trace has RIPs
    #[arg(long, value_name = "ELF", value_hint = ValueHint::FilePath)]
    symbols: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ReportArgs {
    pub(super) fn into_job(self) -> ReportJob {
        let Self { trace, diff, html, export, format, symbols, json } = self;
        if let Some([before, after]) = diff.as_deref() {
            return ReportJob::Diff { before: before.clone(), after: after.clone(), json };
        }
        // clap has refused a report without a trace.
        let trace = trace.unwrap_or_default();
        if let Some(page) = html {
            return ReportJob::Html { trace, symbols, page };
        }
        if let Some(file) = export {
            let format = format.unwrap_or_else(|| TraceFormat::of_path(&file));
            return ReportJob::Export { trace, symbols, file, format };
        }
        ReportJob::Summary { trace, symbols, json }
    }
}
