//! Ledgers: leases, claims and records, each one script over a packed string.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use redis::Script;

use crate::{
    domain::ledger::{ChunkRef, ClaimNumber, Ledger, Status},
    store::{Redis, StoreError, chunks::batch_encoding, damaged, keys, with_prelude},
};

/// A verdict on the caller's lease. The numbers are those of the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseVerdict {
    Ok,
    /// Somebody else holds the chunk.
    Lost,
    /// The delivery is not in progress.
    Forbidden,
    /// The ledger is older than what the caller has seen: Redis went back in time.
    RolledBack,
    /// There is no such ledger.
    Missing,
}

impl LeaseVerdict {
    pub(crate) fn from_code(code: i64) -> Result<Self, StoreError> {
        const ALL: [LeaseVerdict; 5] = [
            LeaseVerdict::Ok,
            LeaseVerdict::Lost,
            LeaseVerdict::Forbidden,
            LeaseVerdict::RolledBack,
            LeaseVerdict::Missing,
        ];
        usize::try_from(code)
            .ok()
            .and_then(|i| ALL.get(i).copied())
            .ok_or_else(|| damaged("unknown verdict of a script"))
    }
}

/// When a chunk may be taken although somebody holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TakeoverGrounds {
    /// Epoch and beat that stood still for a whole lease.
    pub still: Option<(u32, u32)>,
    /// An owner that is proven dead.
    pub dead: Option<u64>,
    /// Those in doubt are sent again: then a roll-back may have undone that, too.
    pub resends: bool,
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub owner: u64,
    pub epoch: u32,
    /// The sequence number after the holder's last group.
    pub seq: u32,
}

#[derive(Debug)]
pub enum Taken {
    Yes(Lease, Ledger),
    /// Held by somebody whose epoch and beat are these.
    Held(u32, u32),
    Missing,
}

/// A claim the holder asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub position: u16,
    pub n: u8,
}

/// What became of a claim. `status` `None` gives it back: it was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub position: u16,
    pub claim: ClaimNumber,
    pub status: Option<Status>,
    pub reason: u8,
    pub flags: u8,
    /// Unix seconds: due if deferred, else of the reply.
    pub when: u32,
    /// The server's reply, "" to keep none.
    pub reply: String,
}

/// What a script made of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportEffect {
    Applied,
    /// It was known before.
    Known,
    /// The recipient was accepted twice.
    Twice,
    /// It has no effect: a newer claim decides.
    NoEffect,
}

#[derive(Debug, PartialEq, Eq)]
pub struct BatchAnswer {
    pub lease: LeaseVerdict,
    pub reports: Vec<ReportEffect>,
    pub claims: LeaseVerdict,
    pub granted: Vec<bool>,
}

/// One group: reports, then claims. Sent again unchanged after a lost answer it has no second effect.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub reports: Vec<Report>,
    pub claims: Vec<Claim>,
    /// It was applied before, and Redis has forgotten it: what was granted is granted again.
    pub redo: bool,
}

/// The sequence numbers of a lease begin apart from those of the others of this process, by more groups than a lease has: when
/// Redis has forgotten a lease, the same owner may get the same epoch a second time.
const GROUPS: u32 = 1 << 20;
const LEASES: u32 = 1 << 11;

pub(super) fn seconds_or_never(resend_after_s: Option<u32>) -> i64 {
    resend_after_s.map_or(-1, i64::from)
}

/// The ledgers of the chunks. Cheap to clone.
#[derive(Clone)]
pub struct LedgerStore {
    pub(in crate::store) redis: Redis,
    leases: Arc<AtomicU32>,
    pub(in crate::store) scripts: Arc<LedgerScripts>,
}

pub(in crate::store) struct LedgerScripts {
    pub(in crate::store) take: Script,
    pub(in crate::store) beat: Script,
    pub(in crate::store) turn: Script,
    pub(in crate::store) release: Script,
    pub(in crate::store) cancel: Script,
    pub(in crate::store) doubt: Script,
    pub(in crate::store) settle: Script,
    pub(in crate::store) exclude: Script,
}

impl Default for LedgerScripts {
    fn default() -> Self {
        Self {
            take: with_prelude(include_str!("take_lease.lua")),
            beat: with_prelude(include_str!("renew_lease.lua")),
            turn: Script::new(concat!(
                include_str!("claim_and_record_fast.lua"),
                include_str!("prelude.lua"),
                include_str!("claim_and_record.lua"),
            )),
            release: with_prelude(include_str!("give_back.lua")),
            cancel: with_prelude(include_str!("cancel_pending.lua")),
            doubt: with_prelude(include_str!("put_in_doubt.lua")),
            settle: with_prelude(include_str!("resolve_in_doubt.lua")),
            exclude: with_prelude(include_str!("exclude_late.lua")),
        }
    }
}

impl LedgerStore {
    pub fn new(redis: Redis) -> Self {
        Self { redis, leases: Arc::default(), scripts: Arc::default() }
    }
}

impl LedgerStore {
    /// Takes the lease on a chunk; what its predecessor was attempting is in doubt from then on.
    pub async fn take_lease(
        &self,
        at: &ChunkRef,
        owner: u64,
        grounds: TakeoverGrounds,
        now: u32,
    ) -> Result<Taken, StoreError> {
        let first = self.leases.fetch_add(1, Ordering::Relaxed) % LEASES * GROUPS;
        let (epoch, beat) = grounds.still.map_or((-1, -1), |(e, b)| (i64::from(e), i64::from(b)));
        let dead = grounds.dead.map(|o| o.to_be_bytes().to_vec()).unwrap_or_default();
        let mut script = self.scripts.take.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.arg(&owner.to_be_bytes()[..]).arg(epoch).arg(beat).arg(dead).arg(now);
        script
            .arg(i32::from(self.redis.may_roll_back()))
            .arg(i32::from(grounds.resends))
            .arg(first);
        let answer: (i64, Option<u32>, Option<u32>, Option<Vec<u8>>) =
            script.invoke_async(&mut self.redis.connection()).await?;
        match (LeaseVerdict::from_code(answer.0)?, answer.1, answer.2, answer.3) {
            (LeaseVerdict::Ok, Some(epoch), Some(seq), Some(bytes)) => {
                Ok(Taken::Yes(Lease { owner, epoch, seq }, Ledger::parse(bytes).map_err(damaged)?))
            }
            (LeaseVerdict::Lost, Some(epoch), Some(beat), _) => Ok(Taken::Held(epoch, beat)),
            (LeaseVerdict::Missing, ..) => Ok(Taken::Missing),
            _ => Err(damaged("unexpected answer to take")),
        }
    }

    /// Shows that the holder lives.
    pub async fn renew_lease(
        &self,
        at: &ChunkRef,
        lease: &Lease,
    ) -> Result<LeaseVerdict, StoreError> {
        let mut script = self.scripts.beat.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .arg(&lease.owner.to_be_bytes()[..])
            .arg(lease.epoch)
            .arg(lease.seq);
        script.arg(i32::from(self.redis.may_roll_back()));
        LeaseVerdict::from_code(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// One group of reports and claims. After an answer that is not lost, `Ok` on the lease means that `seq` went up by one.
    pub async fn write_batch(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        turn: &Batch,
        now: u32,
        resend_after_s: Option<u32>,
    ) -> Result<BatchAnswer, StoreError> {
        let mut script = self.scripts.turn.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.key(keys::replies(&at.delivery, at.chunk)).key(keys::delivery(&at.delivery));
        // by position: neighbours share what they have in common; those of one recipient keep their order
        let mut order: Vec<usize> = (0..turn.reports.len()).collect();
        order.sort_by_key(|i| turn.reports[*i].position);
        let sorted: Vec<&Report> = order.iter().map(|i| &turn.reports[*i]).collect();
        script.arg(batch_encoding::terms(lease, turn, now, resend_after_s));
        script.arg(batch_encoding::reports(&sorted)).arg(batch_encoding::claims(&turn.claims));
        for (number, report) in (1..).zip(&sorted).filter(|(_, report)| !report.reply.is_empty()) {
            script.arg::<usize>(number).arg(&report.reply);
        }
        let (lease, outcomes, claims, granted): (i64, Vec<u8>, i64, Vec<u8>) =
            script.invoke_async(&mut self.redis.connection()).await?;
        let applied = |b: u8| match b {
            b'a' => ReportEffect::Applied,
            b'r' => ReportEffect::Known,
            b'd' => ReportEffect::Twice,
            _ => ReportEffect::NoEffect,
        };
        let mut reports =
            vec![ReportEffect::NoEffect; if outcomes.is_empty() { 0 } else { order.len() }];
        for (i, outcome) in order.into_iter().zip(outcomes) {
            reports[i] = applied(outcome);
        }
        Ok(BatchAnswer {
            lease: LeaseVerdict::from_code(lease)?,
            reports,
            claims: LeaseVerdict::from_code(claims)?,
            granted: granted.into_iter().map(|b| b == b'1').collect(),
        })
    }

    /// Gives the lease back; the scripts note when the chunk wants attention again.
    pub async fn give_back(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        now: u32,
        resend_after_s: Option<u32>,
    ) -> Result<(LeaseVerdict, Option<u32>), StoreError> {
        let mut script = self.scripts.release.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .key(keys::counts(&at.delivery))
            .key(keys::open(&at.delivery))
            .key(keys::offered(&at.delivery))
            .key(keys::aside(&at.delivery));
        script.arg(&lease.owner.to_be_bytes()[..]).arg(lease.epoch).arg(lease.seq);
        script.arg(at.chunk).arg(now).arg(seconds_or_never(resend_after_s));
        let (verdict, due): (i64, i64) = script.invoke_async(&mut self.redis.connection()).await?;
        Ok((LeaseVerdict::from_code(verdict)?, u32::try_from(due).ok()))
    }
}
