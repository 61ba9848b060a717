//! The arguments of the command line, and the command that each of them runs.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{archive, audit, jobs, relabel, token};
use crate::{
    app::{Application, ForeignKey},
    config::Config,
    demo, identity, logging,
    mail::smtp::Relays,
    metrics,
    store::Redis,
};

/// The exit code for unusable settings: EX_USAGE of sysexits.h. The unit file tells systemd not to
/// restart the daemon after this code.
const BAD_CONFIGURATION: u8 = 64;

/// Sends prepared e-mail deliveries and accounts for every recipient
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve {
        /// Settings that override the defaults (TOML); the environment (VERSAND__SECTION__SETTING)
        /// overrides both
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Send a delivery of 1000 recipients to the built-in mail catcher and show the result
    Demo(demo::DemoOptions),
    /// Check the settings and the files they name
    CheckConfig {
        /// Settings that override the defaults (TOML)
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Make a bearer token, or sign a JWT
    Token(token::TokenOptions),
    /// Verify the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Write a delivery with all its logs to a file
    Archive(archive::ArchiveOptions),
    /// List, retry or discard dead jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Label all hits again by the rules that the daemon has now
    Relabel(relabel::RelabelOptions),
}

/// Runs a command.
///
/// # Errors
/// The error that stopped the command. Settings that cannot be used are no error here: they give
/// exit code 64 after one line on stderr.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve { config } => with_config(config, serve),
        Command::CheckConfig { config } => with_config(config, |_| {
            writeln!(std::io::stdout(), "the settings are good")?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Demo(options) => runtime()?.block_on(demo::run(options)),
        Command::Token(options) => token::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Audit(command) => runtime()?.block_on(audit::run(command)),
        Command::Archive(options) => runtime()?.block_on(archive::run(options)),
        Command::Jobs(command) => runtime()?.block_on(jobs::run(command)),
        Command::Relabel(options) => runtime()?.block_on(relabel::run(options)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Loads and checks the settings, then calls `next` with them.
fn with_config(
    file: Option<PathBuf>,
    next: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let checked = Config::load(file.as_deref())
        .map_err(|e| e.to_string())
        .and_then(|config| check_files(&config).map(|()| config));
    match checked {
        Ok(config) => next(config),
        Err(reason) => {
            writeln!(std::io::stderr(), "versand: {reason}")?;
            Ok(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// Checks that the files named in the settings can be read and used.
fn check_files(config: &Config) -> Result<(), String> {
    identity::Keyring::new(&config.auth).map_err(|e| e.to_string())?;
    config.tracking.rules().map_err(|e| e.to_string())?;
    Redis::check(&config.redis).map_err(|e| e.to_string())?;
    logging::check(&config.log)?;
    // `Relays::new` must be called inside a runtime.
    let runtime = runtime().map_err(|e| e.to_string())?;
    let _guard = runtime.enter();
    Relays::new(config).map(drop).map_err(|e| e.to_string())
}

/// Runs the daemon until SIGTERM or SIGINT. Exit code 2 if it could not drain in time.
fn serve(config: Config) -> anyhow::Result<ExitCode> {
    logging::start(&config.log);
    runtime()?.block_on(async {
        let metrics = metrics::install().context("metrics")?;
        let application = match Application::build(config, metrics).await {
            Err(error) if error.is::<ForeignKey>() => {
                writeln!(std::io::stderr(), "versand: {error}")?;
                return Ok(ExitCode::from(BAD_CONFIGURATION));
            }
            built => built?,
        };
        tracing::info!(address = %application.public_address()?, "the public listener listens");
        tracing::info!(address = %application.address()?, "the admin API listens");
        let (mut term, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let drained = application
            .run(async move {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await?;
        Ok(if drained { ExitCode::SUCCESS } else { ExitCode::from(2) })
    })
}
