//! The arguments of a turn in bytes. All numbers are big-endian; `scripts/first_attempts.lua` says what follows what.

use super::ledgers::{Batch, Claim, Lease, Report};

/// In place of a status: the claim was not started.
const GIVEN_BACK: u8 = 255;

/// What a turn is about, as its script reads it.
pub fn terms(lease: &Lease, turn: &Batch, now: u32, resend_after_s: Option<u32>) -> Vec<u8> {
    let positions =
        || turn.reports.iter().map(|r| r.position).chain(turn.claims.iter().map(|c| c.position));
    let mut terms = Vec::with_capacity(30);
    terms.extend_from_slice(&lease.epoch.to_be_bytes());
    terms.extend_from_slice(&lease.seq.to_be_bytes());
    terms.extend_from_slice(&lease.owner.to_be_bytes());
    terms.extend_from_slice(&now.to_be_bytes());
    terms.push(u8::from(resend_after_s.is_some()));
    terms.extend_from_slice(&resend_after_s.unwrap_or_default().to_be_bytes());
    terms.push(u8::from(turn.redo));
    terms.extend_from_slice(&positions().min().unwrap_or_default().to_be_bytes());
    terms.extend_from_slice(&positions().max().unwrap_or_default().to_be_bytes());
    terms
}

/// Reports that follow each other and differ in their positions only share a head.
pub fn reports(reports: &[&Report]) -> Vec<u8> {
    let alike = |a: &&Report, b: &&Report| {
        let said = |r: &Report| (r.claim, r.status, r.reason, r.flags, r.when);
        said(a) == said(b)
    };
    let mut packed = Vec::with_capacity(reports.len() * 2 + 14);
    for chunk in reports.chunk_by(alike).flat_map(|like| like.chunks(usize::from(u16::MAX))) {
        let r = chunk[0];
        packed.extend_from_slice(&r.claim.epoch.to_be_bytes());
        packed.extend_from_slice(&[
            r.claim.n,
            r.status.map_or(GIVEN_BACK, |s| s as u8),
            r.reason,
            r.flags,
        ]);
        packed.extend_from_slice(&r.when.to_be_bytes());
        packed.extend_from_slice(&(chunk.len() as u16).to_be_bytes());
        chunk.iter().for_each(|r| packed.extend_from_slice(&r.position.to_be_bytes()));
    }
    packed
}

/// Claims of neighbours with the same number are one run.
pub fn claims(claims: &[Claim]) -> Vec<u8> {
    let next = |a: &Claim, b: &Claim| a.position.checked_add(1) == Some(b.position) && a.n == b.n;
    let mut packed = Vec::with_capacity(8 * 5);
    for run in claims.chunk_by(next).flat_map(|run| run.chunks(usize::from(u16::MAX))) {
        packed.extend_from_slice(&run[0].position.to_be_bytes());
        packed.extend_from_slice(&(run.len() as u16).to_be_bytes());
        packed.push(run[0].n);
    }
    packed
}
