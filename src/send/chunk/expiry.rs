//! The end of the validity period: open recipients fail, even if no relay can be reached.

use super::{
    granted_claim::GrantedClaim, leased_chunk::LeasedChunk, record_count::count_record,
    replay::LeaseHolder,
};
use crate::{
    clock::unix_now,
    domain::{
        ledger::{ClaimNumber, Ledger, flags},
        outcome::FailureReason,
    },
    store::{
        StoreError,
        chunks::{Batch, BatchAnswer, Claim, LeaseVerdict, Report},
    },
};

/// Recipients that are claimed and reported in one batch.
const BATCH: usize = 500;

impl LeaseHolder {
    /// Fails the recipients at `positions`, each with the reason of its last deferral. Without one,
    /// the reason is `unreachable`.
    ///
    /// Ends early if the lease is lost: nothing was sent, so nothing is missing.
    ///
    /// # Errors
    /// If Redis does not answer, or if the ledger is damaged.
    pub(crate) async fn expire(
        &self,
        leased: &mut LeasedChunk,
        ledger: &Ledger,
        positions: &[u16],
    ) -> Result<(), StoreError> {
        for positions in positions.chunks(BATCH) {
            // the epoch is new: each recipient gets its first claim
            let claims =
                positions.iter().map(|position| Claim { position: *position, n: 1 }).collect();
            let batch = Batch { claims, ..Batch::default() };
            let Some(answer) = self.write_next(leased, &batch).await? else { return Ok(()) };
            let number = ClaimNumber { epoch: leased.lease.epoch, n: 1 };
            let granted = batch.claims.iter().zip(&answer.granted).filter(|(_, granted)| **granted);
            let reports = granted
                .filter_map(|(claim, _)| {
                    let before = ledger.record(usize::from(claim.position))?;
                    Some(expired(&GrantedClaim { position: claim.position, number, before }))
                })
                .collect();
            let batch = Batch { reports, ..Batch::default() };
            let Some(answer) = self.write_next(leased, &batch).await? else { return Ok(()) };
            batch
                .reports
                .iter()
                .zip(&answer.reports)
                .for_each(|(r, effect)| count_record(r, *effect));
        }
        Ok(())
    }

    /// Writes one batch and raises the sequence number. Returns `None` if the lease is lost.
    async fn write_next(
        &self,
        leased: &mut LeasedChunk,
        batch: &Batch,
    ) -> Result<Option<BatchAnswer>, StoreError> {
        let answer =
            self.ledgers.write_batch(&leased.at, &leased.lease, batch, unix_now(), None).await?;
        if answer.lease != LeaseVerdict::Ok {
            return Ok(None);
        }
        leased.lease.seq += 1;
        Ok(Some(answer))
    }
}

/// Reports a claim that came after the end of the validity period.
pub(super) fn expired(claimed: &GrantedClaim) -> Report {
    let reason = if claimed.before.reason == 0 {
        FailureReason::Unreachable.code()
    } else {
        claimed.before.reason
    };
    claimed.failed(reason, flags::EXPIRED, unix_now(), "the validity period ended".into())
}
