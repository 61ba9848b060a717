//! The scribe of a chunk: the one task that writes its ledger while it is being sent.
//!
//! Reports and claims of all connections travel in groups: while one group is on its way the next one gathers.

use super::replay::LeaseHolder;
use crate::clock::unix_now;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::deliveries::Deliveries;
use std::sync::atomic::AtomicU64;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    claim::{GrantedClaim, given_back},
    lease_validity::{LeaseValidity, boottime_ms},
    replay::{LeasedChunk, Replay},
    writer_channel::{GatheredMessages, WorkerMessage},
};
use crate::{
    domain::{
        delivery::DeliveryState,
        ledger::{ClaimNumber, Ledger, Status, flags},
    },
    metrics,
    send::limits::Admission,
    store::chunks::{Batch, BatchAnswer, Claim, LeaseVerdict, Report, ReportEffect},
};

/// Pause before a group is sent again whose answer was lost.
const PAUSE: Duration = Duration::from_millis(100);

/// A job waits for its first connection for so many slices: others may have theirs first.
const WAITS: u32 = 10;

/// How often it is looked whether the delivery goes on; pause and stop are to take effect within a second.
const LOOK: Duration = Duration::from_millis(400);

pub struct LedgerWriter {
    pub access: LedgerAccess,
    pub leased: LeasedChunk,
    pub ledger: Ledger,
    pub validity: Arc<LeaseValidity>,
    /// The end of the validity period, Unix seconds.
    pub valid_until: u32,
    /// Cancelled when no more may be started: pause, stop, shutdown, a lost lease.
    pub halt: CancellationToken,
    pub todo: VecDeque<u16>,
    /// The last claim in this epoch of recipients that were given back and are to be claimed again.
    pub again: HashMap<u16, u8>,
    pub grants: HashMap<usize, UnboundedSender<GrantedClaim>>,
    pub asks: UnboundedReceiver<WorkerMessage>,
    pub gate: Admission,
}

impl LedgerWriter {
    /// Serves the connections until the last one is gone; then every claim is recorded or given back.
    pub async fn serve(mut self) -> LeasedChunk {
        let mut beat =
            tokio::time::interval(Duration::from_millis(self.access.config.send.lease_ms / 4));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let slice_length = Duration::from_millis(self.access.config.send.slice_ms);
        let slice = tokio::time::sleep(WAITS * slice_length);
        let shutdown = self.access.daemon.shutdown.clone();
        let mut slice = std::pin::pin!(slice);
        // a lease that Redis may forget must not be used: its claims would be forgotten with it
        let store = self.access.holder.redis.clone();
        let mut durable = std::pin::pin!(async {
            while store.await_durability().await.is_err() {
                tokio::time::sleep(PAUSE).await
            }
        });
        let (mut slice_over, mut is_durable) = (false, !store.may_roll_back());
        // a slice begins with the first connection, which may have to wait for its turn
        let mut connected = false;
        let mut hungry: VecDeque<usize> = VecDeque::new();
        loop {
            if self.halt.is_cancelled() || slice_over || self.todo.is_empty() {
                // no more grants: a connection ends when it has gone through those it has
                self.grants.clear();
                hungry.clear();
            }
            let mut group = GatheredMessages::default();
            tokio::select! {
                biased;
                _ = beat.tick() => self.show_life().await,
                _ = look.tick(), if !self.halt.is_cancelled() => self.look().await,
                () = &mut slice, if is_durable && !slice_over => slice_over = true,
                () = &mut durable, if !is_durable => {
                    is_durable = true;
                    let left = if connected { slice_length } else { WAITS * slice_length };
                    slice.as_mut().reset(tokio::time::Instant::now() + left);
                }
                () = self.gate.woken() => {}
                () = shutdown.cancelled(), if !self.halt.is_cancelled() => self.halt.cancel(),
                ask = self.asks.recv() => match ask {
                    None => {
                        // recipients that may go now are for the next job, at once
                        self.leased.not_before = self.gate.not_before().filter(|_| self.todo.is_empty() && !self.halt.is_cancelled());
                        return self.leased;
                    }
                    Some(ask) => {
                        if !connected {
                            connected = true;
                            slice.as_mut().reset(tokio::time::Instant::now() + slice_length);
                        }
                        group = self.gather(ask, &mut hungry).await;
                    }
                },
            }
            let reports = &mut group.reports;
            while (!reports.is_empty() || is_durable && !hungry.is_empty())
                && !self.turn(reports, &mut hungry).await
            {}
            drop(group.used_up);
        }
    }

    /// One group. False if some of the hungry were not served although there is more to do.
    async fn turn(&mut self, reports: &mut Vec<Report>, hungry: &mut VecDeque<usize>) -> bool {
        if self.halt.is_cancelled() {
            hungry.clear();
        }
        let n = hungry.len().min(self.todo.len());
        let positions = self.gate.admit(&mut self.todo, n).await;
        let crowded = positions.len() < n;
        let claims = positions
            .iter()
            .filter_map(|p| Some(Claim { position: *p, n: self.number_after(*p)? }))
            .collect();
        let turn = Batch { reports: std::mem::take(reports), claims, redo: false };
        if turn.reports.is_empty() && turn.claims.is_empty() {
            return true;
        }
        let Some(answer) = self.write(&turn).await else {
            self.fenced("its ledger is damaged");
            hungry.clear();
            return true;
        };
        self.note(&turn, &answer).await;
        let epoch = self.leased.lease.epoch;
        for (claim, _) in turn.claims.iter().zip(&answer.granted).filter(|(_, granted)| !**granted)
        {
            self.gate.not_claimed(claim.position);
        }
        for (claim, _) in turn.claims.iter().zip(&answer.granted).filter(|(_, granted)| **granted) {
            let Some(before) = self.ledger.record(usize::from(claim.position)) else { continue };
            let number = ClaimNumber { epoch, n: claim.n };
            let claimed = GrantedClaim { position: claim.position, claim: number, before };
            let served = hungry
                .pop_front()
                .and_then(|c| self.grants.get(&c))
                .is_some_and(|grants| grants.send(claimed).is_ok());
            if !served {
                reports.push(given_back(&claimed));
            }
        }
        if answer.lease == LeaseVerdict::Ok
            || answer.lease == LeaseVerdict::Lost && !turn.reports.is_empty()
        {
            self.leased.applied(
                turn,
                &answer.granted,
                self.access.deliveries.redis.may_roll_back(),
            );
        }
        reports.is_empty() && (hungry.is_empty() || self.todo.is_empty() || crowded)
    }

    /// The number after that of the recipient's last claim.
    fn number_after(&self, position: u16) -> Option<u8> {
        if let Some(last) = self.again.get(&position) {
            return last.checked_add(1);
        }
        let last = self.ledger.record(usize::from(position))?.claim;
        Some(if last.epoch == self.leased.lease.epoch { last.n.wrapping_add(1) } else { 1 })
    }

    /// Sends a group until it is answered: what the relay accepted must not be forgotten. `None` if it never will be; what
    /// was reported is in doubt once the chunk is released or taken over.
    async fn write(&self, turn: &Batch) -> Option<BatchAnswer> {
        loop {
            let (leased, now) = (&self.leased, unix_now());
            // after the validity period nobody is sent to again
            let resend_after_s = leased.resend_after_s.filter(|_| now < self.valid_until);
            let mut written = self
                .access
                .holder
                .ledgers
                .write_batch(&leased.at, &leased.lease, turn, now, resend_after_s)
                .await;
            if let Ok(answer) = &written
                && answer.lease == LeaseVerdict::RolledBack
            {
                match self.access.holder.replay(leased).await {
                    Ok(Replay::Nothing) => {}
                    // then it is applied, or it is late truth
                    Ok(_) => continue,
                    Err(error) => written = Err(error),
                }
            }
            match written {
                Ok(answer) => return Some(answer),
                Err(error) if !error.may_pass() => {
                    tracing::error!(delivery.id = %self.leased.at.delivery, chunk = self.leased.at.chunk, %error, "a group of records is lost");
                    return None;
                }
                Err(error) => {
                    metrics::store_retry();
                    tracing::debug!(delivery.id = %self.leased.at.delivery, chunk = self.leased.at.chunk, %error, "a group of records is sent again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn note(&mut self, turn: &Batch, answer: &BatchAnswer) {
        match answer.lease {
            LeaseVerdict::Ok => {}
            LeaseVerdict::Lost => self.fenced("another worker holds it"),
            LeaseVerdict::RolledBack => self.fenced("Redis has forgotten the lease"),
            _ => self.fenced("its ledger is gone"),
        }
        if !turn.claims.is_empty() && answer.claims == LeaseVerdict::Forbidden {
            self.halt.cancel();
        }
        for (report, applied) in turn.reports.iter().zip(&answer.reports) {
            if matches!(applied, ReportEffect::Applied | ReportEffect::Twice) {
                metrics::recorded(report.status.map_or("given_back", Status::word));
                if report.status == Some(Status::Failed) {
                    metrics::failure(report.flags & flags::HARD != 0);
                }
            }
            self.gate.ended(report).await;
            if report.status.is_none() {
                self.put_back(report);
            }
            if report.status == Some(Status::Sent) && report.flags & flags::ACCEPTED != 0 {
                self.access.acceptances.fetch_add(1, Ordering::Relaxed);
            }
            if *applied == ReportEffect::Twice {
                metrics::duplicate();
                tracing::warn!(delivery.id = %self.leased.at.delivery, chunk = self.leased.at.chunk, position = report.position, "accepted twice");
            }
        }
    }

    /// What a broken connection gave back is for the others. Not while the lease is in question: it would go round and round.
    fn put_back(&mut self, report: &Report) {
        if !self.halt.is_cancelled() && self.validity.holds(boottime_ms()) {
            self.again.insert(report.position, report.claim.n);
            self.todo.push_back(report.position);
        }
    }

    /// Claims are refused by Redis once a delivery is paused or stopped; this is for those that were granted before.
    async fn look(&self) {
        if let Ok(state) = self.access.deliveries.store.state(&self.leased.at.delivery).await
            && state != Some(DeliveryState::InProgress)
        {
            self.halt.cancel();
        }
    }

    async fn show_life(&mut self) {
        let sent_ms = boottime_ms();
        let leased = &self.leased;
        match self.access.holder.ledgers.renew_lease(&leased.at, &leased.lease).await {
            Ok(LeaseVerdict::Ok) => self.validity.renew(sent_ms),
            Ok(LeaseVerdict::RolledBack) => match self.access.holder.replay(leased).await {
                Ok(Replay::PutBack) => {}
                Ok(_) => self.fenced("Redis went back in time"),
                Err(error) => {
                    tracing::debug!(delivery.id = %leased.at.delivery, chunk = leased.at.chunk, %error, "no beat")
                }
            },
            Ok(_) => self.fenced("another worker holds it"),
            Err(error) => {
                tracing::debug!(delivery.id = %self.leased.at.delivery, chunk = self.leased.at.chunk, %error, "no beat")
            }
        }
    }

    fn fenced(&self, why: &str) {
        if !self.halt.is_cancelled() {
            metrics::fenced();
            tracing::warn!(delivery.id = %self.leased.at.delivery, chunk = self.leased.at.chunk, why, "the chunk was lost");
        }
        self.validity.end();
        self.halt.cancel();
    }
}

#[derive(Clone)]
pub struct LedgerAccess {
    pub deliveries: Deliveries,
    pub holder: LeaseHolder,
    pub acceptances: Arc<AtomicU64>,
    pub config: Arc<Config>,
    pub daemon: Daemon,
}
