//! The chain of heads: it holds the newest hash of every audit chain.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kept_head::KeptHead;
use crate::{
    domain::delivery::{AuditAct, AuditEntry, AuditHead, DeliveryId, FIRST_SEAL, HEAD, HEADS},
    store::{AuditStore, StoreError},
};

/// A chain of heads that does not grow counts as damaged after so many failed tries.
const TRIES: u32 = 3;

/// Appends to the chain of heads. The clones share what they know.
#[derive(Clone)]
pub struct AuditHeads {
    store: AuditStore,
    pub kept: KeptHead,
    /// Set when the chain of heads was found damaged; that is logged once.
    damaged: Arc<AtomicBool>,
}

impl AuditHeads {
    /// Begins with the head that an earlier run kept.
    pub fn new(store: AuditStore, kept: KeptHead) -> Self {
        Self { store, kept, damaged: Arc::default() }
    }

    /// Appends the head of a delivery's audit chain to the chain of heads, so that a shortened
    /// chain is noticed.
    ///
    /// A chain of heads whose last entry is damaged or out of place takes no further heads. That is
    /// logged once, and everything else goes on.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn note(&self, id: &DeliveryId, head: &AuditHead) -> Result<(), StoreError> {
        self.note_chain(id.as_str(), head).await
    }

    /// The same for the chain with this name.
    pub(super) async fn note_chain(&self, name: &str, head: &AuditHead) -> Result<(), StoreError> {
        self.append(name, head.seq, HEAD, json!({ "seq": head.seq, "hash": head.hash })).await
    }

    /// Appends the first seal, unless the chain of heads has one. Each later entry of an audit
    /// chain has a seal. Earlier entries have none: the first seal covers them.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn begin_seals(&self) -> Result<(), StoreError> {
        self.append(HEADS, 1, FIRST_SEAL, json!({})).await
    }

    /// Whether the chain of heads has no entry, as far as this daemon can know.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        Ok(self.kept.now().is_none() && self.store.last_head().await?.is_none())
    }

    async fn append(
        &self,
        subject: &str,
        seq: u64,
        action: &'static str,
        details: Value,
    ) -> Result<(), StoreError> {
        match self.try_append(subject, seq, action, details).await {
            Err(StoreError::Damaged(what)) => {
                self.log_damage(&what);
                Ok(())
            }
            appended => appended,
        }
    }

    async fn try_append(
        &self,
        subject: &str,
        seq: u64,
        action: &'static str,
        details: Value,
    ) -> Result<(), StoreError> {
        let (mut length, mut tries) = (None, 0);
        while self.store.noted_head(subject).await? < seq {
            let act = AuditAct {
                subject: subject.to_owned(),
                principal: "versand".into(),
                action,
                details: details.clone(),
            };
            let last = self.store.last_head().await?.map(|entry| entry.head()).unwrap_or_default();
            // a longer chain means that another daemon was faster, which is no failure
            tries = if length == Some(last.seq) { tries + 1 } else { 0 };
            length = Some(last.seq);
            if tries == TRIES {
                return Err(StoreError::Damaged(
                    "the number of the last head does not fit its place".into(),
                ));
            }
            let entry = AuditEntry::after(&last, Timestamp::now(), act);
            if self.store.append_head(&entry, seq).await? {
                // the journal is a copy outside Redis: a cut or rewritten chain differs from it
                tracing::info!(number = entry.seq, hash = entry.hash, "audit head");
                self.keep(entry.head(), &last).await?;
            }
        }
        Ok(())
    }

    /// Keeps a new entry, if the chain still holds the one that was kept before. `last` is the entry
    /// before the new one.
    async fn keep(&self, new: AuditHead, last: &AuditHead) -> Result<(), StoreError> {
        let holds_kept = match self.kept.now() {
            None => true,
            Some(kept) if kept == *last => true,
            Some(kept) => self.store.head_at(kept.seq).await? == Some(kept),
        };
        if holds_kept {
            self.kept.keep(new);
        } else {
            self.log_damage("it lacks an entry that this daemon wrote");
        }
        Ok(())
    }

    fn log_damage(&self, what: &str) {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                what,
                "the chain of audit heads was changed by hand: verify the audit log"
            );
        }
    }
}
