//! What replies mean for a transaction.

use super::{fault::RelayFault, wire::WireError};
use crate::{domain::outcome::Reply, mail::address};

/// How an attempt ended.
///
/// The dividing line is the first write that contains the end of data (`CRLF . CRLF`). Before it a broken
/// transaction is `Deferred`; from it until one complete reply has been parsed it is `InDoubt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// The relay took the message (2xx to the end of data).
    Accepted(Reply),
    /// SMTP test mode: the relay took the recipient (2xx to RCPT), RSET followed, and nothing was transferred.
    Tested(Reply),
    /// Not delivered, may be tried again: a 4xx, or a connection that broke before the dividing line.
    /// With a `fault` the relay or the network is to blame, not the recipient.
    Deferred { reply: Option<Reply>, fault: Option<String> },
    /// A 5xx to the sender, the recipient or the message.
    Refused(Reply),
    /// The end of data may have arrived and no reply came: nobody knows.
    InDoubt(String),
    /// Nothing was transferred: `may_go` said no, or the connection may not be used any more.
    NotStarted,
}

impl Transaction {
    /// The word of the metric.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Tested(_) => "tested",
            Self::Deferred { .. } => "deferred",
            Self::Refused(_) => "refused",
            Self::InDoubt(_) => "in_doubt",
            Self::NotStarted => "not_started",
        }
    }

    /// What the server said, and what is to blame besides.
    pub fn into_parts(self) -> (Option<Reply>, Option<String>) {
        match self {
            Self::Accepted(reply) | Self::Tested(reply) | Self::Refused(reply) => {
                (Some(reply), None)
            }
            Self::Deferred { reply, fault } => (reply, fault),
            Self::InDoubt(fault) => (None, Some(fault)),
            Self::NotStarted => (None, None),
        }
    }
}

/// What ends a transaction before its message was written.
pub enum TransactionEnd {
    Reply(Reply),
    /// The relay refuses us as such, or the connection broke.
    Fault(Option<Reply>, RelayFault),
}

/// Both addresses in the form that goes into the commands, and the size of the message in bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    from: String,
    to: String,
    size: usize,
}

impl Envelope {
    /// An empty `from` is the null sender.
    ///
    /// # Errors
    /// What no command can carry is refused as a server would.
    pub fn new(from: &str, to: &str, size: usize) -> Result<Self, Reply> {
        let from = match from {
            "" => String::new(),
            from => address::to_ascii(from).map_err(|_| unsendable("sender refused: "))?,
        };
        let to = address::to_ascii(to).map_err(|_| unsendable(""))?;
        Ok(Self { from, to, size })
    }

    /// The command MAIL, with the size (RFC 1870) for a server that asks for it.
    pub fn mail(&self, with_size: bool) -> String {
        if with_size {
            format!("MAIL FROM:<{}> SIZE={}\r\n", self.from, self.size)
        } else {
            format!("MAIL FROM:<{}>\r\n", self.from)
        }
    }

    pub fn rcpt(&self) -> String {
        format!("RCPT TO:<{}>\r\n", self.to)
    }

    /// MAIL, RCPT and DATA, for a server that takes them together.
    pub fn commands(&self, with_size: bool) -> String {
        format!("{}{}DATA\r\n", self.mail(with_size), self.rcpt())
    }
}

fn unsendable(who: &str) -> Reply {
    Reply {
        code: 553,
        enhanced: Some((5, 1, 3)),
        text: format!("{who}not an address that SMTP can carry"),
    }
}

pub fn is_done(reply: &Reply) -> bool {
    (200..300).contains(&reply.code)
}

/// A 2xx where only 354 will do, or a 3xx where only 2xx will, is no answer; and who is asked to
/// authenticate or to use TLS has a relay that is set up wrongly, not a wrong recipient.
pub fn refused(step: &'static str, reply: Reply) -> TransactionEnd {
    if reply.is_positive() {
        return TransactionEnd::Fault(None, RelayFault::wire(step, &WireError::Garbage));
    }
    if matches!(reply.code, 530 | 534 | 535 | 538) {
        let fault = RelayFault::reply(step, &reply);
        return TransactionEnd::Fault(Some(reply), fault);
    }
    TransactionEnd::Reply(reply)
}

/// Says in the text that it was the sender, so that it never counts against the recipient.
pub fn refused_sender(reply: Reply) -> TransactionEnd {
    match refused("MAIL", reply) {
        TransactionEnd::Reply(mut reply) => {
            reply.text = format!("sender refused: {}", reply.text);
            TransactionEnd::Reply(reply)
        }
        ended => ended,
    }
}

pub fn by_code(reply: Reply) -> Transaction {
    if reply.is_positive() {
        Transaction::Accepted(reply)
    } else if reply.is_transient() {
        Transaction::Deferred { reply: Some(reply), fault: None }
    } else {
        Transaction::Refused(reply)
    }
}
