//! The fault run: real daemons, a real Redis and a sink under a seeded schedule of faults.
//!
//! The checker knows only the journal of the sink, the exported log, the API, a metric and the
//! faults. `make fire` runs many seeds, `make test` a few.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::harness::{
    client::{Client, audience, definition},
    daemon::Daemon,
    eventually,
    redis::RedisServer,
    repository,
};

mod checker;
mod sink;

use checker::{Evidence, check};
use sink::{Sink, SinkFault};

const CONNECTIONS: usize = 4;
const WINDOW: usize = 4;
const CHUNK: usize = 100;
/// `send.chunks_in_flight`.
const IN_FLIGHT: usize = 8;
/// The time from the last fault to the end, on a busy machine, besides the time for sending.
const RECOVERY: Duration = Duration::from_secs(60);

/// Seeds that failed once. In seed 54 a replica that was not in sync took over. The fault run was
/// wrong; now it waits for the replica.
const REGRESSIONS: &[u64] = &[54];

/// SplitMix64 (Steele, Lea, Flood 2014): the schedule of a seed is the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The fault of Redis in this run, besides restarts and freezes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RedisFault {
    /// `appendfsync always`: nothing is lost.
    Durable,
    /// `everysec`, and the end of the append-only file is lost.
    RolledBack,
    /// Like [`Self::RolledBack`], and all daemons die with Redis.
    RolledBackWithDaemons,
    /// A replica that was frozen takes over.
    FailedOver,
}

const REDIS_FAULTS: [RedisFault; 5] = [
    RedisFault::Durable,
    RedisFault::RolledBack,
    RedisFault::Durable,
    RedisFault::RolledBackWithDaemons,
    RedisFault::FailedOver,
];

struct Options {
    recipients: usize,
    lease_ms: u64,
}

struct FaultRun {
    random: Random,
    redis_fault: RedisFault,
    redis: RedisServer,
    replica: Option<RedisServer>,
    sink: Sink,
    daemons: Vec<Daemon>,
    clients: Arc<Mutex<Vec<Client>>>,
    lease: Duration,
    began: Instant,
    faults: Vec<(Duration, String)>,
    /// The number of daemons that died, or were frozen for longer than their lease.
    fenced: usize,
    /// The most connections that restarts of the sink have cut.
    cut: usize,
    /// The number of restarts and replacements of Redis that may mean a roll-back.
    redis_restarts: usize,
}

impl FaultRun {
    async fn start(seed: u64, options: &Options) -> Self {
        let redis_fault = REDIS_FAULTS[seed as usize % REDIS_FAULTS.len()];
        let mut random = Random(seed);
        let (redis, replica) = match redis_fault {
            RedisFault::Durable => (RedisServer::start(), None),
            RedisFault::RolledBack | RedisFault::RolledBackWithDaemons => {
                (RedisServer::start_with(&["--appendfsync", "everysec"]), None)
            }
            RedisFault::FailedOver => {
                let (redis, port) = RedisServer::start_on_port(&[]);
                let replica =
                    RedisServer::start_with(&["--replicaof", "127.0.0.1", &port.to_string()]);
                in_sync(&replica).await;
                (redis, Some(replica))
            }
        };
        let sink = Sink::start().await;
        // `crashes` is high, because here the faults kill the workers, and no chunk does.
        let settings = format!(
            "[relay]\nhost = \"127.0.0.1\"\nport = {}\nconnections = {CONNECTIONS}\n[preparation]\nchunk_size = {CHUNK}\n\
             [send]\nlease_ms = {}\nslice_ms = 2000\n[queue]\ncrashes = 100\n[redis]\nurl = \"{}\"\nresponse_timeout_ms = 2000\n",
            sink.port,
            options.lease_ms,
            redis.url()
        );
        let mut daemons = Vec::new();
        for _ in 0..2 + random.below(2) {
            daemons.push(Daemon::start(&settings).await);
        }
        let clients =
            Arc::new(Mutex::new(daemons.iter().map(|daemon| daemon.client.clone()).collect()));
        let lease = Duration::from_millis(options.lease_ms);
        let (faults, began) = (Vec::new(), Instant::now());
        Self {
            random,
            redis_fault,
            redis,
            replica,
            sink,
            daemons,
            clients,
            lease,
            began,
            faults,
            fenced: 0,
            cut: 0,
            redis_restarts: 0,
        }
    }

    fn log_fault(&mut self, fault: impl Into<String>) {
        self.faults.push((self.began.elapsed(), fault.into()));
    }

    async fn restart(&mut self, i: usize) {
        self.daemons[i].restart().await;
        self.clients.lock().unwrap()[i] = self.daemons[i].client.clone();
    }

    async fn fault(&mut self) {
        let i = self.random.below(self.daemons.len() as u64) as usize;
        match self.random.below(12) {
            0 | 1 => {
                self.log_fault(format!("SIGKILL of daemon {i}"));
                self.fenced += 1;
                self.daemons[i].kill();
                sleep(self.random.ms(50, 800)).await;
                self.restart(i).await;
            }
            2 => {
                let frozen = self.lease + self.random.ms(500, 1500);
                self.log_fault(format!("SIGSTOP of daemon {i} for {} ms", frozen.as_millis()));
                self.fenced += 1;
                self.daemons[i].freeze();
                sleep(frozen).await;
                self.daemons[i].thaw();
            }
            3 => {
                self.log_fault(format!("SIGTERM of daemon {i}"));
                assert!(self.daemons[i].terminate().await.success(), "daemon {i} did not drain");
                self.restart(i).await;
            }
            4 => {
                self.log_fault("SIGKILL of Redis");
                self.redis_restarts += 1;
                self.redis.kill();
                sleep(self.random.ms(10, 500)).await;
                self.redis.restart();
            }
            5 => {
                let frozen = self.random.ms(500, 2500);
                self.log_fault(format!("Redis frozen for {} ms", frozen.as_millis()));
                self.redis.freeze();
                sleep(frozen).await;
                self.redis.thaw();
            }
            6 => {
                let away = self.random.ms(50, 500);
                self.log_fault(format!("sink restarted, away for {} ms", away.as_millis()));
                self.cut += CONNECTIONS * self.daemons.len();
                self.sink.restart(away).await;
            }
            other => self.sink_fault(other).await,
        }
    }

    async fn sink_fault(&mut self, fault: u64) {
        let sink_faults = match fault {
            7 => [SinkFault::Refuse, SinkFault::Defer],
            8 => [SinkFault::Stall, SinkFault::Defer],
            9 => [SinkFault::CloseBefore, SinkFault::CloseAfter],
            10 => [SinkFault::CloseAfterForgetting, SinkFault::CloseBefore],
            _ => [SinkFault::Garbage, SinkFault::CloseAfter],
        };
        let sink_fault = sink_faults[self.random.below(2) as usize];
        let long = self.random.ms(100, 400);
        self.log_fault(format!("sink: {sink_fault:?} for {} ms", long.as_millis()));
        self.sink.set(sink_fault);
        sleep(long).await;
        self.sink.set(SinkFault::Good);
    }

    async fn cause_redis_fault(&mut self) {
        let lost = self.random.ms(300, 1800);
        match self.redis_fault {
            RedisFault::Durable => return,
            RedisFault::RolledBack => {
                let length = self.redis.log_length();
                sleep(lost).await;
                self.redis.roll_back(length);
            }
            RedisFault::RolledBackWithDaemons => {
                let length = self.redis.log_length();
                sleep(lost).await;
                self.daemons.iter_mut().for_each(Daemon::kill);
                self.fenced += self.daemons.len();
                self.redis.roll_back(length);
                for i in 0..self.daemons.len() {
                    self.restart(i).await;
                }
            }
            RedisFault::FailedOver => {
                let mut replica = self.replica.take().unwrap();
                // The promises do not cover a replica that had lost its master before.
                in_sync(&replica).await;
                replica.freeze();
                sleep(lost).await;
                self.redis.freeze();
                replica.thaw();
                replica.take_over(&mut self.redis);
                // The old server is kept: its folder holds the socket.
                self.replica = Some(std::mem::replace(&mut self.redis, replica));
            }
        }
        self.redis_restarts += 1;
        self.log_fault(format!("{:?}: {} ms lost", self.redis_fault, lost.as_millis()));
    }

    /// The upper limit of recipients in doubt. A fenced daemon counts with its windows, and also
    /// with its chunks if Redis may have rolled back. Each connection that the sink cut counts
    /// once.
    fn most_in_doubt(&self) -> usize {
        let windows = self.fenced * CONNECTIONS * WINDOW;
        let chunks = if self.redis_fault == RedisFault::Durable || self.redis_restarts == 0 {
            0
        } else {
            self.fenced * IN_FLIGHT * CHUNK
        };
        windows + chunks + self.cut
    }
}

async fn in_sync(replica: &RedisServer) {
    let synced = async || {
        replica.ask("INFO replication").ok()?.contains("master_link_status:up").then_some(())
    };
    eventually("the replica has everything", RECOVERY, synced).await;
}

/// Confirms again and again at any daemon that listens. Scrapes a figure that must be 0, and notes
/// every value that is not 0.
async fn confirm_and_scrape(
    clients: Arc<Mutex<Vec<Client>>>,
    path: String,
    digest: String,
    differences: Arc<Mutex<Vec<f64>>>,
) {
    loop {
        let all = clients.lock().unwrap().clone();
        for client in all {
            let confirm =
                client.request(reqwest::Method::POST, &path).json(&json!({ "digest": digest }));
            let _ = timeout(Duration::from_millis(300), confirm.send()).await;
            let scrape = async {
                reqwest::get(format!("{}/metrics", client.url)).await.ok()?.text().await.ok()
            };
            if let Ok(Some(text)) = timeout(Duration::from_millis(300), scrape).await {
                let gauge = text.lines().find_map(|line| {
                    line.strip_prefix("versand_conservation_difference ")?.parse::<f64>().ok()
                });
                differences.lock().unwrap().extend(gauge.filter(|value| *value != 0.0));
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Runs one seed. Returns the failures, or "" if there are none.
async fn run(seed: u64, options: &Options) -> String {
    let mut fault_run = FaultRun::start(seed, options).await;
    let resend = fault_run.random.below(2) == 1;
    let mut wanted = definition();
    wanted["settings"] =
        json!({ "retry_minutes": [0.01], "in_doubt": if resend { "resend" } else { "hold" } });
    let client = fault_run.daemons[0].client.clone();
    let id = client.send(&wanted, audience(options.recipients)).await;
    let digest = client.get(&format!("/deliveries/{id}")).await["plan"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let differences = Arc::<Mutex<Vec<f64>>>::default();
    let path = format!("/deliveries/{id}/confirm");
    let pestering = tokio::spawn(confirm_and_scrape(
        fault_run.clients.clone(),
        path,
        digest,
        differences.clone(),
    ));

    let redis_fault_at = fault_run.random.below(3) + 1;
    // More recipients take longer, so there are more faults. The faults end when almost all
    // messages are sent.
    let faults = options.recipients.div_ceil(2000) as u64 * 6;
    for number in 0..faults {
        sleep(fault_run.random.ms(100, 700)).await;
        if fault_run.sink.accepted() >= options.recipients * 19 / 20 {
            break;
        }
        if number == redis_fault_at {
            fault_run.cause_redis_fault().await
        } else {
            fault_run.fault().await
        }
    }
    let client = fault_run.daemons[0].client.clone();
    // The sink is slow.
    let sending = Duration::from_millis(10) * u32::try_from(options.recipients).unwrap();
    let progress = format!("/deliveries/{id}/progress");
    let ended = async {
        // Redis may stay away for a while.
        let state = async || {
            client
                .request(reqwest::Method::GET, &progress)
                .send()
                .await
                .ok()?
                .json::<Value>()
                .await
                .ok()
        };
        while state().await.is_none_or(|progress| progress["state"] != "finished") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let finished = timeout(RECOVERY + sending, ended).await.is_ok();
    pestering.abort();
    for daemon in &fault_run.daemons {
        // Late records of fenced holders may come, and the gauges must be computed once more.
        daemon.passes("observe", 1).await;
        let difference = daemon.metric("versand_conservation_difference").await;
        differences
            .lock()
            .unwrap()
            .extend(Some(difference).filter(|difference| *difference != 0.0));
    }
    let evidence = Evidence {
        recipients: options.recipients,
        resend,
        log: client.log(&id).await,
        journal: fault_run.sink.journal(),
        differences: differences.lock().unwrap().clone(),
        doubts_of_daemons: fault_run.most_in_doubt(),
        finished,
    };
    report(seed, resend, &fault_run, &evidence)
}

/// Prints the table of faults and verdicts. Keeps the evidence of a failure.
fn report(seed: u64, resend: bool, fault_run: &FaultRun, evidence: &Evidence) -> String {
    let policy = if resend { "resend" } else { "hold" };
    let mut table = format!(
        "seed {seed}: {:?}, {policy}, {} daemons\n",
        fault_run.redis_fault,
        fault_run.daemons.len()
    );
    for (at, fault) in &fault_run.faults {
        table.push_str(&format!("  {:>6.2} s  {fault}\n", at.as_secs_f64()));
    }
    let mut failed = false;
    for (property, holds, figures) in check(evidence) {
        failed |= !holds;
        table.push_str(&format!(
            "  {} {property}  {figures}\n",
            if holds { "ok    " } else { "FAILED" }
        ));
    }
    eprintln!("{table}");
    if !failed {
        return String::new();
    }
    let folder = repository("target/fire").join(seed.to_string());
    fs::create_dir_all(&folder).unwrap();
    let mut journal = String::new();
    for e in &evidence.journal {
        let ms = |at: Instant| at.duration_since(fault_run.began).as_millis();
        let line = format!(
            "{} {} began {} ended {:?} replied {:?} accepted {} refused {} garbled {}\n",
            e.recipient,
            e.message_id,
            ms(e.began),
            e.ended.map(ms),
            e.replied.map(ms),
            e.accepted,
            e.refused,
            e.garbled
        );
        journal.push_str(&line);
    }
    let log: String = evidence.log.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("journal"), journal).unwrap();
    fs::write(folder.join("log.ndjson"), log).unwrap();
    let mut redis = String::new();
    for key in fault_run
        .redis
        .ask("KEYS *")
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("versand:{"))
    {
        for look in [
            "ZRANGE KEY 0 -1 WITHSCORES",
            "HGETALL KEY",
            "LRANGE KEY 0 -1",
            "SMEMBERS KEY",
            "GETRANGE KEY 0 31",
        ] {
            let answer = fault_run.redis.ask(&look.replace("KEY", key)).unwrap_or_default();
            if !answer.starts_with('-') {
                redis.push_str(&format!("{key}: {}\n", answer.escape_debug()));
            }
        }
    }
    fs::write(folder.join("redis"), redis).unwrap();
    for (i, daemon) in fault_run.daemons.iter().enumerate() {
        fs::write(folder.join(format!("daemon{i}.log")), daemon.log()).unwrap();
    }
    fs::write(folder.join("table"), &table).unwrap();
    format!("{table}  evidence in {}\n", folder.display())
}

async fn seeds(seeds: impl IntoIterator<Item = u64>, options: &Options) {
    let mut failures = Vec::new();
    for seed in seeds {
        let failure = run(seed, options).await;
        failures.extend(Some(failure).filter(|failure| !failure.is_empty()));
    }
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), failures.join("\n"));
}

const SHORT: Options = Options { recipients: 1500, lease_ms: 1000 };

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_or_doubled_under_three_fault_schedules() {
    // These seeds choose a durable Redis, a roll-back in which the daemons die, and a fail-over.
    seeds([5, 8, 9], &SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_that_failed_once_pass() {
    seeds(REGRESSIONS.iter().copied(), &SHORT).await;
}

/// Run it with `make fire SEEDS=1-100 RECIPIENTS=2000 LEASE_MS=1000`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make fire"]
async fn many_seeds() {
    let of = |name: &str, default: &str| {
        std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let range = of("SEEDS", "1-100");
    let (from, to) = range.split_once('-').unwrap_or((&range, &range));
    let (from, to): (u64, u64) =
        (from.parse().expect("SEEDS=1-100"), to.parse().expect("SEEDS=1-100"));
    let recipients = of("RECIPIENTS", "2000").parse().expect("RECIPIENTS=2000");
    let lease_ms = of("LEASE_MS", "1000").parse().expect("LEASE_MS=1000");
    seeds(from..=to, &Options { recipients, lease_ms }).await;
}
