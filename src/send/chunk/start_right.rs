//! The right of a chunk's tasks to start transactions.
//!
//! The right has two conditions: the lease is valid, and nobody has halted the chunk.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::lease_validity::{LeaseValidity, boottime_ms};

/// The right to start transactions. All tasks of a chunk share one. Cheap to clone.
#[derive(Clone)]
pub(super) struct StartRight {
    validity: Arc<LeaseValidity>,
    /// Cancelled by a pause, a stop, a shutdown or a lost lease.
    halt: CancellationToken,
}

impl StartRight {
    pub(super) fn new(validity: LeaseValidity, halt: CancellationToken) -> Self {
        Self { validity: Arc::new(validity), halt }
    }

    /// Returns true if a transaction may be started now.
    pub(super) fn holds(&self) -> bool {
        self.validity.holds(boottime_ms()) && !self.is_halted()
    }

    /// Extends the lease: Redis has acknowledged a beat that was sent at `sent_ms`.
    pub(super) fn renew(&self, sent_ms: u64) {
        self.validity.renew(sent_ms);
    }

    /// Ends the right because the chunk is lost.
    pub(super) fn end(&self) {
        self.validity.end();
        self.halt();
    }

    /// Lets no task start anything more. Running transactions go on to their end.
    pub(super) fn halt(&self) {
        self.halt.cancel();
    }

    /// Returns true if the chunk was halted.
    pub(super) fn is_halted(&self) -> bool {
        self.halt.is_cancelled()
    }

    /// Waits until the chunk is halted. Cancel-safe.
    pub(super) async fn halted(&self) {
        self.halt.cancelled().await;
    }
}
