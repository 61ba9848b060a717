//! Reads, relabels and removes the tracking log, and corrects the tracking bytes of records.

use std::{collections::HashMap, ops::Range};

use redis::{AsyncCommands, ScriptInvocation};

use super::hits::{HITS_PER_BLOCK, TrackingStore};
use crate::{
    domain::{
        delivery::DeliveryId,
        ledger::{HEADER_BYTES, RECORD_BYTES},
        tracking::{HIT_BYTES, LABEL_AT, Relabelled},
    },
    store::{StoreError, keys},
};

/// Maximum of keys that one command removes.
const KEYS_PER_REMOVAL: usize = 100;
/// Maximum of lines or records that one script call changes.
const CHANGES_PER_CALL: usize = 1000;

/// The counters of a tracking log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackingLogExtent {
    /// Number of lines.
    pub hits: u64,
    /// Number of hits that are in no line, because their recipients had too many.
    pub beyond: u64,
    /// Number of label changes.
    pub label_changes: u64,
}

/// The basis of a computation. A script call writes nothing of the result if the delivery or a
/// label has changed since.
#[derive(Debug, Clone)]
pub struct StatisticsBasis {
    pub delivery: DeliveryId,
    pub revision: u64,
    /// Number of label changes.
    pub label_changes: u64,
}

impl TrackingStore {
    /// The counters of the tracking log of a delivery.
    pub async fn log_extent(&self, id: &DeliveryId) -> Result<TrackingLogExtent, StoreError> {
        let counters: [Option<u64>; 3] = self
            .redis
            .connection()
            .hmget(keys::tracking(id), &["hits", "beyond", "labels"])
            .await?;
        let [hits, beyond, label_changes] = counters.map(Option::unwrap_or_default);
        Ok(TrackingLogExtent { hits, beyond, label_changes })
    }

    /// Some blocks of the log: the number of the first line, and the lines. Missing blocks are left
    /// out.
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
        Ok(blocks
            .zip(raw)
            .filter_map(|(block, lines)| Some((block * HITS_PER_BLOCK, lines?)))
            .collect())
    }

    /// The user agents of a delivery, by their numbers.
    pub async fn agents(&self, id: &DeliveryId) -> Result<HashMap<u16, String>, StoreError> {
        let agents: HashMap<Vec<u8>, u16> =
            self.redis.connection().hgetall(keys::agents(id)).await?;
        Ok(agents
            .into_iter()
            .map(|(agent, number)| (number, String::from_utf8_lossy(&agent).into_owned()))
            .collect())
    }

    /// Changes the labels of some lines. `changed` must have them in the order of the log.
    ///
    /// Returns false if the basis has changed meanwhile. In that case the caller must read the log
    /// again. Lines of earlier calls of the script keep their new labels.
    pub async fn relabel(
        &self,
        basis: &mut StatisticsBasis,
        changed: &[Relabelled],
    ) -> Result<bool, StoreError> {
        for of_block in
            changed.chunk_by(|a, b| a.place / HITS_PER_BLOCK == b.place / HITS_PER_BLOCK)
        {
            let key = keys::hits(&basis.delivery, of_block[0].place / HITS_PER_BLOCK);
            for some in of_block.chunks(CHANGES_PER_CALL) {
                let mut script = self.write_script(basis, &key, 1);
                for Relabelled { place, before, now } in some {
                    script
                        .arg((place % HITS_PER_BLOCK) as usize * HIT_BYTES + LABEL_AT)
                        .arg(&before[..])
                        .arg(&now[..]);
                }
                let answer: i64 = script.invoke_async(&mut self.redis.connection()).await?;
                let Ok(label_changes) = u64::try_from(answer) else { return Ok(false) };
                basis.label_changes = label_changes;
            }
        }
        Ok(true)
    }

    /// Corrects the tracking bits of records of a chunk that differ from the log. Each entry is:
    /// position, bits before, number of hits, bits now.
    ///
    /// A record with another number of hits stays as it is, because new hits came meanwhile.
    pub async fn correct_tracked(
        &self,
        basis: &StatisticsBasis,
        chunk: u32,
        wrong: &[(u16, u8, u16, u8)],
    ) -> Result<(), StoreError> {
        let key = keys::ledger(&basis.delivery, chunk);
        for some in wrong.chunks(CHANGES_PER_CALL) {
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

    /// Prepares the script that writes a result of `basis` into `key`, and raises the number of
    /// label changes by `raise`.
    pub(super) fn write_script(
        &self,
        basis: &StatisticsBasis,
        key: &str,
        raise: u8,
    ) -> ScriptInvocation<'_> {
        let mut script = self.scripts.write_statistics.prepare_invoke();
        script.key(keys::delivery(&basis.delivery)).key(keys::tracking(&basis.delivery)).key(key);
        script.arg(basis.revision).arg(basis.label_changes).arg(raise);
        script
    }

    /// Removes the tracking log. Its counters and the statistics stay.
    pub async fn remove_tracking(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        // The counters stay. With them the next pass finds blocks that a crash has left, or that a
        // late hit has made.
        let blocks = self.log_extent(id).await?.hits.div_ceil(HITS_PER_BLOCK);
        for from in (0..blocks).step_by(KEYS_PER_REMOVAL) {
            let names: Vec<String> = (from..blocks.min(from + KEYS_PER_REMOVAL as u64))
                .map(|n| keys::hits(id, n))
                .collect();
            let () = conn.unlink(names).await?;
        }
        Ok(conn.unlink(keys::agents(id)).await?)
    }
}
