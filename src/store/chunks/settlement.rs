//! What ends recipients without a report: a stop, a person, what came back for them, a roll-back of Redis.

use super::ledgers::{ChunkRef, Lease, LeaseVerdict, seconds_or_never};
use crate::{
    domain::ledger::flags,
    store::{Store, StoreError, keys},
};

/// How a person settles recipients in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    Sent,
    Failed,
    Resend,
}

/// What proves that the relay took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A bounce that came back by mail: the recipient has failed, whatever is told of it later.
    Bounce { reason: u8, hard: bool },
    /// An open or a click by a human: who was in doubt was sent to. It says nothing of others, for a preview has the same bytes.
    Hit,
}

impl Store {
    /// Notes what came back for a recipient; whether that changed it.
    pub async fn evidence(&self, at: &ChunkRef, position: u16, evidence: Evidence, now: u32) -> Result<bool, StoreError> {
        let (word, reason, hard) = match evidence {
            Evidence::Bounce { reason, hard } => ("bounce", reason, hard),
            Evidence::Hit => ("hit", 0, false),
        };
        let mut script = self.scripts.evidence.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.arg(position).arg(word).arg(now).arg(reason).arg(if hard { flags::HARD } else { 0 });
        let (_, changed): (i64, bool) = script.invoke_async(&mut self.conn.clone()).await?;
        Ok(changed)
    }

    /// Cancels what was not begun in a chunk of a delivery that is stopping; how many are still being attempted.
    pub async fn cancel(&self, at: &ChunkRef, now: u32) -> Result<(LeaseVerdict, u64), StoreError> {
        let mut script = self.scripts.cancel.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .key(keys::counts(&at.delivery))
            .key(keys::delivery(&at.delivery))
            .arg(now);
        let (verdict, attempting): (i64, u64) = script.invoke_async(&mut self.conn.clone()).await?;
        Ok((LeaseVerdict::from_code(verdict)?, attempting))
    }

    /// Puts all that is not settled in a chunk in doubt and fences its holder: Redis went back in time. How many there are.
    pub async fn doubt(&self, at: &ChunkRef, lease: &Lease, now: u32, resend_after_s: Option<u32>) -> Result<u64, StoreError> {
        let mut script = self.scripts.doubt.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.key(keys::open(&at.delivery)).key(keys::offered(&at.delivery));
        script.arg(at.chunk).arg(now).arg(seconds_or_never(resend_after_s)).arg(lease.epoch);
        let (_, doubted): (i64, u64) = script.invoke_async(&mut self.conn.clone()).await?;
        Ok(doubted)
    }

    /// Settles recipients in doubt (`None`: all of the chunk); the positions that were settled. None are released again in a
    /// delivery that is stopping or stopped.
    pub async fn settle(
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
        let packed: Vec<u8> = positions.unwrap_or_default().iter().flat_map(|p| p.to_be_bytes()).collect();
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
        let (_, _, settled): (i64, u64, Vec<u8>) = script.invoke_async(&mut self.conn.clone()).await?;
        Ok(settled.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
    }
}
