//! The check of a store at the start of a daemon: its form, its place, its age.

use std::time::Duration;

use redis::AsyncCommands;

use super::{
    hold_store::{HoldStore, in_seconds},
    store_hold::{HoldReason, StoreHold},
};
use crate::store::{StoreError, keys};

/// The version of the stored form that this program reads and writes. A change that an older
/// program cannot read raises it.
pub const FORMAT: u32 = 1;

/// How much older a heartbeat may be than the last other write of the same daemon, in ms.
const SLACK_MS: u64 = 3000;

/// What a daemon knows about the store that it opens.
#[derive(Debug, Clone, Default)]
pub struct OpenedStore {
    /// The name of the place of the state directory, if the store is in it.
    pub place: Option<String>,
    /// The time of the backup (Unix seconds), if the state directory was restored.
    pub restored: Option<u32>,
    /// When the files of the embedded Redis were changed last, before its start (Unix ms).
    pub changed_ms: Option<u64>,
    /// The last heartbeat may be as old as this.
    pub silence: Duration,
}

/// The store has a form that this program does not know.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store has the form {0}, and this program knows the forms up to {FORMAT}: install the \
     release that wrote it, or restore a backup from before the upgrade"
)]
pub struct UnknownFormat(u32);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Format(#[from] UnknownFormat),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl HoldStore {
    /// Checks the form of the store, and writes it into a new store.
    ///
    /// # Errors
    /// If the form is newer than this program, or Redis does not answer.
    pub async fn check_format(&self) -> Result<(), OpenError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::FORMAT).arg(FORMAT).arg("NX").arg("GET");
        let found: Option<u32> =
            set.query_async(&mut self.redis.connection()).await.map_err(StoreError::from)?;
        match found {
            Some(found) if found > FORMAT => Err(UnknownFormat(found).into()),
            _ => Ok(()),
        }
    }

    /// Opens the store for this daemon: holds it if it was restored, replaced, copied or silent for
    /// too long, and writes the first heartbeat. Returns the hold in force.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn open(
        &self,
        opened: &OpenedStore,
        now: u32,
    ) -> Result<Option<StoreHold>, StoreError> {
        if let Some(since) = opened.restored {
            self.hold(since, HoldReason::Restored, now).await?;
        }
        let beat_ms = self.last_beat_ms().await?;
        if let (Some(changed), Some(beat), None) = (opened.changed_ms, beat_ms, opened.restored)
            && changed > beat + SLACK_MS
        {
            self.hold(in_seconds(beat), HoldReason::Replaced, now).await?;
        }
        if let Some(place) = &opened.place {
            let known: Option<String> = self.redis.connection().get(keys::PLACE).await?;
            // a restored directory is held already, since the time of its backup
            if opened.restored.is_none() && known.is_some_and(|known| known != *place) {
                let since = beat_ms.map_or(now, in_seconds);
                self.hold(since, HoldReason::Copied, now).await?;
            }
            // after the hold: a crash in between finds the difference again
            let () = self.redis.connection().set(keys::PLACE, place).await?;
        }
        self.beat(opened.silence).await?;
        self.current().await
    }
}
