//! The rules of a catcher: which recipients it refuses, and the faults it makes on request.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// The step of a transaction at which a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatcherStage {
    /// At the reply to MAIL. Only [`CatcherRules::next`] and [`CatcherRules::every`] can have it.
    Mail,
    /// At the reply to RCPT.
    Recipient,
    /// At the reply to DATA.
    Data,
    /// After 354 was sent, and before the end of data was read. Only a pause leaves the connection
    /// open there, and garbage is not sent.
    Body,
    /// After the end of data was read, before or instead of the reply.
    End,
}

/// The action of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatcherAction {
    /// Sends this reply, given without CRLF. After a 421 the connection is closed.
    Reply(String),
    /// Sends the usual reply after this pause.
    Stall(Duration),
    /// Sends the usual reply byte by byte, over this time.
    Slow(Duration),
    /// Sends a line that is no SMTP reply.
    Garbage,
    /// Closes the connection.
    Close,
}

/// The fault of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatcherFault {
    /// When it happens.
    pub stage: CatcherStage,
    /// What the catcher does.
    pub action: CatcherAction,
    /// At the end of data: the message counts as accepted, even if the client gets no such reply.
    pub accept: bool,
}

impl CatcherFault {
    /// A fault with `accept` false. After `Stall` or `Slow`, the usual reply may still accept the
    /// message.
    pub fn new(stage: CatcherStage, action: CatcherAction) -> Self {
        Self { stage, action, accept: false }
    }

    /// A fault that is a reply.
    pub fn reply(stage: CatcherStage, reply: &str) -> Self {
        Self::new(stage, CatcherAction::Reply(reply.to_owned()))
    }

    /// The same fault, but the message counts as accepted.
    #[must_use]
    pub fn accepted(self) -> Self {
        Self { accept: true, ..self }
    }
}

/// The rules for transactions. They apply in this order: `scripts`, `next`, `every`, local part.
#[derive(Debug, Clone)]
pub struct CatcherRules {
    /// The catcher sends this greeting instead of 220, and closes the connection.
    pub greeting: Option<String>,
    /// The catcher offers PIPELINING (RFC 2920). Otherwise it refuses pipelined commands.
    pub pipelining: bool,
    /// The catcher answers DATA with 354 although there is no recipient (RFC 2920, 3.1).
    pub data_without_recipient: bool,
    /// The pause before each command is carried out.
    pub delay: Duration,
    /// By address in lower case: one entry for each attempt, `None` for the usual reply.
    pub scripts: HashMap<String, VecDeque<Option<CatcherFault>>>,
    /// Faults for the next transactions, for any recipient.
    pub next: VecDeque<CatcherFault>,
    /// A fault for all transactions.
    pub every: Option<CatcherFault>,
    /// Local parts decide: `refuse*` gets 550, `full*` 552, `defer*` 451 at the first attempt.
    pub by_local_part: bool,
}

impl Default for CatcherRules {
    fn default() -> Self {
        Self {
            greeting: None,
            pipelining: true,
            data_without_recipient: false,
            delay: Duration::ZERO,
            scripts: HashMap::new(),
            next: VecDeque::new(),
            every: None,
            by_local_part: true,
        }
    }
}

impl CatcherRules {
    /// Appends entries to the script of an address.
    pub fn script(
        &mut self,
        address: &str,
        entries: impl IntoIterator<Item = Option<CatcherFault>>,
    ) {
        self.scripts.entry(address.to_lowercase()).or_default().extend(entries);
    }

    /// The fault at MAIL, before the recipient is known.
    pub(super) fn at_mail(&mut self) -> Option<CatcherFault> {
        match self.next.front() {
            Some(fault) if fault.stage == CatcherStage::Mail => self.next.pop_front(),
            _ => self.every.clone().filter(|fault| fault.stage == CatcherStage::Mail),
        }
    }

    /// The fault for this attempt at a recipient. An entry of a script is used once.
    pub(super) fn at_recipient(&mut self, address: &str) -> Option<CatcherFault> {
        if !self.scripts.is_empty()
            && let Some(fault) =
                self.scripts.get_mut(&address.to_lowercase()).and_then(VecDeque::pop_front)
        {
            return fault;
        }
        match self.next.front() {
            Some(fault) if fault.stage != CatcherStage::Mail => self.next.pop_front(),
            _ => self.every.clone().filter(|fault| fault.stage != CatcherStage::Mail),
        }
    }
}

/// The reply that the local part asks for. `attempt` gives the number of the attempt, from 1.
pub(super) fn by_local_part(address: &str, attempt: impl FnOnce() -> u32) -> Option<&'static str> {
    let starts = |word: &str| {
        address.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    if starts("refuse") {
        Some("550 5.1.1 User unknown")
    } else if starts("full") {
        Some("552 5.2.2 Mailbox full")
    } else if starts("defer") && attempt() == 1 {
        Some("451 4.2.1 Mailbox busy, try again later")
    } else {
        None
    }
}
