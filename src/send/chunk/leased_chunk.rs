//! A chunk as its lease holder knows it, with the last batches that the holder wrote.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    domain::ledger::ChunkRef,
    store::chunks::{Batch, Lease},
};

/// How long a batch is remembered. A roll-back undoes less, and the holder notices it within this
/// time.
pub(super) const REMEMBERED: Duration = Duration::from_secs(10);

/// A chunk as its lease holder knows it.
#[derive(Debug)]
pub struct LeasedChunk {
    pub at: ChunkRef,
    pub lease: Lease,
    /// Seconds until a recipient in doubt is sent to again; `None` if it is not sent to again.
    pub resend_after_s: Option<u32>,
    /// The chunk needs no job before this time (Unix seconds). A limit has postponed recipients, or
    /// some may have the message and must not get another one.
    pub not_before: Option<u32>,
    /// The last batches that Redis has applied and may still forget, in order.
    pub(super) batches: VecDeque<RememberedBatch>,
    /// True if the ledger writer has written a batch under this lease.
    pub(super) was_written: bool,
}

/// A batch that Redis has applied and may still forget.
#[derive(Debug)]
pub(super) struct RememberedBatch {
    /// The sequence number before the batch.
    pub seq: u32,
    pub batch: Batch,
    applied: Instant,
}

impl LeasedChunk {
    /// Begins with a lease that was just granted.
    pub fn new(at: ChunkRef, lease: Lease, resend_after_s: Option<u32>) -> Self {
        Self {
            at,
            lease,
            resend_after_s,
            not_before: None,
            batches: VecDeque::new(),
            was_written: false,
        }
    }

    /// Notes that Redis has applied a batch, or its late reports after the lease was lost.
    ///
    /// The batch is remembered for a while if Redis may forget it.
    pub(super) fn note_applied(&mut self, batch: Batch, granted: &[bool], may_be_forgotten: bool) {
        let now = Instant::now();
        if may_be_forgotten {
            // a claim that was refused must not be repeated: it would be granted this time
            let claims = batch
                .claims
                .iter()
                .zip(granted)
                .filter(|(_, granted)| **granted)
                .map(|(claim, _)| *claim)
                .collect();
            let batch = Batch { reports: batch.reports, claims, redo: true };
            self.batches.push_back(RememberedBatch { seq: self.lease.seq, batch, applied: now });
        }
        self.lease.seq += 1;
        self.was_written = true;
        while self
            .batches
            .front()
            .is_some_and(|remembered| now.duration_since(remembered.applied) > REMEMBERED)
        {
            self.batches.pop_front();
        }
    }
}
