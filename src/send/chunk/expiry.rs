//! The end of the validity period: what is still open fails, whether the relay can be reached or not.

use super::{
    claim::{GrantedClaim, report},
    replay::{LeaseHolder, LeasedChunk},
};
use crate::{
    clock::unix_now,
    domain::{
        ledger::{ClaimNumber, Ledger, Status, flags},
        outcome::FailureReason,
    },
    store::{
        StoreError,
        chunks::{Batch, Claim, LeaseVerdict},
    },
};

/// Recipients that travel in one group.
const GROUP: usize = 500;

impl LeaseHolder {
    /// Fails `todo` with the reason of its last reply. Ends early if the lease is lost or forgotten: nothing was sent.
    pub(crate) async fn expire(
        &self,
        leased: &mut LeasedChunk,
        ledger: &Ledger,
        todo: &[u16],
    ) -> Result<(), StoreError> {
        for positions in todo.chunks(GROUP) {
            // the first claims of a fresh epoch
            let claims =
                positions.iter().map(|position| Claim { position: *position, n: 1 }).collect();
            let turn = Batch { claims, ..Batch::default() };
            let answer = self
                .ledgers
                .write_batch(&leased.at, &leased.lease, &turn, unix_now(), None)
                .await?;
            if answer.lease != LeaseVerdict::Ok {
                return Ok(());
            }
            leased.lease.seq += 1;
            let number = ClaimNumber { epoch: leased.lease.epoch, n: 1 };
            let granted = turn.claims.iter().zip(&answer.granted).filter(|(_, granted)| **granted);
            let reports = granted
                .filter_map(|(claim, _)| {
                    let before = ledger.record(usize::from(claim.position))?;
                    let claimed = GrantedClaim { position: claim.position, claim: number, before };
                    Some(expired(&claimed))
                })
                .collect();
            let turn = Batch { reports, ..Batch::default() };
            let answer = self
                .ledgers
                .write_batch(&leased.at, &leased.lease, &turn, unix_now(), None)
                .await?;
            if answer.lease != LeaseVerdict::Ok {
                return Ok(());
            }
            leased.lease.seq += 1;
        }
        Ok(())
    }
}

/// The report of a claim that came too late.
pub(super) fn expired(claimed: &GrantedClaim) -> crate::store::chunks::Report {
    let reason = if claimed.before.reason == 0 {
        FailureReason::Unreachable.code()
    } else {
        claimed.before.reason
    };
    report(
        claimed,
        Some(Status::Failed),
        reason,
        flags::EXPIRED,
        unix_now(),
        "the validity period ended".into(),
    )
}
