//! The program `versand`: runs a command and reports its error in one line.

use std::process::ExitCode;

use clap::Parser;
use versand::{
    cli::{self, Arguments},
    logging,
};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Append each cause, unless the text contains it already.
            let line = error.chain().map(ToString::to_string).reduce(|line, cause| {
                if line.contains(&cause) { line } else { format!("{line}: {cause}") }
            });
            logging::write_end(&line.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
