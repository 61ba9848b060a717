//! In-doubt resolution: a person decides about recipients in doubt.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    clock::unix_now,
    deliveries::{Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Action, Delivery, DeliveryId, DeliveryState, Plan},
        ledger::{ChunkRef, Ledger, RecipientNumber, Status},
    },
    send::release::FairQueue,
    store::chunks::{LedgerStore, Settlement},
};

/// Recipient numbers, as in the sending log; `None` for all recipients in doubt.
pub type RecipientNumbers = Option<Vec<u64>>;

/// The decision of a person about recipients in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    pub settlement: Settlement,
    pub numbers: RecipientNumbers,
}

/// The answer: how many recipients were in doubt and are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    pub settled: u64,
}

/// A recipient in doubt: its number, and the epoch and the ordinal of the claim in question. After
/// another claim it is another doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct InDoubtClaim(u64, u32, u8);

/// Resolves doubt.
#[derive(Clone)]
pub struct InDoubtRecipients {
    pub deliveries: Deliveries,
    pub ledgers: LedgerStore,
    pub fair_queue: FairQueue,
}

impl InDoubtRecipients {
    /// Resolves recipients in doubt.
    ///
    /// The audit log names the request before it takes effect. With a key a repeated request gets
    /// the first answer: how many recipients were in doubt then.
    ///
    /// # Errors
    /// - The principal lacks the role, or a recipient does not exist.
    /// - The delivery was not released or lost its logs, or its state forbids to send again.
    pub async fn resolve(
        &self,
        by: &Principal,
        id: &DeliveryId,
        resolution: &Resolution,
        key: Option<&IdempotencyKey>,
    ) -> Result<Resolved, Refusal> {
        require(by, Role::StartDeliveries)?;
        let Some(key) = key else {
            let (plan, _) =
                self.note_resolution(by, id, resolution, (&[], BTreeSet::new())).await?;
            return Ok(Resolved { settled: self.apply(id, &plan, resolution).await? });
        };
        let begun = RepeatKey::of(key, id);
        let done = begun.when_done();
        let found = self.find(id, resolution).await?;
        let (plan, found) = self.note_resolution(by, id, resolution, (&[begun], found)).await?;
        // a repeated request also does what a crash left undone
        if self.deliveries.first_answer::<()>(std::slice::from_ref(&done)).await?.is_none() {
            // after the first request a recipient may be in doubt again: that is another doubt
            let now = self.find(id, resolution).await?;
            let numbers =
                found.iter().filter(|doubt| now.contains(doubt)).map(|doubt| doubt.0).collect();
            self.apply(
                id,
                &plan,
                &Resolution { settlement: resolution.settlement, numbers: Some(numbers) },
            )
            .await?;
            let over = |delivery: &Delivery, _| {
                Ok(Decision {
                    state: delivery.state,
                    document: delivery.document.clone(),
                    answer: (),
                    act: None,
                })
            };
            self.deliveries.change(id, by.name.as_str(), &[done], over).await?.answer();
        }
        Ok(Resolved { settled: found.len() as u64 })
    }

    /// Writes the ledgers. Returns how many recipients were resolved.
    async fn apply(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        resolution: &Resolution,
    ) -> Result<u64, Refusal> {
        let mut settled = 0;
        for (chunk, positions) in by_chunk(plan, &resolution.numbers)? {
            let at = ChunkRef { delivery: id.clone(), chunk };
            settled += self
                .ledgers
                .resolve_in_doubt(&at, resolution.settlement, positions.as_deref(), unix_now())
                .await?
                .len() as u64;
        }
        if resolution.settlement == Settlement::Resend && settled > 0 {
            // the delivery was reopened before its ledgers changed: it may have finished again in
            // between
            if self.deliveries.delivery(id).await?.state == DeliveryState::Finished {
                self.deliveries
                    .step(id, Action::Reopen, |document, _| document.ended_at = None)
                    .await?;
            }
            self.fair_queue.request_jobs(id).await?;
        }
        Ok(settled)
    }

    /// The recipients in doubt that a resolution is about.
    async fn find(
        &self,
        id: &DeliveryId,
        resolution: &Resolution,
    ) -> Result<BTreeSet<InDoubtClaim>, Refusal> {
        let mut found = BTreeSet::new();
        let Some(plan) = self.deliveries.delivery(id).await?.document.plan else {
            return Ok(found);
        };
        for (chunk, positions) in by_chunk(&plan, &resolution.numbers)? {
            let ledger =
                self.ledgers.ledgers(id, chunk..chunk + 1).await?.into_iter().flatten().next();
            let asked = |position: &u16| {
                positions.as_ref().is_none_or(|positions| positions.contains(position))
            };
            let records = ledger.iter().flat_map(Ledger::records);
            let in_doubt = (0u16..)
                .zip(records)
                .filter(|(at, record)| record.status == Status::InDoubt && asked(at));
            let first = RecipientNumber::of(chunk, 0, plan.chunk_size).0;
            found.extend(in_doubt.map(|(at, record)| {
                InDoubtClaim(first + u64::from(at), record.claim.epoch, record.claim.n)
            }));
        }
        Ok(found)
    }

    /// Writes the request into the audit log. With [`Settlement::Resend`] the delivery is in
    /// progress again. Returns the plan and the doubts that the first of equal requests found.
    async fn note_resolution(
        &self,
        by: &Principal,
        id: &DeliveryId,
        resolution: &Resolution,
        (repeats, found): (&[RepeatKey], BTreeSet<InDoubtClaim>),
    ) -> Result<(Plan, BTreeSet<InDoubtClaim>), Refusal> {
        let changed = self
            .deliveries
            .change(id, by, repeats, |delivery, now| {
                let mut document = delivery.document.clone();
                let plan = document.plan.clone().filter(|_| delivery.state.is_released());
                let plan = plan.ok_or(Refusal::Conflict(
                    "the delivery was not released: nobody is in doubt",
                ))?;
                if let Some(cleaned) = &document.cleaned {
                    return Err(Refusal::Cleaned(cleaned.cleaned_at));
                }
                by_chunk(&plan, &resolution.numbers)?;
                let mut state = delivery.state;
                if resolution.settlement == Settlement::Resend {
                    state = state.after(Action::Reopen)?;
                    document.ended_at = None;
                }
                document.changed_at = now;
                let Resolution { settlement, numbers } = resolution;
                let details = json!({ "settlement": settlement, "recipients": numbers });
                Ok(Decision {
                    state,
                    document,
                    answer: (plan, found.clone()),
                    act: Some(("settle", details)),
                })
            })
            .await?;
        Ok(changed.answer())
    }
}

/// The positions by chunk; without `numbers` all chunks, each with all positions (`None`).
///
/// # Errors
/// If a recipient does not exist.
fn by_chunk(
    plan: &Plan,
    numbers: &RecipientNumbers,
) -> Result<BTreeMap<u32, Option<Vec<u16>>>, Refusal> {
    let Some(numbers) = numbers else {
        return Ok((0..plan.chunks).map(|chunk| (chunk, None)).collect());
    };
    let mut chunks: BTreeMap<u32, Option<Vec<u16>>> = BTreeMap::new();
    for number in numbers {
        let (chunk, position) =
            RecipientNumber(*number).place_in(plan).ok_or(Refusal::NoRecipient)?;
        chunks.entry(chunk).or_default().get_or_insert_default().push(position);
    }
    Ok(chunks)
}
