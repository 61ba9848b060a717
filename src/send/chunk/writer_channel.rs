//! Groups: what the connections of a chunk tell its scribe travels together. While one group is on its way the next one gathers.

use std::collections::VecDeque;

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, error::TryRecvError},
    time::{Instant, timeout_at},
};

use super::{claim::GrantedClaim, ledger_writer::LedgerWriter};
use crate::{mail::smtp::SmtpConnection, store::chunks::Report};

/// Asks of a connection that travel in one group at the most.
const LARGEST_GROUP: usize = 512;

/// After a wait in vain so many messages are not waited with: claims may be held back, or Redis slow.
const RESTS: u32 = 20;

/// What a connection tells the scribe: what became of a claim, and how many more it has room for.
pub struct WorkerMessage {
    pub connection: usize,
    pub report: Option<Report>,
    pub want: usize,
    /// A connection that needs nothing more. It counts until all that was claimed for it is recorded, so that a crash leaves
    /// no more in doubt than connections times window.
    pub used_up: Option<SmtpConnection>,
}

/// A connection's side of the talk with the scribe.
pub struct WriterChannel {
    number: usize,
    pub granted: UnboundedReceiver<GrantedClaim>,
    asks: UnboundedSender<WorkerMessage>,
    /// So many messages yet are not waited with.
    rests: u32,
}

impl WriterChannel {
    pub fn new(
        number: usize,
        granted: UnboundedReceiver<GrantedClaim>,
        asks: UnboundedSender<WorkerMessage>,
    ) -> Self {
        Self { number, granted, asks, rests: 0 }
    }

    pub(super) fn tell(&self, report: Option<Report>, want: usize) {
        let _ =
            self.asks.send(WorkerMessage { connection: self.number, report, want, used_up: None });
    }

    /// The next claim, waited for until then if it `waits` and that was not in vain lately. Cancel-safe.
    pub(super) async fn next_grant(&mut self, until: Instant, waits: bool) -> Option<GrantedClaim> {
        match self.granted.try_recv() {
            Err(TryRecvError::Empty) if waits && self.rests == 0 => {
                let waited = timeout_at(until, self.granted.recv()).await;
                self.rests = if waited.is_err() { RESTS } else { 0 };
                waited.ok()?
            }
            granted => {
                self.rests = self.rests.saturating_sub(1);
                granted.ok()
            }
        }
    }

    pub(super) fn part_with(&self, connection: SmtpConnection) {
        let _ = self.asks.send(WorkerMessage {
            connection: self.number,
            report: None,
            want: 0,
            used_up: Some(connection),
        });
    }
}

/// What is written at once.
#[derive(Default)]
pub(super) struct GatheredMessages {
    pub reports: Vec<Report>,
    pub used_up: Vec<SmtpConnection>,
}

impl LedgerWriter {
    /// What has been asked for by now.
    pub(super) async fn gather(
        &mut self,
        first: WorkerMessage,
        hungry: &mut VecDeque<usize>,
    ) -> GatheredMessages {
        // whoever is ready to ask does so first
        tokio::task::yield_now().await;
        let mut group = GatheredMessages::default();
        let mut next = Some(first);
        while let Some(ask) = next {
            group.reports.extend(ask.report);
            group.used_up.extend(ask.used_up);
            if self.grants.contains_key(&ask.connection) {
                hungry.extend(std::iter::repeat_n(ask.connection, ask.want));
            }
            next =
                if group.reports.len() < LARGEST_GROUP { self.asks.try_recv().ok() } else { None };
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{sync::mpsc::unbounded_channel, time::timeout};

    use super::*;
    use crate::domain::ledger::{ClaimNumber, Ledger};

    #[tokio::test]
    async fn after_a_grant_that_was_waited_for_in_vain_nobody_waits_for_a_while() {
        let (grant, granted) = unbounded_channel();
        let mut lane = WriterChannel::new(0, granted, unbounded_channel().0);
        let before = Ledger::new(1).record(0).expect("its only record");
        let claimed = GrantedClaim { position: 0, claim: ClaimNumber { epoch: 1, n: 1 }, before };
        let (soon, never) = (
            Instant::now() + Duration::from_millis(20),
            Instant::now() + Duration::from_secs(3600),
        );
        let mut next = async |until, waits| {
            let next = timeout(Duration::from_secs(10), lane.next_grant(until, waits)).await;
            next.expect("it does not wait").is_some()
        };
        assert!(!next(never, false).await);
        assert!(!next(soon, true).await);
        for _ in 0..RESTS {
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
        assert!(!next(never, true).await, "there are no more grants");
    }
}
