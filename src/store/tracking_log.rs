//! The tracking log as it is read and relabelled, and the figures that were made of it.

use std::collections::HashMap;

use redis::AsyncCommands;

use super::{Store, StoreError, damaged, hits::BLOCK, keys, ledgers::ChunkRef};
use crate::domain::{
    id::DeliveryId,
    ledger::{HEADER_BYTES, RECORD_BYTES},
    statistics::Statistics,
    tracking::{HIT_BYTES, Hit, LABEL_AT},
};

impl Store {
    /// How many lines the tracking log has.
    pub async fn hit_count(&self, id: &DeliveryId) -> Result<u64, StoreError> {
        let hits: Option<u64> = self.conn.clone().hget(keys::tracking(id), "hits").await?;
        Ok(hits.unwrap_or_default())
    }

    /// Some blocks of the log.
    pub async fn hits(&self, id: &DeliveryId, blocks: std::ops::Range<u64>) -> Result<Vec<Hit>, StoreError> {
        let names: Vec<String> = blocks.map(|block| keys::hits(id, block)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let raw: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(names).query_async(&mut self.conn.clone()).await?;
        let mut hits = Vec::new();
        for bytes in raw.into_iter().flatten() {
            for hit in bytes.as_chunks::<HIT_BYTES>().0 {
                hits.push(Hit::decode(hit).ok_or_else(|| damaged("a line of the tracking log"))?);
            }
        }
        Ok(hits)
    }

    /// User agents by their numbers.
    pub async fn agents(&self, id: &DeliveryId) -> Result<HashMap<u16, String>, StoreError> {
        let agents: HashMap<Vec<u8>, u16> = self.conn.clone().hgetall(keys::agents(id)).await?;
        Ok(agents.into_iter().map(|(agent, number)| (number, String::from_utf8_lossy(&agent).into_owned())).collect())
    }

    /// Gives lines of the log, by their places, other labels.
    pub async fn relabel(&self, id: &DeliveryId, changed: &[(u64, Hit)]) -> Result<(), StoreError> {
        for some in changed.chunks(1000) {
            let mut pipe = redis::pipe();
            for (place, hit) in some {
                let at = (place % BLOCK) as usize * HIT_BYTES + LABEL_AT;
                // label, and the version of its rules
                pipe.setrange(keys::hits(id, place / BLOCK), at as isize, &hit.encode()[LABEL_AT..LABEL_AT + 3]).ignore();
            }
            let () = pipe.query_async(&mut self.conn.clone()).await?;
        }
        Ok(())
    }

    /// What the log says of recipients, where a record says something else: position, how many hits there were, bits. A record with
    /// other hits stays as it is: some came meanwhile.
    pub async fn mend_tracked(&self, at: &ChunkRef, wrong: &[(u16, u16, u8)]) -> Result<(), StoreError> {
        let mut script = self.scripts.mend_tracked.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk));
        for (position, hits, bits) in wrong {
            script.arg(HEADER_BYTES + RECORD_BYTES * usize::from(*position) + 13).arg(*hits).arg(&[*bits][..]);
        }
        Ok(script.invoke_async(&mut self.conn.clone()).await?)
    }

    /// The figures that were computed last.
    pub async fn statistics(&self, id: &DeliveryId) -> Result<Option<Statistics>, StoreError> {
        let text: Option<Vec<u8>> = self.conn.clone().get(keys::statistics(id)).await?;
        text.map(|text| serde_json::from_slice(&text).map_err(damaged)).transpose()
    }

    /// The same of several deliveries; only of those that have any.
    pub async fn all_statistics(&self, ids: &[DeliveryId]) -> Result<Vec<(DeliveryId, Statistics)>, StoreError> {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.get(keys::statistics(id));
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let texts: Vec<Option<Vec<u8>>> = pipe.query_async(&mut self.conn.clone()).await?;
        let known = ids.iter().zip(texts).filter_map(|(id, text)| Some((id.clone(), text?)));
        known.map(|(id, text)| Ok((id, serde_json::from_slice(&text).map_err(damaged)?))).collect()
    }

    pub async fn keep_statistics(&self, id: &DeliveryId, statistics: &Statistics) -> Result<(), StoreError> {
        Ok(self.conn.clone().set(keys::statistics(id), serde_json::to_vec(statistics).map_err(damaged)?).await?)
    }

    /// Whether this daemon may compute the statistics of an hour, for the next `lock_s`: nobody else does, and they are not done.
    pub async fn take_hour(&self, hour: i64, owner: u64, lock_s: u64) -> Result<bool, StoreError> {
        let mut set = redis::cmd("SET");
        set.arg(keys::hour(hour)).arg(owner).arg("NX").arg("EX").arg(lock_s);
        let taken: Option<String> = set.query_async(&mut self.conn.clone()).await?;
        Ok(taken.is_some())
    }

    /// Keeps the hour for longer: for `keep_s` more. False if somebody else has it.
    pub async fn keep_hour(&self, hour: i64, owner: u64, keep_s: i64) -> Result<bool, StoreError> {
        let owned: Option<u64> = self.conn.clone().get(keys::hour(hour)).await?;
        Ok(owned == Some(owner) && self.conn.clone().expire(keys::hour(hour), keep_s).await?)
    }
}
