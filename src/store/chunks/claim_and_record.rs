//! Writes a batch of the holder into a ledger: reports, then claims, in one script call.

use super::{
    batch::{Batch, BatchAnswer, Report, ReportEffect},
    batch_encoding,
    leases::{Lease, LeaseVerdict},
    ledgers::LedgerStore,
};
use crate::{
    domain::ledger::ChunkRef,
    store::{StoreError, keys},
};

impl LedgerStore {
    /// Writes a batch. If the answer says `Ok` for the lease, the caller must raise `lease.seq` by
    /// one.
    ///
    /// `resend_after_s` is the delay of the policy `resend`, or `None` under `hold`.
    ///
    /// # Errors
    /// If Redis refuses, or the answer is lost. The caller must send the same batch again,
    /// unchanged.
    pub async fn write_batch(
        &self,
        at: &ChunkRef,
        lease: &Lease,
        batch: &Batch,
        now: u32,
        resend_after_s: Option<u32>,
    ) -> Result<BatchAnswer, StoreError> {
        let mut script = self.scripts.claim_and_record.prepare_invoke();
        script.key(keys::ledger(&at.delivery, at.chunk)).key(keys::counts(&at.delivery));
        script.key(keys::replies(&at.delivery, at.chunk)).key(keys::delivery(&at.delivery));
        // The fast path needs rising positions, and equal neighbours share one head. The sort is
        // stable, so the reports on one recipient keep their order.
        let mut order: Vec<usize> = (0..batch.reports.len()).collect();
        order.sort_by_key(|i| batch.reports[*i].position);
        let sorted: Vec<&Report> = order.iter().map(|i| &batch.reports[*i]).collect();
        script.arg(batch_encoding::terms(lease, batch, now, resend_after_s));
        script.arg(batch_encoding::reports(&sorted)).arg(batch_encoding::claims(&batch.claims));
        for (number, report) in (1..).zip(&sorted).filter(|(_, report)| !report.reply.is_empty()) {
            script.arg::<usize>(number).arg(&report.reply);
        }
        let (lease, effects, claims, granted): (i64, Vec<u8>, i64, Vec<u8>) =
            script.invoke_async(&mut self.redis.connection()).await?;
        let mut reports =
            vec![ReportEffect::NoEffect; if effects.is_empty() { 0 } else { order.len() }];
        for (i, effect) in order.into_iter().zip(effects) {
            reports[i] = effect_of(effect);
        }
        Ok(BatchAnswer {
            lease: LeaseVerdict::from_code(lease)?,
            reports,
            claims: LeaseVerdict::from_code(claims)?,
            granted: granted.into_iter().map(|b| b == b'1').collect(),
        })
    }
}

fn effect_of(byte: u8) -> ReportEffect {
    match byte {
        b'a' => ReportEffect::Applied,
        b'r' => ReportEffect::Known,
        b'd' => ReportEffect::Twice,
        _ => ReportEffect::NoEffect,
    }
}
