//! One request for proofs on its way over SMTP, on at most one connection at a time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::{
    daemon::Daemon,
    domain::{
        audience::AddressKey,
        delivery::{Delivery, Plan},
    },
    mail::{
        links::TokenSigner,
        smtp::{Envelope, RelayRoute, SmtpConnection, Transaction},
        template::{MessageStamp, ProofMarks, Template},
    },
    report::RecipientMessage,
    send::limits::MailOut,
    store::{
        addresses::{AddressStore, SentProof},
        tracking::PreparationRef,
    },
};

/// Why a proof is not started although the relay has no fault.
const LATE: &str = "the time for the request was over, or the daemon ends";

/// The result of one proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub recipient: u64,
    pub to: String,
    /// `accepted`, `refused`, `deferred`, `in_doubt` or `not_started`. Nothing is tried again.
    pub outcome: String,
    /// The reply of the server.
    pub reply: Option<String>,
    /// The fault, if no reply explains the outcome.
    pub fault: Option<String>,
}

/// The results of one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofResults {
    pub proofs: Vec<Proof>,
}

/// Everything that is needed to send the proofs of one request.
pub(super) struct ProofRun {
    pub(super) delivery: Delivery,
    pub(super) plan: Plan,
    pub(super) template: Arc<Template>,
    pub(super) messages: Vec<RecipientMessage>,
    /// The test addresses, each with its key.
    pub(super) to: Vec<(String, AddressKey)>,
    pub(super) subject_prefix: String,
    pub(super) connection: ProofConnection,
    pub(super) notes: ProofNotes,
}

/// Notes which proof went where, so that the opt-out link in it works.
pub(super) struct ProofNotes {
    pub(super) addresses: AddressStore,
    /// How long the note lasts.
    pub(super) seconds: i64,
}

/// The connection of a run: opened when it is needed, and again when it breaks.
pub(super) struct ProofConnection {
    out: MailOut,
    daemon: Daemon,
    route: RelayRoute,
    /// No transaction begins after this instant.
    until: Instant,
    open: Option<SmtpConnection>,
    /// Why no connection can be had: the rest is not started.
    fault: Option<String>,
    /// Acceptances by the relays since the start of this process.
    acceptances: Arc<AtomicU64>,
}

impl ProofRun {
    /// How many messages this run sends.
    pub(super) fn count(&self) -> u64 {
        (self.messages.len() * self.to.len()) as u64
    }

    /// Sends every message to every test address, one after the other.
    pub(super) async fn send(mut self) -> ProofResults {
        let mut proofs = Vec::new();
        for message in std::mem::take(&mut self.messages) {
            for (to, key) in self.to.clone() {
                let (outcome, reply, fault) = match self.send_one(&message, &to, key).await {
                    Ok(transaction) => {
                        let outcome = transaction.word();
                        let (reply, fault) = transaction.into_parts();
                        (outcome, reply, fault)
                    }
                    Err(fault) => (Transaction::NotStarted.word(), None, Some(fault)),
                };
                let (outcome, reply) = (outcome.to_owned(), reply.map(|reply| reply.to_string()));
                proofs.push(Proof { recipient: message.number, to, outcome, reply, fault });
            }
        }
        ProofResults { proofs }
    }

    /// Sends one proof. The error says why it was not started.
    async fn send_one(
        &mut self,
        message: &RecipientMessage,
        to: &str,
        key: AddressKey,
    ) -> Result<Transaction, String> {
        let signer = self.signer(message, key).await?;
        let maker = &self.connection.out.messages;
        let marks = ProofMarks {
            to: to.to_owned(),
            subject_prefix: self.subject_prefix.clone(),
            of: format!("{}/{}", self.delivery.id, message.number),
        };
        let definition = &self.delivery.document.definition;
        let message_id = maker.proof_id(definition, &self.plan.digest, &marks);
        let stamp = MessageStamp { message_id, signer, ..message.stamp.clone() };
        // the prefix may make the message too large
        let (template, recipient) = (self.template.clone(), message.recipient.clone());
        let threads = &maker.templates.threads;
        let made = threads.run(move || template.proof(&recipient, &stamp, &marks)).await;
        let mut text =
            made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let envelope = match Envelope::new(self.template.envelope_from(), to, text.len()) {
            Ok(envelope) => envelope,
            Err(reply) => return Ok(Transaction::Refused(reply)),
        };
        self.connection.send(&envelope, &mut text).await
    }

    /// The signer for the links of a proof. Its tokens name the recipient and the test address.
    async fn signer(
        &self,
        message: &RecipientMessage,
        address: AddressKey,
    ) -> Result<Option<TokenSigner>, String> {
        let Ok(recipient) = u32::try_from(message.number) else { return Ok(None) };
        let of = PreparationRef {
            delivery: self.delivery.id.clone(),
            generation: self.plan.generation,
            chunk_size: self.plan.chunk_size,
        };
        let proof = SentProof { recipient, address };
        let number = self
            .notes
            .addresses
            .number_proof((self.plan.number, &of), proof, self.notes.seconds)
            .await
            .map_err(|error| error.to_string())?;
        Ok(self.connection.out.messages.proof_signer(&self.delivery.id, &self.plan, number))
    }
}

impl ProofConnection {
    pub(super) fn new(
        out: MailOut,
        daemon: Daemon,
        (route, until): (RelayRoute, Instant),
        acceptances: Arc<AtomicU64>,
    ) -> Self {
        Self { out, daemon, route, until, open: None, fault: None, acceptances }
    }

    /// Runs one transaction. The error says why it was not started.
    async fn send(
        &mut self,
        envelope: &Envelope,
        text: &mut Vec<u8>,
    ) -> Result<Transaction, String> {
        let (shutdown, until) = (self.daemon.shutdown.clone(), self.until);
        let may_start = || !shutdown.is_cancelled() && Instant::now() < until;
        let (throttles, acceptances) = (self.out.throttles.clone(), self.acceptances.clone());
        let connection = self.usable().await?;
        if let Some((relay, rate)) = connection.limit() {
            throttles.wait_for_relay(relay, rate, &may_start).await;
        }
        match connection.send(envelope, text, None, &may_start).await {
            Transaction::NotStarted => Err(LATE.to_owned()),
            accepted @ Transaction::Accepted(_) => {
                // the conservation check counts proofs although no ledger has them
                acceptances.fetch_add(1, Ordering::Relaxed);
                Ok(accepted)
            }
            other => Ok(other),
        }
    }

    /// A connection that can be used. After a failed try no further connection is opened, because
    /// it would meet the same fault.
    async fn usable(&mut self) -> Result<&mut SmtpConnection, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        // a broken connection is closed before another one is opened
        self.open.take_if(|connection| !connection.is_usable());
        if self.open.is_none() {
            let opened = timeout_at(self.until, self.out.relays.connection(&self.route));
            match self.daemon.shutdown.run_until_cancelled(opened).await {
                Some(Ok(Ok(connection))) => self.open = Some(connection),
                Some(Ok(Err(fault))) => self.fault = Some(fault.to_string()),
                Some(Err(_)) | None => self.fault = Some(LATE.to_owned()),
            }
        }
        self.open.as_mut().ok_or_else(|| self.fault.clone().unwrap_or_default())
    }
}
