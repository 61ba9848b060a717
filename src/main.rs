//! The program `versand`: runs a command and reports its error in one line.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use versand::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "versand: {}", cli::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
