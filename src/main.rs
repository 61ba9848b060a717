//! Arguments, logging, start, wait, stop.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use versand::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // one line, with its causes
            let _ = writeln!(std::io::stderr(), "versand: {error:#}");
            ExitCode::FAILURE
        }
    }
}
