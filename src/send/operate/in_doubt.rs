//! Settling: a person says what became of recipients in doubt. Pause, resume and stop are theirs, too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    deliveries::{Context, Decision, IdempotencyKey, Refusal, RepeatKey, require, unix_now},
    domain::{
        Principal, Role,
        delivery::{Action, Delivery, DeliveryId, DeliveryState, Plan},
        ledger::{Ledger, Status},
    },
    store::chunks::{ChunkRef, Settlement},
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

impl Context {
    /// Settles recipients in doubt. Who asked for what is in the audit log before it takes effect. With a key a repeat gets
    /// the first answer: how many of them were in doubt then.
    pub async fn settle(
        &self,
        by: &Principal,
        id: &DeliveryId,
        what: &Resolution,
        key: Option<&IdempotencyKey>,
    ) -> Result<Resolved, Refusal> {
        require(by, Role::StartDeliveries)?;
        let Some(key) = key else {
            let (plan, _) = self.note_settling(by, id, what, (&[], BTreeSet::new())).await?;
            return Ok(Resolved { settled: self.apply(id, &plan, what).await? });
        };
        let begun = RepeatKey::of(key, id);
        let done = RepeatKey { key: format!("{}:done", begun.key), ..begun.clone() };
        let found = self.find_in_doubt(id, what).await?;
        let (plan, found) = self.note_settling(by, id, what, (&[begun], found)).await?;
        // what a crash left undone its repeat does
        if self.first_answer::<()>(std::slice::from_ref(&done)).await?.is_none() {
            // but nobody who was released again meanwhile and came into doubt a second time
            let now = self.find_in_doubt(id, what).await?;
            let numbers = found.iter().filter(|doubt| now.contains(doubt)).map(|doubt| doubt.0).collect();
            self.apply(id, &plan, &Resolution { settlement: what.settlement, numbers: Some(numbers) }).await?;
            let over = |delivery: &Delivery, _| {
                Ok(Decision { state: delivery.state, document: delivery.document.clone(), answer: (), act: None })
            };
            self.change(id, &by.name, &[done], over).await?.answer();
        }
        Ok(Resolved { settled: found.len() as u64 })
    }

    /// Writes the ledgers; how many were settled.
    async fn apply(&self, id: &DeliveryId, plan: &Plan, what: &Resolution) -> Result<u64, Refusal> {
        let mut settled = 0;
        for (chunk, positions) in by_chunk(plan, &what.numbers)? {
            let at = ChunkRef { delivery: id.clone(), chunk };
            settled += self.store.settle(&at, what.settlement, positions.as_deref(), unix_now()).await?.len() as u64;
        }
        if what.settlement == Settlement::Resend && settled > 0 {
            // a finish that recounted in between has closed it again
            if self.delivery(id).await?.state == DeliveryState::Finished {
                self.step(id, Action::Reopen, |document, _| document.ended_at = None).await?;
            }
            self.feed(id).await?;
        }
        Ok(settled)
    }

    async fn find_in_doubt(&self, id: &DeliveryId, what: &Resolution) -> Result<BTreeSet<InDoubtClaim>, Refusal> {
        let mut found = BTreeSet::new();
        let Some(plan) = self.delivery(id).await?.document.plan else { return Ok(found) };
        for (chunk, positions) in by_chunk(&plan, &what.numbers)? {
            let ledger = self.store.ledgers(id, chunk..chunk + 1).await?.into_iter().flatten().next();
            let asked = |position: &u16| positions.as_ref().is_none_or(|positions| positions.contains(position));
            let records = ledger.iter().flat_map(Ledger::records);
            let in_doubt = (0u16..).zip(records).filter(|(at, record)| record.status == Status::InDoubt && asked(at));
            let first = u64::from(chunk) * u64::from(plan.chunk_size);
            found.extend(in_doubt.map(|(at, record)| InDoubtClaim(first + u64::from(at), record.claim.epoch, record.claim.n)));
        }
        Ok(found)
    }

    /// Notes in the audit log what is asked for; a delivery in which somebody is released again is in progress again. Answers
    /// the plan and who was found in doubt, at the first of equal requests.
    async fn note_settling(
        &self,
        by: &Principal,
        id: &DeliveryId,
        what: &Resolution,
        (repeats, found): (&[RepeatKey], BTreeSet<InDoubtClaim>),
    ) -> Result<(Plan, BTreeSet<InDoubtClaim>), Refusal> {
        let changed = self
            .change(id, &by.name, repeats, |delivery, now| {
                let mut document = delivery.document.clone();
                let plan = document.plan.clone().filter(|_| delivery.state.is_released());
                let plan = plan.ok_or(Refusal::Conflict("it was not released: there is nothing in doubt"))?;
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
                Ok(Decision { state, document, answer: (plan, found.clone()), act: Some(("settle", details)) })
            })
            .await?;
        Ok(changed.answer())
    }

    /// Pause, resume or stop.
    pub async fn control(
        &self,
        by: &Principal,
        id: &DeliveryId,
        control: Control,
        key: Option<&IdempotencyKey>,
    ) -> Result<DeliveryState, Refusal> {
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let changed = self
            .change(id, &by.name, &repeats, |delivery, now| {
                // whoever may prepare may also stop a preparation
                let role =
                    if delivery.state == DeliveryState::Preparing { Role::PrepareDeliveries } else { Role::StartDeliveries };
                require(by, role)?;
                let started = delivery.document.has_started();
                let state = delivery.state.after(match control {
                    Control::Pause => Action::Pause,
                    Control::Resume => Action::Resume { started },
                    Control::Stop => Action::Stop,
                })?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                Ok(Decision {
                    state,
                    document,
                    answer: state,
                    act: Some((control.word(), json!({ "state": delivery.state.word() }))),
                })
            })
            .await?;
        if control == Control::Resume {
            // a person has looked at it
            self.store.mend_delivery(id).await?;
            self.feed(id).await?;
        }
        Ok(changed.answer())
    }
}

/// Positions by chunk; all chunks without positions for all.
fn by_chunk(plan: &Plan, numbers: &RecipientNumbers) -> Result<BTreeMap<u32, Option<Vec<u16>>>, Refusal> {
    let Some(numbers) = numbers else { return Ok((0..plan.chunks).map(|chunk| (chunk, None)).collect()) };
    let mut chunks: BTreeMap<u32, Option<Vec<u16>>> = BTreeMap::new();
    for number in numbers {
        let (chunk, position) = locate(plan, *number).ok_or(Refusal::NoRecipient)?;
        chunks.entry(chunk).or_default().get_or_insert_default().push(position);
    }
    Ok(chunks)
}

/// Chunk and position of a recipient by its number in the sending log, from 0.
pub fn locate(plan: &Plan, number: u64) -> Option<(u32, u16)> {
    let size = u64::from(plan.chunk_size);
    let chunk = u32::try_from(number / size).ok().filter(|chunk| *chunk < plan.chunks)?;
    // the last chunks of several waves are not full: there it is the ledger that knows
    (plan.waves > 1 || number < plan.to_deliver).then_some(())?;
    Some((chunk, u16::try_from(number % size).ok()?))
}
