//! What ends recipients without a report: a stop, a person, a roll-back of Redis.

use std::collections::BTreeMap;

use super::ledgers::{Lease, LeaseVerdict, LedgerStore, seconds_or_never};
use crate::{
    domain::{audience::ExclusionCause, ledger::ChunkRef},
    store::{StoreError, keys},
};

/// How a person settles recipients in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    Sent,
    Failed,
    Resend,
}

impl LedgerStore {
    /// Cancels what was not begun in a chunk of a delivery that is stopping; how many are still being attempted.
    pub async fn cancel_pending(
        &self,
        at: &ChunkRef,
        now: u32,
    ) -> Result<(LeaseVerdict, u64), StoreError> {
        let mut script = self.scripts.cancel.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .key(keys::counts(&at.delivery))
            .key(keys::delivery(&at.delivery))
            .arg(now);
        let (verdict, attempting): (i64, u64) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok((LeaseVerdict::from_code(verdict)?, attempting))
    }

    /// Puts all that is not settled in a chunk in doubt and fences its holder: Redis went back in time. How many there are.
    pub async fn put_in_doubt(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        now: u32,
        resend_after_s: Option<u32>,
    ) -> Result<u64, StoreError> {
        let mut script = self.scripts.doubt.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.key(keys::open(&at.delivery)).key(keys::offered(&at.delivery));
        script.arg(at.chunk).arg(now).arg(seconds_or_never(resend_after_s)).arg(lease.epoch);
        let (_, doubted): (i64, u64) = script.invoke_async(&mut self.redis.connection()).await?;
        Ok(doubted)
    }

    /// Settles recipients in doubt (`None`: all of the chunk); the positions that were settled. None are released again in a
    /// delivery that is stopping or stopped.
    pub async fn resolve_in_doubt(
        &self,
        at: &ChunkRef,
        settlement: Settlement,
        positions: Option<&[u16]>,
        now: u32,
    ) -> Result<Vec<u16>, StoreError> {
        let word = match settlement {
            Settlement::Sent => "sent",
            Settlement::Failed => "failed",
            Settlement::Resend => "resend",
        };
        let packed: Vec<u8> =
            positions.unwrap_or_default().iter().flat_map(|p| p.to_be_bytes()).collect();
        if positions.is_some() && packed.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = self.scripts.settle.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .key(keys::counts(&at.delivery))
            .key(keys::open(&at.delivery))
            .key(keys::delivery(&at.delivery));
        script.arg(at.chunk).arg(now).arg(word).arg(packed);
        let (_, _, settled): (i64, u64, Vec<u8>) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok(settled.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
    }

    /// Takes recipients out of a chunk before any of it is sent, and notes that it was looked at; how many were taken out.
    pub async fn exclude_late(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        who: &BTreeMap<u16, ExclusionCause>,
        now: u32,
    ) -> Result<(LeaseVerdict, u64), StoreError> {
        let packed: Vec<u8> =
            who.iter().flat_map(|(p, cause)| [(p >> 8) as u8, *p as u8, cause.code()]).collect();
        let mut script = self.scripts.exclude.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script
            .arg(&lease.owner.to_be_bytes()[..])
            .arg(lease.epoch)
            .arg(lease.seq)
            .arg(now)
            .arg(packed);
        let (verdict, excluded): (i64, u64) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok((LeaseVerdict::from_code(verdict)?, excluded))
    }
}
