//! The tracking log as it is read and relabelled, and the figures that were made of it.

use std::{collections::HashMap, ops::Range};

use redis::AsyncCommands;

use super::hits::{BLOCK, TrackingStore};
use crate::{
    domain::{
        delivery::DeliveryId,
        ledger::{HEADER_BYTES, RECORD_BYTES},
        tracking::{HIT_BYTES, LABEL_AT, Relabelled},
    },
    store::{StoreError, keys},
};

/// Lines or records that are written in one step.
const AT_ONCE: usize = 1000;

/// Counters of a tracking log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackingLogExtent {
    /// Lines.
    pub hits: u64,
    /// Hits that are in no line, since their recipients had too many.
    pub beyond: u64,
    /// How often labels were changed.
    pub labels: u64,
}

/// What a computation goes by: if its delivery or a label has changed since, nothing of its outcome is written.
#[derive(Debug, Clone)]
pub struct StatisticsBasis {
    pub delivery: DeliveryId,
    pub revision: u64,
    /// How often labels were changed.
    pub labels: u64,
}

impl TrackingStore {
    /// How far the tracking log is.
    pub async fn log_extent(&self, id: &DeliveryId) -> Result<TrackingLogExtent, StoreError> {
        let counters: [Option<u64>; 3] = self
            .redis
            .connection()
            .hmget(keys::tracking(id), &["hits", "beyond", "labels"])
            .await?;
        let [hits, beyond, labels] = counters.map(Option::unwrap_or_default);
        Ok(TrackingLogExtent { hits, beyond, labels })
    }

    /// Some blocks of the log: where each begins, and its lines.
    pub async fn hit_blocks(
        &self,
        id: &DeliveryId,
        blocks: Range<u64>,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let names: Vec<String> = blocks.clone().map(|block| keys::hits(id, block)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let raw: Vec<Option<Vec<u8>>> =
            redis::cmd("MGET").arg(names).query_async(&mut self.redis.connection()).await?;
        Ok(blocks.zip(raw).filter_map(|(block, lines)| Some((block * BLOCK, lines?))).collect())
    }

    /// User agents by their numbers.
    pub async fn agents(&self, id: &DeliveryId) -> Result<HashMap<u16, String>, StoreError> {
        let agents: HashMap<Vec<u8>, u16> =
            self.redis.connection().hgetall(keys::agents(id)).await?;
        Ok(agents
            .into_iter()
            .map(|(agent, number)| (number, String::from_utf8_lossy(&agent).into_owned()))
            .collect())
    }

    /// Gives lines of the log other labels, in the order of their places. False if somebody else did, or the delivery changed: then
    /// what was read is to be read again.
    pub async fn relabel(
        &self,
        basis: &mut StatisticsBasis,
        changed: &[Relabelled],
    ) -> Result<bool, StoreError> {
        for of_block in changed.chunk_by(|a, b| a.place / BLOCK == b.place / BLOCK) {
            let key = keys::hits(&basis.delivery, of_block[0].place / BLOCK);
            for some in of_block.chunks(AT_ONCE) {
                let mut script = self.write_script(basis, &key, 1);
                for Relabelled { place, before, now } in some {
                    script
                        .arg((place % BLOCK) as usize * HIT_BYTES + LABEL_AT)
                        .arg(&before[..])
                        .arg(&now[..]);
                }
                let labels: i64 = script.invoke_async(&mut self.redis.connection()).await?;
                let Ok(labels) = u64::try_from(labels) else { return Ok(false) };
                basis.labels = labels;
            }
        }
        Ok(true)
    }

    /// What the log says of recipients of a chunk, where a record says something else: position, bits before, hits, bits now. A
    /// record with other hits stays as it is: some came meanwhile.
    pub async fn correct_tracked(
        &self,
        basis: &StatisticsBasis,
        chunk: u32,
        wrong: &[(u16, u8, u16, u8)],
    ) -> Result<(), StoreError> {
        let key = keys::ledger(&basis.delivery, chunk);
        for some in wrong.chunks(AT_ONCE) {
            let mut script = self.write_script(basis, &key, 0);
            for (position, before, hits, now) in some {
                let with = |bits: u8| [&[bits], &hits.to_be_bytes()[..]].concat();
                script
                    .arg(HEADER_BYTES + RECORD_BYTES * usize::from(*position) + 13)
                    .arg(with(*before))
                    .arg(with(*now));
            }
            let _: i64 = script.invoke_async(&mut self.redis.connection()).await?;
        }
        Ok(())
    }
}
