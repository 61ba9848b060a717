//! How a report changes the record that it finds.

use versand::{
    domain::ledger::{Record, Status, flags},
    store::chunks::{Report, ReportEffect},
};

use super::{mutation::Mutation, spec::Terms};

/// The answer to the reporter, and whether the SMTP reply is kept.
pub type ReportAnswer = (ReportEffect, bool);

/// Flags that stay when a report or a bounce decides. All other flags are replaced.
pub const LASTING: u8 = flags::RESENT | flags::DUPLICATE | flags::ACCEPTED;

/// Compares the claim number, never the lease. A report of the newest claim decides. A report of an
/// earlier claim counts only if it is an acceptance.
pub fn merge(r: &mut Record, report: &Report, terms: &Terms) -> ReportAnswer {
    let before = *r;
    // A claim that Redis has forgotten is the newest one. Only its acceptance ends the attempt of
    // an earlier claim.
    let forgotten = report.claim > r.claim;
    if forgotten && r.status == Status::Attempting && report.status != Some(Status::Sent) {
        return (ReportEffect::NoEffect, false);
    }
    let applied = match (forgotten || r.claim == report.claim, report.status) {
        (true, Some(status @ (Status::Sent | Status::InDoubt)))
            if forgotten && r.has(flags::ACCEPTED) =>
        {
            accepted_too(r, status)
        }
        (true, Some(Status::Sent)) => accepted(r, report),
        (true, Some(status)) => not_accepted(r, report, status, terms),
        (true, None) => given_back(r, terms.now),
        (false, Some(Status::Sent)) => accepted_earlier(r, report, terms),
        (false, _) => ReportEffect::NoEffect,
    };
    let changes = matches!(applied, ReportEffect::Applied | ReportEffect::Twice);
    if forgotten && changes {
        r.claim = report.claim;
    }
    assert!(changes || *r == before, "what has no effect changes nothing");
    (applied, changes)
}

fn accepted(r: &mut Record, report: &Report) -> ReportEffect {
    let twice = is_open(r) && r.has(flags::ACCEPTED);
    match r.status {
        Status::Sent if r.has(flags::ACCEPTED) => return ReportEffect::Known,
        Status::Failed if !r.has(flags::SETTLED) => {
            // A bounce came first, and it stands.
            if !r.has(flags::ACCEPTED) {
                r.flags |= flags::ACCEPTED;
                return ReportEffect::Applied;
            }
            if r.has(flags::DUPLICATE) || !r.has(flags::RESENT) {
                return ReportEffect::Known;
            }
            // An earlier claim was accepted, or may have been.
            r.flags |= flags::DUPLICATE;
            return ReportEffect::Twice;
        }
        _ => decide(r, report, Status::Sent),
    }
    r.flags |= if twice { flags::ACCEPTED | flags::DUPLICATE } else { flags::ACCEPTED };
    if twice { ReportEffect::Twice } else { ReportEffect::Applied }
}

/// Redis has forgotten this claim and an earlier accepted one, which was put back first. So the
/// message was, or may have been, accepted twice.
fn accepted_too(r: &mut Record, status: Status) -> ReportEffect {
    if r.has(flags::DUPLICATE) {
        return ReportEffect::Known;
    }
    r.flags |= flags::DUPLICATE | flags::RESENT;
    if status == Status::Sent { ReportEffect::Twice } else { ReportEffect::Applied }
}

fn not_accepted(r: &mut Record, report: &Report, status: Status, terms: &Terms) -> ReportEffect {
    match r.status {
        // The recipient stays in doubt unless this claim surely failed. Perhaps nobody looks at its
        // chunk any more, and its delivery is finished.
        Status::InDoubt
            if status != Status::Failed && terms.mutation != Mutation::LateDeferrals =>
        {
            return ReportEffect::NoEffect;
        }
        Status::Attempting | Status::InDoubt => {}
        same if same == status => return ReportEffect::Known,
        _ => return ReportEffect::NoEffect,
    }
    match status {
        Status::InDoubt if r.has(flags::ACCEPTED) => lose(r, report.when, terms.test),
        _ if r.has(flags::ACCEPTED) => sent_before(r, report.when),
        _ => decide(r, report, status),
    }
    ReportEffect::Applied
}

/// The claim was not started. It counts as if it had never been made.
fn given_back(r: &mut Record, now: u32) -> ReportEffect {
    if r.status != Status::Attempting {
        return ReportEffect::NoEffect;
    }
    r.attempts = r.attempts.saturating_sub(1);
    r.status = if r.attempts == 0 { Status::Pending } else { Status::Deferred };
    r.when = now;
    if r.has(flags::ACCEPTED) {
        sent_before(r, now);
    }
    ReportEffect::Applied
}

/// A late report of an acceptance. While the newer claim is under way, the report is only noted.
/// Otherwise the record becomes a duplicate if it has an acceptance already. A record without one
/// takes the claim number of the report, so that a repeated report is known. The report then
/// decides, unless a bounce has decided.
fn accepted_earlier(r: &mut Record, report: &Report, terms: &Terms) -> ReportEffect {
    if r.has(flags::DUPLICATE) || r.status == Status::Attempting && r.has(flags::ACCEPTED) {
        return ReportEffect::Known;
    }
    if r.has(flags::ACCEPTED) {
        r.flags |= flags::DUPLICATE;
        return ReportEffect::Twice;
    }
    let possibly_twice = r.status == Status::InDoubt;
    if r.status != Status::Attempting {
        r.claim = report.claim;
        if !r.has(flags::BOUNCED) || terms.mutation == Mutation::BounceUndone {
            decide(r, report, Status::Sent);
        }
    }
    r.flags |= if possibly_twice { flags::ACCEPTED | flags::DUPLICATE } else { flags::ACCEPTED };
    ReportEffect::Applied
}

/// Ends a claim of which nobody knows whether it was accepted. If an earlier claim was accepted,
/// the recipient counts as sent, with a possible duplicate. In SMTP test mode nothing was ever
/// transferred.
pub fn lose(r: &mut Record, now: u32, test: bool) {
    if r.has(flags::ACCEPTED) {
        sent_before(r, now);
        r.flags |= if test { 0 } else { flags::DUPLICATE };
    } else {
        r.status = if test { Status::Deferred } else { Status::InDoubt };
        r.when = now;
    }
}

fn decide(r: &mut Record, report: &Report, status: Status) {
    r.status = status;
    r.reason = report.reason;
    r.when = report.when;
    r.flags = r.flags & LASTING | report.flags;
}

/// An earlier claim was accepted. The newest claim cannot change that.
fn sent_before(r: &mut Record, when: u32) {
    r.status = Status::Sent;
    r.reason = 0;
    r.when = when;
}

fn is_open(r: &Record) -> bool {
    matches!(r.status, Status::Attempting | Status::InDoubt)
}
