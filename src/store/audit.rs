//! TODO head

use redis::AsyncCommands;

use super::{
    connection::StoreError,
    deliveries::{DeliveryStore, json, text},
};
use crate::{
    domain::delivery::{AuditEntry, DeliveryId},
    store::keys,
};

impl DeliveryStore {
    /// Entries of an audit chain from `offset`.
    pub async fn audit(
        &self,
        id: &DeliveryId,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.chain(&keys::audit(id), offset, limit).await
    }

    /// Entries of the chain of heads from `offset`.
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

    /// Appends to the chain of heads, unless its length or the head noted for this delivery is no longer what was seen.
    pub async fn append_audit_head(
        &self,
        entry: &AuditEntry,
        seq: u64,
    ) -> Result<bool, StoreError> {
        let mut script = self.scripts.append.prepare_invoke();
        script
            .key(keys::AUDIT_HEADS)
            .key(keys::AUDIT_NOTED)
            .arg(entry.seq - 1)
            .arg(text(entry)?)
            .arg(&entry.subject)
            .arg(seq);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// How much of a delivery's audit chain the chain of heads vouches for.
    pub async fn noted_head(&self, id: &DeliveryId) -> Result<u64, StoreError> {
        let seq: Option<u64> = self.redis.connection().hget(keys::AUDIT_NOTED, id.as_str()).await?;
        Ok(seq.unwrap_or_default())
    }
}
