//! The world of the model: two workers, a relay, a person and Redis.
//!
//! There is one chunk with two recipients.

use versand::{
    domain::{
        delivery::DeliveryState,
        ledger::{ClaimNumber, Status, flags},
    },
    store::chunks::{Batch, Lease, LeaseVerdict, Settlement, TakeoverGrounds},
};

use super::{
    mutation::Mutation,
    spec::{Chunk, Terms},
    worker::{AppliedBatch, Phase, RECIPIENTS, Reply, SentBatch, Worker},
};

pub const WORKERS: usize = 2;

/// How often each fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FaultBudget {
    pub crashes: u8,
    pub freezes: u8,
    pub lost_answers: u8,
    pub lost_replies: u8,
    pub deferrals: u8,
    pub refusals: u8,
    pub pauses: u8,
    pub stops: u8,
    pub persons: u8,
    pub rollbacks: u8,
    pub bounces: u8,
    pub hits: u8,
    /// The second recipient was sent to before. With one recipient left, the model stays small even
    /// with roll-backs and freezes.
    pub alone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub chunk: Chunk,
    pub state: DeliveryState,
    pub workers: [Worker; WORKERS],
    pub budget: FaultBudget,
    /// The number of leases so far.
    takes: u32,
    /// The current run of Redis.
    pub run: u32,
    pub goes_back: bool,
    /// The state to which Redis may go back.
    pub past: Option<(Chunk, DeliveryState)>,
    /// How often the relay accepted each message.
    pub accepted: [u8; RECIPIENTS],
    /// How often a person settled each recipient with `resend`.
    pub resent_by_person: [u8; RECIPIENTS],
    /// A worker with a claim on the recipient died, was fenced or got no reply. Or Redis may have
    /// forgotten a claim. The recipient may be in doubt.
    pub doubtful: [bool; RECIPIENTS],
    /// The message was accepted, and nobody is left who knows it.
    pub lost_acceptance: [bool; RECIPIENTS],
    /// A bounce has made the recipient fail.
    pub bounced: [bool; RECIPIENTS],
    /// An answer of a script that must never occur.
    pub wrong: Option<&'static str>,
}

impl World {
    pub fn new(budget: FaultBudget) -> Self {
        let mut chunk = Chunk::new(RECIPIENTS as u16);
        if budget.alone {
            (chunk.records[1].status, chunk.records[1].flags) = (Status::Sent, flags::ACCEPTED);
        }
        Self {
            chunk,
            state: DeliveryState::InProgress,
            workers: [Worker::new(1), Worker::new(2)],
            budget,
            takes: 0,
            run: 1,
            goes_back: budget.rollbacks > 0,
            past: None,
            accepted: [0, u8::from(budget.alone)],
            resent_by_person: [0; RECIPIENTS],
            doubtful: [false; RECIPIENTS],
            lost_acceptance: [false; RECIPIENTS],
            bounced: [false; RECIPIENTS],
            wrong: None,
        }
    }

    /// Time stands still. Deferred recipients are due at once, and so are those in doubt under
    /// `resend`.
    pub fn terms(&self, resend: bool, mutation: Mutation) -> Terms {
        Terms {
            state: self.state,
            now: 0,
            resend_after_s: resend.then_some(0),
            run: self.run,
            goes_back: self.goes_back,
            test: false,
            mutation,
        }
    }

    /// The grounds on which the worker may take the chunk now: a job is queued for the chunk, its
    /// holder is dead, or the chunk stood still.
    pub fn grounds(&self, w: usize, terms: &Terms) -> Option<TakeoverGrounds> {
        let resends = terms.resend_after_s.is_some();
        if self.chunk.owner == 0 {
            let named =
                self.chunk.clone().offer(1, terms).is_some() || self.chunk.offered.is_some();
            return (named && self.state == DeliveryState::InProgress)
                .then_some(TakeoverGrounds { resends, ..TakeoverGrounds::default() });
        }
        match self.workers.iter().position(|other| other.owner == self.chunk.owner) {
            None => Some(TakeoverGrounds { still: None, dead: Some(self.chunk.owner), resends }),
            // The holder is frozen, or Redis has forgotten that the holder gave this lease back.
            Some(holder) if holder != w && self.workers[holder].frozen || !self.holds(holder) => {
                Some(TakeoverGrounds {
                    still: Some((self.chunk.epoch, self.chunk.beat)),
                    dead: None,
                    resends,
                })
            }
            Some(_) => None,
        }
    }

    /// True if the worker thinks that it has the lease of the ledger.
    fn holds(&self, w: usize) -> bool {
        self.workers[w].lease.is_some_and(|(epoch, _)| epoch == self.chunk.epoch)
    }

    /// True if the worker's lease can no longer be forgotten.
    pub fn is_durable(&self, w: usize) -> bool {
        let epoch = self.workers[w].lease.map_or(0, |(epoch, _)| epoch);
        self.past.as_ref().is_none_or(|(chunk, _)| epoch <= chunk.epoch)
    }

    pub fn take(&mut self, w: usize, terms: &Terms) {
        let Some(grounds) = self.grounds(w, terms) else { return };
        // If nobody saw the end of a job, the reconciler first opens the chunk again. Then it
        // queues another job.
        if self.chunk.offered.is_some() {
            self.chunk.reopen(self.chunk.round, terms);
        }
        self.chunk.offer(1, terms);
        if let Some(holder) = self.workers.iter().position(|other| other.owner == self.chunk.owner)
        {
            self.workers[holder].expired = true;
            self.doubt_claims_of(holder);
        }
        if self.chunk.owner != 0 && self.chunk.run != 0 && self.chunk.run != self.run {
            self.doubtful = [true; RECIPIENTS];
        }
        self.takes += 1;
        let first = 100 * self.takes;
        if let Ok(lease) = self.chunk.take(self.workers[w].owner, grounds, first, terms) {
            let worker = &mut self.workers[w];
            worker.lease = Some((lease.epoch, lease.seq));
            (worker.expired, worker.halted) = (false, false);
            (worker.numbers, worker.batches) = ([0; RECIPIENTS], Vec::new());
        }
    }

    /// Redis may go back to its present state: later writes are not yet durable.
    pub fn remember(&mut self) {
        self.past = Some((self.chunk.clone(), self.state));
    }

    /// Everything written so far becomes durable.
    pub fn settle_down(&mut self) {
        self.past = None;
        for worker in &mut self.workers {
            (worker.batches, worker.given) = (Vec::new(), None);
        }
    }

    /// A new run of Redis knows only the past state.
    pub fn roll_back(&mut self) {
        let Some((chunk, state)) = self.past.take() else { return };
        (self.chunk, self.state) = (chunk, state);
        self.run += 1;
        self.note_lost_acceptance();
    }

    /// Notes acceptances that Redis has forgotten and no worker remembers.
    fn note_lost_acceptance(&mut self) {
        for i in 0..RECIPIENTS {
            let record = &self.chunk.records[i];
            let known = matches!(record.status, Status::Sent) || record.has(flags::ACCEPTED);
            self.lost_acceptance[i] |= self.run > 1
                && self.accepted[i] > 0
                && !known
                && !self.workers.iter().any(|worker| worker.knows(i));
        }
    }

    /// The holder replays the batches that the ledger lacks. If the ledger is older than all that
    /// the holder remembers, recipients become doubtful. Returns false if the lease was never used.
    pub fn replay(&mut self, lease: &Lease, batches: &[AppliedBatch], terms: &Terms) -> bool {
        let same = (self.chunk.owner, self.chunk.epoch) == (lease.owner, lease.epoch);
        let first = batches.iter().position(|done| same && done.seq == self.chunk.seq);
        match first {
            Some(first) => {
                for done in &batches[first..] {
                    self.chunk.write_batch(
                        &Lease { seq: done.seq, ..*lease },
                        &done.as_batch(true),
                        terms,
                    );
                }
            }
            None if same && self.chunk.seq == lease.seq => {}
            None if batches.is_empty() => return false,
            None => {
                self.doubtful = [true; RECIPIENTS];
                self.chunk.doubt(lease, terms);
            }
        }
        true
    }

    pub fn beat(&mut self, w: usize, terms: &Terms) {
        let Some(lease) = self.workers[w].lease() else { return };
        self.workers[w].expired &= self.chunk.beat(&lease, terms) != LeaseVerdict::Ok;
    }

    /// The holder notices that Redis went back in time.
    pub fn notice(&mut self, w: usize, terms: &Terms) -> bool {
        let Some(lease) = self.workers[w].lease() else { return false };
        let batches = std::mem::take(&mut self.workers[w].batches);
        self.replay(&lease, &batches, terms)
    }

    pub fn give_back(&mut self, w: usize, terms: &Terms) {
        let Some(lease) = self.workers[w].lease() else { return };
        let batches = std::mem::take(&mut self.workers[w].batches);
        self.workers[w].lease = None;
        self.give_back_or_replay(&lease, &batches, terms);
        if self.past.is_some() && self.workers[w].given.is_none() {
            self.workers[w].given = Some(((lease.epoch, lease.seq), batches));
        }
    }

    /// Redis may have forgotten that a chunk was given back.
    pub fn give_back_again(&mut self, w: usize, terms: &Terms) {
        let Some(((epoch, seq), batches)) = self.workers[w].given.take() else { return };
        self.give_back_or_replay(
            &Lease { owner: self.workers[w].owner, epoch, seq },
            &batches,
            terms,
        );
    }

    fn give_back_or_replay(&mut self, lease: &Lease, batches: &[AppliedBatch], terms: &Terms) {
        let mut verdict = self.chunk.give_back(lease, terms).0;
        if verdict == LeaseVerdict::RolledBack && self.replay(lease, batches, terms) {
            verdict = self.chunk.give_back(lease, terms).0;
        }
        if verdict == LeaseVerdict::Lost {
            // Another worker was faster. The outcomes of the claims still count.
            for done in batches {
                self.chunk.write_batch(lease, &done.as_batch(false), terms);
            }
        }
    }

    /// The worker dies without a report, and another process takes its place.
    pub fn crash(&mut self, w: usize) {
        self.doubt_claims_of(w);
        for i in 0..RECIPIENTS {
            // A report whose answer was lost has reached the ledger.
            let told = self.workers[w].unanswered.is_some_and(|sent| sent.report == Some(i));
            self.lost_acceptance[i] |= self.workers[w].knows(i) && (self.run > 1 || !told);
        }
        self.workers[w] = Worker::new(self.workers[w].owner + WORKERS as u64);
        self.note_lost_acceptance();
    }

    fn doubt_claims_of(&mut self, w: usize) {
        for i in 0..RECIPIENTS {
            self.doubtful[i] |= self.workers[w].concerns(i);
        }
    }

    /// The relay reads the end of data and decides.
    pub fn write(&mut self, w: usize, i: usize, reply: Reply) {
        self.accepted[i] += u8::from(reply == Reply::Accepted);
        self.advance(w, i, Phase::Written(reply));
    }

    /// Nobody will ever learn the relay's reply.
    pub fn lose_reply(&mut self, w: usize, i: usize, reply: Reply) {
        self.doubtful[i] = true;
        self.lost_acceptance[i] |= reply == Reply::Accepted;
        self.advance(w, i, Phase::Known(Reply::Missing));
    }

    pub fn advance(&mut self, w: usize, i: usize, phase: Phase) {
        self.workers[w].jobs[i] = self.workers[w].jobs[i].map(|(claim, _)| (claim, phase));
    }

    /// The number of the worker's next claim of a recipient.
    pub fn next_number(&self, w: usize, i: usize) -> u8 {
        self.workers[w].numbers[i] + 1
    }

    /// The script runs. Its answer arrives or is lost.
    pub fn send_batch(&mut self, w: usize, sent: SentBatch, is_answered: bool, terms: &Terms) {
        let Some(lease) = self.workers[w].lease() else { return };
        let done = AppliedBatch {
            seq: lease.seq,
            report: sent.report.and_then(|i| self.workers[w].outcome(i)),
            claim: sent.claim,
        };
        let batch = Batch { redo: false, ..done.as_batch(true) };
        let before = self.chunk.clone();
        let (answer, _) = self.chunk.write_batch(&lease, &batch, terms);
        if answer.lease == LeaseVerdict::RolledBack {
            self.wrong =
                self.wrong.or((self.run == 1).then_some("a roll-back was reported without one"));
            if self.notice(w, terms) {
                self.workers[w].unanswered = Some(sent);
                return;
            }
        }
        let newly = |i: usize| before.records[i].claim != self.chunk.records[i].claim;
        if self.state != DeliveryState::InProgress
            && sent.claim.is_some_and(|(i, _)| answer.granted == [true] && newly(i))
        {
            self.wrong = Some("claimed although the delivery is not in progress");
        }
        if !is_answered {
            self.workers[w].unanswered = Some(sent);
            return;
        }
        let claim = sent.claim.filter(|_| answer.granted == [true]);
        let report = sent.report.and_then(|i| self.workers[w].outcome(i));
        let worker = &mut self.workers[w];
        worker.unanswered = None;
        if answer.lease != LeaseVerdict::Ok {
            (worker.expired, worker.halted) = (true, true);
        }
        if answer.lease == LeaseVerdict::Ok
            || answer.lease == LeaseVerdict::Lost && report.is_some()
        {
            if self.past.is_some() {
                worker.batches.push(AppliedBatch { seq: lease.seq, report, claim });
            }
            worker.lease = Some((lease.epoch, lease.seq + 1));
        }
        worker.halted |= answer.claims == LeaseVerdict::Forbidden;
        if let Some(i) = sent.report {
            worker.jobs[i] = None;
        }
        if let Some((i, n)) = claim {
            worker.numbers[i] = n;
            worker.jobs[i] = Some((ClaimNumber { epoch: lease.epoch, n }, Phase::Claimed));
        }
    }

    /// A bounce comes back for a recipient whose message the relay has accepted.
    pub fn bounce(&mut self, i: usize, terms: &Terms) {
        self.bounced[i] |= self.chunk.bounce(i as u16, (1, true), terms);
    }

    /// A person settles a recipient in doubt. Only `Resend` opens a finished delivery again.
    pub fn settle(&mut self, i: usize, settlement: Settlement, terms: &Terms) {
        let settled = self.chunk.settle(settlement, Some(&[i as u16]), terms);
        if settlement == Settlement::Resend && !settled.is_empty() {
            self.resent_by_person[i] += 1;
            if self.state == DeliveryState::Finished {
                self.state = DeliveryState::InProgress;
            }
        }
    }

    /// True if somebody may still report the outcome of a recipient.
    pub fn is_awaited(&self, i: usize) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.jobs[i].is_some() || self.run > 1 && worker.remembers(i))
    }
}
