//! The place of a directory: it tells a copy from the original.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, time::UNIX_EPOCH};

/// The name of the place of a directory.
///
/// It consists of the machine's id, the inode number and the time at which the inode was made. A
/// copy differs in the last two. A disk image in another machine differs in the first. The device
/// number does not count: some file systems get another one at each boot.
pub(super) fn place_of(path: &Path) -> io::Result<String> {
    let meta = fs::metadata(path)?;
    // not every file system knows this time
    let made = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let (machine, inode) = (machine.trim(), meta.ino());
    Ok(format!("{machine}:{inode}:{}", made.unwrap_or_default().as_nanos()))
}
