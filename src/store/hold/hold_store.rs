//! The handle of the hold: asks, holds, releases, and writes the heartbeat.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{AsyncCommands, Script};

use super::store_hold::{HoldReason, StoreHold};
use crate::store::{Redis, StoreError, keys};

/// A roll-back of Redis undoes less than this. The holders of leases repair it by themselves.
const ROLL_BACK: Duration = Duration::from_secs(10);

/// The hold of the store. Cheap to clone.
#[derive(Clone)]
pub struct HoldStore {
    pub(super) redis: Redis,
    scripts: Arc<HoldScripts>,
    /// Count and time (ms) of this daemon's last heartbeat.
    last: Arc<Mutex<Option<(u64, u64)>>>,
}

struct HoldScripts {
    heartbeat: Script,
    hold: Script,
    release_hold: Script,
}

impl Default for HoldScripts {
    fn default() -> Self {
        Self {
            heartbeat: Script::new(include_str!("heartbeat.lua")),
            hold: Script::new(include_str!("hold.lua")),
            release_hold: Script::new(include_str!("release_hold.lua")),
        }
    }
}

impl HoldStore {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default(), last: Arc::default() }
    }

    /// The hold in force, if there is one.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn current(&self) -> Result<Option<StoreHold>, StoreError> {
        let mut asked = redis::pipe();
        asked.hgetall(keys::STORE_HOLD).cmd("HMGET").arg(keys::HEARTBEAT).arg("count").arg("at");
        let (fields, (count, at)): (HashMap<String, String>, (Option<u64>, Option<u64>)) =
            asked.query_async(&mut self.redis.connection()).await?;
        if let Some(hold) = StoreHold::read(&fields)? {
            return Ok(Some(hold));
        }
        // the heartbeat writes this hold within a second; nothing may move in between
        let (count, at) = (count.unwrap_or_default(), at.unwrap_or_default());
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = last.filter(|(known, then)| {
            count < *known && then.saturating_sub(at) > ROLL_BACK.as_millis() as u64
        });
        Ok(lost.map(|(_, then)| StoreHold {
            since: in_seconds(at),
            why: HoldReason::WentBack,
            found: in_seconds(then),
        }))
    }

    /// Holds the store, because it may lack everything after `since` (Unix seconds). A hold that
    /// begins earlier stays. Returns whether this changed anything.
    pub async fn hold(&self, since: u32, why: HoldReason, now: u32) -> Result<bool, StoreError> {
        let mut script = self.scripts.hold.prepare_invoke();
        script.key(keys::STORE_HOLD).arg(since).arg(why.word()).arg(now);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// Releases the hold with this `since`. Returns false if there is no such hold.
    pub async fn release(&self, since: u32, now: u32, by: &str) -> Result<bool, StoreError> {
        let mut script = self.scripts.release_hold.prepare_invoke();
        script.key(keys::STORE_HOLD).key(keys::STORE_RELEASED).arg(since).arg(now).arg(by);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// When a hold was released last (Unix seconds). What was signed before that may have been
    /// used already, in the time that the store lacks.
    pub async fn released_at(&self) -> Result<Option<u32>, StoreError> {
        Ok(self.redis.connection().hget(keys::STORE_RELEASED, "at").await?)
    }

    /// Writes the heartbeat. Holds the store if it went back in time since this daemon's last
    /// heartbeat, by more than a roll-back undoes. The first heartbeat of a daemon holds a store
    /// that was silent for longer than `silence`.
    ///
    /// # Errors
    /// If Redis does not answer or takes no writes.
    pub async fn beat(&self, silence: Duration) -> Result<(), StoreError> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, at) = last.map_or((-1, 0), |(count, at)| (count as i64, at));
        let mut script = self.scripts.heartbeat.prepare_invoke();
        script.key(keys::HEARTBEAT).key(keys::DAEMONS_SEEN).key(keys::STORE_HOLD);
        script.arg(count).arg(at).arg(ROLL_BACK.as_millis() as u64);
        script.arg(silence.as_millis() as u64);
        let beat: (u64, u64) = script.invoke_async(&mut self.redis.connection()).await?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat);
        Ok(())
    }

    /// When the last heartbeat was written (Unix seconds).
    pub async fn last_beat(&self) -> Result<Option<u32>, StoreError> {
        Ok(self.last_beat_ms().await?.map(in_seconds))
    }

    /// When the last heartbeat was written (Unix ms).
    pub(super) async fn last_beat_ms(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.redis.connection().hget(keys::HEARTBEAT, "at").await?)
    }
}

/// Unix seconds of Unix ms.
pub(super) fn in_seconds(ms: u64) -> u32 {
    u32::try_from(ms / 1000).unwrap_or(u32::MAX)
}
