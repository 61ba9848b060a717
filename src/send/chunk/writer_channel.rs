//! The channels between the connection workers of a chunk and its ledger writer.
//!
//! Messages of several workers travel to Redis in one batch. The next batch gathers while one is
//! on its way.

use std::collections::{HashMap, VecDeque};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, error::TryRecvError, unbounded_channel},
    time::{Instant, timeout_at},
};

use super::granted_claim::GrantedClaim;
use crate::{mail::smtp::SmtpConnection, store::chunks::Report};

/// The largest number of reports in one batch.
const LARGEST_BATCH: usize = 512;

/// After a fruitless wait for a claim, the worker asks this many times without waiting.
///
/// A wait is fruitless if a limit postpones the claims, or if Redis is slow.
const UNWAITED: u32 = 20;

/// One message of a connection worker to the ledger writer.
pub(super) struct WorkerMessage {
    connection: usize,
    /// The outcome of a claim.
    report: Option<Report>,
    /// The number of claims that the worker has room for.
    wanted: usize,
    /// A connection that the worker does not need any more.
    ///
    /// The connection counts as open until all its claims are recorded. A crash therefore leaves
    /// at most connections × window recipients in doubt.
    used_up: Option<SmtpConnection>,
}

/// A connection worker's side of the channels.
pub(super) struct WriterChannel {
    connection: usize,
    pub granted: UnboundedReceiver<GrantedClaim>,
    messages: UnboundedSender<WorkerMessage>,
    /// How many more calls of `next_claim` do not wait.
    unwaited: u32,
}

impl WriterChannel {
    /// Sends a report, and asks for `wanted` more claims.
    pub(super) fn send(&self, report: Option<Report>, wanted: usize) {
        let _ = self.messages.send(WorkerMessage {
            connection: self.connection,
            report,
            wanted,
            used_up: None,
        });
    }

    /// Returns the next claim, if there is one.
    ///
    /// If `waits` is true, waits for a claim until `until`, unless a recent wait was fruitless.
    /// Cancel-safe.
    pub(super) async fn next_claim(&mut self, until: Instant, waits: bool) -> Option<GrantedClaim> {
        match self.granted.try_recv() {
            Err(TryRecvError::Empty) if waits && self.unwaited == 0 => {
                let waited = timeout_at(until, self.granted.recv()).await;
                self.unwaited = if waited.is_err() { UNWAITED } else { 0 };
                waited.ok()?
            }
            granted => {
                self.unwaited = self.unwaited.saturating_sub(1);
                granted.ok()
            }
        }
    }

    /// Hands over a connection that the worker does not need any more.
    pub(super) fn hand_over(&self, connection: SmtpConnection) {
        let _ = self.messages.send(WorkerMessage {
            connection: self.connection,
            report: None,
            wanted: 0,
            used_up: Some(connection),
        });
    }
}

/// The ledger writer's side of the channels.
pub(super) struct WorkerChannels {
    pub messages: UnboundedReceiver<WorkerMessage>,
    granted: HashMap<usize, UnboundedSender<GrantedClaim>>,
    /// Connections that have room for a claim, in order: one entry for each claim.
    waiting: VecDeque<usize>,
}

/// The messages that are written in one batch.
#[derive(Default)]
pub(super) struct GatheredMessages {
    pub reports: Vec<Report>,
    pub used_up: Vec<SmtpConnection>,
}

impl WorkerChannels {
    /// Opens the channels for this many connections.
    pub(super) fn open(connections: usize) -> (Self, Vec<WriterChannel>) {
        let (sender, messages) = unbounded_channel();
        let mut granted = HashMap::new();
        let mut workers = Vec::new();
        for connection in 0..connections {
            let (grant, receiver) = unbounded_channel();
            granted.insert(connection, grant);
            workers.push(WriterChannel {
                connection,
                granted: receiver,
                messages: sender.clone(),
                unwaited: 0,
            });
        }
        (Self { messages, granted, waiting: VecDeque::new() }, workers)
    }

    /// The number of claims that connections wait for.
    pub(super) fn wanted(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets the claims that connections wait for.
    pub(super) fn forget_wanted(&mut self) {
        self.waiting.clear();
    }

    /// Grants no more claims. A connection ends when its last claim is done.
    pub(super) fn close(&mut self) {
        self.granted.clear();
        self.waiting.clear();
    }

    /// Hands a claim to the next connection. Returns false if nobody takes the claim.
    pub(super) fn hand_out(&mut self, claimed: GrantedClaim) -> bool {
        self.waiting
            .pop_front()
            .and_then(|connection| self.granted.get(&connection))
            .is_some_and(|granted| granted.send(claimed).is_ok())
    }

    /// Gathers `first` and the messages that are there by now.
    pub(super) async fn gather(&mut self, first: WorkerMessage) -> GatheredMessages {
        // workers that are ready to send do so first
        tokio::task::yield_now().await;
        let mut gathered = GatheredMessages::default();
        let mut next = Some(first);
        while let Some(message) = next {
            gathered.reports.extend(message.report);
            gathered.used_up.extend(message.used_up);
            if self.granted.contains_key(&message.connection) {
                self.waiting.extend(std::iter::repeat_n(message.connection, message.wanted));
            }
            let has_room = gathered.reports.len() < LARGEST_BATCH;
            next = if has_room { self.messages.try_recv().ok() } else { None };
        }
        gathered
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::domain::ledger::{ClaimNumber, Ledger};

    #[tokio::test]
    async fn after_a_fruitless_wait_for_a_claim_the_next_calls_do_not_wait() {
        let (grant, granted) = unbounded_channel();
        let mut worker =
            WriterChannel { connection: 0, granted, messages: unbounded_channel().0, unwaited: 0 };
        let before = Ledger::new(1).record(0).expect("its only record");
        let number = ClaimNumber { epoch: 1, n: 1 };
        let claimed = GrantedClaim { position: 0, number, before };
        let (soon, never) = (
            Instant::now() + Duration::from_millis(20),
            Instant::now() + Duration::from_secs(3600),
        );
        let mut next = async |until, waits| {
            let next = timeout(Duration::from_secs(10), worker.next_claim(until, waits)).await;
            next.expect("it does not wait").is_some()
        };
        assert!(!next(never, false).await);
        assert!(!next(soon, true).await);
        for _ in 0..UNWAITED {
            assert!(!next(never, true).await);
        }
        let later = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            grant.send(claimed).expect("somebody listens");
        };
        assert!(tokio::join!(next(never, true), later).0, "it waits again");
        grant.send(claimed).expect("somebody listens");
        assert!(next(never, false).await);
        drop(grant);
        assert!(!next(never, true).await, "there are no more claims");
    }
}
