//! Audit chains: the chain of each delivery, and the chain of heads.

use redis::AsyncCommands;

use super::{
    connection::StoreError,
    delivery_store::{DeliveryStore, json, text},
    keys,
};
use crate::domain::delivery::{AuditEntry, DeliveryId};

impl DeliveryStore {
    /// At most `limit` entries of the audit chain of a delivery, from `offset`, the oldest first.
    pub async fn audit(
        &self,
        id: &DeliveryId,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.chain(&keys::audit(id), offset, limit).await
    }

    /// At most `limit` entries of the chain of heads, from `offset`, the oldest first.
    pub async fn audit_heads(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.chain(keys::AUDIT_HEADS, offset, limit).await
    }

    async fn chain(
        &self,
        key: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let to = (offset + limit).saturating_sub(1) as isize;
        let entries: Vec<String> = self.redis.connection().lrange(key, offset as isize, to).await?;
        entries.iter().map(|e| json(e)).collect()
    }

    /// The last entry of the chain of heads.
    pub async fn last_audit_head(&self) -> Result<Option<AuditEntry>, StoreError> {
        let last: Option<String> = self.redis.connection().lindex(keys::AUDIT_HEADS, -1).await?;
        last.map(|e| json(&e)).transpose()
    }

    /// Appends an entry to the chain of heads. `seq` is the sequence number of the delivery's entry
    /// that `entry` records.
    ///
    /// Returns false if the chain has changed since `entry` was made, or if the chain already holds
    /// this head, or a newer head of the same delivery.
    pub async fn append_audit_head(
        &self,
        entry: &AuditEntry,
        seq: u64,
    ) -> Result<bool, StoreError> {
        let mut script = self.scripts.append_audit_head.prepare_invoke();
        script
            .key(keys::AUDIT_HEADS)
            .key(keys::AUDIT_NOTED)
            .arg(entry.seq - 1)
            .arg(text(entry)?)
            .arg(&entry.subject)
            .arg(seq);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// The sequence number of a delivery's last head in the chain of heads; 0 if it has none.
    pub async fn noted_head(&self, id: &DeliveryId) -> Result<u64, StoreError> {
        let seq: Option<u64> = self.redis.connection().hget(keys::AUDIT_NOTED, id.as_str()).await?;
        Ok(seq.unwrap_or_default())
    }
}
