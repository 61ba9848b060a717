//! One sequence of steps, played on the scripts and on the specification at once.

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
    spec::{Chunk, Mutation, Terms},
    steps::{Came, HOLDER, Said, Step, WORKERS, Wanted, Why},
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
    store: &'a Stores,
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
    beside: Chunk,
    /// The ledger and the counts of the neighbour chunk, which seldom change.
    beside_kept: (Vec<u8>, Counts),
    state: DeliveryState,
    tracking: Tracking,
    replies: BTreeMap<u16, String>,
}

impl Known {
    fn note_beside(&mut self) {
        self.beside_kept =
            (self.beside.bytes(&self.tracking.caches[1], [0; 8], false), self.beside.counts());
    }
}

/// The name of the first worker. Its eight bytes differ, which shows a wrong byte order.
const FIRST: u64 = 0x0102_0304_0506_0700;
/// The names of earlier runs.
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
        store: &'a Stores,
        delivery: DeliveryId,
        beginning: Beginning,
        mutation: Mutation,
    ) -> Self {
        let Beginning { recipients, test, agents } = beginning;
        let (chunk, beside, state) =
            (Chunk::new(recipients), one_of_each_status(), DeliveryState::InProgress);
        let tracking = Tracking::new([&chunk, &beside].map(|chunk| chunk.records.len()), agents);
        let replies = BTreeMap::new();
        let mut now =
            Known { chunk, beside, beside_kept: Default::default(), state, tracking, replies };
        now.note_beside();
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
            (ChunkRef { delivery, chunk: CHUNK }, store.redis.connection(), now.clone());
        let run = store.redis.run_id().await.unwrap().as_bytes()[..8].try_into().unwrap();
        let (workers, claims, met) = (Default::default(), Vec::new(), BTreeSet::new());
        let mut play =
            Self { store, conn, at, now, past, terms, workers, claims, run, hits: 0, met };
        play.promise(false).await;
        play.lay_out().await;
        play
    }

    /// Writes the content of Redis as the protocol has it.
    async fn lay_out(&mut self) {
        self.expected().lay_out(&self.at.delivery, &mut self.conn).await;
    }

    /// Sets the durability: either Redis may lose its last writes, or the protocol ignores that.
    async fn promise(&mut self, goes_back: bool) {
        let mut set = redis::cmd("CONFIG");
        set.arg(&["SET", "appendfsync", if goes_back { "everysec" } else { "no" }]);
        let () = set.query_async(&mut self.conn).await.unwrap();
        self.store.redis.durability().await.unwrap();
        assert_eq!(self.store.redis.may_roll_back(), goes_back);
        self.terms.goes_back = goes_back;
    }

    /// Takes one step on both sides. The error names the difference.
    pub async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Take { worker, why } => self.take(self.worker(*worker), *why).await?,
            Step::Beat { worker } => self.beat(self.worker(*worker)).await?,
            Step::Turn { worker, said, wanted, lost } => {
                self.fresh_turn(self.worker(*worker), (said, wanted), *lost).await?
            }
            Step::Repeat { worker } => self.repeat(self.worker(*worker), false).await?,
            Step::Redo { worker } => self.repeat(self.worker(*worker), true).await?,
            Step::Doubt { worker } => self.doubt(self.worker(*worker)).await?,
            Step::Release { worker } => self.release(self.worker(*worker)).await?,
            Step::Settle { settlement, positions } => {
                let real = self
                    .store
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
                    self.store.ledgers.cancel_pending(&self.at, self.terms.now).await.unwrap();
                same("cancelled", real, self.now.chunk.cancel(&self.terms))?;
            }
            Step::Offer { window } => {
                let real = self
                    .store
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
                    .store
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
                    self.lay_out().await;
                }
            }
            Step::Hits { of_plan, came } => {
                self.record(if *of_plan { PLANNED } else { PLANNED - 1 }, came).await?
            }
            Step::Mend { chunk, position, wrong, outdated, bits } => {
                self.mend((*chunk, *position), (*wrong, *outdated), *bits).await;
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
            Step::Aside { set: true } => {
                self.now.chunk.aside = true;
                self.store.chunks.mark_poisoned(&self.at).await.unwrap();
            }
            Step::Aside { set: false } => {
                self.now.chunk.readmit();
                self.store.chunks.retry_poisoned(&self.at).await.unwrap();
            }
            Step::Remember => self.past = Known { state: self.terms.state, ..self.now.clone() },
            Step::RollBack => {
                self.now = self.past.clone();
                self.terms.state = self.now.state;
                self.terms.run += 1;
                self.lay_out().await;
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
            .store
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
            Taken::Held(epoch, beat) => Err((epoch, beat)),
            Taken::Missing => panic!("the ledger is there"),
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
            self.store.ledgers.renew_lease(&self.at, &lease).await.unwrap(),
            self.now.chunk.beat(&lease, &self.terms),
        )
    }

    async fn release(&mut self, worker: usize) -> Result<(), String> {
        let Some(lease) = self.workers[worker].lease else { return Ok(()) };
        let real = self
            .store
            .ledgers
            .give_back(&self.at, &lease, self.terms.now, self.terms.resend_after_s)
            .await
            .unwrap();
        same("released", real, self.now.chunk.release(&lease, &self.terms))
    }

    async fn fresh_turn(
        &mut self,
        worker: usize,
        (said, wanted): (&[Said], &[Wanted]),
        lost: bool,
    ) -> Result<(), String> {
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
        let real = self
            .store
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
                .store
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

    async fn record(&mut self, generation: u32, came: &[Came]) -> Result<(), String> {
        let mut hits = Vec::new();
        for Came { chunk, position, kind, label, agent } in came {
            self.hits += 1;
            let recipient = (CHUNK + chunk) * CHUNK_SIZE + u32::from(*position);
            let (from, link) = (
                IpAddr::from([192, 0, 2, *position as u8]),
                if self.hits.is_multiple_of(2) { 5 } else { NO_LINK },
            );
            let hit = Hit {
                recipient,
                at_ms: self.hits,
                kind: *kind,
                label: *label,
                rules: 2,
                link,
                signs: 1,
                agent: NO_AGENT,
                from,
            };
            hits.push((hit, *agent));
        }
        self.note_met(generation, &hits);
        let mailing = PreparationRef {
            delivery: self.at.delivery.clone(),
            generation,
            chunk_size: CHUNK_SIZE,
        };
        let real = self.store.tracking.record_hits(&mailing, &hits, self.terms.now).await.unwrap();
        let Known { chunk, beside, tracking, .. } = &mut self.now;
        let before = tracking.beyond;
        same("recorded", real, tracking.record([chunk, beside], generation, &hits, &self.terms))?;
        let (beyond, blocks) = (tracking.beyond > before, tracking.blocks().len());
        self.now.note_beside();
        self.met.extend(beyond.then(|| "the limit of a recipient".to_owned()));
        self.met.extend((blocks > 1).then(|| "the next block".to_owned()));
        Ok(())
    }

    fn note_met(&mut self, generation: u32, hits: &[(Hit, &str)]) {
        let tracking = &self.now.tracking;
        let note = match (generation == PLANNED, tracking.swept) {
            (false, _) => "another plan",
            (true, true) => "a log that was removed",
            (true, false) => "a log",
        };
        self.met.insert(note.to_owned());
        let mut proved = BTreeSet::new();
        for (hit, _) in hits.iter().filter(|_| note == "a log") {
            let (chunk, position) = place(hit);
            let chunks = [Some(&self.now.chunk), Some(&self.now.beside), None];
            let record =
                chunks[chunk].and_then(|of_chunk| of_chunk.records.get(usize::from(position)));
            let Some(record) = record else {
                self.met.insert("nobody".to_owned());
                continue;
            };
            let class = hit.label.class().word();
            self.met.insert(format!("{} by {class}", record.status.word()));
            if record.status == Status::InDoubt && class == "human" {
                proved.insert(chunk);
            }
        }
        self.met.extend((proved.len() == 2).then(|| "proofs in two chunks".to_owned()));
    }

    /// The basis of the statistics: revision and labels of the delivery, current or outdated.
    fn basis(&self, outdated: bool) -> StatisticsBasis {
        let (delivery, labels) = (self.at.delivery.clone(), self.now.tracking.labels);
        let by = u64::from(outdated);
        if self.hits.is_multiple_of(2) {
            StatisticsBasis { delivery, revision: 1 + by, labels }
        } else {
            StatisticsBasis { delivery, revision: 1, labels: labels + by }
        }
    }

    async fn mend(
        &mut self,
        (chunk, position): (u32, u16),
        (wrong, outdated): (bool, bool),
        bits: u8,
    ) {
        let caches = &mut self.now.tracking.caches[chunk as usize];
        let Some(cache) = caches.get(usize::from(position)).copied() else { return };
        let lines = if wrong { cache.lines ^ 1 } else { cache.lines };
        let basis = self.basis(outdated);
        self.store
            .tracking
            .correct_tracked(&basis, CHUNK + chunk, &[(position, cache.bits, lines, bits)])
            .await
            .unwrap();
        if !wrong && !outdated {
            self.now.tracking.caches[chunk as usize][usize::from(position)] =
                Cache { bits, ..cache };
            self.now.note_beside();
        }
    }

    /// Only whole blocks are compared: the earlier lines of the first block do not exist.
    async fn relabel(
        &mut self,
        line: usize,
        (wrong, outdated): (bool, bool),
        label: HitLabel,
    ) -> Result<(), String> {
        let whole = (BLOCK - EARLIER) as usize;
        let lines = self.now.tracking.log.len();
        if lines <= whole {
            return Ok(());
        }
        let line = whole + line % (lines - whole);
        let hit = self.now.tracking.log[line];
        let mut basis = self.basis(outdated);
        let before = Hit { rules: if wrong { 77 } else { hit.rules }, ..hit }.label_bytes();
        let changed = Hit { label, rules: hit.rules + 1, ..hit };
        let change =
            Relabelled { place: EARLIER + line as u64, before, now: changed.label_bytes() };
        same(
            "relabelled",
            self.store.tracking.relabel(&mut basis, &[change]).await.unwrap(),
            !outdated,
        )?;
        if !outdated {
            self.now.tracking.labels += 1;
        }
        if !outdated && !wrong {
            self.now.tracking.log[line] = changed;
        }
        Ok(())
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
        let real = self
            .store
            .ledgers
            .write_batch(&self.at, lease, turn, self.terms.now, self.terms.resend_after_s)
            .await
            .unwrap();
        let (spec, kept) = self.now.chunk.turn(lease, turn, &self.terms);
        for (claim, _) in turn.claims.iter().zip(&real.granted).filter(|(_, granted)| **granted) {
            self.claims.push((claim.position, ClaimNumber { epoch: lease.epoch, n: claim.n }));
        }
        for (report, _) in
            turn.reports.iter().zip(kept).filter(|(report, kept)| *kept && !report.reply.is_empty())
        {
            let text = self.now.replies.entry(report.position).or_default();
            let line =
                if text.is_empty() { report.reply.clone() } else { format!("\n{}", report.reply) };
            text.push_str(&line);
        }
        let verdict = real.lease;
        same("turn", real, spec)?;
        Ok(verdict)
    }

    /// The newest claims come first, so that most reports are in time.
    fn newest_first(&self, claim: usize) -> Option<(u16, ClaimNumber)> {
        self.claims.iter().rev().cycle().nth(claim).copied()
    }

    fn report(&self, said: &Said) -> Option<Report> {
        let (position, claim) = match (said.forged, self.newest_first(said.claim)) {
            (false, Some(newest)) => newest,
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
        Some(Report {
            position,
            claim,
            status: said.status,
            reason: said.reason,
            flags,
            when,
            reply: said.reply.to_owned(),
        })
    }

    fn claim(&self, lease: &Lease, wanted: &Wanted) -> Claim {
        let taken = self
            .claims
            .iter()
            .filter(|(p, c)| *p == wanted.position && c.epoch == lease.epoch)
            .count() as u8;
        Claim { position: wanted.position, n: if wanted.fresh { taken + 1 } else { taken } }
    }

    fn expected(&self) -> Kept {
        let Known { chunk, beside_kept: (beside, counts_beside), tracking, replies, .. } =
            &self.now;
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for of_chunk in [&chunk.counts(), counts_beside] {
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
            beside: beside.clone(),
            counts,
            open: chunk.open,
            offered: chunk.offered,
            aside: chunk.aside,
            round: chunk.round,
            replies: replies.clone(),
            tracking: [EARLIER + tracking.log.len() as u64, tracking.beyond, tracking.labels],
            agents: tracking.agents.iter().cloned().zip(0..).collect(),
            log: tracking.blocks(),
        }
    }
}
