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
            logging::write_end(&cli::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
