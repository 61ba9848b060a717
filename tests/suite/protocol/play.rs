//! One sequence of steps, played on the scripts and on the specification at once.

use std::{collections::BTreeMap, fmt::Debug};

use redis::aio::ConnectionManager;
use versand::{
    domain::{
        delivery::{DeliveryId, DeliveryState},
        ledger::{ClaimNumber, HEADER_BYTES, RECORD_BYTES, Status, flags},
    },
    store::{
        Store,
        chunks::{Batch, ChunkRef, Claim, Lease, LeaseVerdict, Report, Taken, TakeoverGrounds},
        keys,
    },
};

use super::{
    spec::{Chunk, Mutation, Terms},
    steps::{Said, Step, WORKERS, Wanted, Why},
};

/// Everything that the scripts keep of the chunk, read back.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    ledger: Vec<u8>,
    counts: BTreeMap<String, i64>,
    open: Option<u32>,
    offered: Option<u32>,
    round: u32,
    replies: BTreeMap<u16, String>,
}

#[derive(Default)]
struct Worker {
    lease: Option<Lease>,
    /// The last group and the lease it went out under.
    last: Option<(Lease, Batch)>,
}

pub struct Play<'a> {
    store: &'a Store,
    conn: ConnectionManager,
    at: ChunkRef,
    chunk: Chunk,
    terms: Terms,
    workers: [Worker; WORKERS],
    /// Every claim that was ever granted.
    claims: Vec<(u16, ClaimNumber)>,
    tracking: Vec<[u8; 3]>,
    replies: BTreeMap<u16, String>,
    /// What the run of Redis is called in a header.
    run: [u8; 8],
    past: Past,
}

/// What Redis goes back to.
#[derive(Clone)]
struct Past {
    chunk: Chunk,
    state: DeliveryState,
    tracking: Vec<[u8; 3]>,
    replies: BTreeMap<u16, String>,
}

/// What earlier runs are called.
const EARLIER: [u8; 8] = *b"earlier!";

fn same<T: PartialEq + Debug>(what: &str, real: T, spec: T) -> Result<(), String> {
    if real == spec { Ok(()) } else { Err(format!("{what}\n  scripts  {real:?}\n  protocol {spec:?}")) }
}

impl<'a> Play<'a> {
    pub async fn begin(store: &'a Store, delivery: DeliveryId, (recipients, test): (u16, bool), mutation: Mutation) -> Self {
        let (chunk, tracking) = (Chunk::new(recipients), vec![[0; 3]; usize::from(recipients)]);
        let terms = Terms {
            state: DeliveryState::InProgress,
            now: 1_000,
            resend_after_s: None,
            run: 1,
            goes_back: false,
            test,
            mutation,
        };
        let (at, conn, replies) = (ChunkRef { delivery, chunk: 7 }, store.connection(), BTreeMap::new());
        let run = store.run_id().await.unwrap().as_bytes()[..8].try_into().unwrap();
        let past = Past { chunk: chunk.clone(), state: terms.state, tracking: tracking.clone(), replies: BTreeMap::new() };
        let (workers, claims) = (Default::default(), Vec::new());
        let mut play = Self { store, conn, at, chunk, terms, workers, claims, tracking, replies, run, past };
        play.promise(false).await;
        play.lay_out().await;
        play
    }

    /// Redis holds what the protocol says.
    async fn lay_out(&mut self) {
        let (Kept { ledger, counts, open, offered, round, replies }, id) = (self.expected(), &self.at.delivery);
        let mut pipe = redis::pipe();
        pipe.set(keys::ledger(id, self.at.chunk), ledger).ignore();
        pipe.hset(keys::delivery(id), "state", self.terms.state.word()).ignore();
        pipe.hset(keys::rounds(id), self.at.chunk, round).ignore();
        for (key, since) in [(keys::open(id), open), (keys::offered(id), offered)] {
            pipe.del(&key).ignore();
            if let Some(since) = since {
                pipe.zadd(&key, self.at.chunk, since).ignore();
            }
        }
        pipe.del(keys::counts(id)).del(keys::replies(id, self.at.chunk)).ignore();
        for (word, n) in &counts {
            pipe.hset(keys::counts(id), word, n).ignore();
        }
        for (position, text) in &replies {
            pipe.hset(keys::replies(id, self.at.chunk), position, text).ignore();
        }
        let () = pipe.query_async(&mut self.conn).await.unwrap();
    }

    /// What Redis promises: that its last writes may be undone, or nothing that is heeded.
    async fn promise(&mut self, goes_back: bool) {
        let mut set = redis::cmd("CONFIG");
        set.arg(&["SET", "appendfsync", if goes_back { "everysec" } else { "no" }]);
        let () = set.query_async(&mut self.conn).await.unwrap();
        self.store.durability().await.unwrap();
        assert_eq!(self.store.may_go_back(), goes_back);
        self.terms.goes_back = goes_back;
    }

    /// Takes one step on both sides. The error says what differs.
    pub async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Take { worker, why } => self.take(*worker, *why).await?,
            Step::Beat { worker } => self.beat(*worker).await?,
            Step::Turn { worker, said, wanted, lost } => self.fresh_turn(*worker, (said, wanted), *lost).await?,
            Step::Repeat { worker } => self.repeat(*worker, false).await?,
            Step::Redo { worker } => self.repeat(*worker, true).await?,
            Step::Doubt { worker } => self.doubt(*worker).await?,
            Step::Release { worker } => self.release(*worker).await?,
            Step::Settle { settlement, positions } => {
                let real = self.store.settle(&self.at, *settlement, positions.as_deref(), self.terms.now).await.unwrap();
                same("settled", real, self.chunk.settle(*settlement, positions.as_deref(), &self.terms))?;
            }
            Step::Cancel { stop } => {
                if *stop {
                    self.set_state(DeliveryState::Stopping).await;
                }
                let real = self.store.cancel(&self.at, self.terms.now).await.unwrap();
                same("cancelled", real, self.chunk.cancel(&self.terms))?;
            }
            Step::Offer { window } => {
                let real = self.store.offer(&self.at.delivery, (*window, *window), 0.0, self.terms.now).await.unwrap();
                let spec = self.chunk.offer(*window, &self.terms).map(|round| (self.at.chunk, round));
                same("offered", real, spec.into_iter().collect())?;
            }
            Step::Reopen { rounds_ago } => {
                let round = self.chunk.round.saturating_sub(*rounds_ago);
                let real = self.store.reopen(&self.at, round, self.terms.now).await.unwrap();
                same("reopened", real, self.chunk.reopen(round, &self.terms))?;
            }
            Step::Evidence { position, evidence } => {
                let real = self.store.evidence(&self.at, *position, *evidence, self.terms.now).await.unwrap();
                same("evidence", real, self.chunk.evidence(*position, *evidence, &self.terms))?;
            }
            Step::Remember => {
                let (chunk, state) = (self.chunk.clone(), self.terms.state);
                self.past = Past { chunk, state, tracking: self.tracking.clone(), replies: self.replies.clone() };
            }
            Step::RollBack => {
                let Past { chunk, state, tracking, replies } = self.past.clone();
                (self.chunk, self.terms.state, self.tracking, self.replies) = (chunk, state, tracking, replies);
                self.terms.run += 1;
                self.lay_out().await;
            }
            Step::Promise { goes_back } => self.promise(*goes_back).await,
            Step::State(state) => self.set_state(*state).await,
            Step::Policy(resend_after_s) => self.terms.resend_after_s = *resend_after_s,
            Step::Time(seconds) => self.terms.now += seconds,
            Step::Track { position, bytes } => {
                self.tracking[usize::from(*position)] = *bytes;
                let offset = HEADER_BYTES + RECORD_BYTES * usize::from(*position) + 13;
                let mut set = redis::cmd("SETRANGE");
                set.arg(keys::ledger(&self.at.delivery, self.at.chunk)).arg(offset).arg(&bytes[..]);
                let () = set.query_async(&mut self.conn).await.unwrap();
            }
        }
        same("kept", self.kept().await, self.expected())
    }

    async fn set_state(&mut self, state: DeliveryState) {
        self.terms.state = state;
        let mut set = redis::cmd("HSET");
        set.arg(keys::delivery(&self.at.delivery)).arg("state").arg(state.word());
        let () = set.query_async(&mut self.conn).await.unwrap();
    }

    async fn take(&mut self, worker: usize, why: Why) -> Result<(), String> {
        let (epoch, beat, owner) = (self.chunk.epoch, self.chunk.beat, self.chunk.owner);
        let (still, dead) = match why {
            Why::Free => (None, None),
            Why::Still => (Some((epoch, beat)), None),
            Why::Moved => (Some((epoch, beat + 1)), None),
            Why::Dead => (None, Some(owner)),
            Why::OtherDead => (None, Some(owner + 77)),
        };
        let grounds = TakeoverGrounds { still, dead, resends: self.terms.resend_after_s.is_some() };
        // Eight bytes that tell a byte order apart.
        let name = 0x0102_0304_0506_0700 + worker as u64;
        let real = match self.store.take(&self.at, name, grounds, self.terms.now).await.unwrap() {
            Taken::Yes(lease, ledger) => {
                same("ledger given with the lease", ledger.bytes().to_vec(), self.kept().await.ledger)?;
                Ok(lease)
            }
            Taken::Held(epoch, beat) => Err((epoch, beat)),
            Taken::Missing => panic!("the ledger is there"),
        };
        if let Ok(lease) = real {
            self.workers[worker].lease = Some(lease);
        }
        let first = real.map_or(0, |lease| lease.seq);
        same("taken", real, self.chunk.take(name, grounds, first, &self.terms))
    }

    async fn beat(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        same("beat", self.store.beat(&self.at, &lease).await.unwrap(), self.chunk.beat(&lease, &self.terms))
    }

    async fn release(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let real = self.store.release(&self.at, &lease, self.terms.now, self.terms.resend_after_s).await.unwrap();
        same("released", real, self.chunk.release(&lease, &self.terms))
    }

    async fn fresh_turn(&mut self, worker: usize, (said, wanted): (&[Said], &[Wanted]), lost: bool) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let reports = said.iter().filter_map(|said| self.report(said)).collect();
        let claims = wanted.iter().map(|w| self.claim(&lease, w)).collect();
        let turn = Batch { reports, claims, redo: false };
        self.workers[worker].last = Some((lease, turn.clone()));
        let verdict = self.turn(&lease, &turn).await?;
        if verdict == LeaseVerdict::Ok && !lost {
            self.workers[worker].lease = Some(Lease { seq: lease.seq + 1, ..lease });
        }
        Ok(())
    }

    async fn doubt(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let real = self.store.doubt(&self.at, &lease, self.terms.now, self.terms.resend_after_s).await.unwrap();
        same("put in doubt", real, self.chunk.doubt(&lease, &self.terms))
    }

    async fn repeat(&mut self, worker: usize, redo: bool) -> Result<(), String> {
        let Some((lease, turn)) = self.workers[worker].last.clone() else { return Ok(()) };
        let turn = Batch { redo, ..turn };
        let verdict = self.turn(&lease, &turn).await?;
        let current = self.workers[worker].lease == Some(lease);
        if verdict == LeaseVerdict::Ok && current {
            self.workers[worker].lease = Some(Lease { seq: lease.seq + 1, ..lease });
        }
        Ok(())
    }

    async fn turn(&mut self, lease: &Lease, turn: &Batch) -> Result<LeaseVerdict, String> {
        let real = self.store.turn(&self.at, lease, turn, self.terms.now, self.terms.resend_after_s).await.unwrap();
        let (spec, kept) = self.chunk.turn(lease, turn, &self.terms);
        for (claim, _) in turn.claims.iter().zip(&real.granted).filter(|(_, granted)| **granted) {
            self.claims.push((claim.position, ClaimNumber { epoch: lease.epoch, n: claim.n }));
        }
        for (report, _) in turn.reports.iter().zip(kept).filter(|(report, kept)| *kept && !report.reply.is_empty()) {
            let text = self.replies.entry(report.position).or_default();
            let line = if text.is_empty() { report.reply.clone() } else { format!("\n{}", report.reply) };
            text.push_str(&line);
        }
        let verdict = real.lease;
        same("turn", real, spec)?;
        Ok(verdict)
    }

    /// The newest claims come first, so that most reports are in time.
    fn report(&self, said: &Said) -> Option<Report> {
        let newest_first = self.claims.iter().rev().cycle().nth(said.claim);
        let (position, claim) = match (said.forged, newest_first) {
            (false, Some((position, claim))) => (*position, *claim),
            (false, None) => return None,
            (true, _) => (said.claim as u16 + 1, ClaimNumber { epoch: 1, n: 200 }),
        };
        let flag = match said.status {
            Some(Status::Sent) => flags::ACCEPTED,
            Some(Status::Failed) => flags::HARD,
            _ => 0,
        };
        let flags = if said.flag { flag } else { 0 };
        let when = self.terms.now + said.later_s;
        Some(Report { position, claim, status: said.status, reason: said.reason, flags, when, reply: said.reply.to_owned() })
    }

    fn claim(&self, lease: &Lease, wanted: &Wanted) -> Claim {
        let taken = self.claims.iter().filter(|(p, c)| *p == wanted.position && c.epoch == lease.epoch).count() as u8;
        Claim { position: wanted.position, n: if wanted.fresh { taken + 1 } else { taken } }
    }

    fn expected(&self) -> Kept {
        let counts = serde_json::to_value(self.chunk.counts()).unwrap();
        let mut counts: BTreeMap<String, i64> = serde_json::from_value(counts).unwrap();
        counts.retain(|_, n| *n != 0);
        let run = match self.chunk.run {
            0 => [0; 8],
            run if run == self.terms.run => self.run,
            _ => EARLIER,
        };
        let (ledger, replies) = (self.chunk.bytes(&self.tracking, run, self.terms.test), self.replies.clone());
        Kept { ledger, counts, open: self.chunk.open, offered: self.chunk.offered, round: self.chunk.round, replies }
    }

    async fn kept(&self) -> Kept {
        let id = &self.at.delivery;
        let mut pipe = redis::pipe();
        pipe.get(keys::ledger(id, self.at.chunk)).hgetall(keys::counts(id));
        pipe.zscore(keys::open(id), self.at.chunk).zscore(keys::offered(id), self.at.chunk);
        pipe.hget(keys::rounds(id), self.at.chunk).hgetall(keys::replies(id, self.at.chunk));
        type Raw = (Vec<u8>, BTreeMap<String, i64>, Option<f64>, Option<f64>, Option<u32>, BTreeMap<u16, String>);
        let raw: Raw = pipe.query_async(&mut self.conn.clone()).await.unwrap();
        let (ledger, mut counts, open, offered, round, replies) = raw;
        counts.retain(|_, n| *n != 0);
        let (open, offered) = (open.map(|at| at as u32), offered.map(|at| at as u32));
        Kept { ledger, counts, open, offered, round: round.unwrap_or_default(), replies }
    }
}
