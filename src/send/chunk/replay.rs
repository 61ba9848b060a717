//! The holder of leases: takes them, gives chunks back, and replays batches after a roll-back.
//!
//! A holder remembers its last batches. When Redis has rolled back, the holder puts these batches
//! back before it claims anything new.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::leased_chunk::{LeasedChunk, REMEMBERED};
use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::ledger::ChunkRef,
    metrics,
    store::{
        Redis, StoreError,
        chunks::{Batch, ChunkLists, Lease, LeaseVerdict, LedgerStore, Taken, TakeoverGrounds},
        hold::HoldStore,
    },
};

/// Pause before a chunk is given back again after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// The result of a replay after a roll-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replay {
    /// The ledger is complete again, and the lease holds.
    PutBack,
    /// Redis has forgotten too much: the open recipients are in doubt, and the lease is over.
    InDoubt,
    /// The ledger writer has written nothing under this lease. The lease is over.
    Nothing,
}

/// The chunks that were given back lately. A roll-back may undo that, too. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GivenBackChunks(Arc<Mutex<VecDeque<GivenBack>>>);

/// The time at which a chunk was given back, and the chunk.
type GivenBack = (Instant, Arc<LeasedChunk>);

impl GivenBackChunks {
    fn note(&self, leased: LeasedChunk) {
        let mut given_back = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        given_back.push_back((now, Arc::new(leased)));
        while given_back.front().is_some_and(|(then, _)| now.duration_since(*then) > REMEMBERED) {
            given_back.pop_front();
        }
    }

    fn all(&self) -> Vec<Arc<LeasedChunk>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(_, leased)| leased.clone())
            .collect()
    }
}

/// Takes leases and gives chunks back in the name of this daemon.
#[derive(Clone)]
pub struct LeaseHolder {
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub redis: Redis,
    pub holds: HoldStore,
    pub given_back: GivenBackChunks,
    pub daemon: Daemon,
}

impl LeaseHolder {
    /// Asks for the lease of a chunk for this daemon. While the store is held nobody gets one.
    ///
    /// # Errors
    /// If Redis does not answer, or if the ledger is damaged.
    pub(crate) async fn take_lease(
        &self,
        at: &ChunkRef,
        grounds: TakeoverGrounds,
    ) -> Result<Taken, StoreError> {
        if self.holds.current().await?.is_some() {
            return Ok(Taken::Held);
        }
        self.ledgers.take_lease(at, self.daemon.owner, grounds, unix_now()).await
    }

    /// Puts back the batches of a chunk that Redis has forgotten.
    ///
    /// # Errors
    /// If Redis does not answer. The caller may try again.
    pub(super) async fn replay(&self, leased: &LeasedChunk) -> Result<Replay, StoreError> {
        let (at, lease) = (&leased.at, &leased.lease);
        if !leased.was_written {
            return Ok(Replay::Nothing);
        }
        let header = self.ledgers.headers(&at.delivery, &[at.chunk]).await?;
        let known_seq = header
            .first()
            .filter(|h| (h.owner, h.epoch) == (lease.owner, lease.epoch))
            .map(|h| h.seq);
        let first = leased.batches.iter().position(|batch| Some(batch.seq) == known_seq);
        for remembered in leased.batches.iter().skip(first.unwrap_or(usize::MAX)) {
            let then = Lease { seq: remembered.seq, ..*lease };
            // the answer is not needed: the next batch shows whether this one was applied
            self.ledgers
                .write_batch(at, &then, &remembered.batch, unix_now(), leased.resend_after_s)
                .await?;
        }
        let id = &at.delivery;
        if first.is_some() || known_seq == Some(lease.seq) {
            metrics::went_back("put_back");
            tracing::warn!(
                delivery.id = %id,
                chunk = at.chunk,
                "Redis rolled back: the forgotten batches are put back"
            );
            return Ok(Replay::PutBack);
        }
        let in_doubt =
            self.ledgers.put_in_doubt(at, lease, unix_now(), leased.resend_after_s).await?;
        metrics::went_back("in_doubt");
        tracing::error!(
            delivery.id = %id,
            chunk = at.chunk,
            in_doubt,
            "Redis rolled back too far: the open recipients of the chunk are in doubt"
        );
        Ok(Replay::InDoubt)
    }

    /// Gives a chunk back. If Redis may roll back, remembers the chunk for a while.
    ///
    /// Returns the verdict on the lease, and when a recipient is due again (Unix seconds). A limit
    /// may make the chunk wait longer.
    ///
    /// # Errors
    /// If Redis refuses or does not answer. Until the shutdown, the holder repeats the call that
    /// gives the lease back if its error may pass.
    pub(crate) async fn give_back(
        &self,
        leased: LeasedChunk,
    ) -> Result<(LeaseVerdict, Option<u32>), StoreError> {
        let given_back = self.give_back_replayed(&leased).await;
        let postponed = match (&given_back, leased.not_before) {
            (Ok(_), Some(until)) => self.chunks.postpone(&leased.at, until).await,
            _ => Ok(()),
        };
        // after a failure, too: if Redis restarts soon, the holder gives the chunk back again
        if self.redis.may_roll_back() {
            self.given_back.note(leased);
        }
        postponed.and(given_back)
    }

    async fn give_back_replayed(
        &self,
        leased: &LeasedChunk,
    ) -> Result<(LeaseVerdict, Option<u32>), StoreError> {
        loop {
            let given_back = self
                .ledgers
                .give_back(&leased.at, &leased.lease, unix_now(), leased.resend_after_s)
                .await;
            if given_back.as_ref().is_err_and(StoreError::may_pass)
                && !self.daemon.shutdown.is_cancelled()
            {
                // a kept lease has no beat any more: it would count as the death of a worker
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let (verdict, due) = given_back?;
            match verdict {
                LeaseVerdict::RolledBack if self.replay(leased).await? == Replay::PutBack => {
                    continue;
                }
                // another daemon has the chunk, or an earlier try gave it back
                LeaseVerdict::Lost => self.report_again(leased).await?,
                _ => {}
            }
            return Ok((verdict, due));
        }
    }

    /// Repeats the remembered reports: the outcome of a claim counts after a take-over, too.
    async fn report_again(&self, leased: &LeasedChunk) -> Result<(), StoreError> {
        for remembered in &leased.batches {
            let reports = Batch { claims: Vec::new(), ..remembered.batch.clone() };
            self.ledgers
                .write_batch(&leased.at, &leased.lease, &reports, unix_now(), leased.resend_after_s)
                .await?;
        }
        Ok(())
    }

    /// Replays the chunks that were given back shortly before a restart of Redis.
    ///
    /// This must happen before another daemon may take over the leases that Redis still remembers.
    ///
    /// # Errors
    /// If Redis does not answer. The caller tries again.
    pub(crate) async fn replay_given_back(&self) -> Result<(), StoreError> {
        for leased in self.given_back.all() {
            let (at, lease) = (&leased.at, &leased.lease);
            let Some(header) =
                self.ledgers.headers(&at.delivery, &[at.chunk]).await?.first().copied()
            else {
                continue;
            };
            if (header.owner, header.epoch) != (0, lease.epoch) {
                self.give_back_replayed(&leased).await?;
            }
        }
        Ok(())
    }
}
