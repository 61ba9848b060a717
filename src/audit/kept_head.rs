//! The newest entry of the chain of heads that this daemon wrote, kept outside Redis.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::delivery::AuditHead;

/// The newest entry of the chain of heads that this daemon wrote, in this run or an earlier one.
///
/// Somebody who can write to Redis cannot change it. The daemon writes it to its state directory.
/// The clones share it.
#[derive(Debug, Clone, Default)]
pub struct KeptHead(Arc<watch::Sender<Option<AuditHead>>>);

impl KeptHead {
    /// Begins with what an earlier run kept.
    pub fn new(kept: Option<AuditHead>) -> Self {
        Self(Arc::new(watch::Sender::new(kept)))
    }

    /// The entry; `None` before the first one, and after [`KeptHead::forget`].
    pub fn now(&self) -> Option<AuditHead> {
        self.0.borrow().clone()
    }

    /// Keeps a new entry of a chain that holds the kept one. Another task may have been faster.
    pub(super) fn keep(&self, head: AuditHead) {
        self.0.send_if_modified(|kept| {
            let is_newer = kept.as_ref().is_none_or(|kept| kept.seq < head.seq);
            if is_newer {
                *kept = Some(head);
            }
            is_newer
        });
    }

    /// Forgets the entry, because a person accepts the store as it is.
    pub fn forget(&self) {
        self.0.send_replace(None);
    }

    /// Tells that the entry has changed. Several changes may come as one.
    pub fn changes(&self) -> watch::Receiver<Option<AuditHead>> {
        self.0.subscribe()
    }
}
