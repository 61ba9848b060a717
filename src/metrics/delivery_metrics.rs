//! Metrics of the journey: recipients, chunks, waves and deliveries.

use metrics::{counter, gauge};

use super::catalogue::{
    ALTERED, ASIDE, BREAKERS, CONSERVATION, DELIVERIES, DUPLICATES, ENDED, FAILURES, FENCED,
    OCCURRENCES, PREPARATIONS, RECIPIENTS, RECORDS, RETENTION_REMOVED, REVIVED, SCHEDULE_LATE,
    SET_ASIDE, START_PENDING, STORE_RETRIES, TAKEN_OVER, TRIPPED, WAVES, WAVES_DUE, WAVES_HELD,
    WENT_BACK,
};

/// Creates counters with the value 0, so that they exist before the first event.
pub(super) fn set_first_values() {
    gauge!(CONSERVATION).set(0.0);
    for name in [ALTERED, DUPLICATES, STORE_RETRIES, FENCED, TAKEN_OVER, REVIVED, SET_ASIDE] {
        counter!(name).absolute(0);
    }
    for status in ["sent", "failed", "deferred"] {
        counter!(RECORDS, "status" => status).absolute(0);
    }
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
    for kind in ["domain", "delivery"] {
        counter!(TRIPPED, "kind" => kind).absolute(0);
    }
    for became in ["released", "held"] {
        counter!(WAVES, "became" => became).absolute(0);
    }
    for became in ["created", "failed", "skipped"] {
        counter!(OCCURRENCES, "became" => became).absolute(0);
    }
}

/// Counts a record that took effect.
pub fn recorded(status: &'static str) {
    counter!(RECORDS, "status" => status).increment(1);
}

/// Counts `n` recipients that were excluded after the preparation.
pub fn excluded(n: u64) {
    counter!(RECORDS, "status" => "excluded").increment(n);
}

/// Counts a recipient whose message the relay accepted twice.
pub fn duplicate() {
    counter!(DUPLICATES).increment(1);
}

/// Counts a recipient that failed while its chunk was sent.
pub fn failure(hard: bool) {
    counter!(FAILURES, "type" => if hard { "hard" } else { "soft" }).increment(1);
}

/// Shows the largest difference between figures that must agree.
pub fn conservation(difference: u64) {
    gauge!(CONSERVATION).set(difference as f64);
}

/// Counts a batch of records that was sent to Redis again.
pub fn store_retry() {
    counter!(STORE_RETRIES).increment(1);
}

/// Counts a chunk that this process lost while it was sending it.
pub fn fenced() {
    counter!(FENCED).increment(1);
}

/// Counts a chunk that this process took over.
pub fn taken_over() {
    counter!(TAKEN_OVER).increment(1);
}

/// Counts a delivery that was altered in Redis.
pub fn altered() {
    counter!(ALTERED).increment(1);
}

/// Counts a chunk that was set aside as poisoned.
pub fn set_aside() {
    counter!(SET_ASIDE).increment(1);
}

/// Shows how many chunks are set aside as poisoned now.
pub fn poisoned_chunks(chunks: usize) {
    gauge!(ASIDE).set(chunks as f64);
}

/// Counts a missing job that was queued again.
pub fn revived() {
    counter!(REVIVED).increment(1);
}

/// Counts a chunk whose ledger Redis had rolled back.
pub fn went_back(became: &'static str) {
    counter!(WENT_BACK, "became" => became).increment(1);
}

/// Shows how many deliveries are in a state.
pub fn deliveries(state: &'static str, n: usize) {
    gauge!(DELIVERIES, "state" => state).set(n as f64);
}

/// Counts a delivery that has ended.
pub fn delivery_ended(outcome: &'static str) {
    counter!(ENDED, "outcome" => outcome).increment(1);
}

/// Counts a preparation that has ended.
pub fn preparation(outcome: &'static str) {
    counter!(PREPARATIONS, "outcome" => outcome).increment(1);
}

/// Shows how long the oldest delivery has waited for its start, in seconds.
pub fn start_pending(oldest_s: u32) {
    gauge!(START_PENDING).set(f64::from(oldest_s));
}

/// Counts `n` waves that were released or held.
pub fn waves(became: &'static str, n: u64) {
    counter!(WAVES, "became" => became).increment(n);
}

/// Shows how many waves are due within and beyond their grace window.
pub fn waves_due(due: usize, overdue: usize) {
    gauge!(WAVES_DUE, "state" => "due").set(due as f64);
    gauge!(WAVES_DUE, "state" => "overdue").set(overdue as f64);
}

/// Shows how many waves are held, and how late the earliest waiting wave is, in seconds.
pub fn schedule(held: usize, late_s: u32) {
    gauge!(WAVES_HELD).set(held as f64);
    gauge!(SCHEDULE_LATE).set(f64::from(late_s));
}

/// Shows how many circuit breakers are open.
pub fn breakers(kind: &'static str, open: usize) {
    gauge!(BREAKERS, "kind" => kind).set(open as f64);
}

/// Counts a circuit breaker that this process opened.
pub fn breaker_tripped(kind: &'static str) {
    counter!(TRIPPED, "kind" => kind).increment(1);
}

/// Counts an occurrence of a recurring delivery.
pub fn occurrence(became: &'static str) {
    counter!(OCCURRENCES, "became" => became).increment(1);
}

/// Shows how many recipients have a status.
pub fn recipients(status: &'static str, n: u64) {
    gauge!(RECIPIENTS, "status" => status).set(n as f64);
}

/// Counts a delivery from which retention removed something.
pub fn retention_removed(what: &'static str) {
    counter!(RETENTION_REMOVED, "what" => what).increment(1);
}
