//! The approval: the first of two sign-offs on a digest, where two persons are needed.

use jiff::Timestamp;
use serde_json::json;

use crate::{
    deliveries::{Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Approval, Delivery, DeliveryId, DeliveryState, Document},
    },
};

/// Takes approvals.
#[derive(Clone)]
pub struct Approvals {
    pub deliveries: Deliveries,
}

impl Approvals {
    /// Notes that a person approves `digest`. The approval is void once the definition or the
    /// audience changes, or a preparation begins.
    ///
    /// # Errors
    /// - The principal lacks the role, prepared the delivery or wrote it last.
    /// - The delivery is not prepared, or has another digest.
    /// - The delivery needs no approval, or has one by somebody else.
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
            .change(id, by, &repeats, |delivery, now| decide(delivery, by, digest, now))
            .await?
            .answer();
        // a repeated request, too, is answered only when no crash can undo the approval
        self.deliveries.await_durability().await?;
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
        return Err(Refusal::Conflict("the delivery needs no approval besides the confirmation"));
    }
    if plan.prepared_by == by.name {
        return Err(Refusal::NotYours("the person who prepared a delivery cannot approve it"));
    }
    refuse_writers(&document, &by.name)?;
    if let Some(before) = &document.approval {
        return match before.by == by.name {
            true => {
                Ok(Decision { state: delivery.state, answer: before.clone(), document, act: None })
            }
            false => Err(Refusal::Conflict("the delivery is approved already")),
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

/// Checks that enough persons have approved, so that `by` may confirm.
///
/// # Errors
/// If an approval is missing, or `by` is the person who approved or who wrote the delivery last.
pub(super) fn require_approvals(
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
            "the delivery needs the approval of a second person who did not prepare it",
        )),
        Some(approval) if approval.by == by => {
            Err(Refusal::NotYours("the person who approved a delivery cannot confirm it, too"))
        }
        Some(_) => refuse_writers(&delivery.document, by),
    }
}

/// Refuses the sign-off of whoever wrote the definition or the audience last.
fn refuse_writers(document: &Document, by: &str) -> Result<(), Refusal> {
    match document.was_written_by(by) {
        true => Err(Refusal::NotYours(
            "the person who wrote the definition or the audience last cannot sign it off",
        )),
        false => Ok(()),
    }
}
