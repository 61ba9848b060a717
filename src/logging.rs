//! The log of the daemon, on stderr.

use std::{io::IsTerminal, sync::OnceLock};

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{LogFormat, LogSettings};

/// Crates that would log the content of messages.
const SILENCED: [&str; 2] = ["html5ever=off", "selectors=off"];

/// The filter of the running log, which a reload replaces.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Checks that the level can be used.
///
/// # Errors
/// The setting and the reason, in one line.
pub fn check(settings: &LogSettings) -> Result<(), String> {
    EnvFilter::try_new(&settings.level).map(drop).map_err(|e| format!("log.level: {e}"))
}

/// Starts the log. Does nothing if it was started before.
///
/// The text format has colours on a terminal only.
pub fn start(settings: &LogSettings) {
    let (filter, changes) = reload::Layer::new(filter(&settings.level));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let started = match settings.format {
        LogFormat::Json => registry.with(layer.json()).try_init(),
        LogFormat::Text if terminal => registry.with(layer).try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
    };
    if started.is_ok() {
        let _ = FILTER.set(changes);
    }
}

/// Changes the level of the running log. Does nothing if this process did not start it.
pub fn set_level(level: &str) {
    if let Some(changes) = FILTER.get() {
        let _ = changes.reload(filter(level));
    }
}

fn filter(level: &str) -> EnvFilter {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    SILENCED.iter().filter_map(|off| off.parse().ok()).fold(filter, EnvFilter::add_directive)
}
