//! What a catcher does with which recipient: rules by local part, and faults on request.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Where in a transaction something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatcherStage {
    /// Instead of the reply to MAIL; only from [`CatcherRules::next`] and [`CatcherRules::every`].
    Mail,
    Recipient,
    Data,
    /// After 354 was sent and before the end of data was read.
    Body,
    /// After the end of data was read, before or instead of the reply.
    End,
}

/// What happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatcherAction {
    /// This reply, without CRLF; a 421 closes the connection after it.
    Reply(String),
    /// As usual, but so much later.
    Stall(Duration),
    /// As usual, but the reply takes so long from its first byte to its last.
    Slow(Duration),
    /// A line that is no SMTP reply.
    Garbage,
    /// The connection is closed.
    Close,
}

/// One attempt's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatcherAct {
    pub stage: CatcherStage,
    pub action: CatcherAction,
    /// At the end of data: the message counts as accepted, whatever the client hears.
    pub accept: bool,
}

impl CatcherAct {
    pub fn new(stage: CatcherStage, action: CatcherAction) -> Self {
        Self { stage, action, accept: false }
    }

    pub fn reply(stage: CatcherStage, reply: &str) -> Self {
        Self::new(stage, CatcherAction::Reply(reply.to_owned()))
    }

    /// The same, with the message accepted.
    #[must_use]
    pub fn accepted(self) -> Self {
        Self { accept: true, ..self }
    }
}

/// What decides about a transaction, in this order: `scripts`, `next`, `every`, the local part.
#[derive(Debug, Clone)]
pub struct CatcherRules {
    /// Greets with this instead of 220, and closes.
    pub greeting: Option<String>,
    /// Whether PIPELINING (RFC 2920) is offered; without it, pipelined commands are refused.
    pub pipelining: bool,
    /// Answers DATA with 354 although there is no recipient, as RFC 2920, 3.1 allows.
    pub data_without_recipient: bool,
    /// Before every reply.
    pub delay: Duration,
    /// Per address (lower case): one entry for each attempt, `None` for the usual.
    pub scripts: HashMap<String, VecDeque<Option<CatcherAct>>>,
    /// For the next transactions, whoever they are for.
    pub next: VecDeque<CatcherAct>,
    /// For all transactions.
    pub every: Option<CatcherAct>,
    /// `refuse*`: 550; `full*`: 552; `defer*`: 451 at the first attempt.
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
    /// Appends to an address' script.
    pub fn script(&mut self, address: &str, acts: impl IntoIterator<Item = Option<CatcherAct>>) {
        self.scripts.entry(address.to_lowercase()).or_default().extend(acts);
    }

    /// The fault at MAIL, before the recipient is known.
    pub(super) fn at_mail(&mut self) -> Option<CatcherAct> {
        match self.next.front() {
            Some(act) if act.stage == CatcherStage::Mail => self.next.pop_front(),
            _ => self.every.clone().filter(|act| act.stage == CatcherStage::Mail),
        }
    }

    /// The fault for this attempt at a recipient; an entry of a script is used up.
    pub(super) fn at_recipient(&mut self, address: &str) -> Option<CatcherAct> {
        if !self.scripts.is_empty()
            && let Some(act) =
                self.scripts.get_mut(&address.to_lowercase()).and_then(VecDeque::pop_front)
        {
            return act;
        }
        match self.next.front() {
            Some(act) if act.stage != CatcherStage::Mail => self.next.pop_front(),
            _ => self.every.clone().filter(|act| act.stage != CatcherStage::Mail),
        }
    }
}

/// The reply that the local part asks for; `attempt` gives the number of this one, from 1.
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
