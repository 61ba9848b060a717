//! One sequence of steps, played on the scripts and on the specification at once.

mod batches;
mod hits;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
};

use redis::aio::ConnectionManager;
use versand::{
    domain::{
        audience::ExclusionCause,
        delivery::{DeliveryId, DeliveryState},
        ledger::{
            ChunkRef, ClaimNumber, Counts, HEADER_BYTES, RECORD_BYTES, Record, Status, flags,
        },
        tracking::{Hit, HitLabel, NO_AGENT, NO_LINK, Relabelled},
    },
    store::{
        Stores,
        chunks::{Batch, Claim, Lease, LeaseVerdict, Report, Taken, TakeoverGrounds},
        keys,
        tracking::{PreparationRef, StatisticsBasis},
    },
};

use super::{
    kept::Kept,
    mutation::Mutation,
    spec::{Chunk, Terms},
    steps::{HOLDER, RandomClaim, RandomHit, RandomReport, Step, WORKERS, Why},
    tracking::{BLOCK, CHUNK, CHUNK_SIZE, Cache, EARLIER, FAR, PLANNED, Tracking, place},
};

#[derive(Default)]
struct Worker {
    lease: Option<Lease>,
    /// The last batch, and the lease under which it was sent.
    last: Option<(Lease, Batch)>,
}

/// The delivery with which a sequence begins.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    pub recipients: u16,
    /// SMTP test mode.
    pub test: bool,
    /// The number of user agents that were seen before.
    pub agents: usize,
}

pub struct Play<'a> {
    stores: &'a Stores,
    conn: ConnectionManager,
    at: ChunkRef,
    now: Known,
    /// The state to which Redis goes back.
    past: Known,
    terms: Terms,
    workers: [Worker; WORKERS],
    /// Every claim that was ever granted.
    claims: Vec<(u16, ClaimNumber)>,
    /// The name of the run of Redis, as a header gives it.
    run: [u8; 8],
    /// The number of hits.
    hits: u64,
    /// The cases that hits have met.
    pub met: BTreeSet<String>,
}

/// The whole content of Redis, as the protocol has it.
#[derive(Clone)]
struct Known {
    chunk: Chunk,
    /// No worker uses this chunk, but hits come for its recipients.
    neighbour: Chunk,
    /// The ledger and the counts of the neighbour chunk, which seldom change.
    neighbour_kept: (Vec<u8>, Counts),
    state: DeliveryState,
    tracking: Tracking,
    replies: BTreeMap<u16, String>,
}

impl Known {
    fn note_neighbour(&mut self) {
        self.neighbour_kept = (
            self.neighbour.bytes(&self.tracking.caches[1], [0; 8], false),
            self.neighbour.counts(),
        );
    }
}

/// The name of the first worker. Its eight bytes differ, which shows a wrong byte order.
const FIRST: u64 = 0x0102_0304_0506_0700;
/// The name that stands for every earlier run.
const EARLIER_RUN: [u8; 8] = *b"earlier!";

fn same<T: PartialEq + Debug>(what: &str, real: T, spec: T) -> Result<(), String> {
    if real == spec {
        Ok(())
    } else {
        Err(format!("{what}\n  scripts  {real:?}\n  protocol {spec:?}"))
    }
}

/// A full chunk. Its first recipients have each status once, and so do its last ones.
fn one_of_each_status() -> Chunk {
    let mut chunk = Chunk::new(CHUNK_SIZE as u16);
    for (i, status) in (0..).zip(Status::ALL) {
        let record = Record { status, reason: 3, when: 7, attempts: 1, ..chunk.records[i] };
        chunk.records[i] = record;
        chunk.records[usize::from(FAR) + i] = Record { flags: flags::RESENT, ..record };
    }
    chunk
}

impl<'a> Play<'a> {
    pub async fn begin(
        stores: &'a Stores,
        delivery: DeliveryId,
        beginning: Beginning,
        mutation: Mutation,
    ) -> Self {
        let Beginning { recipients, test, agents } = beginning;
        let (chunk, neighbour, state) =
            (Chunk::new(recipients), one_of_each_status(), DeliveryState::InProgress);
        let tracking = Tracking::new([&chunk, &neighbour].map(|chunk| chunk.records.len()), agents);
        let replies = BTreeMap::new();
        let mut now = Known {
            chunk,
            neighbour,
            neighbour_kept: Default::default(),
            state,
            tracking,
            replies,
        };
        now.note_neighbour();
        let terms = Terms {
            state,
            now: 1_000,
            resend_after_s: None,
            run: 1,
            goes_back: false,
            test,
            mutation,
        };
        let (at, conn, past) =
            (ChunkRef { delivery, chunk: CHUNK }, stores.redis.connection(), now.clone());
        let run = stores.redis.run_id().await.unwrap().as_bytes()[..8].try_into().unwrap();
        let (workers, claims, met) = (Default::default(), Vec::new(), BTreeSet::new());
        let mut play =
            Self { stores, conn, at, now, past, terms, workers, claims, run, hits: 0, met };
        play.promise(false).await;
        play.write_to_redis().await;
        play
    }

    /// Writes the content of Redis as the protocol has it.
    async fn write_to_redis(&mut self) {
        self.expected().write_to_redis(&self.at.delivery, &mut self.conn).await;
    }

    /// Sets the durability: either Redis may lose its last writes, or the protocol ignores that.
    async fn promise(&mut self, goes_back: bool) {
        let mut set = redis::cmd("CONFIG");
        set.arg(&["SET", "appendfsync", if goes_back { "everysec" } else { "no" }]);
        let mut conn = crate::harness::redis::observe(&self.stores.redis).await;
        let () = set.query_async(&mut conn).await.unwrap();
        self.stores.redis.durability().await.unwrap();
        assert_eq!(self.stores.redis.may_roll_back(), goes_back);
        self.terms.goes_back = goes_back;
    }

    /// Takes one step on both sides. The error names the difference.
    pub async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Take { worker, why } => self.take(self.worker(*worker), *why).await?,
            Step::Beat { worker } => self.beat(self.worker(*worker)).await?,
            Step::Batch { worker, reports, claims, lost } => {
                self.fresh_batch(self.worker(*worker), (reports, claims), *lost).await?
            }
            Step::Repeat { worker } => self.repeat(self.worker(*worker), false).await?,
            Step::Redo { worker } => self.repeat(self.worker(*worker), true).await?,
            Step::Doubt { worker } => self.doubt(self.worker(*worker)).await?,
            Step::GiveBack { worker } => self.give_back(self.worker(*worker)).await?,
            Step::Settle { settlement, positions } => {
                let real = self
                    .stores
                    .ledgers
                    .resolve_in_doubt(&self.at, *settlement, positions.as_deref(), self.terms.now)
                    .await
                    .unwrap();
                same(
                    "settled",
                    real,
                    self.now.chunk.settle(*settlement, positions.as_deref(), &self.terms),
                )?;
            }
            Step::Cancel { stop } => {
                if *stop {
                    self.set_state(DeliveryState::Stopping).await;
                }
                let real =
                    self.stores.ledgers.cancel_pending(&self.at, self.terms.now).await.unwrap();
                same("cancelled", real, self.now.chunk.cancel(&self.terms))?;
            }
            Step::Offer { window } => {
                let real = self
                    .stores
                    .chunks
                    .pick_for_jobs(&self.at.delivery, (*window, *window), 0.0, self.terms.now)
                    .await
                    .unwrap();
                let spec =
                    self.now.chunk.offer(*window, &self.terms).map(|round| (self.at.chunk, round));
                same("offered", real, spec.into_iter().collect())?;
            }
            Step::Reopen { rounds_ago } => {
                let round = self.now.chunk.round.saturating_sub(*rounds_ago);
                let real = self
                    .stores
                    .chunks
                    .return_to_ready(&self.at, round, self.terms.now)
                    .await
                    .unwrap();
                same("reopened", real, self.now.chunk.reopen(round, &self.terms))?;
            }
            Step::Bounce { claim, reason, hard } => {
                let bounced = self.newest_first(*claim);
                if bounced.is_some_and(|(position, _)| {
                    self.now.chunk.bounce(position, (*reason, *hard), &self.terms)
                }) {
                    self.write_to_redis().await;
                }
            }
            Step::Hits { of_plan, hits } => {
                self.record(if *of_plan { PLANNED } else { PLANNED - 1 }, hits).await?
            }
            Step::CorrectTracked { chunk, position, wrong, outdated, bits } => {
                self.correct_tracked((*chunk, *position), (*wrong, *outdated), *bits).await;
            }
            Step::Relabel { line, wrong, outdated, label } => {
                self.relabel(*line, (*wrong, *outdated), *label).await?
            }
            Step::Sweep { swept } => {
                self.now.tracking.swept = *swept;
                let mut note = redis::cmd(if *swept { "HSET" } else { "HDEL" });
                note.arg(keys::delivery(&self.at.delivery))
                    .arg("swept_tracking")
                    .arg(swept.then_some(1));
                let () = note.query_async(&mut self.conn).await.unwrap();
            }
            Step::Exclude { worker, who, lost } => {
                self.exclude(self.worker(*worker), who, *lost).await?
            }
            Step::Poisoned { set: true } => {
                self.now.chunk.poisoned = true;
                self.stores.chunks.mark_poisoned(&self.at).await.unwrap();
            }
            Step::Poisoned { set: false } => {
                self.now.chunk.retry();
                self.stores.chunks.retry_poisoned(&self.at).await.unwrap();
            }
            Step::Remember => self.past = Known { state: self.terms.state, ..self.now.clone() },
            Step::RollBack => {
                self.now = self.past.clone();
                self.terms.state = self.now.state;
                self.terms.run += 1;
                self.write_to_redis().await;
            }
            Step::Promise { goes_back } => self.promise(*goes_back).await,
            Step::State(state) => self.set_state(*state).await,
            Step::Policy(resend_after_s) => self.terms.resend_after_s = *resend_after_s,
            Step::Time(seconds) => self.terms.now += seconds,
            Step::Track { position, cache } => {
                self.now.tracking.caches[0][usize::from(*position)] = *cache;
                let offset = HEADER_BYTES + RECORD_BYTES * usize::from(*position) + 13;
                let mut set = redis::cmd("SETRANGE");
                let [high, low] = cache.lines.to_be_bytes();
                set.arg(keys::ledger(&self.at.delivery, self.at.chunk))
                    .arg(offset)
                    .arg(&[cache.bits, high, low][..]);
                let () = set.query_async(&mut self.conn).await.unwrap();
            }
        }
        same("kept", Kept::read(&self.at.delivery, &mut self.conn).await, self.expected())
    }

    fn worker(&self, worker: usize) -> usize {
        if worker == HOLDER { self.now.chunk.owner.saturating_sub(FIRST) as usize } else { worker }
    }

    async fn set_state(&mut self, state: DeliveryState) {
        self.terms.state = state;
        let mut set = redis::cmd("HSET");
        set.arg(keys::delivery(&self.at.delivery)).arg("state").arg(state.word());
        let () = set.query_async(&mut self.conn).await.unwrap();
    }

    async fn take(&mut self, worker: usize, why: Why) -> Result<(), String> {
        let (epoch, beat, owner) =
            (self.now.chunk.epoch, self.now.chunk.beat, self.now.chunk.owner);
        let (still, dead) = match why {
            Why::Free => (None, None),
            Why::Still => (Some((epoch, beat)), None),
            Why::Moved => (Some((epoch, beat + 1)), None),
            Why::Dead => (None, Some(owner)),
            Why::OtherDead => (None, Some(owner + 77)),
        };
        let grounds = TakeoverGrounds { still, dead, resends: self.terms.resend_after_s.is_some() };
        let name = FIRST + worker as u64;
        let real = match self
            .stores
            .ledgers
            .take_lease(&self.at, name, grounds, self.terms.now)
            .await
            .unwrap()
        {
            Taken::Yes(lease, ledger) => {
                let kept = Kept::read(&self.at.delivery, &mut self.conn).await;
                same("ledger given with the lease", ledger.bytes().to_vec(), kept.ledger)?;
                Ok(lease)
            }
            Taken::Leased(epoch, beat) => Err((epoch, beat)),
            Taken::Missing | Taken::Held => panic!("the ledger is there"),
        };
        if let Ok(lease) = real {
            self.workers[worker].lease = Some(lease);
        }
        let first = real.map_or(0, |lease| lease.seq);
        same("taken", real, self.now.chunk.take(name, grounds, first, &self.terms))
    }

    async fn beat(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        same(
            "beat",
            self.stores.ledgers.renew_lease(&self.at, &lease).await.unwrap(),
            self.now.chunk.beat(&lease, &self.terms),
        )
    }

    async fn give_back(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let real = self
            .stores
            .ledgers
            .give_back(&self.at, &lease, self.terms.now, self.terms.resend_after_s)
            .await
            .unwrap();
        same("given back", real, self.now.chunk.give_back(&lease, &self.terms))
    }

    async fn doubt(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let real = self
            .stores
            .ledgers
            .put_in_doubt(&self.at, &lease, self.terms.now, self.terms.resend_after_s)
            .await
            .unwrap();
        same("put in doubt", real, self.now.chunk.doubt(&lease, &self.terms))
    }

    async fn exclude(
        &mut self,
        worker: usize,
        who: &[(u16, ExclusionCause)],
        lost: bool,
    ) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let who: BTreeMap<u16, ExclusionCause> = who.iter().copied().collect();
        for _ in 0..1 + u8::from(lost) {
            let real = self
                .stores
                .ledgers
                .exclude_late(&self.at, &lease, &who, self.terms.now)
                .await
                .unwrap();
            let verdict = real.0;
            same("excluded", real, self.now.chunk.exclude(&lease, &who, &self.terms))?;
            if verdict == LeaseVerdict::Ok {
                self.workers[worker].lease = Some(Lease { seq: lease.seq + 1, ..lease });
            }
        }
        Ok(())
    }

    fn expected(&self) -> Kept {
        let Known {
            chunk, neighbour_kept: (neighbour, neighbour_counts), tracking, replies, ..
        } = &self.now;
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for of_chunk in [&chunk.counts(), neighbour_counts] {
            let of_chunk = serde_json::to_value(of_chunk).unwrap();
            let of_chunk: BTreeMap<String, i64> = serde_json::from_value(of_chunk).unwrap();
            of_chunk.into_iter().for_each(|(word, n)| *counts.entry(word).or_default() += n);
        }
        counts.retain(|_, n| *n != 0);
        let run = match chunk.run {
            0 => [0; 8],
            run if run == self.terms.run => self.run,
            _ => EARLIER_RUN,
        };
        let state = self.terms.state.word().to_owned();
        let swept = tracking.swept.then(|| "1".to_owned());
        Kept {
            delivery: [Some("1".to_owned()), Some(state), Some(PLANNED.to_string()), swept],
            ledger: chunk.bytes(&tracking.caches[0], run, self.terms.test),
            neighbour: neighbour.clone(),
            counts,
            open: chunk.open,
            offered: chunk.offered,
            poisoned: chunk.poisoned,
            round: chunk.round,
            replies: replies.clone(),
            tracking: [EARLIER + tracking.log.len() as u64, tracking.beyond, tracking.labels],
            agents: tracking.agents.iter().cloned().zip(0..).collect(),
            log: tracking.blocks(),
        }
    }
}
