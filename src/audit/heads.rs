//! The chain of heads: it holds the newest hash of every audit chain.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kept_head::KeptHead;
use crate::{
    domain::delivery::{
        AuditAct, AuditEntry, AuditHead, DeliveryId, FIRST_SEAL, HEAD, HEADS, follows,
    },
    store::{AuditStore, StoreError},
};

/// A chain that does not grow counts as damaged after so many failed tries.
pub(super) const TRIES: u32 = 3;
/// The chains whose heads are remembered as noted. Beyond that, all are asked for again.
const REMEMBERED: usize = 10_000;

/// Appends to the chain of heads. The clones share what they know.
#[derive(Clone)]
pub struct AuditHeads {
    store: AuditStore,
    pub kept: KeptHead,
    /// The number of the last entry of each chain that the chain of heads is known to hold.
    noted: Arc<Mutex<HashMap<String, u64>>>,
    /// Set when the chain of heads was found damaged; that is logged once.
    damaged: Arc<AtomicBool>,
}

impl AuditHeads {
    /// Begins with the head that an earlier run kept.
    pub fn new(store: AuditStore, kept: KeptHead) -> Self {
        Self { store, kept, noted: Arc::default(), damaged: Arc::default() }
    }

    /// Appends the head of a delivery's audit chain to the chain of heads, so that a shortened
    /// chain is noticed.
    ///
    /// A chain of heads that ends with a strange entry takes no further heads. That is logged once,
    /// and everything else goes on.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn note(&self, id: &DeliveryId, head: &AuditHead) -> Result<(), StoreError> {
        self.note_chain(id.as_str(), head).await
    }

    /// The same for the chain with this name.
    pub(super) async fn note_chain(&self, name: &str, head: &AuditHead) -> Result<(), StoreError> {
        let details = json!({ "seq": head.seq, "hash": head.hash });
        self.append(act_of(name, HEAD, details), head.seq).await
    }

    /// Appends the first seal, unless the chain of heads has one. Each later entry of an audit
    /// chain has a seal. Earlier entries have none: the first seal covers them.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn begin_seals(&self) -> Result<(), StoreError> {
        self.append(act_of(HEADS, FIRST_SEAL, json!({ "seq": 1 })), 1).await
    }

    /// Whether the chain of heads has no entry, as far as this daemon can know.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn is_new(&self) -> Result<bool, StoreError> {
        Ok(self.kept.now().is_none() && self.store.last_head().await?.is_none())
    }

    /// Forgets the kept head if the chain of heads lacks it, because a person accepts that.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn accept_loss(&self) -> Result<(), StoreError> {
        let Some(kept) = self.kept.now() else { return Ok(()) };
        if self.store.head_at(kept.seq).await? != Some(kept.clone()) {
            let AuditHead { seq, hash } = kept;
            tracing::error!(number = seq, hash, "the chain of audit heads lacks its end");
            self.kept.forget();
            self.noted.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        Ok(())
    }

    async fn append(&self, act: AuditAct, seq: u64) -> Result<(), StoreError> {
        match self.try_append(&act, seq).await {
            Err(StoreError::Damaged(what)) => {
                self.log_damage(&what);
                Ok(())
            }
            Ok(()) => {
                let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
                if noted.len() >= REMEMBERED {
                    noted.clear();
                }
                let last = noted.entry(act.subject).or_default();
                *last = seq.max(*last);
                Ok(())
            }
            failed => failed,
        }
    }

    async fn try_append(&self, act: &AuditAct, seq: u64) -> Result<(), StoreError> {
        let (mut length, mut tries) = (None, 0);
        while !self.is_noted(&act.subject, seq).await? {
            let last = self.store.last_head().await?.map(|entry| entry.head()).unwrap_or_default();
            // a longer chain means that another daemon was faster, which is no failure
            tries = if length == Some(last.seq) { tries + 1 } else { 0 };
            length = Some(last.seq);
            if tries == TRIES {
                return Err(StoreError::Damaged(
                    "the number of the last head does not fit its place".into(),
                ));
            }
            let entry = AuditEntry::after(&last, Timestamp::now(), act.clone());
            if self.store.append_head(&entry).await? {
                // the journal is a copy outside Redis: a cut or rewritten chain differs from it
                tracing::info!(number = entry.seq, hash = entry.hash, "audit head");
                return self.keep(entry.head(), &last).await;
            }
        }
        Ok(())
    }

    /// Whether the chain of heads holds this entry of a chain, or a later one.
    async fn is_noted(&self, chain: &str, seq: u64) -> Result<bool, StoreError> {
        let known = self.noted.lock().unwrap_or_else(PoisonError::into_inner).get(chain).copied();
        if known.is_some_and(|known| known >= seq) {
            return Ok(true);
        }
        Ok(self.store.noted_head(chain).await?.is_some_and(|noted| noted >= seq))
    }

    /// Keeps a new entry, if it follows the one that was kept before. `last` is the entry before
    /// the new one.
    async fn keep(&self, new: AuditHead, last: &AuditHead) -> Result<(), StoreError> {
        let follows_kept = match self.kept.now() {
            None => true,
            Some(kept) if kept == *last => true,
            // another task of this daemon was faster, and has checked the chain
            Some(kept) if kept.seq > new.seq => true,
            Some(kept) => follows(&kept, &self.store.heads_between(&kept, &new).await?),
        };
        if follows_kept {
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

fn act_of(chain: &str, action: &'static str, details: Value) -> AuditAct {
    let (subject, principal) = (chain.to_owned(), "versand".to_owned());
    AuditAct { subject, principal, action, details }
}
