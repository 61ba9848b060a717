//! Arguments, logging, start, wait, stop.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use versand::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // one line, with its causes; some texts hold that of their cause already
            let line = error.chain().map(ToString::to_string).reduce(|line, cause| {
                if line.contains(&cause) { line } else { format!("{line}: {cause}") }
            });
            let _ = writeln!(std::io::stderr(), "versand: {}", line.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
