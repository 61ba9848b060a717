//! Why the embedded Redis cannot be used.

use std::{io, path::PathBuf, process::ExitStatus};

/// Why the embedded Redis cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The program is not installed.
    #[error(
        "redis.program: {program} was not found; install it (Debian, Ubuntu: \
         apt-get install redis-server) or set redis.url"
    )]
    Missing { program: String },
    /// The path of the socket is too long for the operating system.
    #[error(
        "server.state_dir: the path of the Redis socket {path} has {bytes} bytes, but at \
         most 107 are allowed; choose a shorter state directory"
    )]
    PathTooLong { path: PathBuf, bytes: usize },
    /// A server accepts connections, but does not answer, or answers PING with something else.
    #[error(
        "the redis-server at {path} accepts connections but does not answer as it should; \
         end that process first"
    )]
    Stuck { path: PathBuf },
    /// The server ended before it answered. `reason` is the last line of its log.
    #[error("redis-server ended at once ({status}): {reason}")]
    Ended { status: ExitStatus, reason: String },
    /// The operating system refused a file, a socket or a process.
    #[error("embedded Redis in {path}: {source}")]
    Unusable { path: PathBuf, source: io::Error },
}
