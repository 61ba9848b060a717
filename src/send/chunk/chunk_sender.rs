//! A chunk: take the lease, claim, render, send, record, give the lease back.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use tokio::sync::mpsc::unbounded_channel;

use super::{
    chunk_sending::ChunkSending,
    connection_worker::ChunkRun,
    lease_validity::{LeaseValidity, boottime_ms},
    ledger_writer::LedgerWriter,
    replay::LeasedChunk,
    writer_channel::WriterChannel,
};
use crate::{
    clock::unix_now,
    deliveries::{Deliveries, Refusal},
    domain::{
        delivery::DeliveryId,
        instant,
        ledger::{ChunkRef, Ledger},
        schedule::Wave,
    },
    queue::{Job, JobError, QueueName},
    send::{
        limits::{Admission, BucketRate},
        recover::PoisonedChunks,
        release::FairQueue,
    },
    store::{
        chunks::{Taken, TakeoverGrounds},
        schedule::ScheduleStore,
    },
};

/// A connection is reckoned to take so many messages a second: what is held back gets no more of them than that asks for, and
/// over a slower relay it stays below its rate.
const MESSAGES_A_CONNECTION: f64 = 5.0;

/// What all messages of a wave share.
#[derive(Clone, Copy)]
pub(super) struct WaveTime {
    pub(super) wave: Wave,
    pub(super) date: Timestamp,
    pub(super) valid_until: u32,
}

#[derive(Clone)]
pub struct ChunkSender {
    pub deliveries: Deliveries,
    pub schedules: ScheduleStore,
    pub poisoned: PoisonedChunks,
    pub fair_queue: FairQueue,
    pub sending: ChunkSending,
}

impl ChunkSender {
    /// The job: sends what is due in a chunk, for at most a slice of time. A chunk that is held by another ends the job well.
    pub async fn send_chunk(&self, id: &DeliveryId, chunk: u32) -> Result<(), JobError> {
        let at = ChunkRef { delivery: id.clone(), chunk };
        let delivery = match self.deliveries.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let Some(plan) = delivery.document.plan.clone().filter(|_| delivery.state.is_released())
        else {
            return Ok(());
        };
        if self.poisoned.chunks.is_poisoned(&at).await? {
            return Ok(());
        }
        let wave = self.schedules.wave_of(&at, &plan).await?;
        let Some(valid_until) = wave.valid_until(plan.settings.validity_hours) else {
            return Ok(());
        };
        let asked_ms = boottime_ms();
        let resend_after_s =
            plan.resend_after_s(&wave, self.sending.access.config.send.lease_ms, unix_now());
        let grounds =
            TakeoverGrounds { resends: resend_after_s.is_some(), ..TakeoverGrounds::default() };
        let (lease, ledger) = match self
            .poisoned
            .ledgers
            .take_lease(&at, self.poisoned.holder.daemon.owner, grounds, unix_now())
            .await?
        {
            Taken::Yes(lease, ledger) => (lease, ledger),
            Taken::Leased(..) | Taken::Missing => return Ok(()),
        };
        let validity = Arc::new(LeaseValidity::new(self.poisoned.config.send.lease_ms, asked_ms));
        let leased = LeasedChunk::new(at, lease, resend_after_s);
        let time = WaveTime { wave, date: instant(wave.released_at), valid_until };
        let (leased, sent) =
            self.sending.send_held(leased, ledger, (delivery, plan), time, validity).await;
        // also when nothing could be sent: the next one need not wait the lease out
        self.poisoned.give_back_after_job(leased, &sent).await?;
        sent?;
        self.fair_queue.request_jobs(id).await?;
        if self.poisoned.ledgers.counts(id).await?.open() == 0 {
            let job = Job::FinishDelivery { delivery: id.to_string() };
            self.fair_queue
                .queue
                .enqueue(
                    QueueName::Steps,
                    &format!("finish:{id}:{chunk}:{}", lease.epoch),
                    &job.encode(),
                )
                .await?;
        }
        Ok(())
    }
}

impl ChunkRun {
    /// Drives the connections until nothing is left to do or may be done.
    pub(super) async fn serve(
        self: Arc<Self>,
        leased: LeasedChunk,
        ledger: Ledger,
        todo: Vec<u16>,
    ) -> LeasedChunk {
        let config = &self.sending.access.config;
        let relay = self.sending.out.relays.only_rate(&self.route);
        let rates: Vec<BucketRate> = [
            self.plan
                .settings
                .messages_per_second
                .map(|rate| (format!("delivery:{{{}}}", self.at.delivery), rate)),
            relay.map(|(name, rate)| (format!("relay:{name}"), rate)),
        ]
        .into_iter()
        .flatten()
        .collect();
        // what is held back needs few of them
        let needed = rates
            .iter()
            .map(|(_, rate)| (rate / MESSAGES_A_CONNECTION).ceil() as usize)
            .min()
            .unwrap_or(usize::MAX);
        let connections = self
            .sending
            .out
            .relays
            .connections(&self.route)
            .min(todo.len().div_ceil(config.send.claim_window));
        let connections = connections.min(needed.max(1));
        let (ask, asks) = unbounded_channel();
        let mut grants = HashMap::new();
        for number in 0..connections {
            let (grant, granted) = unbounded_channel();
            grants.insert(number, grant);
            self.sending
                .late_exclusions
                .daemon
                .tracker
                .spawn(self.clone().drive(WriterChannel::new(number, granted, ask.clone())));
        }
        drop(ask);
        let (access, validity, halt) =
            (self.sending.access.clone(), self.validity.clone(), self.halt.clone());
        let (todo, again, valid_until) = (todo.into(), HashMap::new(), self.valid_until);
        let gate =
            Admission::new(&self.sending.out.throttles, &self.at.delivery, rates, &self.recipients);
        LedgerWriter {
            access,
            leased,
            ledger,
            validity,
            valid_until,
            halt,
            todo,
            again,
            grants,
            asks,
            gate,
        }
        .serve()
        .await
    }
}
