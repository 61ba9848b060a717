//! The specification of the chunk protocol: the effect of each script.
//!
//! It covers the ledger, its counters and the sets of its delivery. It has no keys and no Redis,
//! and only `bytes` knows the layout of a ledger. The property test compares the scripts with it,
//! and the model explores it.

use std::collections::BTreeMap;

use versand::{
    domain::{
        audience::ExclusionCause,
        delivery::DeliveryState,
        ledger::{ClaimNumber, Counts, HEADER_BYTES, Ledger, Record, Status, flags},
    },
    store::chunks::{
        Batch, BatchAnswer, Lease, LeaseVerdict, ReportEffect, Settlement, TakeoverGrounds,
    },
};

use super::{
    merge::{LASTING, ReportAnswer, lose, merge},
    mutation::Mutation,
    tracking::Cache,
};

/// The input of a script besides its caller: the delivery as Redis knows it, the caller's clock and
/// policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    pub state: DeliveryState,
    /// Unix seconds.
    pub now: u32,
    /// `None` under the policy `hold`.
    pub resend_after_s: Option<u32>,
    /// The run of Redis, from 1.
    pub run: u32,
    /// True if Redis may go back in time.
    pub goes_back: bool,
    /// SMTP test mode, as the header of the chunk says.
    pub test: bool,
    pub mutation: Mutation,
}

/// A chunk with the sets and counters of its delivery. An `owner` of 0 means free.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chunk {
    pub epoch: u32,
    pub beat: u32,
    pub seq: u32,
    pub owner: u64,
    /// The run of Redis that knows all writes of the holder, if Redis may go back in time; else 0.
    pub run: u32,
    pub records: Vec<Record>,
    /// The time from which it wants attention.
    pub open: Option<u32>,
    /// The time at which a job was queued for it.
    pub offered: Option<u32>,
    pub round: u32,
    /// No job is queued for it until a person asks for that.
    pub poisoned: bool,
    /// The chunk was checked for late exclusions.
    pub checked: bool,
}

impl Chunk {
    /// All recipients are pending, and the chunk is free and wants attention.
    pub fn new(count: u16) -> Self {
        let pending = Record {
            status: Status::Pending,
            attempts: 0,
            reason: 0,
            flags: 0,
            claim: ClaimNumber::default(),
            when: 0,
            tracked: 0,
        };
        let records = vec![pending; usize::from(count)];
        let (open, offered, poisoned, checked) = (Some(0), None, false, false);
        Self {
            epoch: 0,
            beat: 0,
            seq: 0,
            owner: 0,
            run: 0,
            records,
            open,
            offered,
            round: 0,
            poisoned,
            checked,
        }
    }

    /// Grants a lease on a chunk that is free, has a dead owner, or stood still under observation.
    ///
    /// The predecessor's attempts are in doubt. If Redis may have forgotten writes, all recipients
    /// that the predecessor may have sent to are in doubt. Without a grant the answer is epoch and
    /// beat, which the caller must watch.
    ///
    /// `first` is the sequence number with which the lease begins. No other lease of this owner
    /// begins with it or reaches it.
    pub fn take(
        &mut self,
        owner: u64,
        grounds: TakeoverGrounds,
        first: u32,
        terms: &Terms,
    ) -> Result<Lease, (u32, u32)> {
        let free = self.owner == 0
            || grounds.dead == Some(self.owner)
            || grounds.still == Some((self.epoch, self.beat));
        if !free {
            return Err((self.epoch, self.beat));
        }
        let forgotten = self.owner != 0 && self.run != 0 && self.run != terms.run;
        self.owner = owner;
        self.run = if terms.goes_back { terms.run } else { 0 };
        self.epoch += 1;
        self.beat = 0;
        self.seq = first;
        if forgotten && terms.mutation != Mutation::ForgottenTrusted {
            self.doubt_open(terms);
        }
        self.lose_attempts(terms);
        Ok(Lease { owner, epoch: self.epoch, seq: self.seq })
    }

    /// The holder shows that it lives.
    pub fn beat(&mut self, lease: &Lease, terms: &Terms) -> LeaseVerdict {
        let verdict = self.against(lease);
        if verdict == LeaseVerdict::Ok {
            self.beat += 1;
            self.run = if terms.goes_back { terms.run } else { self.run };
        }
        verdict
    }

    /// Reports come first, then claims. The holder numbers its batches: a repeated batch is only
    /// answered.
    pub fn write_batch(
        &mut self,
        lease: &Lease,
        batch: &Batch,
        terms: &Terms,
    ) -> (BatchAnswer, Vec<bool>) {
        let again = (self.owner, self.epoch, self.seq) == (lease.owner, lease.epoch, lease.seq + 1);
        let verdict = if again { LeaseVerdict::Ok } else { self.against(lease) };
        if verdict == LeaseVerdict::RolledBack {
            let reports = vec![ReportEffect::NoEffect; batch.reports.len()];
            let kept = vec![false; batch.reports.len()];
            return (
                BatchAnswer {
                    lease: verdict,
                    reports,
                    claims: verdict,
                    granted: vec![false; batch.claims.len()],
                },
                kept,
            );
        }
        let effects =
            batch.reports.iter().map(|r| self.report(r, again, verdict, terms)).collect::<Vec<_>>();
        let in_progress = terms.state == DeliveryState::InProgress
            || terms.mutation == Mutation::ClaimsInAnyState;
        let claims = match verdict {
            _ if terms.mutation == Mutation::ClaimsWithoutLease => LeaseVerdict::Ok,
            LeaseVerdict::Ok if !in_progress && !batch.redo && !batch.claims.is_empty() => {
                LeaseVerdict::Forbidden
            }
            other => other,
        };
        let granted = batch.claims.iter().map(|claim| {
            let number = ClaimNumber { epoch: lease.epoch, n: claim.n };
            match self.records.get_mut(usize::from(claim.position)) {
                // Granted claims stay granted, though the delivery was paused while the answer was
                // lost.
                Some(r) if again => {
                    let forgotten = terms.mutation == Mutation::GrantsForgotten
                        && claims == LeaseVerdict::Forbidden;
                    r.status == Status::Attempting && r.claim == number && !forgotten
                }
                Some(r) => claims == LeaseVerdict::Ok && grant(r, number, batch.redo, terms),
                None => false,
            }
        });
        let granted = granted.collect();
        self.seq += u32::from(verdict == LeaseVerdict::Ok && !again);
        let (reports, kept) = effects.into_iter().unzip();
        (BatchAnswer { lease: verdict, reports, claims, granted }, kept)
    }

    fn report(
        &mut self,
        report: &versand::store::chunks::Report,
        again: bool,
        verdict: LeaseVerdict,
        terms: &Terms,
    ) -> ReportAnswer {
        let barred = terms.mutation == Mutation::ReportsNeedLease && verdict != LeaseVerdict::Ok;
        match self.records.get_mut(usize::from(report.position)) {
            _ if again => (ReportEffect::Known, false),
            Some(r) if !barred => merge(r, report, terms),
            _ => (ReportEffect::NoEffect, false),
        }
    }

    /// The lease is given back. Recipients that are still attempted are in doubt. The recipients
    /// that can be claimed again decide when the chunk wants attention.
    pub fn give_back(&mut self, lease: &Lease, terms: &Terms) -> (LeaseVerdict, Option<u32>) {
        let verdict = self.against(lease);
        if verdict != LeaseVerdict::Ok {
            return (verdict, None);
        }
        self.lose_attempts(terms);
        self.owner = 0;
        self.seq += 1;
        self.offered = None;
        let due = self.records.iter().filter_map(|r| r.claimable_at(terms.resend_after_s)).min();
        self.poisoned &= due.is_some();
        self.open = due.filter(|_| !self.poisoned);
        (LeaseVerdict::Ok, due)
    }

    /// A late exclusion by the holder. It takes out recipients that certainly got nothing, and
    /// returns how many.
    pub fn exclude(
        &mut self,
        lease: &Lease,
        who: &BTreeMap<u16, ExclusionCause>,
        terms: &Terms,
    ) -> (LeaseVerdict, u64) {
        if (self.owner, self.epoch, self.seq) == (lease.owner, lease.epoch, lease.seq + 1) {
            return (LeaseVerdict::Ok, 0);
        }
        let verdict = self.against(lease);
        if verdict != LeaseVerdict::Ok {
            return (verdict, 0);
        }
        self.seq += 1;
        self.checked = true;
        let mut excluded = 0;
        for (position, cause) in who {
            let Some(r) = self.records.get_mut(usize::from(*position)) else { continue };
            let perhaps_accepted = r.has(flags::RESENT) || r.has(flags::ACCEPTED);
            if !matches!(r.status, Status::Pending | Status::Deferred)
                || perhaps_accepted && terms.mutation != Mutation::DoubtExcluded
            {
                continue;
            }
            (r.status, r.reason, r.when) = (Status::Excluded, cause.code(), terms.now);
            excluded += 1;
        }
        (LeaseVerdict::Ok, excluded)
    }

    /// Cancels the pending and deferred recipients of a delivery that is stopping. Those whose
    /// earlier attempt was in doubt are in doubt again. Returns how many are still being attempted.
    /// If there are any, the caller must ask again.
    pub fn cancel(&mut self, terms: &Terms) -> (LeaseVerdict, u64) {
        if terms.state != DeliveryState::Stopping {
            return (LeaseVerdict::Forbidden, 0);
        }
        for r in self
            .records
            .iter_mut()
            .filter(|r| matches!(r.status, Status::Pending | Status::Deferred))
        {
            let doubtful = r.has(flags::RESENT) && terms.mutation != Mutation::DoubtCancelled;
            r.status = if doubtful { Status::InDoubt } else { Status::Cancelled };
            r.when = terms.now;
        }
        (
            LeaseVerdict::Ok,
            self.records.iter().filter(|r| r.status == Status::Attempting).count() as u64,
        )
    }

    /// Redis went back further than the holder remembers. All recipients without an outcome are in
    /// doubt, and nobody holds the chunk.
    pub fn doubt(&mut self, lease: &Lease, terms: &Terms) -> u64 {
        let doubted = self.records.iter().filter(|r| is_unsettled(r) && !terms.test).count() as u64;
        self.doubt_open(terms);
        self.epoch = self.epoch.max(lease.epoch) + 1;
        self.beat = 0;
        self.seq += 1;
        self.owner = 0;
        self.offered = None;
        let again =
            |r: &Record| is_unsettled(r) || r.status == Status::InDoubt && !r.has(flags::RESENT);
        let wait = if terms.test { Some(0) } else { terms.resend_after_s };
        self.open = wait.filter(|_| self.records.iter().any(again)).map(|wait| terms.now + wait);
        doubted
    }

    /// A bounce came back by mail. The recipient has failed, whatever is reported later. Returns
    /// whether that changed the record.
    pub fn bounce(&mut self, position: u16, (reason, hard): (u8, bool), terms: &Terms) -> bool {
        let stands = |r: &&mut Record| !matches!(r.status, Status::Failed | Status::Excluded);
        let Some(r) = self.records.get_mut(usize::from(position)).filter(stands) else {
            return false;
        };
        (r.status, r.reason, r.when) = (Status::Failed, reason, terms.now);
        r.flags = r.flags & LASTING | flags::BOUNCED | if hard { flags::HARD } else { 0 };
        true
    }

    /// A human read the message. This proves the delivery of a message in doubt. It changes nothing
    /// else.
    pub fn prove(&mut self, position: u16, terms: &Terms) {
        let in_doubt = |r: &&mut Record| r.status == Status::InDoubt;
        let Some(r) = self.records.get_mut(usize::from(position)).filter(in_doubt) else { return };
        (r.status, r.reason, r.when) = (Status::Sent, 0, terms.now);
        r.flags |= flags::ACCEPTED;
    }

    /// A person settles recipients in doubt. In a delivery that is stopping or stopped nothing
    /// becomes pending again.
    pub fn settle(
        &mut self,
        settlement: Settlement,
        positions: Option<&[u16]>,
        terms: &Terms,
    ) -> Vec<u16> {
        let resend = settlement == Settlement::Resend;
        if resend && matches!(terms.state, DeliveryState::Stopping | DeliveryState::Stopped) {
            return Vec::new();
        }
        let all: Vec<u16> = (0..self.records.len() as u16).collect();
        let mut settled = Vec::new();
        for position in positions.unwrap_or(&all) {
            let record = self
                .records
                .get_mut(usize::from(*position))
                .filter(|r| r.status == Status::InDoubt);
            let Some(r) = record else { continue };
            (r.status, r.reason) = match settlement {
                Settlement::Sent => (Status::Sent, 0),
                Settlement::Failed => (Status::Failed, NOT_DEFINED),
                Settlement::Resend => (Status::Pending, r.reason),
            };
            r.flags |= if resend { flags::SETTLED | flags::RESENT } else { flags::SETTLED };
            r.when = terms.now;
            settled.push(*position);
        }
        if resend && !settled.is_empty() {
            self.open = Some(0);
        }
        settled
    }

    /// Queues a job for a chunk that wants attention, while fewer than `window` jobs are queued.
    pub fn offer(&mut self, window: usize, terms: &Terms) -> Option<u32> {
        let due = self.open.is_some_and(|at| at <= terms.now);
        if terms.state != DeliveryState::InProgress
            || window <= usize::from(self.offered.is_some())
            || !due
        {
            return None;
        }
        self.open = None;
        if self.poisoned {
            return None;
        }
        self.offered = Some(terms.now);
        self.round += 1;
        Some(self.round)
    }

    /// The job of `round` is gone. The chunk wants attention again, unless another round has begun
    /// or the chunk was given back.
    pub fn reopen(&mut self, round: u32, terms: &Terms) -> bool {
        let gone = self.round == round && self.round > 0 && self.offered.is_some();
        if gone {
            self.offered = None;
            self.open = Some(terms.now);
        }
        gone
    }

    /// A person wants a retry of a chunk that was set aside.
    pub fn retry(&mut self) {
        self.poisoned = false;
        self.open = Some(0);
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for r in &self.records {
            *counts.of(r.status) += 1;
            counts.resent += u64::from(r.has(flags::RESENT));
            counts.duplicates += u64::from(r.has(flags::DUPLICATE));
            counts.hard += u64::from(r.status == Status::Failed && r.has(flags::HARD));
        }
        counts
    }

    /// The ledger, byte for byte, with the tracking of each recipient. `run` is the name of the
    /// run.
    pub fn bytes(&self, caches: &[Cache], run: [u8; 8], test: bool) -> Vec<u8> {
        let ledger = Ledger::new(self.records.len() as u16).in_test_mode(test);
        let mut bytes = ledger.bytes()[..HEADER_BYTES].to_vec();
        bytes[1] |= if self.checked { 2 } else { 0 };
        bytes[4..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.beat.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.seq.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.owner.to_be_bytes());
        bytes[24..32].copy_from_slice(&run);
        for (r, cache) in self.records.iter().zip(caches) {
            let ([e0, e1, e2, e3], [w0, w1, w2, w3]) =
                (r.claim.epoch.to_be_bytes(), r.when.to_be_bytes());
            let [high, low] = cache.lines.to_be_bytes();
            let (status, n) = (r.status as u8, r.claim.n);
            bytes.extend_from_slice(&[
                status, r.attempts, r.reason, r.flags, e0, e1, e2, e3, n, w0, w1, w2, w3,
                cache.bits, high, low,
            ]);
        }
        bytes
    }

    /// Checks a lease. It is `Lost` if another lease or none is in force, and `RolledBack` if the
    /// ledger is not as the holder left it.
    pub fn against(&self, lease: &Lease) -> LeaseVerdict {
        if self.epoch < lease.epoch {
            LeaseVerdict::RolledBack
        } else if (self.owner, self.epoch) != (lease.owner, lease.epoch) {
            LeaseVerdict::Lost
        } else if self.seq != lease.seq {
            LeaseVerdict::RolledBack
        } else {
            LeaseVerdict::Ok
        }
    }

    /// Puts recipients without an outcome in doubt, because they may have been sent to. A recipient
    /// in doubt that waits for a second attempt may already have had it, and gets no third one.
    fn doubt_open(&mut self, terms: &Terms) {
        let resends = terms.resend_after_s.is_some() && terms.mutation != Mutation::ForgottenResent;
        for r in &mut self.records {
            match r.status {
                Status::InDoubt if resends => r.flags |= flags::RESENT,
                Status::Pending | Status::Deferred if terms.test => {}
                _ if is_unsettled(r) => lose(r, terms.now, terms.test),
                _ => {}
            }
        }
    }

    fn lose_attempts(&mut self, terms: &Terms) {
        self.records
            .iter_mut()
            .filter(|r| r.status == Status::Attempting)
            .for_each(|r| lose(r, terms.now, terms.test));
    }
}

/// The failure reason for a recipient that a person settled as failed.
const NOT_DEFINED: u8 = 7;

fn is_unsettled(r: &Record) -> bool {
    matches!(r.status, Status::Pending | Status::Attempting | Status::Deferred)
}

/// Grants the claim of a recipient that is claimable and due. The recipient takes the claim number,
/// and an earlier decision of a person is used up. A replayed claim was due when it was first made.
fn grant(r: &mut Record, number: ClaimNumber, redo: bool, terms: &Terms) -> bool {
    let was_due = redo
        && matches!(
            r.status,
            Status::Pending | Status::Attempting | Status::Deferred | Status::InDoubt
        );
    if redo && !was_due && r.has(flags::ACCEPTED) && number > r.claim {
        // The recipient was sent to again. The outcome of the earlier attempt was put back first.
        r.flags |= flags::RESENT;
    }
    let due = was_due || r.claimable_at(terms.resend_after_s).is_some_and(|at| at <= terms.now);
    if !due || terms.mutation == Mutation::ClaimsUnwritten {
        return due;
    }
    if r.status == Status::InDoubt {
        r.flags |= flags::RESENT;
    }
    r.flags &= !flags::SETTLED;
    r.status = Status::Attempting;
    r.claim = number;
    r.when = terms.now;
    r.attempts = r.attempts.saturating_add(1);
    true
}
