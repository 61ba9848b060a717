//! Proofs: the messages of chosen recipients, sent to test addresses.
//!
//! No ledger and no figure of the delivery knows of them.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use data_encoding::HEXLOWER;
use serde_json::json;
use tokio::time::Instant;

use super::{
    proof_request::{ProofRequest, invalid},
    proof_run::{ProofConnection, ProofNotes, ProofResults, ProofRun},
};
use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::{
        Actor, Changed, Decision, Deliveries, IdempotencyKey, Refusal, RepeatKey, require,
    },
    domain::{
        Principal, Role,
        audience::AddressKey,
        delivery::{Delivery, DeliveryId, Plan},
    },
    live::Live,
    mail::address_key,
    report::{NOT_PREPARED, RecipientMessage, RecipientMessages},
    send::limits::MailOut,
    store::{StoreError, addresses::AddressStore, limits::LimitStore},
};

/// Sends proofs.
#[derive(Clone)]
pub struct Proofs {
    pub deliveries: Deliveries,
    pub recipients: RecipientMessages,
    pub addresses: AddressStore,
    pub limits: LimitStore,
    pub out: MailOut,
    /// Acceptances by the relays since the start of this process.
    pub acceptances: Arc<AtomicU64>,
    pub config: Live<Config>,
    pub daemon: Daemon,
}

impl Proofs {
    /// Sends the messages of some recipients to test addresses, marked as proofs.
    ///
    /// The audit log names the request before anything is sent. With a key a repeated request
    /// gets the first answer and sends nothing.
    ///
    /// # Errors
    /// - The principal lacks the role, or the request is invalid.
    /// - A test address is on the denylist.
    /// - The principal has sent too many proofs within an hour.
    /// - The delivery is not prepared, was changed meanwhile, is altered, or has no relay.
    /// - The store is held, or the logs of the delivery are removed.
    /// - An earlier request with the key has no answer.
    pub async fn send_proofs(
        &self,
        by: &Principal,
        id: &DeliveryId,
        request: &ProofRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<ProofResults, Refusal> {
        require(by, Role::PrepareDeliveries)?;
        let begun = key.map(|key| RepeatKey::of(key, id));
        let done = begun.as_ref().map(RepeatKey::when_done);
        if let Some(before) = self.deliveries.first_answer(done.as_slice()).await? {
            self.deliveries.await_durability().await?;
            return Ok(before.answer());
        }
        // a repeated request must not count among the proofs of the hour
        if self.deliveries.first_answer::<()>(begun.as_slice()).await?.is_some() {
            return self.results_of(done.as_ref()).await;
        }
        // a store that is behind may lack entries of the denylist
        self.deliveries.require_moving_store().await?;
        let run = self.prepare_run(by, id, request).await?;
        self.take_proofs(by, run.count()).await?;
        if let Changed::Before(()) = self.note_request(by, &run, begun.as_slice()).await? {
            return self.results_of(done.as_ref()).await;
        }
        let (proofs, by, id) = (self.clone(), by.name.clone(), id.clone());
        // in a task of its own: a caller that goes away must not break off a transaction
        let sending = self.daemon.tracker.spawn(async move {
            let results = run.send().await;
            if let Some(done) = done
                && let Err(error) = proofs.keep_results(&id, &by, done, &results).await
            {
                tracing::warn!(
                    delivery.id = %id,
                    %error,
                    "the answer to a request for proofs is not kept: a repeated request is refused"
                );
            }
            results
        });
        Ok(sending.await.map_err(|error| StoreError::Damaged(error.to_string()))?)
    }

    /// The results of an earlier request with the same key.
    ///
    /// # Errors
    /// If that request is not over, or was cut off.
    async fn results_of(&self, done: Option<&RepeatKey>) -> Result<ProofResults, Refusal> {
        let before = self.deliveries.first_answer(done.map_or(&[], std::slice::from_ref)).await?;
        before.map(Changed::answer).ok_or(Refusal::Conflict(
            "the request with this key is not over or was cut off: the key sends nothing again",
        ))
    }

    /// Checks the request and reads the recipients, so that faults are found before the sending.
    async fn prepare_run(
        &self,
        by: &Principal,
        id: &DeliveryId,
        request: &ProofRequest,
    ) -> Result<ProofRun, Refusal> {
        let to = self.test_addresses(request).await?;
        let delivery = self.deliveries.delivery_with_logs(id).await?;
        Actor::from(by).check(&delivery)?;
        if delivery.document.is_untrusted() {
            return Err(Refusal::Altered);
        }
        let plan = delivery.document.plan.clone().ok_or(NOT_PREPARED)?;
        let messages = self.messages_of(&delivery, &plan, &request.recipients).await?;
        let template = self.recipients.template(&delivery, &plan).await?;
        let route = self
            .out
            .relays
            .route(template.envelope_from())
            .ok_or(Refusal::Conflict("no relay sends for the domain of the envelope sender"))?;
        // a quarter of the time is left, so that the answer comes before the request times out
        let until = Instant::now()
            + Duration::from_millis(self.config.now().server.request_timeout_ms) * 3 / 4;
        Ok(ProofRun {
            delivery,
            plan,
            template,
            messages,
            to,
            subject_prefix: request.prefix(),
            connection: ProofConnection::new(
                self.out.clone(),
                self.daemon.clone(),
                (route, until),
                self.acceptances.clone(),
            ),
            notes: ProofNotes {
                addresses: self.addresses.clone(),
                seconds: self.config.now().retention.opt_outs_s(),
            },
        })
    }

    /// The test addresses of a request, each with its key.
    ///
    /// # Errors
    /// If an address cannot be used, is not allowed, or is on the denylist.
    async fn test_addresses(
        &self,
        request: &ProofRequest,
    ) -> Result<Vec<(String, AddressKey)>, Refusal> {
        let mut to = Vec::new();
        for (i, address) in request.check(self.config.now().proof_masks())?.into_iter().enumerate()
        {
            let key = address_key(&address)
                .map_err(|error| invalid(format!("to[{i}]"), error.to_string()))?;
            to.push((address, key));
        }
        let keys: Vec<AddressKey> = to.iter().map(|(_, key)| *key).collect();
        let denied = self.addresses.denied(&keys).await?;
        if let Some(i) = denied.iter().position(|denied| *denied) {
            return Err(invalid(format!("to[{i}]"), "is on the denylist").into());
        }
        Ok(to)
    }

    /// Counts the proofs of a request, for all daemons together.
    async fn take_proofs(&self, by: &Principal, proofs: u64) -> Result<(), Refusal> {
        let per_hour = self.config.now().preparation.proofs_per_hour;
        match self.limits.take_proofs(&by.name, proofs, per_hour).await? {
            None => Ok(()),
            Some(wait) => Err(Refusal::TooManyProofs { per_hour, wait }),
        }
    }

    async fn messages_of(
        &self,
        delivery: &Delivery,
        plan: &Plan,
        numbers: &[u64],
    ) -> Result<Vec<RecipientMessage>, Refusal> {
        let mut messages = Vec::new();
        for (i, number) in numbers.iter().enumerate() {
            messages.push(match self.recipients.find(delivery, plan, *number, None).await {
                Err(Refusal::NoRecipient) => {
                    return Err(
                        invalid(format!("recipients[{i}]"), "there is no such recipient").into()
                    );
                }
                message => message?,
            });
        }
        Ok(messages)
    }

    /// Writes the audit entry, and with it the key of the request.
    async fn note_request(
        &self,
        by: &Principal,
        run: &ProofRun,
        repeats: &[RepeatKey],
    ) -> Result<Changed<()>, Refusal> {
        let digest = &run.plan.digest;
        let keys: Vec<String> =
            run.to.iter().map(|(_, key)| HEXLOWER.encode(&key.bytes())).collect();
        let numbers: Vec<u64> = run.messages.iter().map(|message| message.number).collect();
        self.deliveries
            .change(&run.delivery.id, by, repeats, |delivery, _| {
                if delivery.document.plan.as_ref().is_none_or(|plan| plan.digest != *digest) {
                    return Err(Refusal::Conflict("the delivery was changed meanwhile"));
                }
                let details = json!({
                    "recipients": numbers,
                    "addresses": run.to.len(),
                    "address_keys": keys,
                    "digest": digest,
                });
                let (state, document) = (delivery.state, delivery.document.clone());
                Ok(Decision { state, document, answer: (), act: Some(("proof", details)) })
            })
            .await
    }

    /// Keeps the results as the answer to repeated requests.
    async fn keep_results(
        &self,
        id: &DeliveryId,
        by: &str,
        done: RepeatKey,
        results: &ProofResults,
    ) -> Result<(), Refusal> {
        let keep = |delivery: &Delivery, _| {
            let (state, document) = (delivery.state, delivery.document.clone());
            Ok(Decision { state, document, answer: results.clone(), act: None })
        };
        self.deliveries.change(id, by, &[done], keep).await.map(|_| ())
    }
}
