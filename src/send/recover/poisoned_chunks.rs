//! What kills its workers again and again, or cannot be sent, is set aside for a person; the rest goes on.

use serde_json::json;

use crate::{
    deliveries::{Context, Decision, IdempotencyKey, Refusal, RepeatKey, require, unix_now},
    domain::{
        Principal, Role,
        delivery::{Checks, Delivery, DeliveryId, DeliveryState, Finding},
    },
    metrics,
    queue::JobError,
    send::{chunk::LeasedChunk, prepare::PreparationOutcome},
    store::{
        StoreError,
        chunks::{ChunkRef, LeaseVerdict, Taken, TakeoverGrounds},
    },
};

impl Context {
    /// Gives a chunk back that was taken over from a dead worker: one crash more.
    pub(super) async fn release_after_crash(&self, hold: LeasedChunk) -> Result<(), StoreError> {
        let crashes = self.store.count_crash(&hold.at).await?;
        if crashes > self.config.queue.crashes {
            return self.release_aside(hold, &format!("{crashes} workers died with it")).await;
        }
        self.release(hold).await?;
        Ok(())
    }

    /// Gives a chunk back at the end of its job: a good end wipes out its crashes, and what cannot be sent is set aside.
    pub(crate) async fn release_after_job(&self, hold: LeasedChunk, end: &Result<(), JobError>) -> Result<(), StoreError> {
        if let Err(JobError::Abort(reason)) = end {
            return self.release_aside(hold, reason).await;
        }
        let at = hold.at.clone();
        let (verdict, _) = self.release(hold).await?;
        if end.is_ok() && verdict == LeaseVerdict::Ok {
            self.store.forget_crashes(&at).await?;
        }
        Ok(())
    }

    async fn release_aside(&self, hold: LeasedChunk, reason: &str) -> Result<(), StoreError> {
        let at = hold.at.clone();
        // before the lease is free, so that nobody begins it anew
        self.store.set_aside(&at).await?;
        let (verdict, due) = self.release(hold).await?;
        if verdict != LeaseVerdict::Ok || due.is_some() {
            metrics::set_aside();
            tracing::error!(delivery.id = %at.delivery, chunk = at.chunk, reason, "chunk set aside until a person retries it");
        }
        Ok(())
    }

    /// The end of the validity period ends a chunk that was set aside, too: no message is made for it that could kill anybody.
    pub(super) async fn expire_aside(&self, delivery: &Delivery) -> Result<(), Refusal> {
        let Some(plan) = &delivery.document.plan else { return Ok(()) };
        for chunk in self.store.aside(&delivery.id).await? {
            let at = ChunkRef { delivery: delivery.id.clone(), chunk };
            let wave = self.store.wave_of(&at, plan).await?;
            if wave.valid_until(plan.settings.validity_hours).is_none_or(|until| unix_now() < until) {
                continue;
            }
            let resend_after_s = self.resend_after_s(plan, &wave);
            let Some(ledger) = self.store.ledgers(&at.delivery, chunk..chunk + 1).await?.into_iter().flatten().next() else {
                continue;
            };
            let later = ledger.records().any(|record| record.claimable_at(resend_after_s).is_some());
            if later && ledger.claimable(unix_now(), resend_after_s).is_empty() {
                continue;
            }
            match self.store.take(&at, self.owner, TakeoverGrounds::default(), unix_now()).await? {
                Taken::Yes(lease, ledger) => {
                    let mut hold = LeasedChunk::new(at, lease, resend_after_s);
                    let todo = ledger.claimable(unix_now(), resend_after_s);
                    self.expire(&mut hold, &ledger, &todo).await?;
                    self.release(hold).await?;
                }
                Taken::Held(..) => self.mend_lease(delivery, &at, ledger.header()).await?,
                Taken::Missing => {}
            }
        }
        Ok(())
    }

    /// Recipients that are still open in chunks that were set aside.
    pub(super) async fn open_aside(&self, id: &DeliveryId) -> Result<u64, StoreError> {
        let mut counts = crate::domain::ledger::Counts::default();
        for chunk in self.store.aside(id).await? {
            self.store.ledgers(id, chunk..chunk + 1).await?.iter().flatten().for_each(|ledger| counts.add(ledger));
        }
        Ok(counts.open())
    }

    /// Tries a chunk again that was set aside.
    pub async fn retry_chunk(
        &self,
        by: &Principal,
        at: &ChunkRef,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        require(by, Role::StartDeliveries)?;
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, &at.delivery)).collect();
        let is_aside = self.store.is_aside(at).await?;
        let changed = self
            .change(&at.delivery, &by.name, &repeats, |delivery, now| {
                if !is_aside || delivery.state.has_ended() {
                    return Err(Refusal::Conflict("this chunk is not set aside"));
                }
                let (state, mut document) = (delivery.state, delivery.document.clone());
                document.changed_at = now;
                Ok(Decision { state, document, answer: state, act: Some(("retry_chunk", json!({ "chunk": at.chunk }))) })
            })
            .await?;
        // what a crash left undone its repeat does
        if is_aside {
            self.store.readmit(at).await?;
            self.feed(&at.delivery).await?;
        }
        Ok(changed.answer())
    }
}

/// What comes of a preparation whose workers died `crashes` times.
pub fn given_up(delivery: &Delivery, crashes: u32) -> PreparationOutcome {
    tracing::error!(delivery.id = %delivery.id, crashes, "its workers die while they prepare it: the preparation has failed");
    let message = format!("it ended without a result {crashes} times: the daemon's log may say why");
    let errors = vec![Finding { field: "preparation".into(), line: None, message }];
    let checks = Checks { errors, errors_total: 1, ..Checks::default() };
    PreparationOutcome { by: delivery.document.prepared_by.clone(), checks, plan: None }
}
