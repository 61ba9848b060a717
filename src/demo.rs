//! The main job on the embedded default, for a newcomer: prepare, confirm, send, log.

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Options {}

pub async fn run(_: Options) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
