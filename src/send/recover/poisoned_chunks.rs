//! What kills its workers again and again, or cannot be sent, is set aside for a person; the rest goes on.

use std::sync::Arc;

use crate::{
    config::Config,
    domain::delivery::DeliveryId,
    metrics,
    queue::JobError,
    send::chunk::{LeaseHolder, LeasedChunk},
    store::{
        StoreError,
        chunks::{ChunkLists, LeaseVerdict, LedgerStore},
    },
};

#[derive(Clone)]
pub struct PoisonedChunks {
    pub chunks: ChunkLists,
    pub ledgers: LedgerStore,
    pub holder: LeaseHolder,
    pub config: Arc<Config>,
}

impl PoisonedChunks {
    /// Gives a chunk back that was taken over from a dead worker: one crash more.
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

    /// Gives a chunk back at the end of its job: a good end wipes out its crashes, and what cannot be sent is set aside.
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
        // before the lease is free, so that nobody begins it anew
        self.chunks.mark_poisoned(&at).await?;
        let (verdict, due) = self.holder.give_back(leased).await?;
        if verdict != LeaseVerdict::Ok || due.is_some() {
            metrics::set_aside();
            tracing::error!(delivery.id = %at.delivery, chunk = at.chunk, reason, "chunk set aside until a person retries it");
        }
        Ok(())
    }

    /// Recipients that are still open in chunks that were set aside.
    pub(super) async fn open_recipients(&self, id: &DeliveryId) -> Result<u64, StoreError> {
        let mut counts = crate::domain::ledger::Counts::default();
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
