//! A lane: one connection of a chunk, from a granted claim to the report of what became of it.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    chunk_sending::ChunkSending,
    claim::{GrantedClaim, given_back, report},
    expiry::expired,
    lease_validity::{LeaseValidity, boottime_ms},
    writer_channel::WriterChannel,
};
use crate::{
    clock::unix_now,
    config::KeepReplies,
    domain::{
        audience::Recipient,
        delivery::{Delivery, Plan},
        ledger::{ChunkRef, RecipientNumber, Status, flags},
        outcome::{FailureReason, FailureType, Reply, classify, retry_delay},
    },
    mail::{
        smtp::{Envelope, RelayRoute, SmtpConnection, Transaction},
        template::{MessageStamp, Template},
    },
    send::limits::{ConnectionPermit, RoutePermits},
    store::chunks::Report,
};

/// So long a message waits at the most for the envelope that is to go along with its end.
const PATIENCE: Duration = Duration::from_millis(4);

/// What all connections of a chunk share.
pub struct ChunkRun {
    pub sending: ChunkSending,
    pub at: ChunkRef,
    pub delivery: Delivery,
    pub plan: Plan,
    pub template: Arc<Template>,
    pub recipients: Vec<Recipient>,
    pub validity: Arc<LeaseValidity>,
    pub halt: CancellationToken,
    pub from: String,
    /// The relays that send for `from`.
    pub turns: RoutePermits,
    pub route: RelayRoute,
    pub date: Timestamp,
    pub valid_until: u32,
    pub complained: AtomicBool,
}

/// A claim whose message is made.
struct ReadyMessage {
    claimed: GrantedClaim,
    envelope: Arc<Envelope>,
    message: Vec<u8>,
}

impl ChunkRun {
    /// Drives one connection, and the next one when it broke, until there are no more grants.
    pub async fn drive(self: Arc<Self>, mut lane: WriterChannel) {
        let window = self.sending.access.config.send.claim_window;
        // claims are made only for a connection that is there
        while let Some((mut connection, _turn)) = self.connect(&lane.granted).await {
            lane.tell(None, window);
            let (mut open, mut next) = (window, None::<ReadyMessage>);
            // of messages that were sent
            let mut spaces: Vec<Vec<u8>> = Vec::new();
            while open > 0 {
                // the one whose envelope is on its way comes first
                let ready = match next.take() {
                    // it may have waited for minutes
                    Some(ready) => self.check_time(&ready.claimed).map(|()| ready),
                    None => match lane.granted.recv().await {
                        Some(claimed) => self.make(claimed, &mut spaces),
                        None => break,
                    },
                };
                let report = match ready {
                    Ok(mut ready) if connection.is_usable() && !self.halt.is_cancelled() => {
                        let waits =
                            open > 1 && connection.takes_next() && !self.plan.settings.smtp_test;
                        next = self.make_next(&mut lane, &mut spaces, waits).await;
                        let report =
                            self.attempt(&mut connection, &mut ready, &mut next, &mut lane).await;
                        spaces.push(ready.message);
                        report
                    }
                    Ok(ready) => given_back(&ready.claimed),
                    Err(report) => report,
                };
                let want = usize::from(connection.is_usable());
                open -= 1 - want;
                lane.tell(Some(report), want);
            }
            lane.part_with(connection);
        }
    }

    /// What comes next. A little is waited for its grant, if that has been asked for and its envelope could go along: one that goes
    /// alone costs a write, a read and a round trip.
    async fn make_next(
        &self,
        lane: &mut WriterChannel,
        spaces: &mut Vec<Vec<u8>>,
        waits: bool,
    ) -> Option<ReadyMessage> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.make(lane.next_grant(until, waits).await?, spaces) {
                Ok(ready) => return Some(ready),
                Err(report) => lane.tell(Some(report), 1),
            }
        }
    }

    /// A connection and the turn to have one, or none if all relays are at fault or nothing is left to do.
    async fn connect(
        &self,
        granted: &UnboundedReceiver<GrantedClaim>,
    ) -> Option<(SmtpConnection, ConnectionPermit)> {
        // a closed channel says that there will be no grants
        let over = async {
            while !granted.is_closed() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            biased;
            () = self.halt.cancelled() => None,
            () = over => None,
            connected = async {
                let turn = self.turns.take(&self.at.delivery).await;
                self.sending.out.relays.connection(&self.route).await.map(|connection| (connection, turn))
            } => connected.inspect_err(|fault| self.complain(fault)).ok(),
        }
    }

    /// Once for all connections of the chunk: they share the relays and their faults.
    fn complain(&self, fault: impl std::fmt::Display) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(delivery.id = %self.at.delivery, chunk = self.at.chunk, %fault, "the relay is at fault");
        }
    }

    /// One transaction. What waits behind it is given back at once when no more may be started: it may take minutes.
    async fn attempt(
        &self,
        connection: &mut SmtpConnection,
        ready: &mut ReadyMessage,
        next: &mut Option<ReadyMessage>,
        lane: &mut WriterChannel,
    ) -> Report {
        let upcoming = next.as_ref().map(|next| next.envelope.clone());
        let mut sending = pin!(self.send(connection, ready, upcoming));
        tokio::select! {
            report = &mut sending => return report,
            () = self.halt.cancelled() => {}
        }
        if let Some(next) = next.take() {
            lane.tell(Some(given_back(&next.claimed)), 0);
        }
        loop {
            tokio::select! {
                report = &mut sending => return report,
                Some(waiting) = lane.granted.recv() => lane.tell(Some(given_back(&waiting)), 0),
            }
        }
    }

    /// Within the validity period; or else what becomes of the claim. A doubt stays one: its first attempt may have been accepted.
    fn check_time(&self, claimed: &GrantedClaim) -> Result<(), Report> {
        let now = unix_now();
        match claimed.before.status {
            _ if now < self.valid_until => Ok(()),
            Status::InDoubt => {
                Err(report(claimed, Some(Status::InDoubt), 0, 0, now, String::new()))
            }
            _ => Err(expired(claimed)),
        }
    }

    /// Makes the message of a claim; or else what became of it.
    fn make(
        &self,
        claimed: GrantedClaim,
        spaces: &mut Vec<Vec<u8>>,
    ) -> Result<ReadyMessage, Report> {
        self.check_time(&claimed)?;
        let definition = &self.delivery.document.definition;
        let number = RecipientNumber::of(self.at.chunk, claimed.position, self.plan.chunk_size).0;
        let signer = self.sending.out.messages.signer(&self.delivery.id, &self.plan, number, false);
        let stamp = MessageStamp {
            signer,
            ..self.sending.out.messages.stamp(&self.at, claimed.position, definition, self.date)
        };
        let Some(recipient) = self.recipients.get(usize::from(claimed.position)) else {
            return Err(given_back(&claimed));
        };
        let message = self
            .template
            .render_into(recipient, &stamp, spaces.pop().unwrap_or_default())
            .map_err(|error| {
                let reply = format!("not sent: {} {}", error.part, error.message);
                report(
                    &claimed,
                    Some(Status::Failed),
                    FailureReason::NotDefined.code(),
                    0,
                    unix_now(),
                    reply,
                )
            })?;
        match Envelope::new(&self.from, &recipient.email, message.len()) {
            Ok(envelope) => Ok(ReadyMessage { claimed, envelope: Arc::new(envelope), message }),
            Err(reply) => Err(self.failure(&claimed, &reply, unix_now())),
        }
    }

    async fn send(
        &self,
        connection: &mut SmtpConnection,
        ready: &mut ReadyMessage,
        next: Option<Arc<Envelope>>,
    ) -> Report {
        let may_go = || self.validity.holds(boottime_ms()) && !self.halt.is_cancelled();
        // of the only relay of a route the gate has seen to it
        if let Some((relay, rate)) =
            connection.limit().filter(|_| self.sending.out.relays.only_rate(&self.route).is_none())
        {
            self.sending.out.throttles.wait_for_relay(relay, rate, &may_go).await;
        }
        let transaction = match self.plan.settings.smtp_test {
            true => connection.test(&ready.envelope, &may_go).await,
            false => connection.send(&ready.envelope, &mut ready.message, next, &may_go).await,
        };
        self.judge(&ready.claimed, transaction)
    }

    fn judge(&self, claimed: &GrantedClaim, transaction: Transaction) -> Report {
        let now = unix_now();
        if let Transaction::Deferred { fault: Some(_), .. } | Transaction::InDoubt(_) = &transaction
        {
            // not the text: a server may repeat the address in it
            self.complain("a transaction was broken off; the sending log has the details");
        }
        match transaction {
            Transaction::Accepted(reply) => {
                report(claimed, Some(Status::Sent), 0, flags::ACCEPTED, now, self.kept(&reply))
            }
            // no acceptance to be counted: the relay layer has not seen one
            Transaction::Tested(reply) => {
                report(claimed, Some(Status::Sent), 0, 0, now, self.kept(&reply))
            }
            Transaction::Refused(reply) => self.failure(claimed, &reply, now),
            Transaction::Deferred { reply, fault } => {
                self.deferral(claimed, reply.as_ref(), fault, now)
            }
            Transaction::InDoubt(fault) => report(claimed, Some(Status::InDoubt), 0, 0, now, fault),
            Transaction::NotStarted => given_back(claimed),
        }
    }

    /// What the log keeps of a good reply.
    fn kept(&self, reply: &Reply) -> String {
        let keep = self.sending.access.config.send.keep_replies == KeepReplies::All;
        if keep { reply.to_string() } else { String::new() }
    }

    fn failure(&self, claimed: &GrantedClaim, reply: &Reply, now: u32) -> Report {
        let (reason, kind) = classify(reply);
        let hard = if kind == FailureType::Hard { flags::HARD } else { 0 };
        report(claimed, Some(Status::Failed), reason.code(), hard, now, reply.to_string())
    }

    fn deferral(
        &self,
        claimed: &GrantedClaim,
        reply: Option<&Reply>,
        fault: Option<String>,
        now: u32,
    ) -> Report {
        let reason = reply.map_or(FailureReason::Unreachable, |reply| classify(reply).0).code();
        let text = reply.map(ToString::to_string).or(fault).unwrap_or_default();
        let attempts = claimed.before.attempts.saturating_add(1);
        match retry_delay::due(now, &self.plan.settings.retry_minutes, attempts, self.valid_until) {
            Some(due) => report(claimed, Some(Status::Deferred), reason, 0, due, text),
            None => report(claimed, Some(Status::Failed), reason, flags::EXPIRED, now, text),
        }
    }
}
