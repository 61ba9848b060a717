//! Settling: a person says what became of recipients in doubt. Pause, resume and stop are theirs, too.

use crate::{
    clock::unix_now,
    deliveries::Deliveries,
    domain::ledger::{ChunkRef, RecipientNumber},
    send::release::FairQueue,
    store::chunks::LedgerStore,
};

pub(super) use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    deliveries::{Decision, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Action, Delivery, DeliveryId, DeliveryState, Plan},
        ledger::{Ledger, Status},
    },
    store::chunks::Settlement,
};

/// Which recipients in doubt are settled, by their number in the sending log; `None` for all.
pub type RecipientNumbers = Option<Vec<u64>>;

/// What a person says of recipients in doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    pub settlement: Settlement,
    pub numbers: RecipientNumbers,
}

/// What a person asks of a delivery that was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Pause,
    Resume,
    Stop,
}

impl Control {
    pub fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
        }
    }
}

/// How many were settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    pub settled: u64,
}

/// A recipient in doubt: its number, and epoch and number of the claim in question. Claimed again, it is another doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct InDoubtClaim(u64, u32, u8);

#[derive(Clone)]
pub struct InDoubtRecipients {
    pub deliveries: Deliveries,
    pub ledgers: LedgerStore,
    pub fair_queue: FairQueue,
}

impl InDoubtRecipients {
    /// Settles recipients in doubt. Who asked for what is in the audit log before it takes effect. With a key a repeat gets
    /// the first answer: how many of them were in doubt then.
    pub async fn resolve(
        &self,
        by: &Principal,
        id: &DeliveryId,
        what: &Resolution,
        key: Option<&IdempotencyKey>,
    ) -> Result<Resolved, Refusal> {
        require(by, Role::StartDeliveries)?;
        let Some(key) = key else {
            let (plan, _) = self.note_resolution(by, id, what, (&[], BTreeSet::new())).await?;
            return Ok(Resolved { settled: self.apply(id, &plan, what).await? });
        };
        let begun = RepeatKey::of(key, id);
        let done = RepeatKey { key: format!("{}:done", begun.key), ..begun.clone() };
        let found = self.find(id, what).await?;
        let (plan, found) = self.note_resolution(by, id, what, (&[begun], found)).await?;
        // what a crash left undone its repeat does
        if self.deliveries.first_answer::<()>(std::slice::from_ref(&done)).await?.is_none() {
            // but nobody who was released again meanwhile and came into doubt a second time
            let now = self.find(id, what).await?;
            let numbers =
                found.iter().filter(|doubt| now.contains(doubt)).map(|doubt| doubt.0).collect();
            self.apply(
                id,
                &plan,
                &Resolution { settlement: what.settlement, numbers: Some(numbers) },
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
            self.deliveries.change(id, &by.name, &[done], over).await?.answer();
        }
        Ok(Resolved { settled: found.len() as u64 })
    }

    /// Writes the ledgers; how many were settled.
    async fn apply(&self, id: &DeliveryId, plan: &Plan, what: &Resolution) -> Result<u64, Refusal> {
        let mut settled = 0;
        for (chunk, positions) in by_chunk(plan, &what.numbers)? {
            let at = ChunkRef { delivery: id.clone(), chunk };
            settled += self
                .ledgers
                .resolve_in_doubt(&at, what.settlement, positions.as_deref(), unix_now())
                .await?
                .len() as u64;
        }
        if what.settlement == Settlement::Resend && settled > 0 {
            // a finish that recounted in between has closed it again
            if self.deliveries.delivery(id).await?.state == DeliveryState::Finished {
                self.deliveries
                    .step(id, Action::Reopen, |document, _| document.ended_at = None)
                    .await?;
            }
            self.fair_queue.request_jobs(id).await?;
        }
        Ok(settled)
    }

    async fn find(
        &self,
        id: &DeliveryId,
        what: &Resolution,
    ) -> Result<BTreeSet<InDoubtClaim>, Refusal> {
        let mut found = BTreeSet::new();
        let Some(plan) = self.deliveries.delivery(id).await?.document.plan else {
            return Ok(found);
        };
        for (chunk, positions) in by_chunk(&plan, &what.numbers)? {
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

    /// Notes in the audit log what is asked for; a delivery in which somebody is released again is in progress again. Answers
    /// the plan and who was found in doubt, at the first of equal requests.
    async fn note_resolution(
        &self,
        by: &Principal,
        id: &DeliveryId,
        what: &Resolution,
        (repeats, found): (&[RepeatKey], BTreeSet<InDoubtClaim>),
    ) -> Result<(Plan, BTreeSet<InDoubtClaim>), Refusal> {
        let changed = self
            .deliveries
            .change(id, &by.name, repeats, |delivery, now| {
                let mut document = delivery.document.clone();
                let plan = document.plan.clone().filter(|_| delivery.state.is_released());
                let plan = plan
                    .ok_or(Refusal::Conflict("it was not released: there is nothing in doubt"))?;
                if let Some(cleaned) = &document.cleaned {
                    return Err(Refusal::Cleaned(cleaned.cleaned_at));
                }
                by_chunk(&plan, &what.numbers)?;
                let mut state = delivery.state;
                if what.settlement == Settlement::Resend {
                    state = state.after(Action::Reopen)?;
                    document.ended_at = None;
                }
                document.changed_at = now;
                let details = json!({ "settlement": what.settlement, "recipients": what.numbers });
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

/// Positions by chunk; all chunks without positions for all.
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
