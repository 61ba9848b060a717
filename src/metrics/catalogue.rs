//! Every metric: its name, help and buckets, and one function per event. Nobody else names a metric.
use std::time::Duration;

use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as the README lists it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: &str = $name;)*
        /// All metrics.
        pub const ALL: &[Metric] = &[$(Metric { name: $name, kind: Kind::$kind, help: $help }),*];
    };
}

metrics_table! {
    TRANSACTIONS Counter "versand_transactions_total" "SMTP transactions by relay and outcome: accepted, tested, deferred, refused, in_doubt, not_started";
    TRANSACTION_SECONDS Histogram "versand_transaction_duration_seconds" "Time from the first command of an SMTP transaction to its end, by relay and outcome";
    RECORDS Counter "versand_records_total" "Records written to ledgers by status; given_back were not started";
    FAILURES Counter "versand_failures_total" "Recipients that failed by what the relay replied, by type: hard, soft";
    DUPLICATES Counter "versand_duplicates_total" "Recipients whose message the relay accepted twice";
    RELAY_ACCEPTED Gauge "versand_relay_accepted" "Messages a relay accepted (250 to the end of data) since the start, counted in the relay layer, by relay";
    RELAY_FAULTS Gauge "versand_relay_faults" "Connections and sessions that failed since the start, by relay";
    RELAY_CONNECTIONS Gauge "versand_relay_connections" "Open connections, by relay";
    RELAY_OPENED Gauge "versand_relay_connections_opened" "Connections opened since the start, by relay";
    RELAY_UP Gauge "versand_relay_up" "0 if what was tried with a relay failed more than once in a row, else 1, by relay";
    ACCEPTED_DIFFERENCE Gauge "versand_acceptance_difference" "Messages accepted in the relay layer, by all relays, less records of acceptance and accepted proofs by this process; 0 at rest";
    CONSERVATION Gauge "versand_conservation_difference" "Largest difference between figures of a delivery that must agree: audience, exclusion log, ledgers, live counters; 0 unless something was lost";
    IN_DOUBT_BOUND Gauge "versand_in_doubt_bound" "Recipients that a crash of this process can leave in doubt at the most: connections of all relays times claim window";
    STORE_RETRIES Counter "versand_store_retries_total" "Groups of records that were sent to Redis again";
    FENCED Counter "versand_chunks_fenced_total" "Chunks this process lost to another while it was sending them";
    TAKEN_OVER Counter "versand_chunks_taken_over_total" "Chunks this process took over from a dead worker";
    REVIVED Counter "versand_jobs_revived_total" "Jobs that were gone and were named again";
    SET_ASIDE Counter "versand_chunks_set_aside_total" "Chunks set aside because their workers died again and again or they cannot be sent";
    ASIDE Gauge "versand_chunks_aside" "Chunks of moving deliveries that are set aside now";
    DELIVERIES Gauge "versand_deliveries_moving" "Deliveries the daemon moves on by itself or that wait for their time, by state";
    ENDED Counter "versand_deliveries_ended_total" "Deliveries that this process ended, by outcome: finished, failed (finished, and not one message was sent), stopped";
    PREPARATIONS Counter "versand_preparations_total" "Preparations that this process concluded, by outcome: prepared, failed";
    START_PENDING Gauge "versand_start_pending_seconds" "For how long a delivery has been waiting to be started, the oldest one; 0 if none is";
    WAVES Counter "versand_waves_total" "Waves that this process released, or found overdue and held: released, held";
    WAVES_HELD Gauge "versand_waves_held" "Waves that are overdue beyond their grace window and wait for a person";
    WAVES_DUE Gauge "versand_waves_due" "Waves of scheduled deliveries whose time has come and that are not released yet, by whether the grace window is over: due, overdue";
    BREAKERS Gauge "versand_breakers_open" "Circuit breakers that are open, by kind: domain, delivery";
    TRIPPED Counter "versand_breaker_trips_total" "Circuit breakers that this process opened for their share of errors, by kind: domain, delivery";
    SCHEDULE_LATE Gauge "versand_schedule_late_seconds" "How long the earliest wave that waits has been due; 0 if none is";
    OCCURRENCES Counter "versand_occurrences_total" "Occurrences of recurring deliveries: created, failed (cannot be created, or not released in time), skipped (no daemon ran)";
    RETENTION_REMOVED Counter "versand_retention_removed_total" "Deliveries of which this process removed what was kept long enough: deliveries, logs, tracking";
    RECIPIENTS Gauge "versand_recipients" "Recipients of the moving deliveries, by status";
    QUEUE_JOBS Gauge "versand_queue_jobs" "Jobs by queue and state: waiting, retrying, running, dead, done";
    QUEUE_AGE Gauge "versand_queue_oldest_job_seconds" "For how long the first job of a queue has been waiting, by queue; 0 if none is";
    QUEUE_BEAT Gauge "versand_queue_oldest_beat_seconds" "Age of the oldest heartbeat of a queue's workers";
    QUEUE_RESTARTS Gauge "versand_queue_worker_restarts" "Restarts of this process' queue workers since the start";
    QUEUE_UP Gauge "versand_queue_worker_up" "1 while this process' worker of a queue shows life, by queue";
    SCHEDULER Gauge "versand_scheduler_last_success_timestamp_seconds" "When a task of the scheduler of this process last succeeded, Unix seconds, by task";
    REDIS_DURABLE Gauge "versand_redis_durable" "1 if Redis keeps every write it acknowledged (appendonly, appendfsync always, no eviction), and there is no replica to fail over to";
    REDIS_DURABILITY Gauge "versand_redis_durability" "1 for what Redis promises now: strict, goes_back (its last writes may be undone, which is noticed), weak, unknown";
    REDIS_RUNS Counter "versand_redis_restarts_total" "How often another run of Redis answered: a restart, or a fail-over";
    WENT_BACK Counter "versand_redis_went_back_total" "Chunks whose ledger was found older than it had been, by what became of it: put_back, in_doubt";
    REDIS_UP Gauge "versand_redis_up" "1 if Redis answered last time";
    REDIS_SECONDS Histogram "versand_redis_round_trip_seconds" "Time from a write to the answer of Redis, measured several times a second";
    REDIS_WRITABLE Gauge "versand_redis_writable" "1 if Redis took writes last time; 0 as long as it is away, out of memory or disk, or read only";
    HTTP_REQUESTS Counter "versand_http_requests_total" "HTTP requests by route, method and status";
    HTTP_SECONDS Histogram "versand_http_request_duration_seconds" "Time to the head of the response, by route";
    HITS Counter "versand_tracking_hits_total" "Requests to the public listener by type (open, click, mirror, opt_out) and class: human, apple_proxy, machine are recorded, as they came: the statistics find bursts later; uncounted are of proofs, previews and deliveries whose tracking log was removed; unrecorded were answered with 503; forged and expired get a harmless answer";
    OPEN_RATIO Gauge "versand_delivery_open_ratio" "Unique opens of delivered messages, of the 20 deliveries that were created last and have statistics, by delivery; so are the next three";
    CLICK_THROUGH_RATIO Gauge "versand_delivery_click_through_ratio" "Recipients who clicked, of delivered messages, by delivery";
    DELIVERED_RATIO Gauge "versand_delivery_delivered_ratio" "Delivered messages of processed ones, by delivery";
    BOUNCE_RATIO Gauge "versand_delivery_bounce_ratio" "Bounces and errors of processed messages, by delivery";
    LOGIN_FAILURES Counter "versand_login_failures_total" "Requests and jobs refused for a missing, unknown, forged or expired token";
    BUILD Gauge "versand_build_info" "1, with the version";
}

/// Upper bounds in seconds.
const BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];

/// Installs the recorder of this process.
///
/// # Errors
/// If one is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|m| m.kind == Kind::Histogram) {
        builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), BUCKETS)?;
    }
    let handle = builder.install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    for Metric { name, kind, help } in ALL {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram => describe_histogram!(*name, *help),
        }
    }
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(CONSERVATION).set(0.0);
    // counters that must be there before their first event, or a first increase cannot be seen
    for name in [DUPLICATES, STORE_RETRIES, FENCED, TAKEN_OVER, REVIVED, SET_ASIDE, LOGIN_FAILURES]
    {
        counter!(name).absolute(0);
    }
    for status in ["sent", "failed", "deferred"] {
        counter!(RECORDS, "status" => status).absolute(0);
    }
    super::operations::begin();
    for kind in ["domain", "delivery"] {
        counter!(TRIPPED, "kind" => kind).absolute(0);
    }
    for became in ["released", "held"] {
        counter!(WAVES, "became" => became).absolute(0);
    }
    super::tracking::begin();
    for became in ["created", "failed", "skipped"] {
        counter!(OCCURRENCES, "became" => became).absolute(0);
    }
}

/// Words of [`TRANSACTIONS`].
const OUTCOMES: [&str; 6] =
    ["accepted", "tested", "deferred", "refused", "in_doubt", "not_started"];

/// What is counted of the transactions of one relay; looked up once, for there is a transaction for every message.
pub struct TransactionMetrics {
    outcomes: [Counter; OUTCOMES.len()],
    seconds: [Histogram; OUTCOMES.len()],
}

impl TransactionMetrics {
    pub fn of(relay: &str) -> Self {
        let outcomes = OUTCOMES.map(
            |outcome| counter!(TRANSACTIONS, "relay" => relay.to_owned(), "outcome" => outcome),
        );
        outcomes.iter().for_each(|outcome| outcome.absolute(0));
        let seconds = OUTCOMES.map(|outcome| histogram!(TRANSACTION_SECONDS, "relay" => relay.to_owned(), "outcome" => outcome));
        Self { outcomes, seconds }
    }

    pub fn ended(&self, outcome: &str, took: Duration) {
        if let Some(at) = OUTCOMES.iter().position(|word| *word == outcome) {
            self.outcomes[at].increment(1);
            self.seconds[at].record(took.as_secs_f64());
        }
    }
}

/// A record that took effect.
pub fn recorded(status: &'static str) {
    counter!(RECORDS, "status" => status).increment(1);
}

/// Recipients that were taken out after the preparation.
pub fn excluded(n: u64) {
    counter!(RECORDS, "status" => "excluded").increment(n);
}

pub fn duplicate() {
    counter!(DUPLICATES).increment(1);
}

/// What a relay counted since the start, the connections it has, and whether it is up.
pub fn relay(name: &str, accepted: u64, opened: u64, faults: u64, open: usize, is_up: bool) {
    let gauge = |metric| gauge!(metric, "relay" => name.to_owned());
    gauge(RELAY_ACCEPTED).set(accepted as f64);
    gauge(RELAY_OPENED).set(opened as f64);
    gauge(RELAY_FAULTS).set(faults as f64);
    gauge(RELAY_CONNECTIONS).set(open as f64);
    gauge(RELAY_UP).set(f64::from(u8::from(is_up)));
}

/// What the relay layer counted as accepted, and the records of acceptance made of it.
pub fn acceptances(accepted: u64, recorded: u64) {
    gauge!(ACCEPTED_DIFFERENCE).set(accepted as f64 - recorded as f64);
}

pub fn conservation(difference: u64) {
    gauge!(CONSERVATION).set(difference as f64);
}

pub fn in_doubt_bound(recipients: usize) {
    gauge!(IN_DOUBT_BOUND).set(recipients as f64);
}

pub fn store_retry() {
    counter!(STORE_RETRIES).increment(1);
}

pub fn fenced() {
    counter!(FENCED).increment(1);
}

pub fn taken_over() {
    counter!(TAKEN_OVER).increment(1);
}

pub fn set_aside() {
    counter!(SET_ASIDE).increment(1);
}

pub fn aside(chunks: usize) {
    gauge!(ASIDE).set(chunks as f64);
}

pub fn revived() {
    counter!(REVIVED).increment(1);
}

pub fn deliveries(state: &'static str, n: usize) {
    gauge!(DELIVERIES, "state" => state).set(n as f64);
}

pub fn waves(became: &'static str, n: u64) {
    counter!(WAVES, "became" => became).increment(n);
}

pub fn breakers(kind: &'static str, open: usize) {
    gauge!(BREAKERS, "kind" => kind).set(open as f64);
}

pub fn breaker_tripped(kind: &'static str) {
    counter!(TRIPPED, "kind" => kind).increment(1);
}

pub fn occurrence(became: &'static str) {
    counter!(OCCURRENCES, "became" => became).increment(1);
}

pub fn schedule(held: usize, late_s: u32) {
    gauge!(WAVES_HELD).set(held as f64);
    gauge!(SCHEDULE_LATE).set(f64::from(late_s));
}

pub fn recipients(status: &'static str, n: u64) {
    gauge!(RECIPIENTS, "status" => status).set(n as f64);
}

pub fn queue_jobs(queue: &'static str, state: &'static str, n: u64) {
    gauge!(QUEUE_JOBS, "queue" => queue, "state" => state).set(n as f64);
}

pub fn queue_beat(queue: &'static str, age_s: u64) {
    gauge!(QUEUE_BEAT, "queue" => queue).set(age_s as f64);
}

pub fn queue_restarts(queue: &'static str, n: u64) {
    gauge!(QUEUE_RESTARTS, "queue" => queue).set(n as f64);
}

/// Of the words in `all`, `word` holds.
pub fn redis_durability(word: &'static str, all: &[&'static str]) {
    gauge!(REDIS_DURABLE).set(f64::from(u8::from(word == "strict")));
    for other in all {
        gauge!(REDIS_DURABILITY, "promise" => *other).set(f64::from(u8::from(*other == word)));
    }
}

pub fn redis_restarted() {
    counter!(REDIS_RUNS).increment(1);
}

pub fn went_back(became: &'static str) {
    counter!(WENT_BACK, "became" => became).increment(1);
}

pub fn redis(up: bool, writable: bool) {
    gauge!(REDIS_UP).set(f64::from(u8::from(up)));
    gauge!(REDIS_WRITABLE).set(f64::from(u8::from(writable)));
}

pub fn login_failure() {
    counter!(LOGIN_FAILURES).increment(1);
}
