//! The manifest of a backup: its time, the form of its store, and the hash of each file.

use std::path::{Component, Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backup_error::{BackupError, at};

/// The name of the manifest in a backup. It is written last: without it a backup is not complete.
pub(super) const MANIFEST: &str = "manifest.json";

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// The path inside the backup and inside the state directory.
    pub name: String,
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// All that a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the stored form.
    pub format: u32,
    /// The version of the program that made the backup.
    pub program: String,
    /// When the copy began. What was done later may be missing.
    pub at: Timestamp,
    pub files: Vec<BackupFile>,
}

impl Manifest {
    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// If it is missing or damaged, or names a file outside the backup.
    pub fn read(backup: &Path) -> Result<Self, BackupError> {
        let path = backup.join(MANIFEST);
        let damaged = |reason: String| BackupError::Damaged { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(at(&path))?;
        let manifest: Self = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        let inside = |name: &str| {
            !name.is_empty()
                && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
        };
        match manifest.files.iter().find(|file| !inside(&file.name)) {
            Some(file) => Err(damaged(format!("{:?} is no file of a backup", file.name))),
            None => Ok(manifest),
        }
    }
}
