//! The end of the validity period: what is still open fails, whether the relay can be reached or not.

use super::{
    Context,
    claimed::{self, Claimed},
    recall::Hold,
    unix_now,
};
use crate::{
    domain::{
        ledger::{ClaimNumber, Ledger, Status, flags},
        outcome::FailureReason,
    },
    store::{
        StoreError,
        ledgers::{Claim, Turn, Verdict},
    },
};

/// Recipients that travel in one group.
const GROUP: usize = 500;

impl Context {
    /// Fails `todo` with the reason of its last reply. Ends early if the lease is lost or forgotten: nothing was sent.
    pub(super) async fn expire(&self, hold: &mut Hold, ledger: &Ledger, todo: &[u16]) -> Result<(), StoreError> {
        for positions in todo.chunks(GROUP) {
            // the first claims of a fresh epoch
            let claims = positions.iter().map(|position| Claim { position: *position, n: 1 }).collect();
            let turn = Turn { claims, ..Turn::default() };
            let answer = self.store.turn(&hold.at, &hold.lease, &turn, unix_now(), None).await?;
            if answer.lease != Verdict::Ok {
                return Ok(());
            }
            hold.lease.seq += 1;
            let number = ClaimNumber { epoch: hold.lease.epoch, n: 1 };
            let granted = turn.claims.iter().zip(&answer.granted).filter(|(_, granted)| **granted);
            let reports = granted
                .filter_map(|(claim, _)| {
                    let before = ledger.record(usize::from(claim.position))?;
                    let claimed = Claimed { position: claim.position, claim: number, before };
                    Some(expired(&claimed))
                })
                .collect();
            let turn = Turn { reports, ..Turn::default() };
            let answer = self.store.turn(&hold.at, &hold.lease, &turn, unix_now(), None).await?;
            if answer.lease != Verdict::Ok {
                return Ok(());
            }
            hold.lease.seq += 1;
        }
        Ok(())
    }
}

/// The report of a claim that came too late.
pub(super) fn expired(claimed: &Claimed) -> crate::store::ledgers::Report {
    let reason = if claimed.before.reason == 0 { FailureReason::Unreachable.code() } else { claimed.before.reason };
    claimed::report(claimed, Some(Status::Failed), reason, flags::EXPIRED, unix_now(), "the validity period ended".into())
}
