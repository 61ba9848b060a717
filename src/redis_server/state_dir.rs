//! The state directory: locked by one daemon, with the ids of earlier daemons and the secrets.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Number of owner ids that are kept. Several daemons may die before the chunks of the first one
/// are taken over.
const KEPT_OWNERS: usize = 16;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds the lock.
    #[error("server.state_dir: {path} is in use by another daemon")]
    InUse { path: PathBuf },
    /// The operating system refused a file.
    #[error("server.state_dir: {path}: {source}")]
    Unusable { path: PathBuf, source: io::Error },
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
    _lock: File,
}

impl StateDir {
    /// Locks the directory and gives this process a new owner id, which is on disk when this
    /// returns. A missing directory is created with mode 0700.
    ///
    /// # Errors
    /// [`StateError::InUse`] while another process holds the lock.
    pub fn lock(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| unusable(path, source))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| unusable(&lock_path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::InUse { path: path.into() });
            }
            Err(e) => return Err(unusable(&lock_path, e.into())),
        }
        let owner_path = path.join("owner");
        let predecessors = match fs::read_to_string(&owner_path) {
            Ok(text) => owners(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Vec::new(),
            Err(e) => return Err(unusable(&owner_path, e)),
        };
        let owner = fresh_owner()?;
        let text: String = std::iter::once(&owner)
            .chain(&predecessors)
            .take(KEPT_OWNERS)
            .map(|owner| format!("{owner:016x}\n"))
            .collect();
        write_durably(path, "owner", text.as_bytes())?;
        Ok(Self { path: path.into(), owner, predecessors, _lock: lock })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
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
    /// [`StateError::BadSecret`] if the file does not hold 32 bytes.
    pub fn secret(&self, name: &str) -> Result<[u8; 32], StateError> {
        let file = format!("{name}.secret");
        let path = self.path.join(&file);
        match File::open(&path) {
            Ok(mut found) => {
                let mut bytes = Vec::new();
                found.read_to_end(&mut bytes).map_err(|source| unusable(&path, source))?;
                bytes.try_into().map_err(|_| StateError::BadSecret { path })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(StateError::Random)?;
                write_durably(&self.path, &file, &secret)?;
                Ok(secret)
            }
            Err(e) => Err(unusable(&path, e)),
        }
    }

    /// A secret of this installation, if it was made before. See [`StateDir::secret`].
    ///
    /// # Errors
    /// [`StateError::BadSecret`] if the file does not hold 32 bytes.
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
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unusable(&path, e)),
            _ => Ok(()),
        }
    }

    /// Whether there is such a file.
    pub fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// Writes a file that only the user of the daemon can read.
    pub fn write_private(&self, file: &str, bytes: &[u8]) -> Result<(), StateError> {
        write_durably(&self.path, file, bytes)
    }
}

fn unusable(path: &Path, source: io::Error) -> StateError {
    StateError::Unusable { path: path.into(), source }
}

/// Reads the file of owner ids.
fn owners(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| u64::from_str_radix(line, 16).ok()).collect()
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

/// Replaces a file. After a crash it has the old content or the new one, never a mixture. The new
/// content is on disk when this returns.
fn write_durably(dir: &Path, file: &str, bytes: &[u8]) -> Result<(), StateError> {
    let path = dir.join(file);
    let draft = dir.join(format!("{file}.new"));
    let write = || {
        let mut new =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| unusable(&path, source))
}
