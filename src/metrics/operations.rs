//! Events that alerts are on: what ended badly, what waits for too long, what shows no life.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge, histogram};

use super::catalogue::{
    ENDED, FAILURES, PREPARATIONS, QUEUE_AGE, QUEUE_UP, REDIS_SECONDS, RETENTION_REMOVED,
    SCHEDULER, START_PENDING, WAVES_DUE,
};

/// Counters that must be there before their first event.
pub(super) fn begin() {
    for what in ["deliveries", "logs", "tracking"] {
        counter!(RETENTION_REMOVED, "what" => what).absolute(0);
    }
    for kind in ["hard", "soft"] {
        counter!(FAILURES, "type" => kind).absolute(0);
    }
    for outcome in ["finished", "failed", "stopped"] {
        counter!(ENDED, "outcome" => outcome).absolute(0);
    }
    for outcome in ["prepared", "failed"] {
        counter!(PREPARATIONS, "outcome" => outcome).absolute(0);
    }
}

/// A recipient failed by a reply.
pub fn failure(hard: bool) {
    counter!(FAILURES, "type" => if hard { "hard" } else { "soft" }).increment(1);
}

pub fn delivery_ended(outcome: &'static str) {
    counter!(ENDED, "outcome" => outcome).increment(1);
}

pub fn preparation(outcome: &'static str) {
    counter!(PREPARATIONS, "outcome" => outcome).increment(1);
}

pub fn start_pending(oldest_s: u32) {
    gauge!(START_PENDING).set(f64::from(oldest_s));
}

pub fn waves_due(due: usize, overdue: usize) {
    gauge!(WAVES_DUE, "state" => "due").set(due as f64);
    gauge!(WAVES_DUE, "state" => "overdue").set(overdue as f64);
}

pub fn queue_age(queue: &'static str, oldest_s: u64) {
    gauge!(QUEUE_AGE, "queue" => queue).set(oldest_s as f64);
}

pub fn queue_worker(queue: &'static str, up: bool) {
    gauge!(QUEUE_UP, "queue" => queue).set(f64::from(u8::from(up)));
}

/// A task of the scheduler succeeded, now.
pub fn task_succeeded(task: &'static str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!(SCHEDULER, "task" => task).set(now.as_secs_f64());
}

pub fn redis_round_trip(took: Duration) {
    histogram!(REDIS_SECONDS).record(took.as_secs_f64());
}

pub fn retention_removed(what: &'static str) {
    counter!(RETENTION_REMOVED, "what" => what).increment(1);
}
