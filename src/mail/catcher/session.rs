//! One connection to the catcher: the commands, and the replies to them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

use super::{
    rules::{CatcherAction, CatcherFault, CatcherStage, by_local_part},
    state::{Catcher, CatcherCounts},
    stream::{ClientStream, InputLine, StreamEnded},
};

/// The most recipients of one transaction.
const MAX_RECIPIENTS: usize = 100;
const NAME: &str = "catcher.invalid";

/// Serves one connection. With `busy`, it is refused.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    catcher: &Catcher,
    stream: S,
    busy: bool,
) {
    let mut session =
        Session { catcher, stream: ClientStream::new(stream), greeted: false, transaction: None };
    // Replies that are still buffered are sent, however the session ended.
    let _ = session.serve(busy).await;
    session.stream.close().await;
}

struct Session<'a, S> {
    catcher: &'a Catcher,
    stream: ClientStream<S>,
    greeted: bool,
    transaction: Option<Transaction>,
}

#[derive(Default)]
struct Transaction {
    from: String,
    to: Vec<String>,
    /// The fault that the rules gave for the last RCPT; most belong to a later stage.
    fault: Option<CatcherFault>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn serve(&mut self, busy: bool) -> Result<(), StreamEnded> {
        let greeting = self.catcher.rules().greeting.clone();
        if let Some(greeting) =
            greeting.or_else(|| busy.then(|| "421 4.3.2 Too many connections".to_owned()))
        {
            self.stream.reply(&greeting);
            return Err(StreamEnded);
        }
        self.stream.reply(&format!("220 {NAME} ESMTP"));
        loop {
            let line = match self.stream.line().await? {
                InputLine::Text(line) => line,
                InputLine::TooLong => {
                    self.unexpected("500 5.5.2 Line too long");
                    continue;
                }
            };
            let (delay, pipelining) = {
                let rules = self.catcher.rules();
                (rules.delay, rules.pipelining)
            };
            // Even a sleep of zero would wait for the timer's next millisecond.
            if !delay.is_zero() {
                sleep(delay).await;
            }
            if self.stream.has_input() && !pipelining {
                self.unexpected("503 5.5.0 Pipelining was not offered");
                return Err(StreamEnded);
            }
            self.command(&line, pipelining).await?;
        }
    }

    async fn command(&mut self, line: &str, pipelining: bool) -> Result<(), StreamEnded> {
        let verb = line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" => self.hello(verb == "EHLO", pipelining),
            "QUIT" => {
                self.count(|counts| &counts.quits);
                self.stream.reply("221 2.0.0 Bye");
                return Err(StreamEnded);
            }
            "RSET" => {
                self.count(|counts| &counts.resets);
                self.transaction = None;
                self.stream.reply("250 2.0.0 Ok");
            }
            "NOOP" => self.unexpected("250 2.0.0 Ok"),
            "MAIL" if self.greeted && self.transaction.is_none() => self.mail(line).await?,
            "RCPT" if self.transaction.is_some() => self.recipient(line).await?,
            "DATA" if self.transaction.is_some() => self.data().await?,
            "MAIL" | "RCPT" | "DATA" => self.unexpected("503 5.5.1 Bad sequence of commands"),
            _ => self.unexpected("500 5.5.2 Command not known"),
        }
        Ok(())
    }

    fn hello(&mut self, extended: bool, pipelining: bool) {
        self.greeted = true;
        self.transaction = None;
        if !extended {
            self.stream.reply(&format!("250 {NAME}"));
            return;
        }
        self.stream.reply(&format!("250-{NAME}"));
        if pipelining {
            self.stream.reply("250-PIPELINING");
        }
        self.stream.reply(&format!("250-SIZE {}", self.catcher.message_limit_bytes()));
        self.stream.reply("250-8BITMIME");
        self.stream.reply("250 ENHANCEDSTATUSCODES");
    }

    async fn mail(&mut self, line: &str) -> Result<(), StreamEnded> {
        let Some((from, parameters)) = path(line, "FROM:") else {
            self.unexpected("501 5.5.4 MAIL FROM:<address>");
            return Ok(());
        };
        let size =
            parameters.split(' ').find_map(|p| p.strip_prefix("SIZE=")?.parse::<usize>().ok());
        if size.is_some_and(|size| size > self.catcher.message_limit_bytes()) {
            self.stream.reply("552 5.3.4 Message size exceeds fixed limit");
            return Ok(());
        }
        let fault = self.catcher.rules().at_mail();
        if self.answer(fault.as_ref(), "250 2.1.0 Ok").await? {
            self.transaction = Some(Transaction { from, ..Transaction::default() });
        }
        Ok(())
    }

    async fn recipient(&mut self, line: &str) -> Result<(), StreamEnded> {
        let Some((to, _)) = path(line, "TO:").filter(|(to, _)| !to.is_empty()) else {
            self.unexpected("501 5.5.4 RCPT TO:<address>");
            return Ok(());
        };
        let (fault, local_parts_decide) = {
            let mut rules = self.catcher.rules();
            (rules.at_recipient(&to), rules.by_local_part)
        };
        let usual = match &fault {
            None if local_parts_decide => by_local_part(&to, || self.catcher.count_attempt(&to)),
            _ => None,
        };
        let full = self.transaction.as_ref().is_some_and(|t| t.to.len() >= MAX_RECIPIENTS);
        let usual = if full { Some("452 4.5.3 Too many recipients") } else { usual };
        let here = fault.as_ref().filter(|fault| fault.stage == CatcherStage::Recipient);
        let accepted = self.answer(here, usual.unwrap_or("250 2.1.5 Ok")).await?;
        if !accepted {
            self.catcher.note(&to, b"", false);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.fault = fault;
            if accepted {
                transaction.to.push(to);
            }
        }
        Ok(())
    }

    async fn data(&mut self) -> Result<(), StreamEnded> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        let nobody = transaction.to.is_empty();
        if nobody && !self.catcher.rules().data_without_recipient {
            self.stream.reply("554 5.5.1 No valid recipients");
            self.transaction = Some(transaction);
            return Ok(());
        }
        let fault = transaction.fault.clone().filter(|_| !nobody);
        let at = |stage| fault.as_ref().filter(|fault| fault.stage == stage);
        if !self.answer(at(CatcherStage::Data), "354 End data with <CR><LF>.<CR><LF>").await? {
            self.note_refused(&transaction);
            self.transaction = Some(transaction);
            return Ok(());
        }
        self.stream.flush().await?;
        if let Some(fault) = at(CatcherStage::Body) {
            // Waits until a part of the message arrives. Its end may not be there yet.
            self.stream.fill().await?;
            match &fault.action {
                CatcherAction::Stall(pause) | CatcherAction::Slow(pause) => sleep(*pause).await,
                CatcherAction::Reply(reply) => {
                    self.stream.reply(reply);
                    return Err(StreamEnded);
                }
                CatcherAction::Garbage | CatcherAction::Close => return Err(StreamEnded),
            }
        }
        let message = self.stream.message(self.catcher.message_limit_bytes()).await?;
        self.end(&transaction, message, at(CatcherStage::End)).await
    }

    /// Decides about a message that has arrived; `None` if it was larger than the limit.
    async fn end(
        &mut self,
        transaction: &Transaction,
        message: Option<Vec<u8>>,
        fault: Option<&CatcherFault>,
    ) -> Result<(), StreamEnded> {
        if transaction.to.is_empty() {
            self.stream.reply("554 5.5.1 No valid recipients");
            return Ok(());
        }
        let Some(bytes) = message else {
            self.note_refused(transaction);
            self.stream.reply("552 5.3.4 Message size exceeds fixed limit");
            return Ok(());
        };
        let accept_first = fault.is_some_and(|fault| fault.accept);
        // A real server, too, may store a message before its reply is lost.
        let mut bytes = Some(bytes);
        if accept_first && let Some(bytes) = bytes.take() {
            self.catcher.keep(&transaction.from, &transaction.to, bytes);
        }
        let positive = !matches!(
            fault,
            Some(CatcherFault {
                action: CatcherAction::Reply(_) | CatcherAction::Garbage | CatcherAction::Close,
                ..
            })
        );
        if let (true, Some(CatcherFault { action: CatcherAction::Stall(pause), .. })) =
            (positive, fault)
        {
            sleep(*pause).await;
        }
        match bytes {
            Some(bytes) if positive => self.catcher.keep(&transaction.from, &transaction.to, bytes),
            Some(_) => self.note_refused(transaction),
            None => {}
        }
        // The pause of a stall is over.
        let fault = fault.filter(|fault| !matches!(fault.action, CatcherAction::Stall(_)));
        self.answer(fault, "250 2.0.0 Ok: caught").await?;
        Ok(())
    }

    fn note_refused(&self, transaction: &Transaction) {
        for recipient in &transaction.to {
            self.catcher.note(recipient, b"", false);
        }
    }

    /// Sends the usual reply, or carries out the fault. Returns false if the reply was 4xx or 5xx.
    async fn answer(
        &mut self,
        fault: Option<&CatcherFault>,
        usual: &str,
    ) -> Result<bool, StreamEnded> {
        let reply = match fault.map(|fault| &fault.action) {
            None => usual,
            Some(CatcherAction::Reply(reply)) => reply,
            Some(CatcherAction::Stall(pause)) => {
                self.stream.flush().await?;
                sleep(*pause).await;
                usual
            }
            Some(CatcherAction::Slow(duration)) => {
                self.stream.reply_slowly(usual, *duration).await?;
                return Ok(self.count_reply(usual));
            }
            Some(CatcherAction::Garbage) => "!!! not SMTP",
            Some(CatcherAction::Close) => return Err(StreamEnded),
        };
        self.stream.reply(reply);
        if reply.starts_with("421") { Err(StreamEnded) } else { Ok(self.count_reply(reply)) }
    }

    /// Counts a reply if it is 4xx or 5xx, and then returns false.
    fn count_reply(&self, reply: &str) -> bool {
        match reply.as_bytes().first() {
            Some(b'4') => self.count(|counts| &counts.deferred),
            Some(b'5') => self.count(|counts| &counts.refused),
            _ => return true,
        }
        false
    }

    fn unexpected(&mut self, reply: &str) {
        self.count(|counts| &counts.unexpected);
        self.stream.reply(reply);
    }

    fn count(&self, which: impl Fn(&CatcherCounts) -> &AtomicU64) {
        which(self.catcher.counts()).fetch_add(1, Ordering::Relaxed);
    }
}

/// The address in `MAIL FROM:<..>` or `RCPT TO:<..>`, and the parameters in upper case.
fn path(line: &str, keyword: &str) -> Option<(String, String)> {
    let rest = line.get(5..)?.trim_start();
    let (word, rest) = rest.split_at_checked(keyword.len())?;
    if !word.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let (address, parameters) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    Some((address.to_owned(), parameters.trim().to_ascii_uppercase()))
}
