//! The ledger writer of a chunk: the only task that writes its ledger while the chunk is sent.
//!
//! Reports and claims of all connections travel in batches. The next batch gathers while one is
//! on its way.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    claim_queue::ClaimQueue,
    granted_claim::GrantedClaim,
    job_slice::JobSlice,
    lease_validity::boottime_ms,
    leased_chunk::LeasedChunk,
    ledger_access::{BeatAnswer, LedgerAccess},
    record_count::count_record,
    start_right::StartRight,
    writer_channel::{GatheredMessages, WorkerChannels},
};
use crate::{
    domain::ledger::{ClaimNumber, Ledger, Status, flags},
    metrics,
    send::limits::Admission,
    store::chunks::{Batch, BatchAnswer, Claim, LeaseVerdict, Report, ReportEffect},
};

/// How often the state of the delivery is read. A pause or a stop takes effect within a second.
const STATE_CHECK: Duration = Duration::from_millis(400);

/// Writes the ledger of one chunk for all its connection workers.
pub(super) struct LedgerWriter {
    pub access: LedgerAccess,
    pub leased: LeasedChunk,
    /// The ledger as it was when the lease was taken.
    pub ledger: Ledger,
    pub right: StartRight,
    /// The end of the validity period, Unix seconds.
    pub valid_until: u32,
    pub to_claim: ClaimQueue,
    pub workers: WorkerChannels,
    pub admission: Admission,
}

impl LedgerWriter {
    /// Serves the connection workers until the last one has ended.
    ///
    /// Every claim is recorded or given back then, unless the chunk was lost.
    pub(super) async fn serve(mut self) -> LeasedChunk {
        // a copy, because the futures below must not borrow a field of the writer
        let access = self.access.clone();
        let settings = &access.config.send;
        let mut beat = interval(Duration::from_millis(settings.lease_ms / 4));
        let mut state_check = interval(STATE_CHECK);
        state_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // the slice begins with the first connection, which may have to wait for its permit
        let mut slice = JobSlice::new(Duration::from_millis(settings.slice_ms));
        // if Redis forgets the lease, it forgets the claims too: claims wait for a durable lease
        let mut durable = pin!(access.await_durability());
        let mut is_durable = !access.redis.may_roll_back();
        loop {
            if self.right.is_halted() || slice.is_over || self.to_claim.positions.is_empty() {
                self.workers.close();
            }
            let mut gathered = GatheredMessages::default();
            tokio::select! {
                biased;
                _ = beat.tick() => self.renew_lease().await,
                _ = state_check.tick(), if !self.right.is_halted() => self.check_state().await,
                () = slice.ended(), if is_durable && !slice.is_over => slice.is_over = true,
                () = &mut durable, if !is_durable => {
                    is_durable = true;
                    slice.restart();
                }
                () = self.admission.woken() => {}
                () = access.daemon.shutdown.cancelled(), if !self.right.is_halted() => {
                    self.right.halt();
                }
                message = self.workers.messages.recv() => match message {
                    None => return self.finish(),
                    Some(message) => {
                        slice.note_connection();
                        gathered = self.workers.gather(message).await;
                    }
                },
            }
            let reports = &mut gathered.reports;
            while (!reports.is_empty() || is_durable && self.workers.wanted() > 0)
                && !self.send_batch(reports).await
            {}
            // the connections close only now: all their claims are recorded
            drop(gathered.used_up);
        }
    }

    /// Notes when the chunk is due again, and returns the chunk.
    fn finish(mut self) -> LeasedChunk {
        // recipients that may be sent to now need the next job at once
        let all_wait = self.to_claim.positions.is_empty() && !self.right.is_halted();
        self.leased.not_before = self.admission.not_before().filter(|_| all_wait);
        self.leased
    }

    /// Writes one batch: `reports`, and claims for the connections that wait.
    ///
    /// Returns false if another batch is needed: claims were refused, or nobody took a claim.
    async fn send_batch(&mut self, reports: &mut Vec<Report>) -> bool {
        if self.right.is_halted() {
            self.workers.forget_wanted();
        }
        let wanted = self.workers.wanted().min(self.to_claim.positions.len());
        let positions = self.admission.admit(&mut self.to_claim.positions, wanted).await;
        let is_limited = positions.len() < wanted;
        let batch = Batch {
            reports: std::mem::take(reports),
            claims: self.claims(&positions),
            redo: false,
        };
        if batch.reports.is_empty() && batch.claims.is_empty() {
            return true;
        }
        let written = self.access.write_batch(&self.leased, &batch, self.valid_until).await;
        let Some(answer) = written else {
            self.lose_chunk("its ledger is damaged");
            self.workers.forget_wanted();
            return true;
        };
        self.note_answer(&batch, &answer).await;
        self.hand_out_claims(&batch, &answer, reports);
        if answer.lease == LeaseVerdict::Ok
            || answer.lease == LeaseVerdict::Lost && !batch.reports.is_empty()
        {
            self.leased.note_applied(batch, &answer.granted, self.access.redis.may_roll_back());
        }
        let all_served = self.workers.wanted() == 0 || self.to_claim.positions.is_empty();
        reports.is_empty() && (all_served || is_limited)
    }

    fn claims(&self, positions: &[u16]) -> Vec<Claim> {
        let epoch = self.leased.lease.epoch;
        let claim = |position: &u16| {
            let n = self.to_claim.next_ordinal(*position, &self.ledger, epoch)?;
            Some(Claim { position: *position, n })
        };
        positions.iter().filter_map(claim).collect()
    }

    /// Hands the granted claims to the workers. Adds a report for each claim that nobody takes.
    fn hand_out_claims(&mut self, batch: &Batch, answer: &BatchAnswer, reports: &mut Vec<Report>) {
        let epoch = self.leased.lease.epoch;
        for (claim, granted) in batch.claims.iter().zip(&answer.granted) {
            let position = claim.position;
            if !granted {
                self.admission.note_unclaimed(position);
                continue;
            }
            let Some(before) = self.ledger.record(usize::from(position)) else { continue };
            let number = ClaimNumber { epoch, n: claim.n };
            let claimed = GrantedClaim { position, number, before };
            if !self.workers.hand_out(claimed) {
                reports.push(claimed.not_started());
            }
        }
    }

    /// Acts on the answer to a batch.
    async fn note_answer(&mut self, batch: &Batch, answer: &BatchAnswer) {
        match answer.lease {
            LeaseVerdict::Ok => {}
            LeaseVerdict::Lost => self.lose_chunk("another worker holds it"),
            LeaseVerdict::RolledBack => self.lose_chunk("Redis has forgotten the lease"),
            _ => self.lose_chunk("its ledger is gone"),
        }
        if !batch.claims.is_empty() && answer.claims == LeaseVerdict::Forbidden {
            self.right.halt();
        }
        for (report, effect) in batch.reports.iter().zip(&answer.reports) {
            self.note_report(report, *effect).await;
        }
    }

    async fn note_report(&mut self, report: &Report, effect: ReportEffect) {
        count_record(report, effect);
        self.admission.note_outcome(report).await;
        // Another connection may claim the recipient that a broken one gave back. Without the right
        // to start, that would go on without end.
        if report.status.is_none() && self.right.holds() {
            self.to_claim.put_back(report);
        }
        if report.status == Some(Status::Sent) && report.flags & flags::ACCEPTED != 0 {
            self.access.acceptances.fetch_add(1, Ordering::Relaxed);
        }
        if effect == ReportEffect::Twice {
            metrics::duplicate();
            let at = &self.leased.at;
            tracing::warn!(
                delivery.id = %at.delivery,
                chunk = at.chunk,
                position = report.position,
                "a relay accepted two messages for one recipient"
            );
        }
    }

    /// Halts the chunk if its delivery was paused or stopped.
    ///
    /// Redis refuses new claims then. This halt is for the claims that were granted before.
    async fn check_state(&self) {
        if self.access.was_halted(&self.leased).await {
            self.right.halt();
        }
    }

    async fn renew_lease(&self) {
        let sent_ms = boottime_ms();
        match self.access.renew_lease(&self.leased).await {
            BeatAnswer::Renewed => self.right.renew(sent_ms),
            BeatAnswer::Unknown => {}
            BeatAnswer::Lost(why) => self.lose_chunk(why),
        }
    }

    fn lose_chunk(&self, why: &str) {
        if !self.right.is_halted() {
            metrics::fenced();
            let at = &self.leased.at;
            tracing::warn!(delivery.id = %at.delivery, chunk = at.chunk, why, "the chunk was lost");
        }
        self.right.end();
    }
}
