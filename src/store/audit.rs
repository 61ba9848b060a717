//! Audit chains: the chains of deliveries, the chain of operations, and the chain of heads.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use redis::{AsyncCommands, Script};
use serde::{Deserialize, Serialize};

use super::{
    connection::{Redis, StoreError},
    json_text::{json, text},
    keys,
    scripts::with_prelude,
};
use crate::domain::{
    delivery::{AuditEntry, AuditHead, CheckedEntry, DeliveryId, HEADS, OPERATIONS},
    seal::SealKey,
};

/// The audit chains. It seals what it writes, and checks the seals of the entries that it lists.
/// Cheap to clone.
#[derive(Clone)]
pub struct AuditStore {
    redis: Redis,
    seals: SealKey,
    append: Arc<Script>,
}

/// An entry with its seal, as a chain holds it.
#[derive(Serialize, Deserialize)]
struct SealedEntry {
    #[serde(flatten)]
    entry: AuditEntry,
    /// In lower-case hexadecimal. A version without seals wrote entries without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<String>,
}

impl AuditStore {
    /// Makes the handle from a connection and the key of the seals.
    pub fn new(redis: Redis, seals: SealKey) -> Self {
        let append = Arc::new(with_prelude(include_str!("append_audit_entry.lua")));
        Self { redis, seals, append }
    }

    /// At most `limit` entries of the audit chain of a delivery, from `offset`, the oldest first.
    pub async fn delivery(
        &self,
        id: &DeliveryId,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<CheckedEntry>, StoreError> {
        self.chain(&keys::audit(id), id.as_str(), offset, limit).await
    }

    /// At most `limit` entries of the chain of heads, from `offset`, the oldest first.
    pub async fn heads(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<CheckedEntry>, StoreError> {
        self.chain(keys::AUDIT_HEADS, HEADS, offset, limit).await
    }

    /// At most `limit` entries of the chain of operations, from `offset`, the oldest first.
    pub async fn operations(
        &self,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<CheckedEntry>, StoreError> {
        self.chain(keys::AUDIT_OPERATIONS, OPERATIONS, offset, limit).await
    }

    async fn chain(
        &self,
        key: &str,
        name: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<CheckedEntry>, StoreError> {
        let to = (offset + limit).saturating_sub(1) as isize;
        let entries: Vec<String> = self.redis.connection().lrange(key, offset as isize, to).await?;
        let checked = |stored: &String| {
            let SealedEntry { entry, seal } = json(stored)?;
            let fits = |seal: String| {
                let seal = HEXLOWER.decode(seal.as_bytes()).unwrap_or_default();
                self.seals.fits(&sealed_parts(name, &entry), &seal)
            };
            let genuine = seal.map(fits);
            Ok(CheckedEntry { entry, genuine })
        };
        entries.iter().map(checked).collect()
    }

    /// The last entry of the chain of heads.
    pub async fn last_head(&self) -> Result<Option<AuditEntry>, StoreError> {
        self.last(keys::AUDIT_HEADS).await
    }

    /// The head that the chain of heads had at this entry; `None` if it is shorter.
    pub async fn head_at(&self, seq: u64) -> Result<Option<AuditHead>, StoreError> {
        let at = (seq as isize).saturating_sub(1).max(0);
        let entry: Option<String> = self.redis.connection().lindex(keys::AUDIT_HEADS, at).await?;
        entry.map(|entry| Ok(json::<AuditEntry>(&entry)?.head())).transpose()
    }

    /// The last entry of the chain of operations.
    pub async fn last_operation(&self) -> Result<Option<AuditEntry>, StoreError> {
        self.last(keys::AUDIT_OPERATIONS).await
    }

    async fn last(&self, key: &str) -> Result<Option<AuditEntry>, StoreError> {
        let last: Option<String> = self.redis.connection().lindex(key, -1).await?;
        last.map(|entry| json(&entry)).transpose()
    }

    /// Appends an entry to the chain of heads. The subject of the entry names another chain, and
    /// `seq` is the sequence number of that chain's head.
    ///
    /// Returns false if the chain of heads has changed since `entry` was made. Also returns false
    /// if it already holds this head, or a newer head of the named chain.
    pub async fn append_head(&self, entry: &AuditEntry, seq: u64) -> Result<bool, StoreError> {
        self.append(keys::AUDIT_HEADS, HEADS, entry, seq).await
    }

    /// Appends an entry to the chain of operations. Returns false if the chain has changed since
    /// `entry` was made.
    pub async fn append_operation(&self, entry: &AuditEntry) -> Result<bool, StoreError> {
        self.append(keys::AUDIT_OPERATIONS, OPERATIONS, entry, 0).await
    }

    async fn append(
        &self,
        key: &str,
        name: &str,
        entry: &AuditEntry,
        seq: u64,
    ) -> Result<bool, StoreError> {
        let mut script = self.append.prepare_invoke();
        script
            .key(key)
            .key(keys::AUDIT_NOTED)
            .arg(entry.seq - 1)
            .arg(sealed_text(&self.seals, name, entry)?)
            .arg(&entry.subject)
            .arg(seq);
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// The sequence number of a chain's last head in the chain of heads; 0 if it has none.
    pub async fn noted_head(&self, chain: &str) -> Result<u64, StoreError> {
        let seq: Option<u64> = self.redis.connection().hget(keys::AUDIT_NOTED, chain).await?;
        Ok(seq.unwrap_or_default())
    }
}

/// An entry of the chain `name` with its seal, as the chain holds it.
pub(super) fn sealed_text(
    seals: &SealKey,
    name: &str,
    entry: &AuditEntry,
) -> Result<String, StoreError> {
    let seal = Some(HEXLOWER.encode(&seals.seal(&sealed_parts(name, entry))));
    text(&SealedEntry { entry: entry.clone(), seal })
}

/// The parts that the seal of an entry covers. The hash covers all fields of the entry.
fn sealed_parts<'a>(chain: &'a str, entry: &'a AuditEntry) -> [&'a [u8]; 3] {
    [b"audit", chain.as_bytes(), entry.hash.as_bytes()]
}
