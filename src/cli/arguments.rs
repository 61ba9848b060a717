//! The arguments of the command line, and the command that each of them runs.

use std::{
    convert::Infallible,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{archive, audit, backup, jobs, relabel, token};
use crate::{
    app::{Application, Reload, needs_a_person},
    config::Config,
    demo,
    http::ListenerTls,
    identity, logging,
    mail::smtp::Relays,
    metrics,
    store::Redis,
};

/// The exit code for unusable settings: EX_USAGE of sysexits.h. The unit file tells systemd not to
/// restart the daemon after this code.
const BAD_CONFIGURATION: u8 = 64;

/// The stack of a thread, in bytes. Only what is used takes memory. A program that is built without
/// optimisation, such as that of `make demo`, needs more than the usual two MiB.
const THREAD_STACK: usize = 8 << 20;

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
    /// Check the settings and the files they name, except auth.installation_key_file
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
    /// Copy the state directory with the embedded Redis; the daemon may run
    Backup(backup::BackupOptions),
    /// Write a backup into an empty state directory; the daemon then holds its store
    Restore(backup::RestoreOptions),
    /// Verify a backup: its files, audit log and ledgers
    Verify(backup::VerifyOptions),
}

/// Runs a command.
///
/// # Errors
/// The error that stopped the command. Settings that cannot be used are no error here: they give
/// exit code 64 after one line on stderr.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve { config } => {
            // before the settings are checked: their fault is logged in the format that they ask for
            logging::start(&Config::log_settings(config.as_deref()));
            with_config(config.clone(), |loaded| serve(loaded, config))
        }
        Command::CheckConfig { config } => with_config(config, |_| {
            writeln!(std::io::stdout(), "the settings are good")?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Demo(options) => runtime()?.block_on(demo::run(options)),
        Command::Token(options) => token::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Audit(command) => runtime()?.block_on(audit::run(command)),
        Command::Archive(options) => runtime()?.block_on(archive::run(options)),
        Command::Jobs(command) => runtime()?.block_on(jobs::run(command)),
        Command::Backup(options) => with_config(options.config(), |config| {
            runtime()?.block_on(backup::make(config, options))
        }),
        Command::Restore(options) => backup::restore(&options),
        Command::Verify(options) => runtime()?.block_on(backup::verify(options)),
        Command::Relabel(options) => runtime()?.block_on(relabel::run(options)),
    }
}

/// An error with its causes in one line, without a cause that the line contains already.
pub fn one_line(error: &anyhow::Error) -> String {
    let line = error.chain().map(ToString::to_string).reduce(|line, cause| {
        if line.contains(&cause) { line } else { format!("{line}: {cause}") }
    });
    line.unwrap_or_default()
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK)
        .build()?)
}

/// Loads and checks the settings, then calls `next` with them.
fn with_config(
    file: Option<PathBuf>,
    next: impl FnOnce(Config) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    // `Relays::new` must be called inside a runtime.
    let runtime = runtime()?;
    let checked = {
        let _guard = runtime.enter();
        load(file.as_deref())
    };
    drop(runtime);
    match checked {
        Ok(config) => next(config),
        Err(reason) => {
            logging::write_end(&reason);
            Ok(ExitCode::from(BAD_CONFIGURATION))
        }
    }
}

/// Loads the settings, and checks them with the files that they name.
fn load(file: Option<&Path>) -> Result<Config, String> {
    let config = Config::load(file).map_err(|e| e.to_string())?;
    check_files(&config)?;
    Ok(config)
}

/// Checks that the files named in the settings can be read and used. The start checks
/// `auth.installation_key_file` itself.
fn check_files(config: &Config) -> Result<(), String> {
    identity::Keyring::new(&config.auth).map_err(|e| e.to_string())?;
    config.tracking.rules().map_err(|e| e.to_string())?;
    Redis::check(&config.redis).map_err(|e| e.to_string())?;
    ListenerTls::new(&config.server).map_err(|e| e.to_string())?;
    logging::check(&config.log)?;
    Relays::new(config).map(drop).map_err(|e| e.to_string())
}

/// Raises the soft limit of open files to the hard limit. Many shells have a soft limit of 1024,
/// and strangers' connections alone could use it up.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
}

/// Runs the daemon until SIGTERM or SIGINT. SIGHUP loads the settings again. Exit code 2 if it
/// could not drain in time.
fn serve(config: Config, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    // also for the files of the embedded Redis and of archives
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    allow_open_files();
    runtime()?.block_on(async {
        // first of all: without a handler each of these signals ends the process at once
        let (mut term, mut interrupt, hangup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        let metrics = metrics::install().context("metrics")?;
        let application = match Application::build(config, metrics).await {
            Err(error) if needs_a_person(&error) => {
                logging::write_end(&one_line(&error));
                return Ok(ExitCode::from(BAD_CONFIGURATION));
            }
            built => built?,
        };
        tracing::info!(address = %application.public_address()?, "the public listener listens");
        if let Some(address) = application.health_address()? {
            tracing::info!(%address, "the health listener listens");
        }
        tracing::info!(address = %application.address()?, "the admin API listens");
        let reloads = reload_on(hangup, application.reload(), file);
        let run = application.run(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let drained = tokio::select! {
            drained = run => drained?,
            never = reloads => match never {},
        };
        Ok(if drained { ExitCode::SUCCESS } else { ExitCode::from(2) })
    })
}

/// Loads the settings again at each SIGHUP, and tells systemd when it begins and ends.
async fn reload_on(mut hangup: Signal, reload: Reload, file: Option<PathBuf>) -> Infallible {
    loop {
        if hangup.recv().await.is_none() {
            return std::future::pending().await;
        }
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
        }
        reload.reload(|| load(file.as_deref()));
        let _ = sd_notify::notify(&[NotifyState::Ready]);
    }
}
