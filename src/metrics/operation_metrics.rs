//! Metrics for operators: queues, scheduler, Redis and log-ins.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge, histogram};

use super::catalogue::{
    LOGIN_FAILURES, QUEUE_AGE, QUEUE_BEAT, QUEUE_JOBS, QUEUE_RESTARTS, QUEUE_UP, REDIS_DURABILITY,
    REDIS_DURABLE, REDIS_RUNS, REDIS_SECONDS, REDIS_UP, REDIS_WRITABLE, RELOAD_FAILED, SCHEDULER,
    STORE_HELD,
};

/// Shows how many jobs of a queue are in a state.
pub fn queue_jobs(queue: &'static str, state: &'static str, n: u64) {
    gauge!(QUEUE_JOBS, "queue" => queue, "state" => state).set(n as f64);
}

/// Shows how long the first job of a queue has waited, in seconds.
pub fn queue_age(queue: &'static str, oldest_s: u64) {
    gauge!(QUEUE_AGE, "queue" => queue).set(oldest_s as f64);
}

/// Shows the age of the oldest heartbeat among the workers of a queue, in seconds.
pub fn queue_beat(queue: &'static str, age_s: u64) {
    gauge!(QUEUE_BEAT, "queue" => queue).set(age_s as f64);
}

/// Shows how often the worker of a queue was restarted.
pub fn queue_restarts(queue: &'static str, n: u64) {
    gauge!(QUEUE_RESTARTS, "queue" => queue).set(n as f64);
}

/// Shows whether the worker of a queue lives.
pub fn queue_worker(queue: &'static str, up: bool) {
    gauge!(QUEUE_UP, "queue" => queue).set(f64::from(u8::from(up)));
}

/// Notes that a task of the scheduler has just succeeded.
pub fn task_succeeded(task: &'static str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!(SCHEDULER, "task" => task).set(now.as_secs_f64());
}

/// Shows what Redis promises: `word`, which is one of the words in `all`.
pub fn redis_durability(word: &'static str, all: &[&'static str]) {
    gauge!(REDIS_DURABLE).set(f64::from(u8::from(word == "strict")));
    for other in all {
        gauge!(REDIS_DURABILITY, "promise" => *other).set(f64::from(u8::from(*other == word)));
    }
}

/// Counts another run of Redis.
pub fn redis_restarted() {
    counter!(REDIS_RUNS).increment(1);
}

/// Shows whether Redis answers and takes writes.
pub fn redis(up: bool, writable: bool) {
    gauge!(REDIS_UP).set(f64::from(u8::from(up)));
    gauge!(REDIS_WRITABLE).set(f64::from(u8::from(writable)));
}

/// Records the time from a write to the answer of Redis.
pub fn redis_round_trip(took: Duration) {
    histogram!(REDIS_SECONDS).record(took.as_secs_f64());
}

/// Counts a request or job whose token was refused.
pub fn login_failure() {
    counter!(LOGIN_FAILURES).increment(1);
}

/// Shows whether the last reload could use the settings.
pub fn reloaded(good: bool) {
    gauge!(RELOAD_FAILED).set(f64::from(u8::from(!good)));
}

/// Shows whether the store is held.
pub fn store_held(held: bool) {
    gauge!(STORE_HELD).set(f64::from(u8::from(held)));
}

/// Shows a gauge that an alert needs, before its first event.
pub(super) fn set_first_values() {
    reloaded(true);
}
