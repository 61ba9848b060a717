//! A batch of the holder: reports on earlier claims, then new claims, and the answer to both.

use super::leases::LeaseVerdict;
use crate::domain::ledger::{ClaimNumber, Status};

/// A claim that the holder asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub position: u16,
    /// The claim's ordinal within the epoch.
    pub n: u8,
}

/// The outcome of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub position: u16,
    pub claim: ClaimNumber,
    /// The new status; `None` gives back a claim that was not started.
    pub status: Option<Status>,
    /// The failure reason as a code, 0 for none.
    pub reason: u8,
    pub flags: u8,
    /// Unix seconds: when a deferred recipient is due, else when the transaction ended.
    pub when: u32,
    /// The reply of the relay, or the fault if no reply came; "" to keep none.
    pub reply: String,
}

/// The effect of a report on the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportEffect {
    /// The record was changed.
    Applied,
    /// The record says the same already.
    Known,
    /// The record was changed: the message was, or may have been, accepted twice.
    Twice,
    /// The record stays as it is: for example, a newer claim decides, or the ledger is rolled back.
    NoEffect,
}

/// Reports, then claims, in one script call. A batch that is sent again unchanged has no second
/// effect.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub reports: Vec<Report>,
    pub claims: Vec<Claim>,
    /// The batch was applied before, and Redis has forgotten it. Granted claims are granted again.
    pub redo: bool,
}

/// The answer to a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The verdict on the lease.
    pub lease: LeaseVerdict,
    /// One effect per report, in the order of the batch. Empty if the ledger is missing.
    pub reports: Vec<ReportEffect>,
    /// The verdict on the claims.
    pub claims: LeaseVerdict,
    /// Whether each claim was granted, in the order of the batch. Empty if the ledger is missing.
    pub granted: Vec<bool>,
}
