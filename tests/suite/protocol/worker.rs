//! The workers of the model: their leases, claims and batches.

use versand::{
    domain::ledger::{ClaimNumber, Status},
    store::chunks::{Batch, Claim, Lease, Report},
};

pub const RECIPIENTS: usize = 2;

/// What a worker learns of a transaction: the relay's answer, or that there is none.
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
pub struct AppliedBatch {
    pub seq: u32,
    pub report: Option<(usize, ClaimNumber, Reply)>,
    pub claim: Option<(usize, u8)>,
}

/// A batch on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SentBatch {
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
    pub unanswered: Option<SentBatch>,
    /// Each recipient's last claim under this lease.
    pub numbers: [u8; RECIPIENTS],
    /// The batches of this lease that Redis may forget.
    pub batches: Vec<AppliedBatch>,
    /// A chunk that was given back. Redis may forget this, too.
    pub given: Option<((u32, u32), Vec<AppliedBatch>)>,
}

impl AppliedBatch {
    /// The batch as it is replayed.
    pub fn as_batch(&self, with_claims: bool) -> Batch {
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
    /// The outcome of the worker's claim, once it is known.
    pub fn outcome(&self, i: usize) -> Option<(usize, ClaimNumber, Reply)> {
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
            batches: Vec::new(),
            given: None,
        }
    }

    pub fn lease(&self) -> Option<Lease> {
        self.lease.map(|(epoch, seq)| Lease { owner: self.owner, epoch, seq })
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.iter().all(Option::is_none) && self.unanswered.is_none()
    }

    /// True if the worker will report an acceptance.
    pub fn knows(&self, i: usize) -> bool {
        let phase = self.jobs[i].map(|(_, phase)| phase);
        matches!(phase, Some(Phase::Written(Reply::Accepted) | Phase::Known(Reply::Accepted)))
            || self.remembers(i)
    }

    /// True if the worker remembers an acceptance that Redis may have forgotten.
    pub fn remembers(&self, i: usize) -> bool {
        let given = self.given.iter().flat_map(|(_, batches)| batches);
        self.batches
            .iter()
            .chain(given)
            .any(|done| matches!(done.report, Some((told, _, Reply::Accepted)) if told == i))
    }

    /// True if the worker has, or may have, a claim whose outcome the ledger does not know.
    pub fn concerns(&self, i: usize) -> bool {
        self.jobs[i].is_some()
            || self
                .unanswered
                .is_some_and(|sent| sent.claim.is_some_and(|(claimed, _)| claimed == i))
    }
}
