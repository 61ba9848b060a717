//! A granted claim, and the report of what became of it.

use crate::{
    clock::unix_now,
    domain::ledger::{ClaimNumber, Record, Status},
    store::chunks::Report,
};

/// A granted claim, with the record as it was before.
#[derive(Debug, Clone, Copy)]
pub struct GrantedClaim {
    pub position: u16,
    pub claim: ClaimNumber,
    pub before: Record,
}

/// The report of a claim that was not started.
pub fn given_back(claimed: &GrantedClaim) -> Report {
    report(claimed, None, 0, 0, unix_now(), String::new())
}

/// The report of a claim.
pub fn report(
    claimed: &GrantedClaim,
    status: Option<Status>,
    reason: u8,
    flags: u8,
    when: u32,
    reply: String,
) -> Report {
    Report { position: claimed.position, claim: claimed.claim, status, reason, flags, when, reply }
}
