//! Settling: a person says what became of recipients in doubt. Pause, resume and stop are theirs, too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Context, Refusal,
    change::{Decision, IdempotencyKey, Repeat, require},
    unix_now,
};
use crate::{
    domain::{
        delivery::Plan,
        id::DeliveryId,
        role::{Principal, Role},
        state::{Action, State},
    },
    store::ledgers::{ChunkRef, Settlement},
};

/// Which recipients in doubt are settled, by their number in the sending log; `None` for all.
pub type Numbers = Option<Vec<u64>>;

/// How many were settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub settled: u64,
}

impl Context {
    /// Settles recipients in doubt. Who asked for what is in the audit log before it takes effect.
    pub async fn settle(
        &self,
        by: &Principal,
        id: &DeliveryId,
        settlement: Settlement,
        numbers: &Numbers,
    ) -> Result<Settled, Refusal> {
        require(by, Role::StartDeliveries)?;
        let plan = self.reopen_for(by, id, settlement, numbers).await?;
        let mut settled = 0;
        for (chunk, positions) in by_chunk(&plan, numbers)? {
            let at = ChunkRef { delivery: id.clone(), chunk };
            settled += self.store.settle(&at, settlement, positions.as_deref(), unix_now()).await?.len() as u64;
        }
        if settlement == Settlement::Resend && settled > 0 {
            // a finish that recounted in between has closed it again
            if self.delivery(id).await?.state == State::Finished {
                self.step(id, Action::Reopen, |document, _| document.ended_at = None).await?;
            }
            self.feed(id).await?;
        }
        Ok(Settled { settled })
    }

    async fn reopen_for(
        &self,
        by: &Principal,
        id: &DeliveryId,
        settlement: Settlement,
        numbers: &Numbers,
    ) -> Result<Plan, Refusal> {
        let changed = self
            .change(id, &by.name, &[], |delivery, now| {
                let mut document = delivery.document.clone();
                let plan = document.plan.clone().filter(|_| delivery.state.is_released());
                let plan = plan.ok_or(Refusal::Conflict("it was not released: there is nothing in doubt"))?;
                by_chunk(&plan, numbers)?;
                let mut state = delivery.state;
                if settlement == Settlement::Resend {
                    state = state.after(Action::Reopen)?;
                    document.ended_at = None;
                }
                document.changed_at = now;
                let details = json!({ "settlement": settlement, "recipients": numbers });
                Ok(Decision { state, document, answer: plan, act: Some(("settle", details)) })
            })
            .await?;
        Ok(changed.answer())
    }

    /// Pause, resume or stop.
    pub async fn control(
        &self,
        by: &Principal,
        id: &DeliveryId,
        action: Action,
        key: Option<&IdempotencyKey>,
    ) -> Result<State, Refusal> {
        let word = match action {
            Action::Pause => "pause",
            Action::Resume => "resume",
            _ => "stop",
        };
        let repeats: Vec<Repeat> = key.iter().map(|key| Repeat::of(key, id)).collect();
        let changed = self
            .change(id, &by.name, &repeats, |delivery, now| {
                // whoever may prepare may also stop a preparation
                let role = if delivery.state == State::Preparing { Role::PrepareDeliveries } else { Role::StartDeliveries };
                require(by, role)?;
                let state = delivery.state.after(action)?;
                let mut document = delivery.document.clone();
                document.changed_at = now;
                Ok(Decision { state, document, answer: state, act: Some((word, json!({ "state": delivery.state.word() }))) })
            })
            .await?;
        Ok(changed.answer())
    }
}

/// Positions by chunk; all chunks without positions for all.
fn by_chunk(plan: &Plan, numbers: &Numbers) -> Result<BTreeMap<u32, Option<Vec<u16>>>, Refusal> {
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
    (number < plan.to_deliver).then_some(())?;
    Some((u32::try_from(number / size).ok()?, u16::try_from(number % size).ok()?))
}
