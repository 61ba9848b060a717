//! The command line: `serve`, `demo`, `check-config`, `token`, `audit verify`, `jobs`, `archive`, `relabel`.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    app::Application,
    config::{Config, LogFormat, LogSettings},
    demo, identity,
    mail::smtp::Relays,
    metrics,
    store::Redis,
};

/// EX_USAGE of sysexits.h: systemd is told not to start it again.
const BAD_CONFIGURATION: u8 = 64;

/// Releases prepared e-mail deliveries, sends them and accounts for every recipient.
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
        /// Settings over the defaults (TOML); the environment (VERSAND__SECTION__SETTING) overrides both
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Send a delivery of 1000 recipients to the built-in mail catcher and show what comes of it
    Demo(demo::DemoOptions),
    /// Check the settings and the files they name
    CheckConfig {
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Make a bearer token, or sign a JWT
    Token(super::token::TokenOptions),
    /// The audit log
    #[command(subcommand)]
    Audit(super::audit::AuditCommand),
    /// Write a delivery with all its logs to a file
    Archive(super::archive::ArchiveOptions),
    /// Jobs that were set aside
    #[command(subcommand)]
    Jobs(super::jobs::JobsCommand),
    /// Tell humans from machines anew, by the rules that the daemon has now
    Relabel(super::relabel::RelabelOptions),
}

/// Runs a command.
///
/// # Errors
/// What stopped it. Settings that cannot be used are no error here but exit code 64, after one line on stderr.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve { config } => with_config(config, serve),
        Command::CheckConfig { config } => with_config(config, |_| {
            writeln!(std::io::stdout(), "the settings are good")?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Demo(options) => runtime()?.block_on(demo::run(options)),
        Command::Token(options) => super::token::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Audit(command) => runtime()?.block_on(super::audit::run(command)),
        Command::Archive(options) => runtime()?.block_on(super::archive::run(options)),
        Command::Jobs(command) => runtime()?.block_on(super::jobs::run(command)),
        Command::Relabel(options) => runtime()?.block_on(super::relabel::run(options)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// Goes on with settings that are good.
fn with_config(
    file: Option<PathBuf>,
    next: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let checked = Config::load(file.as_deref()).map_err(|e| e.to_string()).and_then(|config| {
        match files(&config) {
            Ok(()) => Ok(config),
            Err(reason) => Err(reason),
        }
    });
    match checked {
        Ok(config) => next(config),
        Err(reason) => {
            writeln!(std::io::stderr(), "versand: {reason}")?;
            Ok(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// The files that the settings name can be read and used.
fn files(config: &Config) -> Result<(), String> {
    identity::Keyring::new(&config.auth).map_err(|e| e.to_string())?;
    config.tracking.rules().map_err(|e| e.to_string())?;
    Redis::check(&config.redis).map_err(|e| e.to_string())?;
    EnvFilter::try_new(&config.log.level).map_err(|e| format!("log.level: {e}"))?;
    let _runtime = runtime().map_err(|e| e.to_string())?;
    let _guard = _runtime.enter();
    Relays::new(config).map(drop).map_err(|e| e.to_string())
}

fn serve(config: Config) -> anyhow::Result<ExitCode> {
    start_logging(&config.log);
    runtime()?.block_on(async {
        let metrics = metrics::install().context("metrics")?;
        let application = Application::build(config, metrics).await?;
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

/// Logs on stderr, for journald: without a clock where nobody looks at a terminal.
pub fn start_logging(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // it would log content
    let filter = ["html5ever=off", "selectors=off"]
        .iter()
        .filter_map(|off| off.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let _ = match settings.format {
        LogFormat::Json => registry.with(layer.json()).try_init(),
        LogFormat::Text if terminal => registry.with(layer).try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
    };
}
