//! How a transaction ended, and its envelope.

use super::{fault::RelayFault, wire::WireError};
use crate::{domain::outcome::Reply, mail::to_ascii};

/// How an attempt ended.
///
/// The dividing line is the first write that contains the end of data (`CRLF . CRLF`). A
/// transaction that breaks before that write is `Deferred`. It is `InDoubt` if it breaks later,
/// before a complete reply was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// The relay took the message (2xx to the end of data).
    Accepted(Reply),
    /// SMTP test mode: the relay took the recipient (2xx to RCPT), and RSET followed.
    Tested(Reply),
    /// Not delivered, may be tried again: a reply for now ([`Reply::is_transient`]), or a fault
    /// before the dividing line. If there is a `fault`, the relay or the network caused it, not the
    /// recipient.
    Deferred { reply: Option<Reply>, fault: Option<String> },
    /// Any other 5xx to the sender, the recipient or the message.
    Refused(Reply),
    /// The end of data may have arrived, but no reply came that can be used. The text is the fault.
    InDoubt(String),
    /// Nothing was delivered: `may_proceed` returned false, or the connection must not be used.
    NotStarted,
}

impl Transaction {
    /// The value of the metric's label.
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

    /// The server's reply, and the fault of the relay or the network.
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

/// Why a transaction ended before its message was written.
pub enum TransactionEnd {
    /// The server refused the sender, the recipient or DATA, or ended the session with 421.
    Reply(Reply),
    /// The relay refuses this client as such, its reply makes no sense, or the connection broke.
    Fault(Option<Reply>, RelayFault),
}

/// Sender and recipient of one message in ASCII, and its size in bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope {
    from: String,
    to: String,
    size: usize,
}

impl Envelope {
    /// The envelope of a message of `size` bytes. An empty `from` is the null sender.
    ///
    /// # Errors
    ///
    /// A reply 553, as from a server, if SMTP cannot carry an address.
    pub fn new(from: &str, to: &str, size: usize) -> Result<Self, Reply> {
        let from = match from {
            "" => String::new(),
            from => to_ascii(from).map_err(|_| unsendable("sender refused: "))?,
        };
        let to = to_ascii(to).map_err(|_| unsendable(""))?;
        Ok(Self { from, to, size })
    }

    /// The command MAIL, with the size (RFC 1870) if the server offers SIZE.
    pub fn mail(&self, with_size: bool) -> String {
        if with_size {
            format!("MAIL FROM:<{}> SIZE={}\r\n", self.from, self.size)
        } else {
            format!("MAIL FROM:<{}>\r\n", self.from)
        }
    }

    /// The command RCPT.
    pub fn rcpt(&self) -> String {
        format!("RCPT TO:<{}>\r\n", self.to)
    }

    /// The commands MAIL, RCPT and DATA, for a server that offers PIPELINING.
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

/// Whether a command succeeded (2xx).
pub fn is_done(reply: &Reply) -> bool {
    (200..300).contains(&reply.code)
}

/// The end of a transaction whose command `step` was not accepted.
///
/// A positive reply of the wrong kind, such as 2xx instead of 354, is a fault. So is a demand for
/// authentication or TLS: it shows wrong settings of the relay, not a wrong recipient.
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

/// As [`refused`], for MAIL. The text names the sender, so that the recipient is never blamed.
pub fn refused_sender(reply: Reply) -> TransactionEnd {
    match refused("MAIL", reply) {
        TransactionEnd::Reply(mut reply) => {
            reply.text = format!("sender refused: {}", reply.text);
            TransactionEnd::Reply(reply)
        }
        ended => ended,
    }
}

/// The meaning of the reply that ends a transaction.
pub fn by_code(reply: Reply) -> Transaction {
    if reply.is_positive() {
        Transaction::Accepted(reply)
    } else if reply.is_transient() {
        Transaction::Deferred { reply: Some(reply), fault: None }
    } else {
        Transaction::Refused(reply)
    }
}
