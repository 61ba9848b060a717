//! The log of operations: who read personal data, and who changed something that is no delivery.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::heads::{AuditHeads, TRIES};
use crate::{
    domain::delivery::{AuditAct, AuditEntry, AuditHead, OPERATIONS},
    store::{AuditStore, StoreError},
};

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
    /// If somebody changed the chain by hand, the entry is only in the log of the daemon. Otherwise
    /// whoever can write to Redis could keep everybody from revoking a token.
    ///
    /// # Errors
    /// If Redis does not answer: then a request must not be done.
    pub async fn record(&self, act: AuditAct) -> Result<(), StoreError> {
        let turn = self.turn.lock().await;
        match self.append(&act).await {
            Ok(head) => {
                drop(turn);
                self.heads.note_chain(OPERATIONS, &head).await
            }
            Err(StoreError::Damaged(what)) => {
                let AuditAct { subject, principal, action, details } = act;
                tracing::error!(
                    what,
                    principal,
                    action,
                    subject,
                    %details,
                    "the chain of operations was changed by hand and lacks this operation"
                );
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn append(&self, act: &AuditAct) -> Result<AuditHead, StoreError> {
        let (mut length, mut tries) = (None, 0);
        while tries < TRIES {
            let last = self.store.last_operation().await?;
            let last = last.map(|entry| entry.head()).unwrap_or_default();
            // a longer chain means that another daemon was faster, which is no failure
            tries = if length == Some(last.seq) { tries + 1 } else { 0 };
            length = Some(last.seq);
            let entry = AuditEntry::after(&last, Timestamp::now(), act.clone());
            if self.store.append_operation(&entry).await? {
                let AuditEntry { principal, action, subject, seq, hash, .. } = &entry;
                tracing::info!(principal, action, subject, number = seq, hash, "operation");
                return Ok(entry.head());
            }
        }
        Err(StoreError::Damaged("the number of the last operation does not fit its place".into()))
    }
}
