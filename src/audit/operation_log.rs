//! The log of operations: who read personal data, and who changed something that is no delivery.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::heads::AuditHeads;
use crate::{
    domain::delivery::{AuditAct, AuditEntry, OPERATIONS},
    store::{AuditStore, StoreError},
};

/// The tries of one entry. A chain that takes none of them was changed by hand.
const TRIES: u32 = 20;

/// Records operations in an audit chain of their own. The clones share their turn.
#[derive(Clone)]
pub struct OperationLog {
    store: AuditStore,
    heads: AuditHeads,
    /// One entry of this daemon at a time: each names the hash of the entry before.
    turn: Arc<Mutex<()>>,
}

impl OperationLog {
    /// Writes to the chain of operations, and its heads to the chain of heads.
    pub fn new(store: AuditStore, heads: AuditHeads) -> Self {
        Self { store, heads, turn: Arc::default() }
    }

    /// Records an operation. A request is recorded before it is done; a reload or a failed log-in
    /// is recorded afterwards.
    ///
    /// # Errors
    /// If Redis does not answer, or if somebody changed the chain by hand: then a request must not
    /// be done.
    pub async fn record(&self, act: AuditAct) -> Result<(), StoreError> {
        let turn = self.turn.lock().await;
        for _ in 0..TRIES {
            let last = self.store.last_operation().await?;
            let last = last.map(|entry| entry.head()).unwrap_or_default();
            let entry = AuditEntry::after(&last, Timestamp::now(), act.clone());
            if self.store.append_operation(&entry).await? {
                drop(turn);
                let AuditEntry { principal, action, subject, seq, hash, .. } = &entry;
                tracing::info!(principal, action, subject, number = seq, hash, "operation");
                return self.heads.note_chain(OPERATIONS, &entry.head()).await;
            }
        }
        Err(StoreError::Damaged(
            "versand:{audit}:operations: the number of the last entry does not fit its place. \
             Verify the audit log"
                .into(),
        ))
    }
}
