//! Confirms a prepared delivery, for HTTP and for the queue.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::approvals::require_approvals;
use crate::{
    deliveries::{Changed, Decision, Deliveries, Refusal, RepeatKey, require},
    domain::{
        Principal, Role,
        delivery::{Action, Confirmation, Delivery, DeliveryId, DeliveryState, Plan},
        schedule::is_overdue,
        unix_seconds,
    },
    send::StepJobs,
};

/// The answer to a confirmation; a repeated request gets the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedSend {
    pub delivery: DeliveryId,
    pub digest: String,
    pub confirmed_by: String,
    pub confirmed_at: Timestamp,
    pub to_deliver: u64,
    /// `start_pending`, or `scheduled` until the first wave is due.
    pub state: DeliveryState,
    pub first_due: Option<Timestamp>,
}

/// Takes confirmations.
#[derive(Clone)]
pub struct Confirmations {
    pub deliveries: Deliveries,
    pub jobs: StepJobs,
}

impl Confirmations {
    /// Confirms `digest`: the delivery will be sent, now or when its waves are due.
    ///
    /// `repeats` are the keys under which a repeated request gets its first answer. `via` says in
    /// the audit log how the request came: `http` or `queue`.
    ///
    /// # Errors
    /// - The principal lacks the role, or may not give the second sign-off.
    /// - An approval is missing.
    /// - The state or the digest does not fit.
    /// - All waves are overdue, or the store is held.
    pub async fn confirm(
        &self,
        by: &Principal,
        id: &DeliveryId,
        digest: &str,
        via: &str,
        repeats: &[RepeatKey],
    ) -> Result<ConfirmedSend, Refusal> {
        require(by, Role::StartDeliveries)?;
        self.deliveries.require_moving_store().await?;
        let changed = self
            .deliveries
            .change(id, by, repeats, |delivery, now| decide(delivery, by, digest, via, now))
            .await?;
        if let Changed::Now(ConfirmedSend {
            state: DeliveryState::StartPending,
            confirmed_at,
            ..
        }) = &changed
        {
            // a round of its own, because an earlier confirmation may have been withdrawn
            self.jobs.enqueue_start(id, confirmed_at.as_millisecond().unsigned_abs()).await?;
        }
        Ok(changed.answer())
    }
}

fn decide(
    delivery: &Delivery,
    by: &Principal,
    digest: &str,
    via: &str,
    now: Timestamp,
) -> Result<Decision<ConfirmedSend>, Refusal> {
    // the state first: a second confirmation must learn that it is the second
    delivery.state.after(Action::Confirm { due: true })?;
    let plan = delivery
        .document
        .plan
        .as_ref()
        .filter(|plan| plan.digest == digest)
        .ok_or(Refusal::StaleDigest)?;
    require_approvals(delivery, digest, plan.settings.approvals, &by.name)?;
    let state = delivery.state.after(confirm_action(plan, now)?)?;
    let mut document = delivery.document.clone();
    document.confirmation =
        Some(Confirmation { by: by.name.clone(), confirmed_at: now, started: false });
    document.changed_at = now;
    let answer = ConfirmedSend {
        delivery: delivery.id.clone(),
        digest: digest.to_owned(),
        confirmed_by: by.name.clone(),
        confirmed_at: now,
        to_deliver: plan.to_deliver,
        state,
        first_due: plan.first_due,
    };
    Ok(Decision {
        state,
        document,
        answer,
        act: Some(("confirm", json!({ "digest": digest, "via": via }))),
    })
}

/// The action of a confirmation at `now`: the first wave is due, or the delivery is scheduled.
///
/// # Errors
/// If all waves are overdue.
pub fn confirm_action(plan: &Plan, now: Timestamp) -> Result<Action, Refusal> {
    let (now, grace_s) = (unix_seconds(now), plan.settings.grace_s());
    if plan.last_due.is_some_and(|due| is_overdue(unix_seconds(due), now, grace_s)) {
        return Err(Refusal::Conflict(
            "all waves are overdue beyond the grace window: change the schedule and prepare again",
        ));
    }
    Ok(Action::Confirm { due: plan.first_due.is_none_or(|due| unix_seconds(due) <= now) })
}
