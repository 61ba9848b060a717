//! The bytes of a batch, as `claim_and_record_fast.lua` reads them; all numbers are big-endian.

use super::{
    batch::{Batch, Claim, Report},
    leases::Lease,
};

/// Stands in place of a status if the claim was not started.
const GIVEN_BACK: u8 = 255;

/// The terms of a batch: lease, time, in-doubt policy, whether the batch is done again, and the
/// range of positions.
pub(super) fn terms(
    lease: &Lease,
    batch: &Batch,
    now: u32,
    resend_after_s: Option<u32>,
) -> Vec<u8> {
    let positions =
        || batch.reports.iter().map(|r| r.position).chain(batch.claims.iter().map(|c| c.position));
    let mut terms = Vec::with_capacity(30);
    terms.extend_from_slice(&lease.epoch.to_be_bytes());
    terms.extend_from_slice(&lease.seq.to_be_bytes());
    terms.extend_from_slice(&lease.owner.to_be_bytes());
    terms.extend_from_slice(&now.to_be_bytes());
    terms.push(u8::from(resend_after_s.is_some()));
    terms.extend_from_slice(&resend_after_s.unwrap_or_default().to_be_bytes());
    terms.push(u8::from(batch.redo));
    terms.extend_from_slice(&positions().min().unwrap_or_default().to_be_bytes());
    terms.extend_from_slice(&positions().max().unwrap_or_default().to_be_bytes());
    terms
}

/// Packs reports without their replies. Successive reports that differ only in their positions and
/// replies share one head.
pub(super) fn reports(reports: &[&Report]) -> Vec<u8> {
    let alike = |a: &&Report, b: &&Report| {
        let head = |r: &Report| (r.claim, r.status, r.reason, r.flags, r.when);
        head(a) == head(b)
    };
    let mut packed = Vec::with_capacity(reports.len() * 2 + 14);
    for run in reports.chunk_by(alike).flat_map(|alike| alike.chunks(usize::from(u16::MAX))) {
        let first = run[0];
        packed.extend_from_slice(&first.claim.epoch.to_be_bytes());
        packed.extend_from_slice(&[
            first.claim.n,
            first.status.map_or(GIVEN_BACK, |s| s as u8),
            first.reason,
            first.flags,
        ]);
        packed.extend_from_slice(&first.when.to_be_bytes());
        packed.extend_from_slice(&(run.len() as u16).to_be_bytes());
        run.iter().for_each(|r| packed.extend_from_slice(&r.position.to_be_bytes()));
    }
    packed
}

/// Packs claims. Claims of neighbours with the same ordinal are one run.
pub(super) fn claims(claims: &[Claim]) -> Vec<u8> {
    let adjoin = |a: &Claim, b: &Claim| a.position.checked_add(1) == Some(b.position) && a.n == b.n;
    let mut packed = Vec::with_capacity(8 * 5);
    for run in claims.chunk_by(adjoin).flat_map(|run| run.chunks(usize::from(u16::MAX))) {
        packed.extend_from_slice(&run[0].position.to_be_bytes());
        packed.extend_from_slice(&(run.len() as u16).to_be_bytes());
        packed.push(run[0].n);
    }
    packed
}
