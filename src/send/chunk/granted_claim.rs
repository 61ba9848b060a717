//! A granted claim, and the report of its outcome.

use crate::{
    clock::unix_now,
    domain::ledger::{ClaimNumber, Record, Status},
    store::chunks::Report,
};

/// A claim that Redis has granted, with the record of the recipient before the claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct GrantedClaim {
    pub position: u16,
    pub number: ClaimNumber,
    pub before: Record,
}

impl GrantedClaim {
    /// Reports an outcome without a reason and without flags. `when` is in Unix seconds.
    pub(super) fn report(&self, status: Status, when: u32, reply: String) -> Report {
        Report {
            position: self.position,
            claim: self.number,
            status: Some(status),
            reason: 0,
            flags: 0,
            when,
            reply,
        }
    }

    /// Reports that the recipient has failed. `when` is in Unix seconds.
    pub(super) fn failed(&self, reason: u8, flags: u8, when: u32, reply: String) -> Report {
        Report { reason, flags, ..self.report(Status::Failed, when, reply) }
    }

    /// Gives the claim back: its transaction was not started.
    pub(super) fn not_started(&self) -> Report {
        Report {
            position: self.position,
            claim: self.number,
            status: None,
            reason: 0,
            flags: 0,
            when: unix_now(),
            reply: String::new(),
        }
    }
}
