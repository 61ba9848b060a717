//! The client's side of a transaction: envelope, message, reply.
//!
//! If the server offers PIPELINING, the next envelope goes out in the same write as the end of a
//! message. So a message costs one round trip. RFC 2920, 3.1 allows it: the content of a message
//! may be the first in a group of commands.

use std::{sync::Arc, time::Duration};

use super::{
    dot_stuffing::stuff_dots,
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
    /// Until the reply to a command.
    pub command: Duration,
    /// Until the reply to DATA.
    pub data: Duration,
    /// For one write of the message.
    pub body: Duration,
    /// Until the reply to the end of data.
    pub last: Duration,
}

/// The state of one SMTP session.
pub struct SmtpSession {
    /// The connection.
    pub wire: Wire,
    extensions: ServerExtensions,
    /// A refused envelope is still open on the server. RSET goes out with the next one.
    needs_reset: bool,
    /// The envelope that went out with the end of the last message. Its replies are not read yet.
    pipelined: Option<Arc<Envelope>>,
    /// False during a transaction, and if no further transaction may follow on the connection.
    pub usable: bool,
    /// The connection must be closed, although the transaction has its reply.
    closing: bool,
}

/// A larger message is written in two parts, so that most of it is before the dividing line.
const ONE_WRITE_BYTES: usize = 16 * 1024;
/// The size of the second part, without the next envelope.
const TAIL_BYTES: usize = 512;

impl SmtpSession {
    /// A session after the handshake.
    pub fn new(wire: Wire, extensions: ServerExtensions) -> Self {
        Self { wire, extensions, needs_reset: false, pipelined: None, usable: true, closing: false }
    }

    /// Whether an envelope is on its way. Then only its message may follow on the connection.
    pub fn has_pipelined_envelope(&self) -> bool {
        self.pipelined.is_some()
    }

    /// Whether an envelope can be pipelined with the end of data.
    pub fn takes_next(&self) -> bool {
        self.extensions.pipelining
    }

    /// Runs one transaction, and sends the envelope `next` with the end of the message.
    ///
    /// `next` must be `None` if the server does not offer PIPELINING. A future that is dropped
    /// leaves the session unusable.
    pub async fn transact(
        &mut self,
        timeouts: TransactionTimeouts,
        envelope: &Envelope,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.usable || !may_proceed() {
            return Transaction::NotStarted;
        }
        self.usable = false;
        let answered = match self.pipelined.take() {
            Some(pipelined) if *pipelined == *envelope => self.envelope_replies(timeouts).await,
            // Another recipient's envelope is open on the server.
            Some(_) => return Transaction::NotStarted,
            None => self.send_envelope(timeouts, envelope).await,
        };
        match answered {
            Ok(()) => self.send_message(timeouts, message, next, may_proceed).await,
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

    /// Runs MAIL, RCPT and RSET: no message is transferred.
    ///
    /// The reply to RCPT counts, even if RSET fails.
    pub async fn test(
        &mut self,
        timeouts: TransactionTimeouts,
        envelope: &Envelope,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        if !self.usable || !may_proceed() {
            return Transaction::NotStarted;
        }
        self.usable = false;
        // A pipelined envelope includes DATA, so its message would have to follow.
        if self.pipelined.is_some() {
            return Transaction::NotStarted;
        }
        match self.try_recipient(timeouts, envelope).await {
            Ok(reply) => {
                self.usable = !self.closing;
                Transaction::Tested(reply)
            }
            Err(ended) => self.end(ended),
        }
    }

    /// The positive reply to RCPT. By then RSET has ended the envelope, or `closing` is set.
    async fn try_recipient(
        &mut self,
        timeouts: TransactionTimeouts,
        envelope: &Envelope,
    ) -> Result<Reply, TransactionEnd> {
        let (mail, rcpt) = (envelope.mail(self.extensions.size), envelope.rcpt());
        if self.needs_reset {
            self.command(timeouts.command, "RSET\r\n").await?;
            self.needs_reset = false;
        }
        let (mail, rcpt) = if self.extensions.pipelining {
            self.write(timeouts.command, format!("{mail}{rcpt}RSET\r\n").as_bytes()).await?;
            (self.reply(timeouts.command).await?, Some(self.reply(timeouts.command).await?))
        } else {
            let mail = self.command(timeouts.command, &mail).await?;
            let rcpt = if is_done(&mail) {
                Some(self.command(timeouts.command, &rcpt).await?)
            } else {
                None
            };
            self.write(timeouts.command, b"RSET\r\n").await.unwrap_or_else(|_| self.closing = true);
            (mail, rcpt)
        };
        self.closing =
            self.closing || !self.reply(timeouts.command).await.is_ok_and(|reply| is_done(&reply));
        match rcpt {
            Some(rcpt) if is_done(&mail) && is_done(&rcpt) => Ok(rcpt),
            Some(rcpt) if is_done(&mail) => Err(refused("RCPT", rcpt)),
            _ => Err(refused_sender(mail)),
        }
    }

    /// Sends MAIL, RCPT and DATA. On success the server waits for the message.
    async fn send_envelope(
        &mut self,
        timeouts: TransactionTimeouts,
        envelope: &Envelope,
    ) -> Result<(), TransactionEnd> {
        if self.extensions.pipelining {
            // All commands go out in one write (RFC 2920, 3.1).
            let reset = if self.needs_reset { "RSET\r\n" } else { "" };
            self.write(
                timeouts.command,
                format!("{reset}{}", envelope.commands(self.extensions.size)).as_bytes(),
            )
            .await?;
            if self.needs_reset {
                self.reply(timeouts.command).await?;
                self.needs_reset = false;
            }
            return self.envelope_replies(timeouts).await;
        }
        if self.needs_reset {
            self.command(timeouts.command, "RSET\r\n").await?;
            self.needs_reset = false;
        }
        let reply = self.command(timeouts.command, &envelope.mail(self.extensions.size)).await?;
        if !is_done(&reply) {
            return Err(refused_sender(reply));
        }
        self.needs_reset = true;
        let reply = self.command(timeouts.command, &envelope.rcpt()).await?;
        if !is_done(&reply) {
            return Err(refused("RCPT", reply));
        }
        let reply = self.command(timeouts.data, "DATA\r\n").await?;
        if reply.code == 354 {
            self.needs_reset = false;
            Ok(())
        } else {
            Err(refused("DATA", reply))
        }
    }

    /// Reads the replies to MAIL, RCPT and DATA that were written together.
    ///
    /// The server answers each of them, even after it refused one.
    async fn envelope_replies(
        &mut self,
        timeouts: TransactionTimeouts,
    ) -> Result<(), TransactionEnd> {
        let mail = self.reply(timeouts.command).await?;
        let rcpt = self.reply(timeouts.command).await?;
        let (mail_accepted, rcpt_accepted) = (is_done(&mail), is_done(&rcpt));
        let data = self.reply(timeouts.data).await;
        if mail_accepted && rcpt_accepted {
            let data = data?;
            if data.code == 354 {
                return Ok(());
            }
            self.needs_reset = true;
            return Err(refused("DATA", data));
        }
        // The envelope is refused. The reply to DATA decides only about the connection.
        match data {
            // The server waits for a message without recipients. An empty one ends the transaction
            // (RFC 2920, 3.1).
            Ok(data) if data.code == 354 && !rcpt_accepted => {
                self.closing = self.command(timeouts.last, ".\r\n").await.is_err();
            }
            // MAIL was refused, but RCPT was not: an empty message could be delivered.
            Ok(data) if data.code == 354 => self.closing = true,
            Ok(_) => self.needs_reset = true,
            Err(_) => self.closing = true,
        }
        Err(if mail_accepted { refused("RCPT", rcpt) } else { refused_sender(mail) })
    }

    /// Sends the message and reads the reply to the end of data.
    async fn send_message(
        &mut self,
        timeouts: TransactionTimeouts,
        message: &mut Vec<u8>,
        next: Option<Arc<Envelope>>,
        may_proceed: &(dyn Fn() -> bool + Sync),
    ) -> Transaction {
        stuff_dots(message);
        let tail_start =
            if message.len() > ONE_WRITE_BYTES { message.len() - TAIL_BYTES } else { 0 };
        if let Some(next) = &next {
            message.extend_from_slice(next.commands(self.extensions.size).as_bytes());
        }
        if tail_start > 0
            && let Err(e) = self.wire.write(&message[..tail_start], timeouts.body).await
        {
            return Transaction::Deferred {
                reply: None,
                fault: Some(RelayFault::wire("message", &e).to_string()),
            };
        }
        if !may_proceed() {
            return Transaction::NotStarted;
        }
        // The dividing line: from here on, only a complete reply decides.
        let in_doubt =
            |e: &WireError| Transaction::InDoubt(RelayFault::wire("end of data", e).to_string());
        if let Err(e) = self.wire.write(&message[tail_start..], timeouts.body).await {
            return in_doubt(&e);
        }
        match self.wire.reply(timeouts.last).await {
            Ok(reply) if (300..400).contains(&reply.code) => in_doubt(&WireError::Garbage),
            Ok(reply) => {
                self.usable = reply.code != 421;
                self.pipelined = next;
                by_code(reply)
            }
            Err(e) => in_doubt(&e),
        }
    }

    async fn write(&mut self, limit: Duration, bytes: &[u8]) -> Result<(), TransactionEnd> {
        let written = self.wire.write(bytes, limit).await;
        written.map_err(|e| TransactionEnd::Fault(None, RelayFault::wire("envelope", &e)))
    }

    async fn reply(&mut self, limit: Duration) -> Result<Reply, TransactionEnd> {
        match self.wire.reply(limit).await {
            Ok(reply) if reply.code == 421 => Err(TransactionEnd::Reply(reply)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(TransactionEnd::Fault(None, RelayFault::wire("envelope", &e))),
        }
    }

    async fn command(&mut self, limit: Duration, command: &str) -> Result<Reply, TransactionEnd> {
        self.write(limit, command.as_bytes()).await?;
        self.reply(limit).await
    }
}
