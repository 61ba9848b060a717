//! The steps that write a ledger: batches of reports and claims, sent once or again.

use super::*;

impl Play<'_> {
    pub(super) async fn fresh_batch(
        &mut self,
        worker: usize,
        (reports, claims): (&[RandomReport], &[RandomClaim]),
        lost: bool,
    ) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let reports = reports.iter().filter_map(|report| self.report(report)).collect();
        let claims = claims.iter().map(|claim| self.claim(&lease, claim)).collect();
        let batch = Batch { reports, claims, redo: false };
        self.workers[worker].last = Some((lease, batch.clone()));
        let verdict = self.write_batch(&lease, &batch).await?;
        if verdict == LeaseVerdict::Ok && !lost {
            self.workers[worker].lease = Some(Lease { seq: lease.seq + 1, ..lease });
        }
        Ok(())
    }

    pub(super) async fn repeat(&mut self, worker: usize, redo: bool) -> Result<(), String> {
        let Some((lease, batch)) = self.workers[worker].last.clone() else { return Ok(()) };
        let batch = Batch { redo, ..batch };
        let verdict = self.write_batch(&lease, &batch).await?;
        let current = self.workers[worker].lease == Some(lease);
        if verdict == LeaseVerdict::Ok && current {
            self.workers[worker].lease = Some(Lease { seq: lease.seq + 1, ..lease });
        }
        Ok(())
    }

    async fn write_batch(&mut self, lease: &Lease, batch: &Batch) -> Result<LeaseVerdict, String> {
        let real = self
            .stores
            .ledgers
            .write_batch(&self.at, lease, batch, self.terms.now, self.terms.resend_after_s)
            .await
            .unwrap();
        let (spec, kept) = self.now.chunk.write_batch(lease, batch, &self.terms);
        for (claim, _) in batch.claims.iter().zip(&real.granted).filter(|(_, granted)| **granted) {
            self.claims.push((claim.position, ClaimNumber { epoch: lease.epoch, n: claim.n }));
        }
        for (report, _) in batch
            .reports
            .iter()
            .zip(kept)
            .filter(|(report, kept)| *kept && !report.reply.is_empty())
        {
            let text = self.now.replies.entry(report.position).or_default();
            let line =
                if text.is_empty() { report.reply.clone() } else { format!("\n{}", report.reply) };
            text.push_str(&line);
        }
        let verdict = real.lease;
        same("batch", real, spec)?;
        Ok(verdict)
    }

    /// The newest claims come first, so that most reports are in time.
    pub(super) fn newest_first(&self, claim: usize) -> Option<(u16, ClaimNumber)> {
        self.claims.iter().rev().cycle().nth(claim).copied()
    }

    fn report(&self, random: &RandomReport) -> Option<Report> {
        let (position, claim) = match (random.forged, self.newest_first(random.claim)) {
            (false, Some(newest)) => newest,
            (false, None) => return None,
            (true, _) => (random.claim as u16 + 1, ClaimNumber { epoch: 1, n: 200 }),
        };
        let flag = match random.status {
            Some(Status::Sent) => flags::ACCEPTED,
            Some(Status::Failed) => flags::HARD,
            _ => 0,
        };
        let flags = if random.flag { flag } else { 0 };
        let when = self.terms.now + random.later_s;
        Some(Report {
            position,
            claim,
            status: random.status,
            reason: random.reason,
            flags,
            when,
            reply: random.reply.to_owned(),
        })
    }

    fn claim(&self, lease: &Lease, random: &RandomClaim) -> Claim {
        let taken = self
            .claims
            .iter()
            .filter(|(p, c)| *p == random.position && c.epoch == lease.epoch)
            .count() as u8;
        Claim { position: random.position, n: if random.fresh { taken + 1 } else { taken } }
    }
}
