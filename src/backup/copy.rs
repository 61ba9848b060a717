//! Copies files of a backup. Each copy is new, private, on disk and hashed.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{
    backup_error::{BackupError, at},
    manifest::BackupFile,
};
use crate::redis_server::private_file::{NO_FOLLOW, new_file};

/// Copies the file `name` from one directory to another. It copies the length that the file has
/// at the beginning: an append-only file grows meanwhile.
pub(super) fn copy_file(from: &Path, to: &Path, name: &str) -> Result<BackupFile, BackupError> {
    let (source, target) = (from.join(name), to.join(name));
    let mut reading = open(&source)?;
    let length = reading.metadata().map_err(at(&source))?.len();
    if let Some(folder) = target.parent() {
        make_folder(folder)?;
    }
    let mut writing = new_file(&target).map_err(at(&target))?;
    let copied = hash_through(&mut reading, length, |bytes| writing.write_all(bytes));
    let (bytes, sha256) = copied.map_err(at(&target))?;
    writing.sync_all().map_err(at(&target))?;
    Ok(BackupFile { name: name.to_owned(), bytes, sha256 })
}

/// Hashes a file as it is in a backup.
pub(super) fn hash_file(folder: &Path, name: &str) -> Result<BackupFile, BackupError> {
    let path = folder.join(name);
    let mut reading = open(&path)?;
    let (bytes, sha256) = hash_through(&mut reading, u64::MAX, |_| Ok(())).map_err(at(&path))?;
    Ok(BackupFile { name: name.to_owned(), bytes, sha256 })
}

/// Makes a directory for this user only, with its parents.
pub(super) fn make_folder(folder: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))
}

/// Makes a directory, or uses an empty one.
pub(super) fn make_empty(folder: &Path) -> Result<(), BackupError> {
    make_folder(folder)?;
    match std::fs::read_dir(folder).map_err(at(folder))?.next() {
        Some(_) => Err(BackupError::NotEmpty(folder.into())),
        None => Ok(()),
    }
}

/// Writes the names of the files in a directory to disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

fn open(path: &Path) -> Result<File, BackupError> {
    OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path).map_err(at(path))
}

fn hash_through(
    reading: &mut File,
    most: u64,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(u64, String)> {
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 16], 0);
    let mut reading = reading.take(most);
    loop {
        let read = reading.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, HEXLOWER.encode(&hash.finalize())));
        }
        hash.update(&buffer[..read]);
        write(&buffer[..read])?;
        bytes += read as u64;
    }
}
