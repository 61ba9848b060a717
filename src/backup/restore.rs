//! Writes a backup into an empty directory.

use std::path::Path;

use super::{
    backup_error::{BackupError, at},
    copy::{copy_file, hash_file, make_empty, sync_folder},
    manifest::Manifest,
};
use crate::redis_server::mark_restored;

/// Writes the backup into the empty directory `state`, as its state directory.
///
/// The first file is the mark that makes the next daemon hold its store. So a restore that was cut
/// off is held, too.
///
/// # Errors
/// If a file of the backup is missing or differs from the manifest, if `state` is not empty, or if
/// a file cannot be written.
pub fn restore(backup: &Path, state: &Path) -> Result<Manifest, BackupError> {
    let manifest = check_files(backup)?;
    make_empty(state)?;
    mark_restored(state, manifest.at.as_second())?;
    for file in &manifest.files {
        let copied = copy_file(backup, state, &file.name)?;
        if copied != *file {
            let (path, reason) = (state.join(&file.name), "has changed meanwhile".to_owned());
            return Err(BackupError::Damaged { path, reason });
        }
    }
    for folder in std::fs::read_dir(state).map_err(at(state))?.flatten() {
        if folder.path().is_dir() {
            sync_folder(&folder.path())?;
        }
    }
    sync_folder(state)?;
    Ok(manifest)
}

/// Reads the manifest, and checks every file against it.
pub(super) fn check_files(backup: &Path) -> Result<Manifest, BackupError> {
    let manifest = Manifest::read(backup)?;
    for file in &manifest.files {
        let found = hash_file(backup, &file.name)?;
        if found != *file {
            return Err(BackupError::Damaged {
                path: backup.join(&file.name),
                reason: format!(
                    "has {} bytes and the SHA-256 {}, but the manifest says {} and {}",
                    found.bytes, found.sha256, file.bytes, file.sha256
                ),
            });
        }
    }
    Ok(manifest)
}
