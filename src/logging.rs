//! The log of the daemon, on stderr: one line for each event, for people or as JSON.
//!
//! systemd gets the priority of each line, and adds the time itself (sd-daemon(3)).

use std::{
    io::{self, IsTerminal, Write},
    panic,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Registry, fmt::MakeWriter, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{self, LogFormat, LogSettings};

/// Crates that would log the content of messages, or each worker's view of an outage of Redis.
const SILENCED: [&str; 3] = ["html5ever=off", "selectors=off", "apalis_core=off"];

/// Set once the log is written as JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

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
/// The text format has colours on a terminal only, and no time if the lines go to the journal.
/// A panic becomes an event, too.
pub fn start(settings: &LogSettings) {
    let (filter, changes) = reload::Layer::new(filter(&settings.level));
    let registry = tracing_subscriber::registry().with(filter);
    let is_journal = goes_to_the_journal();
    let layer = tracing_subscriber::fmt::layer().with_writer(LineWriter { is_journal });
    let terminal = io::stderr().is_terminal();
    let started = match settings.format {
        LogFormat::Json => registry.with(layer.json()).try_init(),
        LogFormat::Text if is_journal => {
            registry.with(layer.with_ansi(false).without_time()).try_init()
        }
        LogFormat::Text => registry.with(layer.with_ansi(terminal)).try_init(),
    };
    if started.is_ok() {
        let _ = FILTER.set(changes);
        IS_JSON.store(settings.format == LogFormat::Json, Ordering::Relaxed);
        panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let payload = panic.payload();
            let reason = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("unknown");
            tracing::error!(place, reason, "a task panicked");
        }));
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

/// Writes why the program ends, as its last line: JSON if the log is JSON.
pub fn write_end(reason: &str) {
    if IS_JSON.load(Ordering::Relaxed) {
        return tracing::error!(target: "versand", "{reason}");
    }
    let priority = goes_to_the_journal().then(|| priority(Level::ERROR));
    let _ = EventLine { priority }.write(format!("versand: {reason}").as_bytes());
}

/// Whether stderr is the socket that systemd connected to the journal (systemd.exec(5),
/// `JOURNAL_STREAM`).
fn goes_to_the_journal() -> bool {
    let Some(stream) = config::journal_stream() else { return false };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

/// Writes events to stderr.
struct LineWriter {
    is_journal: bool,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = EventLine;

    fn make_writer(&'a self) -> EventLine {
        EventLine { priority: None }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> EventLine {
        EventLine { priority: self.is_journal.then(|| priority(*event.level())) }
    }
}

/// The priority of a level (syslog(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Writes one event as one line. A line end within the event is escaped: it would begin a line
/// that nobody can tell from a genuine one.
struct EventLine {
    priority: Option<u8>,
}

impl Write for EventLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&line(self.priority, event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(priority: Option<u8>, event: &[u8]) -> Vec<u8> {
    let mut line = priority.map(|number| format!("<{number}>")).unwrap_or_default().into_bytes();
    for byte in event.strip_suffix(b"\n").unwrap_or(event) {
        match byte {
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(line(None, b"a\nb\r\n"), b"a\\nb\\r\n");
        assert_eq!(line(Some(4), b"a\n"), b"<4>a\n");
    }
}
