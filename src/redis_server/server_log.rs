//! The log of the embedded redis-server, passed on to the log of the daemon.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// How often to look for new lines.
const LOOK: Duration = Duration::from_millis(500);
/// A longer log file is removed once its lines are passed on. Redis makes it anew at its next line.
const LONGEST: u64 = 1 << 20;

/// Lines of every start and stop, which Redis logs as warnings.
const USUAL: [&str; 6] = [
    "oO0OoO0OoO0Oo Redis is starting",
    "Redis version=",
    "Configuration loaded",
    "Server initialized",
    "User requested shutdown",
    "Redis is now ready to exit",
];

/// The log file of a server, and how far it was read.
pub(super) struct ServerLog {
    path: PathBuf,
    read: u64,
}

impl ServerLog {
    /// Begins at the present end of the file.
    pub(super) fn at_its_end(path: PathBuf) -> Self {
        let read = path.metadata().map_or(0, |meta| meta.len());
        Self { path, read }
    }

    /// Passes new lines on until `end`, and then once more.
    pub(super) async fn pass_on(mut self, end: CancellationToken) {
        while end.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            self.pass_on_new_lines();
        }
        self.pass_on_new_lines();
    }

    fn pass_on_new_lines(&mut self) {
        // an unreadable log is no reason to stop: Redis works without it
        let Ok(text) = self.new_lines() else { return };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match sign_and_text(line) {
                ('#', text) if !USUAL.iter().any(|usual| text.starts_with(usual)) => {
                    tracing::warn!("embedded Redis: {text}")
                }
                ('#' | '*', text) => tracing::info!("embedded Redis: {text}"),
                (_, text) => tracing::debug!("embedded Redis: {text}"),
            }
        }
        let is_read = self.path.metadata().is_ok_and(|meta| meta.len() == self.read);
        if self.read > LONGEST && is_read && std::fs::remove_file(&self.path).is_ok() {
            self.read = 0;
        }
    }

    /// The complete lines that have come since the last call.
    fn new_lines(&mut self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        if file.metadata()?.len() < self.read {
            self.read = 0;
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += complete as u64;
        Ok(String::from_utf8_lossy(&bytes[..complete]).into_owned())
    }
}

/// The sign of a line's level and its text: `17:M 29 Nov 2026 15:00:00.123 * Ready`. A line without
/// this head, such as one of a crash report, counts as a warning.
fn sign_and_text(line: &str) -> (char, &str) {
    let mut rest = line;
    for _ in 0..5 {
        let Some((_, after)) = rest.split_once(' ') else { return ('#', line) };
        rest = after;
    }
    let mut characters = rest.chars();
    match (characters.next(), characters.next()) {
        (Some(sign @ ('#' | '*' | '-' | '.')), Some(' ')) => (sign, characters.as_str()),
        _ => ('#', line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_a_line_is_its_sign() {
        let line = "17:M 29 Nov 2026 15:00:00.123 * Ready to accept connections";
        assert_eq!(sign_and_text(line), ('*', "Ready to accept connections"));
        let line = "17:M 29 Nov 2026 15:00:00.123 # Can't open the append-only file: No space";
        assert_eq!(sign_and_text(line).0, '#');
        assert_eq!(sign_and_text("=== REDIS BUG REPORT START ===").0, '#');
    }
}
