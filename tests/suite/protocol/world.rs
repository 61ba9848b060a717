//! The world of the model: two workers, a relay, a person and Redis.
//!
//! There is one chunk with two recipients.

use versand::{
    domain::{
        delivery::DeliveryState,
        ledger::{ClaimNumber, Status, flags},
    },
    store::chunks::{Batch, Claim, Lease, LeaseVerdict, Report, Settlement, TakeoverGrounds},
};

use super::spec::{Chunk, Mutation, Terms};

pub const RECIPIENTS: usize = 2;
pub const WORKERS: usize = 2;

/// The relay's reply to the end of data, or the knowledge without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    Accepted,
    /// A 4xx, or a connection that broke before the end of data.
    Deferred,
    Refused,
    /// No reply came after the end of data.
    Missing,
    /// The transaction was not started.
    NotStarted,
}

/// The progress of a claimed recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Claimed,
    /// The lease was checked for the last time, and the end of data is not written. A worker that
    /// freezes here can send too late.
    Checked,
    /// The relay has decided, and the worker has not read the reply.
    Written(Reply),
    Known(Reply),
}

/// A batch that was applied and that Redis may forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Done {
    pub seq: u32,
    pub report: Option<(usize, ClaimNumber, Reply)>,
    pub claim: Option<(usize, u8)>,
}

/// A batch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    pub report: Option<usize>,
    pub claim: Option<(usize, u8)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Worker {
    pub owner: u64,
    pub frozen: bool,
    pub lease: Option<(u32, u32)>,
    /// The lease has ended by the worker's own clock, or the worker was told so.
    pub expired: bool,
    /// The worker was told to start no more transactions.
    pub halted: bool,
    pub jobs: [Option<(ClaimNumber, Phase)>; RECIPIENTS],
    /// A batch that was sent and perhaps applied, but never answered.
    pub unanswered: Option<Group>,
    /// Each recipient's last claim under this lease.
    pub numbers: [u8; RECIPIENTS],
    /// The batches of this lease that Redis may forget.
    pub groups: Vec<Done>,
    /// A chunk that was given back. Redis may forget this, too.
    pub given: Option<((u32, u32), Vec<Done>)>,
}

/// How often each fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Luck {
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
    /// The second recipient was sent to before: the rest is small enough to be explored with
    /// roll-backs.
    pub alone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub chunk: Chunk,
    pub state: DeliveryState,
    pub workers: [Worker; WORKERS],
    pub luck: Luck,
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
    pub released_by_person: [u8; RECIPIENTS],
    /// A worker died with a claim on it, was fenced with one, or got no reply. The recipient may be
    /// in doubt.
    pub doubtful: [bool; RECIPIENTS],
    /// The message was accepted, and nobody is left who knows it.
    pub untold: [bool; RECIPIENTS],
    /// A bounce came for it.
    pub bounced: [bool; RECIPIENTS],
    /// An answer of a script that must never occur.
    pub wrong: Option<&'static str>,
}

impl Done {
    /// The batch as it is replayed.
    fn turn(&self, with_claims: bool) -> Batch {
        let report = |(i, claim, reply): (usize, ClaimNumber, Reply)| {
            let status = match reply {
                Reply::Accepted => Some(Status::Sent),
                Reply::Deferred => Some(Status::Deferred),
                Reply::Refused => Some(Status::Failed),
                Reply::Missing => Some(Status::InDoubt),
                Reply::NotStarted => None,
            };
            Report {
                position: i as u16,
                claim,
                status,
                reason: 0,
                flags: 0,
                when: 0,
                reply: String::new(),
            }
        };
        let claims =
            self.claim.filter(|_| with_claims).map(|(i, n)| Claim { position: i as u16, n });
        Batch {
            reports: self.report.map(report).into_iter().collect(),
            claims: claims.into_iter().collect(),
            redo: true,
        }
    }
}

impl Worker {
    /// The outcome of its claim, once it is known.
    fn outcome(&self, i: usize) -> Option<(usize, ClaimNumber, Reply)> {
        let Some((claim, Phase::Known(reply))) = self.jobs[i] else { return None };
        Some((i, claim, reply))
    }

    pub fn new(owner: u64) -> Self {
        Self {
            owner,
            frozen: false,
            lease: None,
            expired: false,
            halted: false,
            jobs: [None; RECIPIENTS],
            unanswered: None,
            numbers: [0; RECIPIENTS],
            groups: Vec::new(),
            given: None,
        }
    }

    pub fn lease(&self) -> Option<Lease> {
        self.lease.map(|(epoch, seq)| Lease { owner: self.owner, epoch, seq })
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.iter().all(Option::is_none) && self.unanswered.is_none()
    }

    /// True if it will report an acceptance.
    fn knows(&self, i: usize) -> bool {
        let phase = self.jobs[i].map(|(_, phase)| phase);
        matches!(phase, Some(Phase::Written(Reply::Accepted) | Phase::Known(Reply::Accepted)))
            || self.remembers(i)
    }

    /// True if it remembers an acceptance that Redis may have forgotten.
    fn remembers(&self, i: usize) -> bool {
        let given = self.given.iter().flat_map(|(_, groups)| groups);
        self.groups
            .iter()
            .chain(given)
            .any(|done| matches!(done.report, Some((told, _, Reply::Accepted)) if told == i))
    }

    /// True if it has, or may have, a claim whose outcome the ledger does not know.
    fn concerns(&self, i: usize) -> bool {
        self.jobs[i].is_some()
            || self
                .unanswered
                .is_some_and(|group| group.claim.is_some_and(|(claimed, _)| claimed == i))
    }
}

impl World {
    pub fn new(luck: Luck) -> Self {
        let mut chunk = Chunk::new(RECIPIENTS as u16);
        if luck.alone {
            (chunk.records[1].status, chunk.records[1].flags) = (Status::Sent, flags::ACCEPTED);
        }
        Self {
            chunk,
            state: DeliveryState::InProgress,
            workers: [Worker::new(1), Worker::new(2)],
            luck,
            takes: 0,
            run: 1,
            goes_back: luck.rollbacks > 0,
            past: None,
            accepted: [0, u8::from(luck.alone)],
            released_by_person: [0; RECIPIENTS],
            doubtful: [false; RECIPIENTS],
            untold: [false; RECIPIENTS],
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

    /// The grounds on which the worker may take the chunk now. A job is queued for it, its holder
    /// is dead, or it stood still.
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
            // The holder is frozen, or Redis has forgotten that it gave this lease back.
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
        // Hints: the reconciler puts a job back whose end nobody saw, before another one is queued.
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
            (worker.numbers, worker.groups) = ([0; RECIPIENTS], Vec::new());
        }
    }

    /// Redis may come back to its present state, which is not yet durable.
    pub fn remember(&mut self) {
        self.past = Some((self.chunk.clone(), self.state));
    }

    /// Everything written so far becomes durable.
    pub fn settle_down(&mut self) {
        self.past = None;
        for worker in &mut self.workers {
            (worker.groups, worker.given) = (Vec::new(), None);
        }
    }

    /// A new run of Redis knows only the past state.
    pub fn roll_back(&mut self) {
        let Some((chunk, state)) = self.past.take() else { return };
        (self.chunk, self.state) = (chunk, state);
        self.run += 1;
        self.note_untold();
    }

    /// Messages that were accepted, are forgotten, and are in nobody's memory.
    fn note_untold(&mut self) {
        for i in 0..RECIPIENTS {
            let record = &self.chunk.records[i];
            let known = matches!(record.status, Status::Sent) || record.has(flags::ACCEPTED);
            self.untold[i] |= self.run > 1
                && self.accepted[i] > 0
                && !known
                && !self.workers.iter().any(|worker| worker.knows(i));
        }
    }

    /// The ledger is older than its holder, who replays the batches. Returns false if the lease was
    /// never used.
    pub fn recall(&mut self, lease: &Lease, groups: &[Done], terms: &Terms) -> bool {
        let same = (self.chunk.owner, self.chunk.epoch) == (lease.owner, lease.epoch);
        let first = groups.iter().position(|done| same && done.seq == self.chunk.seq);
        match first {
            Some(first) => {
                for done in &groups[first..] {
                    self.chunk.turn(&Lease { seq: done.seq, ..*lease }, &done.turn(true), terms);
                }
            }
            None if same && self.chunk.seq == lease.seq => {}
            None if groups.is_empty() => return false,
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
        let groups = std::mem::take(&mut self.workers[w].groups);
        self.recall(&lease, &groups, terms)
    }

    pub fn give_back(&mut self, w: usize, terms: &Terms) {
        let Some(lease) = self.workers[w].lease() else { return };
        let groups = std::mem::take(&mut self.workers[w].groups);
        self.workers[w].lease = None;
        self.release(&lease, &groups, terms);
        if self.past.is_some() && self.workers[w].given.is_none() {
            self.workers[w].given = Some(((lease.epoch, lease.seq), groups));
        }
    }

    /// Redis may have forgotten that a chunk was given back.
    pub fn give_back_again(&mut self, w: usize, terms: &Terms) {
        let Some(((epoch, seq), groups)) = self.workers[w].given.take() else { return };
        self.release(&Lease { owner: self.workers[w].owner, epoch, seq }, &groups, terms);
    }

    fn release(&mut self, lease: &Lease, groups: &[Done], terms: &Terms) {
        let mut verdict = self.chunk.release(lease, terms).0;
        if verdict == LeaseVerdict::RolledBack && self.recall(lease, groups, terms) {
            verdict = self.chunk.release(lease, terms).0;
        }
        if verdict == LeaseVerdict::Lost {
            // Another worker was faster. The outcomes of the claims still count.
            for done in groups {
                self.chunk.turn(lease, &done.turn(false), terms);
            }
        }
    }

    /// The worker dies without a report, and another process takes its place.
    pub fn crash(&mut self, w: usize) {
        self.doubt_claims_of(w);
        for i in 0..RECIPIENTS {
            // A report whose answer was lost has reached the ledger.
            let told = self.workers[w].unanswered.is_some_and(|group| group.report == Some(i));
            self.untold[i] |= self.workers[w].knows(i) && (self.run > 1 || !told);
        }
        self.workers[w] = Worker::new(self.workers[w].owner + WORKERS as u64);
        self.note_untold();
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
    pub fn lose_reply(&mut self, w: usize, i: usize, said: Reply) {
        self.doubtful[i] = true;
        self.untold[i] |= said == Reply::Accepted;
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
    pub fn turn(&mut self, w: usize, group: Group, is_answered: bool, terms: &Terms) {
        let Some(lease) = self.workers[w].lease() else { return };
        let done = Done {
            seq: lease.seq,
            report: group.report.and_then(|i| self.workers[w].outcome(i)),
            claim: group.claim,
        };
        let turn = Batch { redo: false, ..done.turn(true) };
        let before = self.chunk.clone();
        let (answer, _) = self.chunk.turn(&lease, &turn, terms);
        if answer.lease == LeaseVerdict::RolledBack {
            self.wrong =
                self.wrong.or((self.run == 1).then_some("told that Redis was rolled back"));
            if self.notice(w, terms) {
                self.workers[w].unanswered = Some(group);
                return;
            }
        }
        let newly = |i: usize| before.records[i].claim != self.chunk.records[i].claim;
        if self.state != DeliveryState::InProgress
            && group.claim.is_some_and(|(i, _)| answer.granted == [true] && newly(i))
        {
            self.wrong = Some("claimed although the delivery is not in progress");
        }
        if !is_answered {
            self.workers[w].unanswered = Some(group);
            return;
        }
        let claim = group.claim.filter(|_| answer.granted == [true]);
        let report = group.report.and_then(|i| self.workers[w].outcome(i));
        let worker = &mut self.workers[w];
        worker.unanswered = None;
        if answer.lease != LeaseVerdict::Ok {
            (worker.expired, worker.halted) = (true, true);
        }
        if answer.lease == LeaseVerdict::Ok
            || answer.lease == LeaseVerdict::Lost && report.is_some()
        {
            if self.past.is_some() {
                worker.groups.push(Done { seq: lease.seq, report, claim });
            }
            worker.lease = Some((lease.epoch, lease.seq + 1));
        }
        worker.halted |= answer.claims == LeaseVerdict::Forbidden;
        if let Some(i) = group.report {
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

    /// A person settles a recipient in doubt. A finished delivery is opened again for this.
    pub fn settle(&mut self, i: usize, settlement: Settlement, terms: &Terms) {
        let settled = self.chunk.settle(settlement, Some(&[i as u16]), terms);
        if settlement == Settlement::Resend && !settled.is_empty() {
            self.released_by_person[i] += 1;
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
