//! Confirmations by jobs: an upstream system queues one with a JWT that names the digest.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::confirmations::{Confirmations, ConfirmedSend};
use crate::{
    clock::unix_now,
    deliveries::{Deliveries, Refusal, RepeatKey},
    domain::delivery::DeliveryId,
    identity::{Claims, Keyring, NotAuthentic},
    live::Live,
    metrics,
    queue::{ConfirmSend, JobError, Queue, QueueName, ReceivedJob},
    store::keys,
};

/// How long a producer can read the outcome of its job.
const OUTCOME_SECONDS: u64 = 24 * 3600;
/// The sweep looks only at jobs that died at most so many seconds ago. Older ones were answered.
const ANSWERED_WITHIN_S: u64 = 6 * 3600;

/// The outcome of a job, for its producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum JobOutcome {
    Confirmed(ConfirmedSend),
    Refused {
        reason: String,
        /// The delivery that the job named, if its payload could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delivery: Option<String>,
    },
}

/// Confirms for upstream systems, and answers their jobs.
#[derive(Clone)]
pub struct QueueConfirmations {
    pub deliveries: Deliveries,
    pub confirmations: Confirmations,
    pub queue: Queue,
    pub keyring: Live<Keyring>,
}

impl QueueConfirmations {
    /// The job: checks its token and confirms. A refused job goes to the dead set. The producer
    /// can read the outcome either way.
    ///
    /// # Errors
    /// [`JobError::Abort`] with the reason of a refusal; [`JobError::Retry`] if Redis does not
    /// answer.
    pub async fn confirm_send(&self, job: ReceivedJob) -> Result<(), JobError> {
        let verdict = self.try_confirm_send(&job).await;
        let outcome = match &verdict {
            Ok(confirmed) => JobOutcome::Confirmed(confirmed.clone()),
            Err(JobError::Abort(reason)) => JobOutcome::Refused {
                reason: reason.clone(),
                delivery: ConfirmSend::decode(&job.payload).ok().map(|request| request.delivery),
            },
            Err(JobError::Retry(_)) => return verdict.map(drop),
        };
        self.deliveries.store.keep_outcome(&job.id, &outcome, OUTCOME_SECONDS).await?;
        if let Err(JobError::Abort(reason)) = &verdict {
            tracing::warn!(job.id, reason, "a confirmation was refused");
        }
        verdict.map(drop)
    }

    /// Gives an outcome to jobs that were set aside without one, so that their producers learn it.
    async fn answer_dead_jobs(&self) -> Result<(), Refusal> {
        let since_s = u64::from(unix_now()).saturating_sub(ANSWERED_WITHIN_S);
        for (job, result) in self.queue.dead_since(QueueName::Confirm, since_s).await? {
            let result: serde_json::Value = serde_json::from_str(&result).unwrap_or_default();
            let reason = result["Err"].as_str().unwrap_or("set aside").to_owned();
            let outcome = JobOutcome::Refused { reason, delivery: None };
            if self.deliveries.store.keep_outcome_of_dead(&job, &outcome, OUTCOME_SECONDS).await? {
                tracing::warn!(
                    job.id = job,
                    "a confirmation was set aside without an outcome: its producer reads a refusal"
                );
            }
        }
        Ok(())
    }

    async fn try_confirm_send(&self, job: &ReceivedJob) -> Result<ConfirmedSend, JobError> {
        let request = ConfirmSend::decode(&job.payload)?;
        let id: DeliveryId =
            request.delivery.parse().map_err(|e| JobError::Abort(format!("{e}")))?;
        let claims =
            self.keyring.now().job(&request.token, &request.delivery, &request.digest).map_err(
                |e: NotAuthentic| {
                    metrics::login_failure();
                    JobError::Abort(e.to_string())
                },
            )?;
        self.refuse_if_perhaps_spent(&claims).await?;
        let repeat = repeat_key_of(&id, &claims);
        match self
            .confirmations
            .confirm(&claims.principal(), &id, &request.digest, "queue", &[repeat])
            .await
        {
            Ok(confirmed) => Ok(confirmed),
            Err(refusal @ (Refusal::Unavailable(_) | Refusal::Queue(_))) => Err(refusal.into()),
            Err(refusal) => Err(JobError::Abort(refusal.to_string())),
        }
    }

    /// Refuses a JWT that was signed before the store was released. It may have been spent in the
    /// time that the store lacks.
    async fn refuse_if_perhaps_spent(&self, claims: &Claims) -> Result<(), JobError> {
        let released = self.deliveries.holds.released_at().await?;
        match released.is_some_and(|at| claims.iat <= u64::from(at)) {
            false => Ok(()),
            true => Err(JobError::Abort(
                "the token was signed before the store was released, so it may have been used \
                 already: check the delivery and sign another one"
                    .into(),
            )),
        }
    }

    /// The task: gives outcomes to jobs that were set aside, and removes jobs that ended long ago.
    ///
    /// Returns false if one of the two failed; the next run repeats it.
    pub async fn sweep_jobs(&self) -> bool {
        let (answered, swept) =
            (self.answer_dead_jobs().await, self.queue.sweep(u64::from(unix_now())).await);
        if let Err(error) = &answered {
            tracing::debug!(%error, "dead jobs cannot be answered");
        }
        if let Err(error) = &swept {
            tracing::debug!(%error, "ended jobs cannot be swept");
        }
        answered.is_ok() && swept.is_ok()
    }
}

/// The key under which a JWT is spent, in the same script as the state change. The same JWT gets
/// the first outcome. Another JWT for this delivery with the same issuer and `jti` is refused.
fn repeat_key_of(id: &DeliveryId, claims: &Claims) -> RepeatKey {
    let name = Sha256::new()
        .chain_update(&claims.iss)
        .chain_update(b"\0")
        .chain_update(claims.jti.as_deref().unwrap_or_default())
        .finalize();
    let bound = serde_json::json!([
        claims.aud,
        claims.delivery,
        claims.digest,
        claims.action,
        claims.exp,
        claims.sub
    ]);
    RepeatKey {
        key: keys::spent(id, &HEXLOWER.encode(&name[..16])),
        request_sha256: HEXLOWER.encode(&Sha256::digest(bound.to_string())),
        // longer than any token lives
        seconds: 2 * OUTCOME_SECONDS,
    }
}
