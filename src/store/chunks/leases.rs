//! Leases on chunks: taken, renewed, given back.

use std::sync::atomic::Ordering;

use super::ledgers::{LedgerStore, seconds_or_never};
use crate::{
    domain::ledger::{ChunkRef, Ledger},
    store::{StoreError, damaged, keys},
};

/// The verdict of a script on the caller's lease. The order is that of the numbers in the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseVerdict {
    /// The caller holds the lease.
    Ok,
    /// The caller holds the lease no longer: somebody else holds it, or nobody does.
    Lost,
    /// The state of the delivery forbids the request.
    Forbidden,
    /// The ledger is older than the caller has seen: Redis has rolled back.
    RolledBack,
    /// There is no such ledger.
    Missing,
}

impl LeaseVerdict {
    /// Reads the number that a script answers.
    pub(super) fn from_code(code: i64) -> Result<Self, StoreError> {
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

/// When a chunk may be taken although it is leased. The default takes a free chunk only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TakeoverGrounds {
    /// Epoch and beat that stood still for the duration of a lease.
    pub still: Option<(u32, u32)>,
    /// An owner that is proven dead.
    pub dead: Option<u64>,
    /// Recipients in doubt are sent to again. A roll-back may have undone that, too.
    pub resends: bool,
}

/// A lease as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub owner: u64,
    pub epoch: u32,
    /// The sequence number after the holder's last batch.
    pub seq: u32,
}

/// The answer to a request for a lease.
#[derive(Debug)]
pub enum Taken {
    /// The caller holds the lease; this is the ledger.
    Yes(Lease, Ledger),
    /// Somebody else holds the lease, with this epoch and this beat.
    Leased(u32, u32),
    /// There is no such ledger.
    Missing,
    /// The store is held.
    Held,
}

/// The sequence numbers of the leases of a process begin this far apart; a lease has fewer batches.
///
/// If Redis forgets a lease, the same owner may get the same epoch a second time. The sequence
/// numbers still tell both leases apart.
const BATCHES_PER_LEASE: u32 = 1 << 20;
/// Number of leases of a process that begin with different sequence numbers.
const DISTINCT_LEASES: u32 = 1 << 11;

impl LedgerStore {
    /// Takes the lease on a chunk. `take_lease.lua` says what becomes of the recipients that a
    /// predecessor was attempting.
    ///
    /// `now` is in Unix seconds.
    pub async fn take_lease(
        &self,
        at: &ChunkRef,
        owner: u64,
        grounds: TakeoverGrounds,
        now: u32,
    ) -> Result<Taken, StoreError> {
        let ordinal = self.leases.fetch_add(1, Ordering::Relaxed) % DISTINCT_LEASES;
        let (epoch, beat) = grounds.still.map_or((-1, -1), |(e, b)| (i64::from(e), i64::from(b)));
        let dead = grounds.dead.map(|o| o.to_be_bytes().to_vec()).unwrap_or_default();
        let mut script = self.scripts.take_lease.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.arg(&owner.to_be_bytes()[..]).arg(epoch).arg(beat).arg(dead).arg(now);
        script
            .arg(i32::from(self.redis.may_roll_back()))
            .arg(i32::from(grounds.resends))
            .arg(ordinal * BATCHES_PER_LEASE);
        let answer: (i64, Option<u32>, Option<u32>, Option<Vec<u8>>) =
            script.invoke_async(&mut self.redis.connection()).await?;
        match (LeaseVerdict::from_code(answer.0)?, answer.1, answer.2, answer.3) {
            (LeaseVerdict::Ok, Some(epoch), Some(seq), Some(bytes)) => {
                Ok(Taken::Yes(Lease { owner, epoch, seq }, Ledger::parse(bytes).map_err(damaged)?))
            }
            (LeaseVerdict::Lost, Some(epoch), Some(beat), _) => Ok(Taken::Leased(epoch, beat)),
            (LeaseVerdict::Missing, ..) => Ok(Taken::Missing),
            _ => Err(damaged("unexpected answer of take_lease.lua")),
        }
    }

    /// Raises the beat: the holder lives.
    pub async fn renew_lease(
        &self,
        at: &ChunkRef,
        lease: &Lease,
    ) -> Result<LeaseVerdict, StoreError> {
        let mut script = self.scripts.renew_lease.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .arg(&lease.owner.to_be_bytes()[..])
            .arg(lease.epoch)
            .arg(lease.seq);
        script.arg(i32::from(self.redis.may_roll_back()));
        LeaseVerdict::from_code(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// Gives the lease back. Also returns when the chunk needs a job again (Unix seconds): `None`
    /// for never, and if the verdict is not `Ok`.
    ///
    /// `resend_after_s` is the delay of the policy `resend`, or `None` under `hold`.
    pub async fn give_back(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        now: u32,
        resend_after_s: Option<u32>,
    ) -> Result<(LeaseVerdict, Option<u32>), StoreError> {
        let mut script = self.scripts.give_back.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .key(keys::counts(&at.delivery))
            .key(keys::open(&at.delivery))
            .key(keys::offered(&at.delivery))
            .key(keys::poisoned(&at.delivery));
        script.arg(&lease.owner.to_be_bytes()[..]).arg(lease.epoch).arg(lease.seq);
        script.arg(at.chunk).arg(now).arg(seconds_or_never(resend_after_s));
        let (verdict, due): (i64, i64) = script.invoke_async(&mut self.redis.connection()).await?;
        Ok((LeaseVerdict::from_code(verdict)?, u32::try_from(due).ok()))
    }
}
