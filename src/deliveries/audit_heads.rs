//! The chain of heads: it holds the newest hash of every audit chain.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;

use crate::{
    domain::delivery::{AuditAct, AuditEntry, AuditHead, DeliveryId},
    store::{DeliveryStore, StoreError},
};

/// A chain of heads that does not grow counts as damaged after so many failed tries.
const TRIES: u32 = 3;

/// Appends to the chain of heads.
#[derive(Clone)]
pub struct AuditHeads {
    pub store: DeliveryStore,
    /// Set when the chain of heads was found damaged; that is logged once.
    pub damaged: Arc<AtomicBool>,
}

impl AuditHeads {
    /// Appends the head of a delivery's audit chain to the chain of heads, so that a shortened
    /// chain is noticed.
    ///
    /// A chain of heads that was changed by hand takes no further heads. That is logged once, and
    /// everything else goes on.
    pub async fn note(&self, id: &DeliveryId, head: &AuditHead) -> Result<(), StoreError> {
        match self.append(id, head).await {
            Err(StoreError::Damaged(what)) => {
                if !self.damaged.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        what,
                        "the chain of audit heads takes no more heads: verify the audit log"
                    );
                }
                Ok(())
            }
            appended => appended,
        }
    }

    async fn append(&self, id: &DeliveryId, head: &AuditHead) -> Result<(), StoreError> {
        let (mut length, mut tries) = (None, 0);
        while self.store.noted_head(id).await? < head.seq {
            let details = serde_json::json!({ "seq": head.seq, "hash": head.hash });
            let act = AuditAct {
                subject: id.to_string(),
                principal: "versand".into(),
                action: "head",
                details,
            };
            let last =
                self.store.last_audit_head().await?.map(|entry| entry.head()).unwrap_or_default();
            // a longer chain means that another daemon was faster, which is no failure
            tries = if length == Some(last.seq) { tries + 1 } else { 0 };
            length = Some(last.seq);
            if tries == TRIES {
                return Err(StoreError::Damaged(
                    "the number of the last head does not fit its place".into(),
                ));
            }
            let entry = AuditEntry::after(&last, Timestamp::now(), act);
            if self.store.append_audit_head(&entry, head.seq).await? {
                // the journal is a copy outside Redis: a cut or rewritten chain differs from it
                tracing::info!(number = entry.seq, hash = entry.hash, "audit head");
            }
        }
        Ok(())
    }
}
