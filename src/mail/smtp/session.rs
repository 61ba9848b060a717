//! One SMTP transaction: envelope, message, reply; and on which side of the dividing line it ended.
//!
//! Where the server offers PIPELINING the next envelope goes out in the same write as the end of a message (RFC 2920, 3.1: the
//! message's content may be the first in a group), so that a message costs one round trip.

use std::{sync::Arc, time::Duration};

use super::{
    dot_stuffing::stuff,
    fault::RelayFault,
    handshake::ServerExtensions,
    transaction::{
        Envelope, Transaction, TransactionEnd, by_code, is_done, refused, refused_sender,
    },
    wire::{Wire, WireError},
};
use crate::domain::outcome::Reply;

/// How long each step may take (RFC 5321, 4.5.3.2).
#[derive(Debug, Clone, Copy)]
pub struct TransactionTimeouts {
    pub command: Duration,
    pub data: Duration,
    pub body: Duration,
    pub last: Duration,
}

/// A connection's side of a transaction.
pub struct SmtpSession {
    pub wire: Wire,
    offers: ServerExtensions,
    /// A refused envelope is still open on the server; RSET goes out with the next one.
    needs_reset: bool,
    /// The envelope that went out with the end of the last message, and is not answered yet.
    ahead: Option<Arc<Envelope>>,
    /// False during a transaction, and once the connection may not be used any more.
    pub usable: bool,
    /// The connection broke after the reply that decides.
    closing: bool,
}

/// A message above this is written in two parts, so that most of its way is before the dividing line.
const ONE_WRITE_BYTES: usize = 16 * 1024;
const TAIL_BYTES: usize = 512;

impl SmtpSession {
    pub fn new(wire: Wire, offers: ServerExtensions) -> Self {
        Self { wire, offers, needs_reset: false, ahead: None, usable: true, closing: false }
    }

    /// Whether an envelope is on its way: the connection is good for its message only.
    pub fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Whether the server takes an envelope along with the end of data.
    pub fn takes_next(&self) -> bool {
        self.offers.pipelining
    }

    /// Drives one transaction, and begins that of `next`, which only a server gets that takes it. `usable` is false while it runs, so a
    /// dropped future leaves it so.
    pub async fn transact(
        &mut self,
        limits: TransactionTimeouts,
        envelope: &Envelope,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.usable || !may_go() {
            return Transaction::NotStarted;
        }
        self.usable = false;
        let answered = match self.ahead.take() {
            Some(ahead) if *ahead == *envelope => self.answers(limits).await,
            // what is open on the server is somebody else's
            Some(_) => return Transaction::NotStarted,
            None => self.envelope(limits, envelope).await,
        };
        match answered {
            Ok(()) => self.message(limits, message, next, may_go).await,
            Err(ended) => self.end(ended),
        }
    }

    fn end(&mut self, ended: TransactionEnd) -> Transaction {
        match ended {
            TransactionEnd::Fault(reply, fault) => {
                Transaction::Deferred { reply, fault: Some(fault.to_string()) }
            }
            TransactionEnd::Reply(reply) => {
                self.usable = reply.code != 421 && !self.closing;
                by_code(reply)
            }
        }
    }

    /// MAIL, RCPT, RSET: nothing is ever transferred. What the server says to RCPT stands, whatever becomes of RSET.
    pub async fn test(
        &mut self,
        limits: TransactionTimeouts,
        envelope: &Envelope,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.usable || !may_go() {
            return Transaction::NotStarted;
        }
        self.usable = false;
        // with one that went ahead DATA did, too
        if self.ahead.is_some() {
            return Transaction::NotStarted;
        }
        match self.recipient(limits, envelope).await {
            Ok(reply) => {
                self.usable = !self.closing;
                Transaction::Tested(reply)
            }
            Err(ended) => self.end(ended),
        }
    }

    /// The reply to RCPT of an envelope that is not open any more on the server, or the connection is to be closed.
    async fn recipient(
        &mut self,
        limits: TransactionTimeouts,
        envelope: &Envelope,
    ) -> Result<Reply, TransactionEnd> {
        let (mail, rcpt) = (envelope.mail(self.offers.size), envelope.rcpt());
        if self.needs_reset {
            self.ask(limits.command, "RSET\r\n").await?;
            self.needs_reset = false;
        }
        let (mail, rcpt) = if self.offers.pipelining {
            self.write(limits.command, format!("{mail}{rcpt}RSET\r\n").as_bytes()).await?;
            (self.answer(limits.command).await?, Some(self.answer(limits.command).await?))
        } else {
            let mail = self.ask(limits.command, &mail).await?;
            let rcpt =
                if is_done(&mail) { Some(self.ask(limits.command, &rcpt).await?) } else { None };
            self.write(limits.command, b"RSET\r\n").await.unwrap_or_else(|_| self.closing = true);
            (mail, rcpt)
        };
        self.closing =
            self.closing || !self.answer(limits.command).await.is_ok_and(|reply| is_done(&reply));
        match rcpt {
            Some(rcpt) if is_done(&mail) && is_done(&rcpt) => Ok(rcpt),
            Some(rcpt) if is_done(&mail) => Err(refused("RCPT", rcpt)),
            _ => Err(refused_sender(mail)),
        }
    }

    /// MAIL, RCPT, DATA; on return the server waits for the message.
    async fn envelope(
        &mut self,
        limits: TransactionTimeouts,
        envelope: &Envelope,
    ) -> Result<(), TransactionEnd> {
        if self.offers.pipelining {
            // all in one write (RFC 2920, 3.1)
            let reset = if self.needs_reset { "RSET\r\n" } else { "" };
            self.write(
                limits.command,
                format!("{reset}{}", envelope.commands(self.offers.size)).as_bytes(),
            )
            .await?;
            if self.needs_reset {
                self.answer(limits.command).await?;
                self.needs_reset = false;
            }
            return self.answers(limits).await;
        }
        if self.needs_reset {
            self.ask(limits.command, "RSET\r\n").await?;
            self.needs_reset = false;
        }
        let reply = self.ask(limits.command, &envelope.mail(self.offers.size)).await?;
        if !is_done(&reply) {
            return Err(refused_sender(reply));
        }
        self.needs_reset = true;
        let reply = self.ask(limits.command, &envelope.rcpt()).await?;
        if !is_done(&reply) {
            return Err(refused("RCPT", reply));
        }
        let reply = self.ask(limits.data, "DATA\r\n").await?;
        if reply.code == 354 {
            self.needs_reset = false;
            Ok(())
        } else {
            Err(refused("DATA", reply))
        }
    }

    /// To MAIL, RCPT and DATA that were written together: every one of them is answered, whatever the others got.
    async fn answers(&mut self, limits: TransactionTimeouts) -> Result<(), TransactionEnd> {
        let mail = self.answer(limits.command).await?;
        let rcpt = self.answer(limits.command).await?;
        let (mail_taken, rcpt_taken) = (is_done(&mail), is_done(&rcpt));
        let data = self.answer(limits.data).await;
        if mail_taken && rcpt_taken {
            let data = data?;
            if data.code == 354 {
                return Ok(());
            }
            self.needs_reset = true;
            return Err(refused("DATA", data));
        }
        // The envelope is refused, and that stands whatever follows.
        match data {
            // The server waits for a message to nobody: an empty one ends it (RFC 2920, 3.1).
            Ok(data) if data.code == 354 && !rcpt_taken => {
                self.closing = self.ask(limits.last, ".\r\n").await.is_err();
            }
            // A recipient without a sender: an empty message could be delivered.
            Ok(data) if data.code == 354 => self.closing = true,
            Ok(_) => self.needs_reset = true,
            Err(_) => self.closing = true,
        }
        Err(if mail_taken { refused("RCPT", rcpt) } else { refused_sender(mail) })
    }

    async fn message(
        &mut self,
        limits: TransactionTimeouts,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        stuff(message);
        let tail = if message.len() > ONE_WRITE_BYTES { message.len() - TAIL_BYTES } else { 0 };
        if let Some(next) = &next {
            message.extend_from_slice(next.commands(self.offers.size).as_bytes());
        }
        if tail > 0
            && let Err(e) = self.wire.write(&message[..tail], limits.body).await
        {
            return Transaction::Deferred {
                reply: None,
                fault: Some(RelayFault::wire("message", &e).to_string()),
            };
        }
        if !may_go() {
            return Transaction::NotStarted;
        }
        // The dividing line: from here on only a complete reply says what happened.
        let in_doubt =
            |e: &WireError| Transaction::InDoubt(RelayFault::wire("end of data", e).to_string());
        if let Err(e) = self.wire.write(&message[tail..], limits.body).await {
            return in_doubt(&e);
        }
        match self.wire.reply(limits.last).await {
            Ok(reply) if (300..400).contains(&reply.code) => in_doubt(&WireError::Garbage),
            Ok(reply) => {
                self.usable = reply.code != 421;
                self.ahead = next;
                by_code(reply)
            }
            Err(e) => in_doubt(&e),
        }
    }

    async fn write(&mut self, limit: Duration, bytes: &[u8]) -> Result<(), TransactionEnd> {
        let written = self.wire.write(bytes, limit).await;
        written.map_err(|e| TransactionEnd::Fault(None, RelayFault::wire("envelope", &e)))
    }

    async fn answer(&mut self, limit: Duration) -> Result<Reply, TransactionEnd> {
        match self.wire.reply(limit).await {
            Ok(reply) if reply.code == 421 => Err(TransactionEnd::Reply(reply)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(TransactionEnd::Fault(None, RelayFault::wire("envelope", &e))),
        }
    }

    async fn ask(&mut self, limit: Duration, command: &str) -> Result<Reply, TransactionEnd> {
        self.write(limit, command.as_bytes()).await?;
        self.answer(limit).await
    }
}
