//! What a holder remembers of its last groups, for a Redis that goes back in time: it is put back before anything new is claimed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    clock::unix_now,
    daemon::Daemon,
    domain::ledger::ChunkRef,
    metrics,
    store::{
        Redis, StoreError,
        chunks::{Batch, ChunkLists, Lease, LeaseVerdict, LedgerStore},
    },
};

/// More than Redis may forget, and the time until that is noticed.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Pause before a chunk is given back again that Redis did not take.
const PAUSE: Duration = Duration::from_millis(200);

/// A chunk as its holder knows it.
#[derive(Debug)]
pub struct LeasedChunk {
    pub at: ChunkRef,
    pub lease: Lease,
    pub resend_after_s: Option<u32>,
    /// Recipients were sent away by a throttle: the chunk wants no attention before (Unix seconds).
    pub not_before: Option<u32>,
    /// The last groups that were applied, in order.
    groups: VecDeque<RememberedBatch>,
    /// Whether anything was written under this lease.
    written: bool,
}

#[derive(Debug)]
struct RememberedBatch {
    /// The sequence number it was applied at.
    seq: u32,
    turn: Batch,
    applied: Instant,
}

/// What became of a chunk whose ledger was older than its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// The ledger is as it was, and the lease holds.
    PutBack,
    /// Too much is forgotten: all that is not settled is in doubt, and the lease is over.
    InDoubt,
    /// Nothing was written under this lease, which is over.
    Nothing,
}

/// Chunks that were given back lately: Redis may forget that, too.
#[derive(Debug, Clone, Default)]
pub struct GivenBackChunks(Arc<Mutex<VecDeque<GivenBack>>>);

/// When it was given back, and what was held.
type GivenBack = (Instant, Arc<LeasedChunk>);

impl LeasedChunk {
    pub fn new(at: ChunkRef, lease: Lease, resend_after_s: Option<u32>) -> Self {
        Self {
            at,
            lease,
            resend_after_s,
            not_before: None,
            groups: VecDeque::new(),
            written: false,
        }
    }

    /// A group was applied, or the lease was lost and its reports were late truth. It is remembered for a while if Redis may
    /// forget it.
    pub fn applied(&mut self, turn: Batch, granted: &[bool], may_be_forgotten: bool) {
        let now = Instant::now();
        if may_be_forgotten {
            // only these: a claim that was refused would be granted this time
            let claims = turn
                .claims
                .iter()
                .zip(granted)
                .filter(|(_, granted)| **granted)
                .map(|(claim, _)| *claim)
                .collect();
            let turn = Batch { reports: turn.reports, claims, redo: true };
            self.groups.push_back(RememberedBatch { seq: self.lease.seq, turn, applied: now });
        }
        self.lease.seq += 1;
        self.written = true;
        while self
            .groups
            .front()
            .is_some_and(|group| now.duration_since(group.applied) > REMEMBERED)
        {
            self.groups.pop_front();
        }
    }
}

impl GivenBackChunks {
    fn note(&self, leased: LeasedChunk) {
        let mut released = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        released.push_back((now, Arc::new(leased)));
        while released.front().is_some_and(|(then, _)| now.duration_since(*then) > REMEMBERED) {
            released.pop_front();
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

#[derive(Clone)]
pub struct LeaseHolder {
    pub ledgers: LedgerStore,
    pub chunks: ChunkLists,
    pub redis: Redis,
    pub given_back: GivenBackChunks,
    pub daemon: Daemon,
}

impl LeaseHolder {
    /// Puts back what Redis has forgotten of a chunk.
    pub(super) async fn replay(&self, leased: &LeasedChunk) -> Result<Replay, StoreError> {
        let (at, lease) = (&leased.at, &leased.lease);
        if !leased.written {
            return Ok(Replay::Nothing);
        }
        let header = self.ledgers.headers(&at.delivery, &[at.chunk]).await?;
        let known = header
            .first()
            .filter(|h| (h.owner, h.epoch) == (lease.owner, lease.epoch))
            .map(|h| h.seq);
        let first = leased.groups.iter().position(|group| Some(group.seq) == known);
        for group in leased.groups.iter().skip(first.unwrap_or(usize::MAX)) {
            let then = Lease { seq: group.seq, ..*lease };
            // whatever comes of it is seen with the next group
            self.ledgers
                .write_batch(at, &then, &group.turn, unix_now(), leased.resend_after_s)
                .await?;
        }
        let id = &at.delivery;
        if first.is_some() || known == Some(lease.seq) {
            metrics::went_back("put_back");
            tracing::warn!(delivery.id = %id, chunk = at.chunk, "Redis went back in time: what it had forgotten is put back");
            return Ok(Replay::PutBack);
        }
        let in_doubt =
            self.ledgers.put_in_doubt(at, lease, unix_now(), leased.resend_after_s).await?;
        metrics::went_back("in_doubt");
        tracing::error!(delivery.id = %id, chunk = at.chunk, in_doubt, "Redis went back in time: what it holds as not sent is in doubt");
        Ok(Replay::InDoubt)
    }

    /// Gives a chunk back, and remembers it for a while if Redis may forget that.
    pub(crate) async fn give_back(
        &self,
        leased: LeasedChunk,
    ) -> Result<(LeaseVerdict, Option<u32>), StoreError> {
        let released = self.give_back_replayed(&leased).await;
        if let (Ok(_), Some(until)) = (&released, leased.not_before) {
            self.chunks.postpone(&leased.at, until).await?;
        }
        // also when that failed: what Redis may have forgotten is told when it is back
        if self.redis.may_roll_back() {
            self.given_back.note(leased);
        }
        released
    }

    async fn give_back_replayed(
        &self,
        leased: &LeasedChunk,
    ) -> Result<(LeaseVerdict, Option<u32>), StoreError> {
        loop {
            let released = self
                .ledgers
                .give_back(&leased.at, &leased.lease, unix_now(), leased.resend_after_s)
                .await;
            if released.as_ref().is_err_and(StoreError::may_pass)
                && !self.daemon.shutdown.is_cancelled()
            {
                // a chunk that stays with a living owner would count as one whose worker died
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let (verdict, due) = released?;
            match verdict {
                LeaseVerdict::RolledBack if self.replay(leased).await? == Replay::PutBack => {
                    continue;
                }
                // somebody was faster
                LeaseVerdict::Lost => self.report_again(leased).await?,
                _ => {}
            }
            return Ok((verdict, due));
        }
    }

    /// What became of the claims counts whoever has the chunk now.
    async fn report_again(&self, leased: &LeasedChunk) -> Result<(), StoreError> {
        for group in &leased.groups {
            let reports = Batch { claims: Vec::new(), ..group.turn.clone() };
            self.ledgers
                .write_batch(&leased.at, &leased.lease, &reports, unix_now(), leased.resend_after_s)
                .await?;
        }
        Ok(())
    }

    /// Another run of Redis answers: what it has forgotten of the chunks that were given back lately is put back, before
    /// anybody can have waited out the leases it remembers.
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
