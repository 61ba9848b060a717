//! Backups of the state directory: the embedded Redis and the secrets.
//!
//! - [`make()`] copies the state directory while the daemon runs, or while it does not.
//! - [`restore()`] writes a backup into an empty directory. The next daemon holds its store.
//! - [`verify()`] checks the hashes, then reads every delivery, chain and ledger of a backup with a
//!   private redis-server.
//! - [`Manifest`] is the list of the files with their hashes, and the time of the backup.
//!
//! Not here: the backup of a Redis that `redis.url` names is that server's own. What a hold of the
//! store means is in [`crate::store::hold`].

mod backup_error;
mod copy;
mod make;
mod manifest;
mod restore;
mod verify;

pub use backup_error::BackupError;
pub use make::make;
pub use manifest::{BackupFile, Manifest};
pub use restore::restore;
pub use verify::{VerifiedBackup, verify};
