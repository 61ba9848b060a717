//! Files of the state directory: only the user of the daemon reads them, and no link is followed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::{fs::OFlags, process::geteuid};

/// The flag of open(2): a link is an error.
pub const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;
/// Write access for the group or for everybody else.
const OTHERS_WRITE: u32 = 0o022;

/// Opens the lock file. It is made if it is missing.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    let file = open.create(true).append(true).mode(0o600).custom_flags(NO_FOLLOW).open(path)?;
    plain_file(&file)?;
    Ok(file)
}

/// Reads a file of the state directory; `None` if it is missing.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // without NONBLOCK a planted FIFO would block the start for ever
    let flags = NO_FOLLOW | OFlags::NONBLOCK.bits() as i32;
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    plain_file(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Replaces a file. After a crash it has the old content or the new one, never a mixture. The new
/// content is on disk when this returns.
pub(super) fn write_durably(dir: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, draft) = (dir.join(file), dir.join(format!("{file}.new")));
    // a draft that a crash left, or that somebody planted, is never written to
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut new = new_file(&draft)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&draft, &path)?;
    File::open(dir)?.sync_all()
}

/// Makes a file that did not exist, with mode 0600.
///
/// # Errors
/// If there is something under its name already, even a link.
pub fn new_file(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    open.create_new(true).write(true).mode(0o600).custom_flags(NO_FOLLOW).open(path)
}

/// Checks that nobody but the user of the daemon can write into a directory.
///
/// # Errors
/// A text for people.
pub(super) fn check_owned(path: &Path) -> Result<(), String> {
    let meta = fs::symlink_metadata(path).map_err(|e| e.to_string())?;
    let user = geteuid().as_raw();
    if !meta.is_dir() {
        return Err("is not a directory (a link is not followed)".into());
    }
    if meta.uid() != user {
        return Err(format!(
            "belongs to the user {}, and this process runs as {user}: chown it",
            meta.uid()
        ));
    }
    if meta.mode() & OTHERS_WRITE != 0 {
        return Err("can be written by other users: chmod 700 it".into());
    }
    Ok(())
}

fn plain_file(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a plain file")),
    }
}
