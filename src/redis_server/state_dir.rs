//! The state directory: locked by one daemon, with the ids of earlier daemons and the secrets.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{place::place_of, private_file};

/// Number of owner ids that are kept. Several daemons may die before the chunks of the first one
/// are taken over.
const KEPT_OWNERS: usize = 16;
/// The file that marks a restored directory. It holds the time of the backup in Unix seconds.
pub(super) const RESTORED: &str = "restored";
/// Begins the line of the place in the file of owner ids.
const PLACE: &str = "place ";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds the lock.
    #[error("server.state_dir: {path} is in use by another daemon")]
    InUse { path: PathBuf },
    /// The operating system refused a file.
    #[error("server.state_dir: {path}: {source}")]
    Unusable { path: PathBuf, source: io::Error },
    /// Others may change what is in it.
    #[error("server.state_dir: {path} {reason}")]
    NotPrivate { path: PathBuf, reason: String },
    /// A secret has the wrong size.
    #[error(
        "server.state_dir: {path} does not hold 32 bytes; restore the file, or remove it: \
         then everything signed with it becomes invalid"
    )]
    BadSecret { path: PathBuf },
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The locked state directory. The lock ends when this is dropped, or when the process ends in any
/// way.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    owner: u64,
    predecessors: Vec<u64>,
    place: String,
    _lock: DirLock,
}

/// The lock of a state directory. It ends when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Locks a state directory, and makes the lock file if it is missing. Nothing else changes.
    ///
    /// # Errors
    /// [`StateError::InUse`] while another process holds the lock; [`StateError::Unusable`] if the
    /// lock file cannot be opened or locked.
    pub fn take(path: &Path) -> Result<Self, StateError> {
        let lock_path = path.join("lock");
        let lock =
            private_file::open_lock(&lock_path).map_err(|source| unusable(&lock_path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { path: path.into() }),
            Err(e) => Err(unusable(&lock_path, e.into())),
        }
    }
}

impl StateDir {
    /// Locks the directory and gives this process a new owner id, which is on disk when this
    /// returns. A missing directory is created with mode 0700.
    ///
    /// # Errors
    /// - [`StateError::InUse`] while another process holds the lock.
    /// - [`StateError::NotPrivate`] if `path` is no directory, has another owner, or is writable
    ///   for others.
    /// - [`StateError::Unusable`] or [`StateError::Random`] if the operating system refuses.
    pub fn lock(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| unusable(path, source))?;
        check_private(path)?;
        let lock = DirLock::take(path)?;
        let owner_path = path.join("owner");
        let place = place_of(path).map_err(|source| unusable(path, source))?;
        let known = private_file::read(&owner_path)
            .map_err(|source| unusable(&owner_path, source))?
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default();
        // in a copy, the owners of the original may live
        let is_copy = known_place(&known).is_some_and(|known| known != place);
        if is_copy {
            tracing::warn!(
                path = %path.display(),
                "the state directory is a copy, or was moved: the daemons that used it before are \
                 not taken for dead"
            );
        }
        let predecessors = if is_copy { Vec::new() } else { owners(&known) };
        let owner = fresh_owner()?;
        let text: String = std::iter::once(&owner)
            .chain(&predecessors)
            .take(KEPT_OWNERS)
            .map(|owner| format!("{owner:016x}\n"))
            .chain([format!("{PLACE}{place}\n")])
            .collect();
        let state = Self { path: path.into(), owner, predecessors, place, _lock: lock };
        state.write_private("owner", text.as_bytes())?;
        Ok(state)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of its place. A copy has another place.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The id of this process as a holder of leases. It is never 0 and was never used before.
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// The owner id of the previous daemon. It is dead, because the lock was free.
    pub fn predecessor(&self) -> Option<u64> {
        self.predecessors.first().copied()
    }

    /// The owner ids of earlier daemons, the newest first. All are dead.
    pub fn predecessors(&self) -> &[u64] {
        &self.predecessors
    }

    /// A secret of this installation, created with mode 0600 at its first use. `name` becomes part
    /// of a file name, so it must not come from a user.
    ///
    /// # Errors
    /// [`StateError::BadSecret`] if the file does not hold 32 bytes; [`StateError::Unusable`] or
    /// [`StateError::Random`] if the operating system refuses.
    pub fn secret(&self, name: &str) -> Result<[u8; 32], StateError> {
        let file = format!("{name}.secret");
        let path = self.path.join(&file);
        match private_file::read(&path).map_err(|source| unusable(&path, source))? {
            Some(bytes) => bytes.try_into().map_err(|_| StateError::BadSecret { path }),
            None => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(StateError::Random)?;
                self.write_private(&file, &secret)?;
                Ok(secret)
            }
        }
    }

    /// A secret of this installation, if its file is there. See [`StateDir::secret`].
    ///
    /// # Errors
    /// As for [`StateDir::secret`].
    pub fn secret_if_made(&self, name: &str) -> Result<Option<[u8; 32]>, StateError> {
        let path = self.path.join(format!("{name}.secret"));
        match path.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => self.secret(name).map(Some),
            Err(e) => Err(unusable(&path, e)),
        }
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, file: &str) -> Result<(), StateError> {
        let path = self.path.join(file);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unusable(&path, e)),
            _ => Ok(()),
        }
    }

    /// Whether there is such a file.
    pub fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// The time of the backup (Unix seconds), if the directory was restored and not opened since.
    ///
    /// # Errors
    /// If the mark cannot be read.
    pub fn restored(&self) -> Result<Option<u32>, StateError> {
        let path = self.path.join(RESTORED);
        let text = private_file::read(&path).map_err(|source| unusable(&path, source))?;
        // a mark without a valid time is a mark all the same: the backup may be of any time
        Ok(text.map(|text| String::from_utf8_lossy(&text).trim().parse().unwrap_or_default()))
    }

    /// Removes the mark of a restored directory, once its store is held.
    ///
    /// # Errors
    /// If the mark cannot be removed.
    pub fn forget_restored(&self) -> Result<(), StateError> {
        let path = self.path.join(RESTORED);
        std::fs::remove_file(&path).map_err(|source| unusable(&path, source))
    }

    /// Reads a file of [`StateDir::write_private`]; `None` if it is missing.
    ///
    /// # Errors
    /// If it is a link, or cannot be read.
    pub fn read_private(&self, file: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(file);
        private_file::read(&path).map_err(|source| unusable(&path, source))
    }

    /// Writes a file that only the user of the daemon can read. It replaces what is there, and
    /// follows no link.
    pub fn write_private(&self, file: &str, bytes: &[u8]) -> Result<(), StateError> {
        private_file::write_durably(&self.path, file, bytes)
            .map_err(|source| unusable(&self.path.join(file), source))
    }
}

/// Marks a directory as restored from a backup of this time (Unix seconds).
///
/// # Errors
/// If the mark cannot be written.
pub fn mark_restored(path: &Path, at: i64) -> Result<(), StateError> {
    private_file::write_durably(path, RESTORED, format!("{at}\n").as_bytes())
        .map_err(|source| unusable(&path.join(RESTORED), source))
}

/// Checks the directory and its folder of Redis. The path itself may lead over a link, as under
/// systemd.
fn check_private(path: &Path) -> Result<(), StateError> {
    let real = path.canonicalize().map_err(|source| unusable(path, source))?;
    let redis = real.join("redis");
    for folder in [&real, &redis] {
        // the folder of Redis is made later
        if folder == &redis && redis.symlink_metadata().is_err() {
            continue;
        }
        private_file::check_owned(folder)
            .map_err(|reason| StateError::NotPrivate { path: folder.clone(), reason })?;
    }
    Ok(())
}

fn unusable(path: &Path, source: io::Error) -> StateError {
    StateError::Unusable { path: path.into(), source }
}

/// Reads the owner ids in the file of owners. Other lines are passed over.
fn owners(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()).collect()
}

/// Reads the place in the file of owners. An older version wrote none.
fn known_place(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(PLACE))
}

fn fresh_owner() -> Result<u64, StateError> {
    loop {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(StateError::Random)?;
        // In a ledger, the owner 0 means nobody.
        if bytes != [0; 8] {
            return Ok(u64::from_be_bytes(bytes));
        }
    }
}
