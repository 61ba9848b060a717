//! A chunk: take the lease, claim, render, send, record, give the lease back.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use jiff::Timestamp;
use tokio::sync::mpsc::unbounded_channel;

use super::{
    connection_worker::ChunkRun,
    lease_validity::{LeaseValidity, boottime_ms},
    ledger_writer::LedgerWriter,
    replay::LeasedChunk,
    writer_channel::WriterChannel,
};
use crate::{
    deliveries::{Context, Refusal, unix_now},
    domain::{
        delivery::{Delivery, DeliveryId, InDoubt, Plan},
        ledger::Ledger,
        schedule::Wave,
    },
    queue::{Job, JobError, QueueName},
    send::{
        limits::{Admission, BucketRate},
        release::instant,
    },
    store::{
        audience::SliceKind,
        chunks::{ChunkRef, Taken, TakeoverGrounds},
    },
};

/// A connection is reckoned to take so many messages a second: what is held back gets no more of them than that asks for, and
/// over a slower relay it stays below its rate.
const MESSAGES_A_CONNECTION: f64 = 5.0;

/// What all messages of a wave share.
#[derive(Clone, Copy)]
struct WaveTime {
    wave: Wave,
    date: Timestamp,
    valid_until: u32,
}

impl Context {
    /// The job: sends what is due in a chunk, for at most a slice of time. A chunk that is held by another ends the job well.
    pub async fn send_chunk(&self, id: &DeliveryId, chunk: u32) -> Result<(), JobError> {
        let at = ChunkRef { delivery: id.clone(), chunk };
        let delivery = match self.delivery(id).await {
            Ok(delivery) => delivery,
            Err(Refusal::NotFound) => return Ok(()),
            Err(other) => return Err(other.into()),
        };
        let Some(plan) = delivery.document.plan.clone().filter(|_| delivery.state.is_released()) else { return Ok(()) };
        if self.store.is_aside(&at).await? {
            return Ok(());
        }
        let wave = self.store.wave_of(&at, &plan).await?;
        let Some(valid_until) = wave.valid_until(plan.settings.validity_hours) else { return Ok(()) };
        let asked_ms = boottime_ms();
        let resend_after_s = self.resend_after_s(&plan, &wave);
        let grounds = TakeoverGrounds { resends: resend_after_s.is_some(), ..TakeoverGrounds::default() };
        let (lease, ledger) = match self.store.take(&at, self.owner, grounds, unix_now()).await? {
            Taken::Yes(lease, ledger) => (lease, ledger),
            Taken::Held(..) | Taken::Missing => return Ok(()),
        };
        let validity = Arc::new(LeaseValidity::new(self.config.send.lease_ms, asked_ms));
        let hold = LeasedChunk::new(at, lease, resend_after_s);
        let time = WaveTime { wave, date: instant(wave.released_at), valid_until };
        let (hold, sent) = self.send_held(hold, ledger, (delivery, plan), time, validity).await;
        // also when nothing could be sent: the next one need not wait the lease out
        self.release_after_job(hold, &sent).await?;
        sent?;
        self.feed(id).await?;
        if self.store.counts(id).await?.open() == 0 {
            let job = Job::FinishDelivery { delivery: id.to_string() };
            self.queue.enqueue(QueueName::Steps, &format!("finish:{id}:{chunk}:{}", lease.epoch), &job.encode()).await?;
        }
        Ok(())
    }

    /// How long a recipient of this wave stays in doubt before it is sent again; `None` under the policy `hold`, and when the
    /// validity period is over.
    pub fn resend_after_s(&self, plan: &Plan, wave: &Wave) -> Option<u32> {
        let lease_s = u32::try_from(self.config.send.lease_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        let valid = wave.valid_until(plan.settings.validity_hours).is_none_or(|until| unix_now() < until);
        (plan.settings.in_doubt == InDoubt::Resend && valid).then_some(lease_s + 1)
    }

    async fn send_held(
        &self,
        mut hold: LeasedChunk,
        ledger: Ledger,
        (delivery, plan): (Delivery, Plan),
        time: WaveTime,
        validity: Arc<LeaseValidity>,
    ) -> (LeasedChunk, Result<(), JobError>) {
        let mut todo = ledger.claimable(unix_now(), hold.resend_after_s);
        if todo.is_empty() {
            return (hold, Ok(()));
        }
        if unix_now() >= time.valid_until {
            let expired = self.expire(&mut hold, &ledger, &todo).await;
            return (hold, expired.map_err(JobError::from));
        }
        let run = match self.run(&hold.at, (delivery, plan), time, validity).await {
            Ok(run) => run,
            Err(error) => return (hold, Err(error)),
        };
        let about = (&run.delivery, &time.wave);
        match self.exclude_late(&mut hold, &ledger, about, &run.recipients, &mut todo).await {
            Ok(true) if !todo.is_empty() => (Arc::new(run).serve(hold, ledger, todo).await, Ok(())),
            other => (hold, other.map(drop)),
        }
    }

    async fn run(
        &self,
        at: &ChunkRef,
        (delivery, plan): (Delivery, Plan),
        time: WaveTime,
        validity: Arc<LeaseValidity>,
    ) -> Result<ChunkRun, JobError> {
        let template = self.templates.get(&at.delivery, &plan, &delivery.document.definition);
        let template = template.map_err(|_| JobError::Abort("the template of a prepared delivery does not compile".into()))?;
        let route = self.relays.route(template.envelope_from());
        let route = route.ok_or_else(|| JobError::Abort("no relay sends for the domain of the envelope sender".into()))?;
        Ok(ChunkRun {
            context: self.clone(),
            at: at.clone(),
            recipients: self.store.slice(&at.delivery, SliceKind::Chunks(plan.generation), at.chunk).await?,
            from: template.envelope_from().to_owned(),
            turns: self.turns.of(&route, self.relays.allowed(&route)),
            route,
            date: time.date,
            valid_until: time.valid_until,
            delivery,
            plan,
            template,
            validity,
            halt: self.shutdown.child_token(),
            complained: AtomicBool::new(false),
        })
    }
}

impl ChunkRun {
    /// Drives the connections until nothing is left to do or may be done.
    async fn serve(self: Arc<Self>, hold: LeasedChunk, ledger: Ledger, todo: Vec<u16>) -> LeasedChunk {
        let config = &self.context.config;
        let relay = self.context.relays.only_rate(&self.route);
        let rates: Vec<BucketRate> = [
            self.plan.settings.messages_per_second.map(|rate| (format!("delivery:{{{}}}", self.at.delivery), rate)),
            relay.map(|(name, rate)| (format!("relay:{name}"), rate)),
        ]
        .into_iter()
        .flatten()
        .collect();
        // what is held back needs few of them
        let needed = rates.iter().map(|(_, rate)| (rate / MESSAGES_A_CONNECTION).ceil() as usize).min().unwrap_or(usize::MAX);
        let connections = self.context.relays.connections(&self.route).min(todo.len().div_ceil(config.send.claim_window));
        let connections = connections.min(needed.max(1));
        let (ask, asks) = unbounded_channel();
        let mut grants = HashMap::new();
        for number in 0..connections {
            let (grant, granted) = unbounded_channel();
            grants.insert(number, grant);
            self.context.tracker.spawn(self.clone().drive(WriterChannel::new(number, granted, ask.clone())));
        }
        drop(ask);
        let (context, validity, halt) = (self.context.clone(), self.validity.clone(), self.halt.clone());
        let (todo, again, valid_until) = (todo.into(), HashMap::new(), self.valid_until);
        let gate = Admission::new(&context, &self.at.delivery, rates, &self.recipients);
        LedgerWriter { context, hold, ledger, validity, valid_until, halt, todo, again, grants, asks, gate }.serve().await
    }
}
