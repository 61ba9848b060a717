//! Why a backup cannot be made, restored or verified.

use std::{io, path::PathBuf};

use crate::{
    redis_server::{EmbeddedError, StateError},
    store::{ConnectError, StoreError, hold::OpenError},
};

/// Why a backup cannot be made, restored or verified.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The operating system refused a file.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// The directory must be empty, so that nothing in it is overwritten or mixed.
    #[error("{0} is not empty: choose a new directory")]
    NotEmpty(PathBuf),
    /// The manifest cannot be used, or the backup is not what it says.
    #[error("{path}: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// There is nothing to back up.
    #[error("{0} holds no embedded Redis: with redis.url set, back up that Redis by its own means")]
    NoStore(PathBuf),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("{0}")]
    Embedded(#[from] EmbeddedError),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Names the file in an error of the operating system.
pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.into();
    move |source| BackupError::File { path, source }
}
