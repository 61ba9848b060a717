//! Confirmation: the one gate between "prepared" and "sent". HTTP and the queue both come through here.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Context, Refusal,
    change::{Changed, Decision, Repeat, require},
};
use crate::{
    domain::{
        delivery::{Delivery, Release},
        id::DeliveryId,
        role::{Principal, Role},
        state::Action,
    },
    queue::{Job, QueueName},
};

/// What a confirmation is answered with; a repeated one gets the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    pub delivery: DeliveryId,
    pub digest: String,
    pub confirmed_by: String,
    pub confirmed_at: Timestamp,
    pub to_deliver: u64,
}

impl Context {
    /// Releases what `digest` names. The compare-and-set on the state lets one confirmation through, however many there are.
    /// `repeats` are the keys under which the same request gets its first answer; `via` says in the audit log how it came.
    pub async fn confirm(
        &self,
        by: &Principal,
        id: &DeliveryId,
        digest: &str,
        via: &str,
        repeats: &[Repeat],
    ) -> Result<Confirmed, Refusal> {
        require(by, Role::StartDeliveries)?;
        let changed = self.change(id, &by.name, repeats, |delivery, now| decide(delivery, by, digest, via, now)).await?;
        if let Changed::Now(_) = changed {
            self.enqueue_start(id, 0).await?;
        }
        Ok(changed.answer())
    }

    /// Puts the job that starts a released delivery on the queue; another round makes another job.
    pub async fn enqueue_start(&self, id: &DeliveryId, round: u64) -> Result<(), Refusal> {
        let job = Job::StartDelivery { delivery: id.to_string() };
        self.queue.enqueue(QueueName::Steps, &format!("start:{id}:{round}"), &job.encode()).await?;
        Ok(())
    }
}

fn decide(delivery: &Delivery, by: &Principal, digest: &str, via: &str, now: Timestamp) -> Result<Decision<Confirmed>, Refusal> {
    let state = delivery.state.after(Action::Confirm)?;
    let mut document = delivery.document.clone();
    let plan = document.plan.as_ref().filter(|plan| plan.digest == digest).ok_or(Refusal::StaleDigest)?;
    let validity =
        SignedDuration::try_from_secs_f64(plan.settings.validity_hours * 3600.0).unwrap_or(SignedDuration::from_hours(24));
    let answer = Confirmed {
        delivery: delivery.id.clone(),
        digest: digest.to_owned(),
        confirmed_by: by.name.clone(),
        confirmed_at: now,
        to_deliver: plan.to_deliver,
    };
    document.release = Some(Release {
        by: by.name.clone(),
        confirmed_at: now,
        // whole seconds: the Date header has no more, and the preview is to show the same bytes
        released_at: Timestamp::from_second(now.as_second()).unwrap_or(now),
        valid_until: now.checked_add(validity).unwrap_or(Timestamp::MAX),
    });
    document.changed_at = now;
    Ok(Decision { state, document, answer, act: Some(("confirm", json!({ "digest": digest, "via": via }))) })
}
