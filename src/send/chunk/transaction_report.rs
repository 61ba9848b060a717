//! Turns the end of an SMTP transaction into the report of its claim.

use super::{chunk_run::ChunkRun, granted_claim::GrantedClaim};
use crate::{
    clock::unix_now,
    config::KeepReplies,
    domain::{
        ledger::{Status, flags},
        outcome::{FailureReason, FailureType, Reply, classify, retry_delay},
    },
    mail::smtp::Transaction,
    store::chunks::Report,
};

impl ChunkRun {
    /// Makes the report of a claim from the end of its transaction.
    pub(super) fn report_transaction(
        &self,
        claimed: &GrantedClaim,
        transaction: Transaction,
    ) -> Report {
        let now = unix_now();
        if let Transaction::Deferred { fault: Some(_), .. } | Transaction::InDoubt(_) = &transaction
        {
            // the reply is not logged here: a server may repeat the address in it
            self.log_relay_fault("a transaction was broken off; the sending log has the details");
        }
        match transaction {
            Transaction::Accepted(reply) => Report {
                flags: flags::ACCEPTED,
                ..claimed.report(Status::Sent, now, self.kept_reply(&reply))
            },
            // without the flag, no acceptance is counted: the relay has not counted one
            Transaction::Tested(reply) => {
                claimed.report(Status::Sent, now, self.kept_reply(&reply))
            }
            Transaction::Refused(reply) => failure(claimed, &reply, now),
            Transaction::Deferred { reply, fault } => {
                self.deferral(claimed, reply.as_ref(), fault, now)
            }
            Transaction::InDoubt(fault) => claimed.report(Status::InDoubt, now, fault),
            Transaction::NotStarted => claimed.not_started(),
        }
    }

    /// The part of a positive reply that the sending log keeps.
    fn kept_reply(&self, reply: &Reply) -> String {
        let keep = self.config.send.keep_replies == KeepReplies::All;
        if keep { reply.to_string() } else { String::new() }
    }

    fn deferral(
        &self,
        claimed: &GrantedClaim,
        reply: Option<&Reply>,
        fault: Option<String>,
        now: u32,
    ) -> Report {
        let reason = reply.map_or(FailureReason::Unreachable, |reply| classify(reply).0).code();
        let text = reply.map(ToString::to_string).or(fault).unwrap_or_default();
        let attempts = claimed.before.attempts.saturating_add(1);
        let content = &self.content;
        let (delays, until) = (&content.plan.settings.retry_minutes, content.wave_time.valid_until);
        match retry_delay::due(now, delays, attempts, until) {
            Some(due) => Report { reason, ..claimed.report(Status::Deferred, due, text) },
            None => claimed.failed(reason, flags::EXPIRED, now, text),
        }
    }
}

/// The report of a refusal for good (5xx).
pub(super) fn failure(claimed: &GrantedClaim, reply: &Reply, now: u32) -> Report {
    let (reason, kind) = classify(reply);
    let hard = if kind == FailureType::Hard { flags::HARD } else { 0 };
    claimed.failed(reason.code(), hard, now, reply.to_string())
}
