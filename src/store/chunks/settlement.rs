//! Changes of recipients that no report causes: stop, roll-back, settling, late exclusion.

use std::collections::BTreeMap;

use super::{
    leases::{Lease, LeaseVerdict},
    ledgers::{LedgerStore, seconds_or_never},
};
use crate::{
    domain::{audience::ExclusionCause, ledger::ChunkRef},
    store::{StoreError, keys},
};

/// The decision of a person about recipients in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// They got the message.
    Sent,
    /// They did not get the message, and stay without it.
    Failed,
    /// They are sent to again.
    Resend,
}

impl LedgerStore {
    /// Cancels the pending and deferred recipients of a chunk while its delivery is stopping.
    /// Also returns the number of recipients that are still attempting.
    pub async fn cancel_pending(
        &self,
        at: &ChunkRef,
        now: u32,
    ) -> Result<(LeaseVerdict, u64), StoreError> {
        let mut script = self.scripts.cancel_pending.prepare_invoke();
        script
            .key(keys::ledger(&at.delivery, at.chunk))
            .key(keys::counts(&at.delivery))
            .key(keys::delivery(&at.delivery))
            .arg(now);
        let (verdict, attempting): (i64, u64) =
            script.invoke_async(&mut self.redis.connection()).await?;
        Ok((LeaseVerdict::from_code(verdict)?, attempting))
    }

    /// Puts the pending, attempting and deferred recipients of a chunk in doubt, after a roll-back
    /// or at the release of a held store. Fences the holder. Returns their number; 0 in an SMTP
    /// test.
    pub async fn put_in_doubt(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        now: u32,
        resend_after_s: Option<u32>,
    ) -> Result<u64, StoreError> {
        let mut script = self.scripts.put_in_doubt.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.key(keys::open(&at.delivery)).key(keys::offered(&at.delivery));
        script.arg(at.chunk).arg(now).arg(seconds_or_never(resend_after_s)).arg(lease.epoch);
        let (_, in_doubt): (i64, u64) = script.invoke_async(&mut self.redis.connection()).await?;
        Ok(in_doubt)
    }

    /// Settles recipients in doubt; `None` means all of the chunk. Returns the settled positions.
    ///
    /// [`Settlement::Resend`] settles nobody in a delivery that is stopping or stopped.
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
        let mut script = self.scripts.resolve_in_doubt.prepare_invoke();
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

    /// Excludes recipients before the holder claims anything of the chunk, and notes that the chunk
    /// was checked. Also returns the number of excluded recipients.
    pub async fn exclude_late(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        exclusions: &BTreeMap<u16, ExclusionCause>,
        now: u32,
    ) -> Result<(LeaseVerdict, u64), StoreError> {
        let packed: Vec<u8> = exclusions
            .iter()
            .flat_map(|(p, cause)| [(p >> 8) as u8, *p as u8, cause.code()])
            .collect();
        let mut script = self.scripts.exclude_late.prepare_invoke();
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
