//! The table of metrics: every name, kind and help text.
//!
//! No other source file names a metric.

/// The kind of a metric, in the sense of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A count that only rises.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// A metric as `docs/reference/metrics.md` lists it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name in Prometheus.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The help text: what is counted, and the labels.
    pub help: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(pub(super) const $constant: &str = $name;)*
        /// All metrics.
        pub const ALL: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, help: $help }),*];
    };
}

metrics_table! {
    TRANSACTIONS Counter "versand_transactions_total"
        "SMTP transactions by relay and outcome: accepted, tested, deferred, refused, in_doubt, \
         not_started";
    TRANSACTION_SECONDS Histogram "versand_transaction_duration_seconds"
        "Time from the first command of an SMTP transaction to its end, by relay and outcome";
    RECORDS Counter "versand_records_total"
        "Records written to ledgers while their chunk was sent, by status; given_back are claims \
         that were not started";
    FAILURES Counter "versand_failures_total"
        "Recipients that failed while their chunk was sent, by failure type: hard, soft";
    DUPLICATES Counter "versand_duplicates_total"
        "Recipients whose message the relay accepted twice";
    RELAY_ACCEPTED Gauge "versand_relay_accepted"
        "Messages that the relay has accepted (250 to the end of data) since the start, counted \
         by the connections, by relay";
    RELAY_FAULTS Gauge "versand_relay_faults"
        "Connections and sessions that have failed since the start, by relay";
    RELAY_CONNECTIONS Gauge "versand_relay_connections"
        "Open connections, by relay";
    RELAY_OPENED Gauge "versand_relay_connections_opened"
        "Connections opened since the start, by relay";
    RELAY_UP Gauge "versand_relay_up"
        "0 if a relay has failed more than once in a row, else 1, by relay";
    ACCEPTED_DIFFERENCE Gauge "versand_acceptance_difference"
        "Messages that all relays have accepted, minus accepted proofs and the acceptances that \
         this process recorded; 0 at rest";
    CONSERVATION Gauge "versand_conservation_difference"
        "Largest difference between figures of a delivery that must agree (audience, exclusion \
         log, ledgers, live counters); 0 unless something was lost";
    IN_DOUBT_BOUND Gauge "versand_in_doubt_bound"
        "The most recipients that a crash of this process can leave in doubt: connections of all \
         relays times claim window";
    STORE_RETRIES Counter "versand_store_retries_total"
        "Batches of records that this process sent to Redis again";
    FENCED Counter "versand_chunks_fenced_total"
        "Chunks that this process lost while it was sending them: to another process, or because \
         the ledger was gone, damaged or rolled back";
    TAKEN_OVER Counter "versand_chunks_taken_over_total"
        "Chunks that this process took over from a dead one";
    REVIVED Counter "versand_jobs_revived_total"
        "Jobs that were missing and were queued again";
    ALTERED Counter "versand_altered_total"
        "Deliveries that are not sent because somebody without the key of the installation has \
         altered them in Redis";
    SET_ASIDE Counter "versand_chunks_set_aside_total"
        "Chunks that were set aside as poisoned: they killed their workers again and again, or \
         their messages cannot be made";
    ASIDE Gauge "versand_chunks_aside"
        "Poisoned chunks of moving deliveries that are set aside now";
    DELIVERIES Gauge "versand_deliveries_moving"
        "Deliveries that the daemon moves on by itself, that wait for their time or that are \
         held, by state";
    ENDED Counter "versand_deliveries_ended_total"
        "Deliveries that this process ended, by outcome: finished, failed (no message was sent, \
         and a recipient failed), stopped";
    PREPARATIONS Counter "versand_preparations_total"
        "Preparations that this process ended, by outcome: prepared, failed";
    START_PENDING Gauge "versand_start_pending_seconds"
        "How long the oldest delivery that waits for its start has waited; 0 if none waits";
    WAVES Counter "versand_waves_total"
        "Waves that this process released, or held because they were overdue: released, held";
    WAVES_HELD Gauge "versand_waves_held"
        "Waves that are held: they were overdue and wait for a person";
    WAVES_DUE Gauge "versand_waves_due"
        "Waves of scheduled deliveries that are due but neither released nor held: due (within the \
         grace window), overdue (beyond it)";
    BREAKERS Gauge "versand_breakers_open"
        "Open circuit breakers, by kind: domain, delivery";
    TRIPPED Counter "versand_breaker_trips_total"
        "Circuit breakers that this process opened because of the error rate, by kind: domain, \
         delivery";
    SCHEDULE_LATE Gauge "versand_schedule_late_seconds"
        "How long the earliest waiting wave has been due; 0 if none is due";
    OCCURRENCES Counter "versand_occurrences_total"
        "Occurrences of recurring deliveries: created, failed (cannot be created, or not \
         confirmed in time), skipped (no daemon ran)";
    RETENTION_REMOVED Counter "versand_retention_removed_total"
        "Deliveries from which retention in this process removed something: deliveries, logs, \
         tracking";
    RECIPIENTS Gauge "versand_recipients"
        "Recipients of the moving deliveries, by status";
    QUEUE_JOBS Gauge "versand_queue_jobs"
        "Jobs by queue and state: waiting, retrying, running, dead, done";
    QUEUE_AGE Gauge "versand_queue_oldest_job_seconds"
        "How long the first job of a queue has waited, by queue; 0 if the queue is empty";
    QUEUE_BEAT Gauge "versand_queue_oldest_beat_seconds"
        "Age of the oldest heartbeat among the workers of a queue, by queue";
    QUEUE_RESTARTS Gauge "versand_queue_worker_restarts"
        "Restarts of the queue workers of this process since the start, by queue";
    QUEUE_UP Gauge "versand_queue_worker_up"
        "1 while the worker of a queue in this process lives, by queue";
    SCHEDULER Gauge "versand_scheduler_last_success_timestamp_seconds"
        "When a task of the scheduler in this process last succeeded, in Unix seconds, by task";
    REDIS_DURABLE Gauge "versand_redis_durable"
        "1 if Redis keeps every write that it acknowledged (appendonly, appendfsync always, no \
         eviction) and has no replica to fail over to";
    REDIS_DURABILITY Gauge "versand_redis_durability"
        "1 for the present promise of Redis: strict, goes_back (its last writes may be undone, \
         and the daemon notices), weak, unknown";
    REDIS_RUNS Counter "versand_redis_restarts_total"
        "How often another run of Redis answered: after a restart or a fail-over";
    WENT_BACK Counter "versand_redis_went_back_total"
        "Chunks whose ledger was found older than before, by what became of the lost records: \
         put_back, in_doubt";
    REDIS_UP Gauge "versand_redis_up"
        "1 if Redis answered the last time";
    REDIS_SECONDS Histogram "versand_redis_round_trip_seconds"
        "Time from a write to the answer of Redis, measured several times a second";
    REDIS_WRITABLE Gauge "versand_redis_writable"
        "1 if Redis took writes the last time; 0 while it is away, full or read-only";
    HTTP_REQUESTS Counter "versand_http_requests_total"
        "HTTP requests by route, method and status";
    HTTP_SECONDS Histogram "versand_http_request_duration_seconds"
        "Time to the head of the response, by route";
    HITS Counter "versand_tracking_hits_total"
        "Requests to the public listener by type (open, click, mirror, opt_out) and class. \
         human, apple_proxy and machine are recorded; the class is that of the request, before \
         the statistics find bursts. uncounted belong to proofs, to previews before the \
         confirmation or of a recipient in doubt, and to deliveries whose tracking log was \
         removed. unrecorded were answered with 503. forged and expired got a harmless answer";
    OPEN_RATIO Gauge "versand_delivery_open_ratio"
        "Unique opens per delivered message, by delivery. This ratio and the next three cover \
         the 20 newest deliveries with statistics";
    CLICK_THROUGH_RATIO Gauge "versand_delivery_click_through_ratio"
        "Recipients who clicked per delivered message, by delivery";
    DELIVERED_RATIO Gauge "versand_delivery_delivered_ratio"
        "Delivered messages per processed message, by delivery";
    BOUNCE_RATIO Gauge "versand_delivery_bounce_ratio"
        "Bounces and errors per processed message, by delivery";
    LOGIN_FAILURES Counter "versand_login_failures_total"
        "Requests and jobs that were refused because their token was missing or not accepted";
    STORE_HELD Gauge "versand_store_held"
        "1 while the store is held, because it may be behind: nothing is sent until a person \
         releases it";
    RELOAD_FAILED Gauge "versand_reload_failed"
        "1 if the last SIGHUP met settings that cannot be used, and nothing was changed; else 0";
    TURNED_AWAY Counter "versand_http_turned_away_total"
        "Connections and requests that a limit of [server] turned away, by limit: connections, \
         connections_per_address, requests_per_principal, streams, streams_per_principal";
    CERTIFICATE_GOOD Gauge "versand_certificate_good"
        "1 if the certificate of the admin listener could be used when it was read last, 0 if the \
         one before is still served; 1 without TLS";
    BUILD Gauge "versand_build_info"
        "1, with the version as a label";
}
