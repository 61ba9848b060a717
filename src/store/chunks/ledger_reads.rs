//! Reads ledgers, live counters and replies; creates and removes ledgers.

use std::collections::HashMap;

use redis::AsyncCommands;

use super::ledgers::LedgerStore;
use crate::{
    domain::{
        delivery::DeliveryId,
        ledger::{
            ChunkRef, Counts, FATIGUE_CHECKED, HEADER_BYTES, Ledger, LedgerHeader, RECORD_BYTES,
            Status, header_of,
        },
    },
    store::{StoreError, damaged, keys},
};

impl LedgerStore {
    /// The ledgers of some chunks; `None` where a chunk has no ledger.
    pub async fn ledgers(
        &self,
        id: &DeliveryId,
        chunks: std::ops::Range<u32>,
    ) -> Result<Vec<Option<Ledger>>, StoreError> {
        let names: Vec<String> = chunks.map(|chunk| keys::ledger(id, chunk)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let raw: Vec<Option<Vec<u8>>> =
            redis::cmd("MGET").arg(names).query_async(&mut self.redis.connection()).await?;
        raw.into_iter()
            .map(|bytes| bytes.map(|b| Ledger::parse(b).map_err(damaged)).transpose())
            .collect()
    }

    /// Only the headers of the ledgers of some chunks.
    pub async fn headers(
        &self,
        id: &DeliveryId,
        chunks: &[u32],
    ) -> Result<Vec<LedgerHeader>, StoreError> {
        let mut pipe = redis::pipe();
        for chunk in chunks {
            pipe.cmd("GETRANGE").arg(keys::ledger(id, *chunk)).arg(0).arg(HEADER_BYTES - 1);
        }
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let raw: Vec<Vec<u8>> = pipe.query_async(&mut self.redis.connection()).await?;
        Ok(raw.iter().map(|bytes| header_of(bytes)).collect())
    }

    /// The live counters. The scripts that write the ledgers keep them right.
    pub async fn counts(&self, id: &DeliveryId) -> Result<Counts, StoreError> {
        let fields: HashMap<String, i64> =
            self.redis.connection().hgetall(keys::counts(id)).await?;
        let object = fields.into_iter().map(|(word, n)| (word, n.max(0).into())).collect();
        serde_json::from_value(serde_json::Value::Object(object)).map_err(damaged)
    }

    /// The kept replies of the relay for a chunk, by position.
    pub async fn replies(&self, at: &ChunkRef) -> Result<HashMap<u16, String>, StoreError> {
        let replies: HashMap<u16, Vec<u8>> =
            self.redis.connection().hgetall(keys::replies(&at.delivery, at.chunk)).await?;
        Ok(replies
            .into_iter()
            .map(|(p, text)| (p, String::from_utf8_lossy(&text).into_owned()))
            .collect())
    }

    /// Creates the ledger of a chunk, unless it exists.
    pub async fn create_ledger(&self, at: &ChunkRef, ledger: &Ledger) -> Result<(), StoreError> {
        Ok(self
            .redis
            .connection()
            .set_nx(keys::ledger(&at.delivery, at.chunk), ledger.bytes())
            .await?)
    }

    /// Whether the live counters exist. They are created after all ledgers.
    pub async fn counts_begun(&self, id: &DeliveryId) -> Result<bool, StoreError> {
        Ok(self.redis.connection().hexists(keys::counts(id), "pending").await?)
    }

    /// Creates the live counters with all recipients pending, unless the counters exist.
    pub async fn begin_counts(&self, id: &DeliveryId, pending: u64) -> Result<(), StoreError> {
        Ok(self.redis.connection().hset_nx(keys::counts(id), "pending", pending).await?)
    }

    /// The status of some recipients, and whether their chunks were checked for late exclusions.
    /// A recipient without a ledger is pending.
    pub async fn statuses(
        &self,
        recipients: &[(ChunkRef, u16)],
    ) -> Result<Vec<(Status, bool)>, StoreError> {
        let mut pipe = redis::pipe();
        for (at, position) in recipients {
            let (ledger, record) = (
                keys::ledger(&at.delivery, at.chunk),
                HEADER_BYTES + RECORD_BYTES * usize::from(*position),
            );
            pipe.cmd("GETRANGE")
                .arg(&ledger)
                .arg(record)
                .arg(record)
                .cmd("GETRANGE")
                .arg(&ledger)
                .arg(1)
                .arg(1);
        }
        if recipients.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: Vec<Vec<u8>> = pipe.query_async(&mut self.redis.connection()).await?;
        let status = |b: &[u8]| {
            Status::from_code(b.first().copied().unwrap_or(0))
                .ok_or_else(|| damaged("unknown status"))
        };
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[record, checked]| {
                Ok((
                    status(record)?,
                    checked.first().is_some_and(|mode| mode & FATIGUE_CHECKED != 0),
                ))
            })
            .collect()
    }

    /// Removes the ledgers and replies of the first `chunks` chunks. Also removes the live
    /// counters, the lists of chunks and the progress of the preparation.
    pub async fn remove_ledgers(&self, id: &DeliveryId, chunks: u32) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        for chunk in 0..chunks {
            let () = conn.unlink(&[keys::ledger(id, chunk), keys::replies(id, chunk)]).await?;
        }
        let rest = [
            keys::counts,
            keys::open,
            keys::offered,
            keys::rounds,
            keys::poisoned,
            keys::crashes,
            keys::preparation,
        ];
        Ok(conn.unlink(&rest.map(|key| key(id))).await?)
    }
}
