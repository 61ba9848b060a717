//! Ledgers as they are read: whole, their headers, the live counters, the replies; and how they begin.

use std::collections::HashMap;

use redis::AsyncCommands;

use super::ledgers::ChunkRef;
use crate::{
    domain::{
        delivery::DeliveryId,
        ledger::{Counts, HEADER_BYTES, Ledger, LedgerHeader, header_of},
    },
    store::{Store, StoreError, damaged, keys},
};

impl Store {
    /// The ledgers of some chunks; `None` where there is none.
    pub async fn ledgers(&self, id: &DeliveryId, chunks: std::ops::Range<u32>) -> Result<Vec<Option<Ledger>>, StoreError> {
        let names: Vec<String> = chunks.map(|chunk| keys::ledger(id, chunk)).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let raw: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(names).query_async(&mut self.conn.clone()).await?;
        raw.into_iter().map(|bytes| bytes.map(|b| Ledger::parse(b).map_err(damaged)).transpose()).collect()
    }

    /// Only the headers of some chunks.
    pub async fn headers(&self, id: &DeliveryId, chunks: &[u32]) -> Result<Vec<LedgerHeader>, StoreError> {
        let mut pipe = redis::pipe();
        for chunk in chunks {
            pipe.cmd("GETRANGE").arg(keys::ledger(id, *chunk)).arg(0).arg(HEADER_BYTES - 1);
        }
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let raw: Vec<Vec<u8>> = pipe.query_async(&mut self.conn.clone()).await?;
        Ok(raw.iter().map(|bytes| header_of(bytes)).collect())
    }

    /// The live counters, kept by the same scripts that write the ledgers.
    pub async fn counts(&self, id: &DeliveryId) -> Result<Counts, StoreError> {
        let fields: HashMap<String, i64> = self.conn.clone().hgetall(keys::counts(id)).await?;
        let object = fields.into_iter().map(|(word, n)| (word, n.max(0).into())).collect();
        serde_json::from_value(serde_json::Value::Object(object)).map_err(damaged)
    }

    /// The replies kept for a chunk, by position.
    pub async fn replies(&self, at: &ChunkRef) -> Result<HashMap<u16, String>, StoreError> {
        let replies: HashMap<u16, Vec<u8>> = self.conn.clone().hgetall(keys::replies(&at.delivery, at.chunk)).await?;
        Ok(replies.into_iter().map(|(p, text)| (p, String::from_utf8_lossy(&text).into_owned())).collect())
    }

    /// Makes the ledger of a chunk, unless it is there.
    pub async fn create_ledger(&self, at: &ChunkRef, ledger: &Ledger) -> Result<(), StoreError> {
        Ok(self.conn.clone().set_nx(keys::ledger(&at.delivery, at.chunk), ledger.bytes()).await?)
    }

    /// Whether the live counters have begun: then all ledgers are there.
    pub async fn counts_begun(&self, id: &DeliveryId) -> Result<bool, StoreError> {
        Ok(self.conn.clone().hexists(keys::counts(id), "pending").await?)
    }

    /// Begins the live counters, unless they have begun: all pending.
    pub async fn begin_counts(&self, id: &DeliveryId, pending: u64) -> Result<(), StoreError> {
        Ok(self.conn.clone().hset_nx(keys::counts(id), "pending", pending).await?)
    }
}
