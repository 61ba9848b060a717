//! `versand backup`, `restore` and `verify`: the state directory with the embedded Redis.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{backup, config::Config};

/// The options of `versand backup`.
#[derive(Debug, Args)]
pub struct BackupOptions {
    /// Settings that override the defaults (TOML)
    #[arg(long)]
    config: Option<PathBuf>,
    /// A new or empty directory for the backup
    #[arg(long)]
    to: PathBuf,
}

/// The options of `versand restore`.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// The backup
    backup: PathBuf,
    /// A new or empty directory: the state directory of the next daemon
    #[arg(long)]
    state_dir: PathBuf,
}

/// The options of `versand verify`.
#[derive(Debug, Args)]
pub struct VerifyOptions {
    /// The backup
    backup: PathBuf,
    /// The redis-server that reads the backup
    #[arg(long, default_value = "redis-server")]
    program: String,
}

/// Makes a backup. The daemon may run.
pub async fn make(config: Config, options: BackupOptions) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        config.redis.url.is_empty(),
        "redis.url names a Redis of its own: back it up by its own means, see docs/operations.md"
    );
    let manifest = backup::make(&config.server.state_dir, &options.to).await?;
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    writeln!(
        std::io::stdout(),
        "{}: {} files, {bytes} bytes, as of {}",
        options.to.display(),
        manifest.files.len(),
        manifest.at
    )?;
    Ok(ExitCode::SUCCESS)
}

impl BackupOptions {
    /// The file with the settings.
    pub fn config(&self) -> Option<PathBuf> {
        self.config.clone()
    }
}

/// Writes a backup into an empty directory.
pub fn restore(options: &RestoreOptions) -> anyhow::Result<ExitCode> {
    let manifest = backup::restore(&options.backup, &options.state_dir)?;
    writeln!(
        std::io::stdout(),
        "{}: restored as of {}. The daemon will hold the store until a person releases it: what \
         was sent later is missing in it",
        options.state_dir.display(),
        manifest.at
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Verifies a backup. Exit code 1 if something is wrong with it.
pub async fn verify(options: VerifyOptions) -> anyhow::Result<ExitCode> {
    let verified = backup::verify(&options.backup, &options.program).await?;
    let mut out = std::io::stdout();
    for fault in &verified.faults {
        writeln!(out, "WRONG {fault}")?;
    }
    writeln!(
        out,
        "as of {}: {} deliveries, {} recipients, {} audit entries: {}",
        verified.manifest.at,
        verified.deliveries,
        verified.recipients,
        verified.entries,
        if verified.faults.is_empty() { "all verified" } else { "NOT verified" }
    )?;
    Ok(if verified.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
