//! Proofs: the messages of chosen recipients, sent to test addresses. No ledger and no figure of the delivery knows of them.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::{Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require},
    domain::{
        Invalid, Principal, Role,
        audience::matches,
        delivery::{Delivery, DeliveryId, Plan},
    },
    mail::{
        smtp::{Envelope, RelayRoute, SmtpConnection, Transaction},
        template::{MessageStamp, ProofMarks, Template},
        to_ascii,
    },
    report::{NOT_PREPARED, RecipientMessage, RecipientMessages},
    send::limits::MailOut,
    store::StoreError,
};

/// Recipients times test addresses.
const MOST: usize = 100;
const LONGEST_PREFIX: usize = 100;
/// Why one is not started that no fault of the relay kept.
const LATE: &str = "the time for the request was over, or the daemon ends";

/// Whose messages are sent to whom.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    /// By their number in the sending log.
    pub recipients: Vec<u64>,
    /// The test addresses.
    pub to: Vec<String>,
    #[serde(default = "usual_prefix")]
    pub subject_prefix: String,
}

fn usual_prefix() -> String {
    "[Proof] ".to_owned()
}

/// What became of one proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub recipient: u64,
    pub to: String,
    /// `accepted`, `refused`, `deferred`, `in_doubt`, `not_started`; nothing is tried again.
    pub outcome: String,
    /// What the server said.
    pub reply: Option<String>,
    /// What is to blame if not a reply.
    pub fault: Option<String>,
}

/// What became of all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofResults {
    pub proofs: Vec<Proof>,
}

/// All that is needed to send them.
struct ProofRun {
    proofs: Proofs,
    route: RelayRoute,
    delivery: Delivery,
    plan: Plan,
    template: Arc<Template>,
    letters: Vec<RecipientMessage>,
    to: Vec<String>,
    subject_prefix: String,
    /// Nothing is begun after this.
    until: Instant,
    connection: Option<SmtpConnection>,
    /// Why there is no connection: then the rest is not started.
    fault: Option<String>,
}

fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), reason: reason.into() }
}

impl ProofRequest {
    /// The test addresses as they go over SMTP.
    fn check(&self, masks: &[String]) -> Result<Vec<String>, Invalid> {
        if self.recipients.is_empty() {
            return Err(invalid("recipients", "must name at least one"));
        }
        if self.to.is_empty() {
            return Err(invalid("to", "must name at least one test address"));
        }
        let n = self.recipients.len().saturating_mul(self.to.len());
        if n > MOST {
            return Err(invalid(
                "recipients",
                format!("times test addresses these are {n} messages, {MOST} at most"),
            ));
        }
        if self.subject_prefix.chars().count() > LONGEST_PREFIX
            || self.subject_prefix.contains(char::is_control)
        {
            return Err(invalid(
                "subject_prefix",
                format!("must have at most {LONGEST_PREFIX} printable characters"),
            ));
        }
        let mut seen = HashSet::new();
        if let Some(i) = self.recipients.iter().position(|number| !seen.insert(number)) {
            return Err(invalid(format!("recipients[{i}]"), "is named twice"));
        }
        let mut to: Vec<String> = Vec::new();
        for (i, address) in self.to.iter().enumerate() {
            let refuse = |reason: &str| invalid(format!("to[{i}]"), reason);
            let ascii = to_ascii(address).map_err(|error| refuse(&error.to_string()))?;
            if !masks.iter().any(|mask| matches(mask, address)) {
                return Err(refuse("is not allowed by preparation.proof_addresses"));
            }
            if to.contains(&ascii) {
                return Err(refuse("is named twice"));
            }
            to.push(ascii);
        }
        Ok(to)
    }
}

#[derive(Clone)]
pub struct Proofs {
    pub deliveries: Deliveries,
    pub recipients: RecipientMessages,
    pub out: MailOut,
    pub acceptances: Arc<AtomicU64>,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}

impl Proofs {
    /// Sends the messages of some recipients to test addresses, marked as proofs; what became of each. Who asked for what is in
    /// the audit log before. With a key a repeat gets the first answer and sends nothing.
    pub async fn send_proofs(
        &self,
        by: &Principal,
        id: &DeliveryId,
        what: &ProofRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<ProofResults, Refusal> {
        require(by, Role::PrepareDeliveries)?;
        let begun = key.map(|key| RepeatKey::of(key, id));
        let done =
            begun.clone().map(|begun| RepeatKey { key: format!("{}:done", begun.key), ..begun });
        if let Some(before) = self.deliveries.first_answer(done.as_slice()).await? {
            self.deliveries.redis.await_durability().await?;
            return Ok(before.answer());
        }
        let job = self.prepare_proofs(id, what).await?;
        if let Changed::Before(()) = self.note_proofs(by, &job, begun.as_slice()).await? {
            let before = self.deliveries.first_answer(done.as_slice()).await?;
            return before.map(Changed::answer).ok_or(Refusal::Conflict(
                "what this key asked for is being sent, or was cut off: nothing is sent again with this key",
            ));
        }
        let (kept, by, id) = (self.clone(), by.name.clone(), id.clone());
        // on its own: a caller that goes away must not break a transaction off
        let sending = self.daemon.tracker.spawn(async move {
            let proofs = job.send().await;
            if let Some(done) = done
                && let Err(error) = kept.keep_proofs(&id, &by, done, &proofs).await
            {
                tracing::warn!(delivery.id = %id, %error, "the answer to a request for proofs is not kept: its key repeats nothing");
            }
            proofs
        });
        Ok(sending.await.map_err(|error| StoreError::Damaged(error.to_string()))?)
    }

    /// Checks the request and reads the recipients: what is wrong is found before anything is sent.
    async fn prepare_proofs(
        &self,
        id: &DeliveryId,
        what: &ProofRequest,
    ) -> Result<ProofRun, Refusal> {
        let to = what.check(&self.config.preparation.proof_addresses)?;
        let delivery = self.deliveries.delivery_with_logs(id).await?;
        let plan = delivery.document.plan.as_ref().ok_or(NOT_PREPARED)?;
        let mut letters = Vec::new();
        for (i, number) in what.recipients.iter().enumerate() {
            letters.push(match self.recipients.find(&delivery, plan, *number, None).await {
                Err(Refusal::NoRecipient) => {
                    return Err(
                        invalid(format!("recipients[{i}]"), "there is no such recipient").into()
                    );
                }
                letter => letter?,
            });
        }
        let template = self.recipients.template(&delivery, plan)?;
        let route = self.out.relays.route(template.envelope_from());
        Ok(ProofRun {
            proofs: self.clone(),
            route: route
                .ok_or(Refusal::Conflict("no relay sends for the domain of its envelope sender"))?,
            template,
            plan: plan.clone(),
            delivery,
            letters,
            to,
            subject_prefix: what.subject_prefix.clone(),
            // so that the answer comes before the request is given up
            until: Instant::now()
                + Duration::from_millis(self.config.server.request_timeout_ms) * 3 / 4,
            connection: None,
            fault: None,
        })
    }

    /// The audit entry, and with it the key.
    async fn note_proofs(
        &self,
        by: &Principal,
        job: &ProofRun,
        repeats: &[RepeatKey],
    ) -> Result<Changed<()>, Refusal> {
        let numbers: Vec<u64> = job.letters.iter().map(|letter| letter.number).collect();
        self.deliveries
            .change(&job.delivery.id, &by.name, repeats, |delivery, _| {
                if delivery.document.plan.as_ref().is_none_or(|plan| plan.digest != job.plan.digest) {
                    return Err(Refusal::Conflict("it was changed meanwhile"));
                }
                let details = json!({ "recipients": numbers, "addresses": job.to.len(), "digest": job.plan.digest });
                let (state, document) = (delivery.state, delivery.document.clone());
                Ok(Decision { state, document, answer: (), act: Some(("proof", details)) })
            })
            .await
    }

    async fn keep_proofs(
        &self,
        id: &DeliveryId,
        by: &str,
        done: RepeatKey,
        proofs: &ProofResults,
    ) -> Result<(), Refusal> {
        let keep = |delivery: &Delivery, _| {
            let (state, document) = (delivery.state, delivery.document.clone());
            Ok(Decision { state, document, answer: proofs.clone(), act: None })
        };
        self.deliveries.change(id, by, &[done], keep).await.map(|_| ())
    }
}

impl ProofRun {
    async fn send(mut self) -> ProofResults {
        let mut proofs = Vec::new();
        for letter in std::mem::take(&mut self.letters) {
            for to in self.to.clone() {
                let (outcome, reply, fault) = match self.send_one(&letter, &to).await {
                    Ok(transaction) => {
                        let outcome = transaction.word();
                        let (reply, fault) = transaction.into_parts();
                        (outcome, reply, fault)
                    }
                    Err(fault) => (Transaction::NotStarted.word(), None, Some(fault)),
                };
                let (outcome, reply) = (outcome.to_owned(), reply.map(|reply| reply.to_string()));
                proofs.push(Proof { recipient: letter.number, to, outcome, reply, fault });
            }
        }
        ProofResults { proofs }
    }

    /// The error says why it was not started.
    async fn send_one(
        &mut self,
        letter: &RecipientMessage,
        to: &str,
    ) -> Result<Transaction, String> {
        let marks = ProofMarks {
            to: to.to_owned(),
            subject_prefix: self.subject_prefix.clone(),
            of: format!("{}/{}", self.delivery.id, letter.number),
        };
        let message_id = self.proofs.recipients.messages.proof_id(
            &self.delivery.document.definition,
            &self.plan.digest,
            &marks,
        );
        let signer = self.proofs.recipients.messages.signer(
            &self.delivery.id,
            &self.plan,
            letter.number,
            true,
        );
        let stamp = MessageStamp { message_id, signer, ..letter.stamp.clone() };
        // the prefix may make it too large
        let mut message = self
            .template
            .proof(&letter.recipient, &stamp, &marks)
            .map_err(|error| error.to_string())?;
        let envelope = match Envelope::new(self.template.envelope_from(), to, message.len()) {
            Ok(envelope) => envelope,
            Err(reply) => return Ok(Transaction::Refused(reply)),
        };
        let (shutdown, until) = (self.proofs.daemon.shutdown.clone(), self.until);
        let may_go = || !shutdown.is_cancelled() && Instant::now() < until;
        let (throttles, connection) = (self.proofs.out.throttles.clone(), self.connection().await?);
        if let Some((relay, rate)) = connection.limit() {
            throttles.wait_for_relay(relay, rate, &may_go).await;
        }
        let transaction = connection.send(&envelope, &mut message, None, &may_go).await;
        match transaction {
            Transaction::Accepted(_) => {
                // in no ledger, and accounted for all the same
                self.proofs.acceptances.fetch_add(1, Ordering::Relaxed);
                Ok(transaction)
            }
            Transaction::NotStarted => Err(LATE.to_owned()),
            other => Ok(other),
        }
    }

    /// A connection that can be used. After a fault no further one is tried: the rest would wait for the same.
    async fn connection(&mut self) -> Result<&mut SmtpConnection, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        // given back first, or closed
        self.connection.take_if(|connection| !connection.is_usable());
        if self.connection.is_none() {
            let opened = timeout_at(self.until, self.proofs.out.relays.connection(&self.route));
            match self.proofs.daemon.shutdown.run_until_cancelled(opened).await {
                Some(Ok(Ok(connection))) => self.connection = Some(connection),
                Some(Ok(Err(fault))) => self.fault = Some(fault.to_string()),
                Some(Err(_)) | None => self.fault = Some(LATE.to_owned()),
            }
        }
        self.connection.as_mut().ok_or_else(|| self.fault.clone().unwrap_or_default())
    }
}
