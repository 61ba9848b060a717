//! The end of the validity period: what is still open fails, whether the relay can be reached or not.

use super::{Context, scribe, unix_now};
use crate::{
    domain::{
        ledger::{ClaimNumber, Ledger, Status, flags},
        outcome::FailureReason,
    },
    store::{
        StoreError,
        ledgers::{ChunkRef, Claim, Lease, Turn, Verdict},
    },
};

/// Recipients that travel in one group.
const GROUP: usize = 500;

impl Context {
    /// Fails `todo` with the reason of its last reply. Whether Redis went back in time.
    pub(super) async fn expire(
        &self,
        at: &ChunkRef,
        lease: &mut Lease,
        ledger: &Ledger,
        todo: &[u16],
    ) -> Result<bool, StoreError> {
        for positions in todo.chunks(GROUP) {
            // the first claims of a fresh epoch
            let claims = positions.iter().map(|position| Claim { position: *position, n: 1 }).collect();
            let turn = Turn { reports: Vec::new(), claims };
            let answer = self.store.turn(at, lease, &turn, unix_now(), None).await?;
            if answer.lease != Verdict::Ok {
                return Ok(answer.lease == Verdict::RolledBack);
            }
            lease.seq += 1;
            let number = ClaimNumber { epoch: lease.epoch, n: 1 };
            let granted = turn.claims.iter().zip(&answer.granted).filter(|(_, granted)| **granted);
            let reports = granted
                .filter_map(|(claim, _)| {
                    let before = ledger.record(usize::from(claim.position))?;
                    let claimed = scribe::Claimed { position: claim.position, claim: number, before };
                    Some(expired(&claimed))
                })
                .collect();
            let answer = self.store.turn(at, lease, &Turn { reports, claims: Vec::new() }, unix_now(), None).await?;
            if answer.lease != Verdict::Ok {
                return Ok(answer.lease == Verdict::RolledBack);
            }
            lease.seq += 1;
        }
        Ok(false)
    }
}

/// The report of a claim that came too late.
pub(super) fn expired(claimed: &scribe::Claimed) -> crate::store::ledgers::Report {
    let reason = if claimed.before.reason == 0 { FailureReason::Unreachable.code() } else { claimed.before.reason };
    scribe::report(claimed, Some(Status::Failed), reason, flags::EXPIRED, unix_now(), "the validity period ended".into())
}
