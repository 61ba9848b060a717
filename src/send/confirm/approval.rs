//! Approval: where two persons are needed, the first one's yes to what was prepared.

use jiff::Timestamp;
use serde_json::json;

use super::confirmation::Confirmations;
use crate::{
    deliveries::{Decision, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Approval, Delivery, DeliveryId, DeliveryState},
    },
};

impl Confirmations {
    /// Notes that a person other than the preparer approves what `digest` names. Any change voids it.
    pub async fn approve(
        &self,
        by: &Principal,
        id: &DeliveryId,
        digest: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<Approval, Refusal> {
        require(by, Role::StartDeliveries)?;
        let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, id)).collect();
        let approved = self
            .deliveries
            .change(id, &by.name, &repeats, |delivery, now| decide(delivery, by, digest, now))
            .await?
            .answer();
        // a repeat, too, is told only what no crash can undo
        self.deliveries.redis.await_durability().await?;
        Ok(approved)
    }
}

fn decide(
    delivery: &Delivery,
    by: &Principal,
    digest: &str,
    now: Timestamp,
) -> Result<Decision<Approval>, Refusal> {
    let mut document = delivery.document.clone();
    let plan = document.plan.as_ref().filter(|_| delivery.state == DeliveryState::Prepared);
    let plan = plan.ok_or(Refusal::Conflict("only a prepared delivery can be approved"))?;
    if plan.digest != digest {
        return Err(Refusal::StaleDigest);
    }
    if plan.settings.approvals < 2 {
        return Err(Refusal::Conflict("it needs no approval besides the confirmation"));
    }
    if plan.prepared_by == by.name {
        return Err(Refusal::NotYours("whoever prepared a delivery cannot approve it"));
    }
    if let Some(before) = &document.approval {
        return match before.by == by.name {
            true => {
                Ok(Decision { state: delivery.state, answer: before.clone(), document, act: None })
            }
            false => Err(Refusal::Conflict("it is approved already")),
        };
    }
    let approval = Approval { by: by.name.clone(), approved_at: now, digest: digest.to_owned() };
    document.approval = Some(approval.clone());
    document.changed_at = now;
    Ok(Decision {
        state: delivery.state,
        document,
        answer: approval,
        act: Some(("approve", json!({ "digest": digest }))),
    })
}

/// Whether enough persons stand behind a confirmation by `by`.
///
/// # Errors
/// Who else is needed.
pub(super) fn enough(
    delivery: &Delivery,
    digest: &str,
    approvals: u8,
    by: &str,
) -> Result<(), Refusal> {
    if approvals < 2 {
        return Ok(());
    }
    match delivery.document.approval.as_ref().filter(|approval| approval.digest == digest) {
        None => Err(Refusal::Conflict(
            "it needs the approval of a second person, other than who prepared it",
        )),
        Some(approval) if approval.by == by => {
            Err(Refusal::NotYours("whoever approved a delivery cannot confirm it, too"))
        }
        Some(_) => Ok(()),
    }
}
