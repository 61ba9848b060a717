//! Poisoned chunks: a chunk that kills its workers or cannot be sent is set aside for a person.
//!
//! The other chunks of the delivery go on.

use std::sync::Arc;

use crate::{
    config::Config,
    domain::{delivery::DeliveryId, ledger::Counts},
    metrics,
    queue::JobError,
    send::chunk::{LeaseHolder, LeasedChunk},
    store::{
        StoreError,
        chunks::{ChunkLists, LeaseVerdict, LedgerStore},
    },
};

/// Counts the crashes of chunks, and sets poisoned chunks aside.
#[derive(Clone)]
pub struct PoisonedChunks {
    pub chunks: ChunkLists,
    pub ledgers: LedgerStore,
    pub holder: LeaseHolder,
    pub config: Arc<Config>,
}

impl PoisonedChunks {
    /// Gives a chunk back that was taken over from a dead worker, and counts one more crash.
    ///
    /// After more than `queue.crashes` crashes the chunk is set aside.
    pub(super) async fn give_back_after_crash(
        &self,
        leased: LeasedChunk,
    ) -> Result<(), StoreError> {
        let crashes = self.chunks.count_crash(&leased.at).await?;
        if crashes > self.config.queue.crashes {
            return self.set_aside(leased, &format!("{crashes} workers died with it")).await;
        }
        self.holder.give_back(leased).await?;
        Ok(())
    }

    /// Gives a chunk back at the end of its job.
    ///
    /// A good end forgets the crashes of the chunk. A chunk that cannot be sent is set aside.
    ///
    /// # Errors
    /// If Redis refuses or does not answer.
    pub(crate) async fn give_back_after_job(
        &self,
        leased: LeasedChunk,
        end: &Result<(), JobError>,
    ) -> Result<(), StoreError> {
        if let Err(JobError::Abort(reason)) = end {
            return self.set_aside(leased, reason).await;
        }
        let at = leased.at.clone();
        let (verdict, _) = self.holder.give_back(leased).await?;
        if end.is_ok() && verdict == LeaseVerdict::Ok {
            self.chunks.forget_crashes(&at).await?;
        }
        Ok(())
    }

    async fn set_aside(&self, leased: LeasedChunk, reason: &str) -> Result<(), StoreError> {
        let at = leased.at.clone();
        // mark the chunk before its lease is free, so that nobody takes it
        self.chunks.mark_poisoned(&at).await?;
        let (verdict, due) = self.holder.give_back(leased).await?;
        if verdict != LeaseVerdict::Ok || due.is_some() {
            metrics::set_aside();
            tracing::error!(
                delivery.id = %at.delivery,
                chunk = at.chunk,
                reason,
                "the chunk is set aside until a person retries it"
            );
        }
        Ok(())
    }

    /// Counts the recipients that are still open in chunks that were set aside.
    pub(super) async fn open_recipients(&self, id: &DeliveryId) -> Result<u64, StoreError> {
        let mut counts = Counts::default();
        for chunk in self.chunks.poisoned(id).await? {
            self.ledgers
                .ledgers(id, chunk..chunk + 1)
                .await?
                .iter()
                .flatten()
                .for_each(|ledger| counts.add(ledger));
        }
        Ok(counts.open())
    }
}
