//! The world of the model: two workers, a mail server, a person and Redis, for one chunk of two recipients.

use versand::{
    domain::{
        ledger::{ClaimNumber, Status},
        state::State,
    },
    store::{
        endings::Settlement,
        ledgers::{Claim, Grounds, Lease, Report, Turn, Verdict},
    },
};

use super::spec::{Chunk, Mutation, Terms};

pub const RECIPIENTS: usize = 2;
pub const WORKERS: usize = 2;

/// What the relay's reply to the end-of-data tells, or what is known without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    Accepted,
    /// A 4xx, or a connection that broke before the end-of-data.
    Deferred,
    Refused,
    /// None came after the end-of-data.
    Missing,
    /// It was not started.
    NotStarted,
}

/// How far a claimed recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Claimed,
    /// The lease was checked for the last time, the end-of-data is not written: here a worker can be frozen and slip.
    Checked,
    /// The server has decided, the worker has not read it.
    Written(Reply),
    Known(Reply),
}

/// A group on its way.
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
    /// Its lease is over by its own clock, or it was told so.
    pub expired: bool,
    /// It was told to start no more.
    pub halted: bool,
    pub jobs: [Option<(ClaimNumber, Phase)>; RECIPIENTS],
    /// Sent, perhaps applied, never answered.
    pub unanswered: Option<Group>,
}

/// How often each misfortune may still happen.
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
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub chunk: Chunk,
    pub state: State,
    pub workers: [Worker; WORKERS],
    pub luck: Luck,
    /// How often the server accepted the message.
    pub accepted: [u8; RECIPIENTS],
    /// How often a person said resend.
    pub released_by_person: [u8; RECIPIENTS],
    /// A worker died with a claim on it, was fenced with one, or got no reply: it may be in doubt.
    pub doubtful: [bool; RECIPIENTS],
    /// Accepted, and nobody is left who knows.
    pub untold: [bool; RECIPIENTS],
    /// Something that must never be answered was answered.
    pub wrong: Option<&'static str>,
}

impl Worker {
    pub fn new(owner: u64) -> Self {
        Self { owner, frozen: false, lease: None, expired: false, halted: false, jobs: [None; RECIPIENTS], unanswered: None }
    }

    pub fn lease(&self) -> Option<Lease> {
        self.lease.map(|(epoch, seq)| Lease { owner: self.owner, epoch, seq })
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.iter().all(Option::is_none) && self.unanswered.is_none()
    }

    /// Whether it has, or may have, a claim on a recipient that the ledger knows no outcome of.
    fn concerns(&self, i: usize) -> bool {
        self.jobs[i].is_some() || self.unanswered.is_some_and(|group| group.claim.is_some_and(|(claimed, _)| claimed == i))
    }
}

impl World {
    pub fn new(luck: Luck) -> Self {
        Self {
            chunk: Chunk::new(RECIPIENTS as u16),
            state: State::InProgress,
            workers: [Worker::new(1), Worker::new(2)],
            luck,
            accepted: [0; RECIPIENTS],
            released_by_person: [0; RECIPIENTS],
            doubtful: [false; RECIPIENTS],
            untold: [false; RECIPIENTS],
            wrong: None,
        }
    }

    /// Time stands still: what is deferred is due at once, and so is what is in doubt under `resend`.
    pub fn terms(&self, resend: bool, mutation: Mutation) -> Terms {
        Terms { state: self.state, now: 0, resend_after_s: resend.then_some(0), mutation }
    }

    /// On which grounds the worker may take the chunk now: a job is named for it, its holder is dead, or it stood still.
    pub fn grounds(&self, w: usize, terms: &Terms) -> Option<Grounds> {
        if self.chunk.owner == 0 {
            let named = self.chunk.clone().offer(1, terms).is_some() || self.chunk.offered.is_some();
            return (named && self.state == State::InProgress).then(Grounds::default);
        }
        match self.workers.iter().position(|other| other.owner == self.chunk.owner) {
            None => Some(Grounds { still: None, dead: Some(self.chunk.owner) }),
            Some(holder) if holder != w && self.workers[holder].frozen => {
                Some(Grounds { still: Some((self.chunk.epoch, self.chunk.beat)), dead: None })
            }
            Some(_) => None,
        }
    }

    pub fn take(&mut self, w: usize, terms: &Terms) {
        let Some(grounds) = self.grounds(w, terms) else { return };
        // The hints: a job whose end nobody saw is put back by the reconciler before another is named.
        if self.chunk.offered.is_some() {
            self.chunk.reopen(self.chunk.round, terms);
        }
        self.chunk.offer(1, terms);
        if let Some(holder) = self.workers.iter().position(|other| other.owner == self.chunk.owner) {
            self.workers[holder].expired = true;
            self.doubt_claims_of(holder);
        }
        if let Ok(lease) = self.chunk.take(self.workers[w].owner, grounds, terms) {
            self.workers[w].lease = Some((lease.epoch, lease.seq));
            (self.workers[w].expired, self.workers[w].halted) = (false, false);
        }
    }

    /// The worker ends without a word, and another process comes in its place.
    pub fn crash(&mut self, w: usize) {
        self.doubt_claims_of(w);
        for i in 0..RECIPIENTS {
            let phase = self.workers[w].jobs[i].map(|(_, phase)| phase);
            let accepted = matches!(phase, Some(Phase::Written(Reply::Accepted) | Phase::Known(Reply::Accepted)));
            // A report whose answer was lost has reached the ledger.
            let told = self.workers[w].unanswered.is_some_and(|group| group.report == Some(i));
            self.untold[i] |= accepted && !told;
        }
        self.workers[w] = Worker::new(self.workers[w].owner + WORKERS as u64);
    }

    fn doubt_claims_of(&mut self, w: usize) {
        for i in 0..RECIPIENTS {
            self.doubtful[i] |= self.workers[w].concerns(i);
        }
    }

    /// The server reads the end-of-data and decides.
    pub fn write(&mut self, w: usize, i: usize, reply: Reply) {
        self.accepted[i] += u8::from(reply == Reply::Accepted);
        self.advance(w, i, Phase::Written(reply));
    }

    /// Nobody will ever learn what the server said.
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
        let last = self.chunk.records[i].claim;
        let epoch = self.workers[w].lease.map_or(0, |(epoch, _)| epoch);
        if last.epoch == epoch { last.n + 1 } else { 1 }
    }

    /// The script runs; its answer comes or is lost.
    pub fn turn(&mut self, w: usize, group: Group, is_answered: bool, terms: &Terms) {
        let Some(lease) = self.workers[w].lease() else { return };
        let reports = group.report.and_then(|i| self.report(w, i)).into_iter().collect();
        let claims = group.claim.map(|(i, n)| Claim { position: i as u16, n }).into_iter().collect();
        let before = self.chunk.clone();
        let (answer, _) = self.chunk.turn(&lease, &Turn { reports, claims, redo: false }, terms);
        if answer.lease == Verdict::RolledBack {
            self.wrong = Some("told that Redis was rolled back");
        }
        let newly = |i: usize| before.records[i].claim != self.chunk.records[i].claim;
        if self.state != State::InProgress && group.claim.is_some_and(|(i, _)| answer.granted == [true] && newly(i)) {
            self.wrong = Some("claimed although the delivery is not in progress");
        }
        let worker = &mut self.workers[w];
        if !is_answered {
            worker.unanswered = Some(group);
            return;
        }
        worker.unanswered = None;
        match answer.lease {
            Verdict::Ok => worker.lease = Some((lease.epoch, lease.seq + 1)),
            _ => (worker.expired, worker.halted) = (true, true),
        }
        worker.halted |= answer.claims == Verdict::Forbidden;
        if let Some(i) = group.report {
            worker.jobs[i] = None;
        }
        if let Some((i, n)) = group.claim.filter(|_| answer.granted == [true]) {
            worker.jobs[i] = Some((ClaimNumber { epoch: lease.epoch, n }, Phase::Claimed));
        }
    }

    fn report(&self, w: usize, i: usize) -> Option<Report> {
        let Some((claim, Phase::Known(reply))) = self.workers[w].jobs[i] else { return None };
        let status = match reply {
            Reply::Accepted => Some(Status::Sent),
            Reply::Deferred => Some(Status::Deferred),
            Reply::Refused => Some(Status::Failed),
            Reply::Missing => Some(Status::InDoubt),
            Reply::NotStarted => None,
        };
        Some(Report { position: i as u16, claim, status, reason: 0, flags: 0, when: 0, reply: String::new() })
    }

    /// A person settles a recipient in doubt; a finished delivery is opened again for it.
    pub fn settle(&mut self, i: usize, settlement: Settlement, terms: &Terms) {
        let settled = self.chunk.settle(settlement, Some(&[i as u16]), terms);
        if settlement == Settlement::Resend && !settled.is_empty() {
            self.released_by_person[i] += 1;
            if self.state == State::Finished {
                self.state = State::InProgress;
            }
        }
    }

    /// A recipient whose outcome somebody may still tell.
    pub fn is_awaited(&self, i: usize) -> bool {
        self.workers.iter().any(|worker| worker.jobs[i].is_some())
    }
}
