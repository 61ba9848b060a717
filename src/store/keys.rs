//! Every key of the store.
//!
//! All keys of one delivery have its id as the hash tag, so they are on one server of a cluster. A
//! *hint* is a list that may lose entries or hold old ones without harm: the delivery itself is the
//! truth.

use crate::domain::delivery::DeliveryId;

/// Sorted set, hint: all deliveries, by creation time in ms.
pub const DELIVERIES: &str = "versand:deliveries";
/// Set, hint: deliveries that the daemon moves on by itself.
pub const MOVING: &str = "versand:moving";
/// Sorted set, hint: deliveries that need jobs for their chunks, by virtual time.
pub const FAIR_QUEUE: &str = "versand:wanting";
/// String, hint: the current virtual time of the fair queue.
pub const VIRTUAL_TIME: &str = "versand:virtual_time";
/// Sorted set, hint: deliveries that wait for a wave, by when the wave is due (Unix seconds).
pub const DUE: &str = "versand:due";
/// Sorted set, hint: templates and occurrences, by when the scheduler must look at them (Unix
/// seconds).
pub const RECURRING: &str = "versand:recurring";
/// Set, hint: deliveries with held waves.
pub const HELD: &str = "versand:held";
/// Sorted set: daemons, by when they were last seen (ms of Redis' clock).
pub const DAEMONS_SEEN: &str = "versand:{daemons}:seen";
/// Sorted set: daemons, by when they arrived (ms of Redis' clock).
pub const DAEMON_ARRIVALS: &str = "versand:{daemons}:came";
/// Hash: domains whose circuit breakers are open, and until when (Unix seconds).
pub const DOMAIN_BREAKERS: &str = "versand:breakers";
/// Hash: deliveries whose circuit breakers are open, and until when (Unix seconds).
pub const DELIVERY_BREAKERS: &str = "versand:broken_deliveries";
/// String: a counter that is written before WAIT asks whether the replicas have all writes.
pub const REPLICATION_MARK: &str = "versand:durable";
/// List: the chain of heads.
pub const AUDIT_HEADS: &str = "versand:{audit}:heads";
/// List: the chain of operations.
pub const AUDIT_OPERATIONS: &str = "versand:{audit}:operations";
/// Hash, hint: for each chain, the place of its last head in the chain of heads, from 1.
pub const AUDIT_NOTED: &str = "versand:{audit}:noted";
/// String, empty: written to see whether Redis takes writes.
pub const WRITE_CHECK: &str = "versand:pulse";
/// Hash: the preparation behind each preparation number of the message index.
pub const PREPARATIONS: &str = "versand:preparations";

/// Hash: the heartbeat of the store: `count`, and `at` in ms of Redis' clock.
pub const HEARTBEAT: &str = "versand:{daemons}:heartbeat";
/// Hash: the hold of the store: `since` and `found` in Unix seconds, and `why`. No key: no hold.
pub const STORE_HOLD: &str = "versand:{daemons}:hold";
/// Hash: the last release of a hold: `since` and `at` in Unix seconds, and `by`.
pub const STORE_RELEASED: &str = "versand:{daemons}:released";
/// String: the version of the stored form.
pub const FORMAT: &str = "versand:format";
/// String: the place of the state directory, if this Redis is the embedded one.
pub const PLACE: &str = "versand:place";
/// Hash: who revoked each revoked bearer token, and when, by the SHA-256 of the token.
pub const REVOKED_TOKENS: &str = "versand:{tokens}:revoked";
/// Hash: when each bearer token was used last (Unix seconds), by the SHA-256 of the token.
pub const USED_TOKENS: &str = "versand:{tokens}:used";

/// Set: digests of the denied addresses whose digests have the same first four bits.
pub fn denylist(set: u8) -> String {
    format!("versand:{{denylist:{set:x}}}")
}

/// Hash, expires: what the opt-out links of a preparation need besides the delivery.
///
/// Fields: `of` (delivery, generation, chunk size); `proof.<number>` (recipient and test address of
/// a proof); `chunk.<number>` (the addresses of a chunk, once its logs are removed).
pub fn opt_outs(preparation: u32) -> String {
    format!("versand:{{opt_outs:{preparation}}}")
}

/// List, expires: the proofs that a principal sent within the last hour, by request.
pub fn proofs_sent(principal: &str) -> String {
    format!("versand:proofs:{principal}")
}

/// String: a bucket of the message index. A sixteenth of the buckets is in one slot of a cluster.
pub fn message_bucket(bucket: u16) -> String {
    format!("versand:{{messages:{:x}}}:{:03x}", message_slot(bucket), bucket & 0x1ff)
}

/// The slot of a bucket. One script call may use several buckets of one slot.
pub fn message_slot(bucket: u16) -> u16 {
    bucket >> 9
}

/// Hash: the delivery.
///
/// Fields: `revision`, `state`, `document`, `seal` (over state and document), `planned` (the
/// generation of the plan); `unit`, if the delivery belongs to one; `served` and `length` for the
/// fair queue; `swept_logs` and `swept_tracking` once retention has removed these parts; `wakes`
/// for templates and occurrences, see [`RECURRING`].
pub fn delivery(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:delivery")
}

/// List: the audit chain.
pub fn audit(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:audit")
}

/// Hash: the live counters.
pub fn counts(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:counts")
}

/// Hash: the progress of the preparation.
pub fn preparation(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:preparation")
}

/// Sorted set: open chunks, by when they need a job (Unix seconds).
pub fn open(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:open")
}

/// Sorted set: chunks that have a job, by when the job was queued (Unix seconds).
pub fn offered(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:offered")
}

/// Hash: the round of each chunk, which is the number of its jobs so far.
pub fn rounds(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:rounds")
}

/// Set: poisoned chunks.
pub fn poisoned(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:aside")
}

/// Hash: for each chunk, the number of its workers that died since its last completed job or
/// retry.
pub fn crashes(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:crashes")
}

/// Hash: the number of slices of each kind, so that all can be removed.
pub fn slice_counts(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:parts")
}

/// String: a slice of a kind; compressed, apart from the tables of waves and chunks.
pub fn slice(id: &DeliveryId, kind: &str, number: u32) -> String {
    format!("versand:{{{id}}}:{kind}:{number}")
}

/// String: the ledger of a chunk.
pub fn ledger(id: &DeliveryId, chunk: u32) -> String {
    format!("versand:{{{id}}}:ledger:{chunk}")
}

/// Hash: counters of the tracking log: lines (`hits`), hits that are in no line (`beyond`), changes
/// of labels (`labels`).
pub fn tracking(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:tracking")
}

/// String: the statistics that were computed last, as JSON.
pub fn statistics(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:statistics")
}

/// String, expires: the daemon that computes, or has computed, the statistics of an hour (hours of
/// Unix time).
pub fn statistics_hour(hour: i64) -> String {
    format!("versand:statistics:{hour}")
}

/// Hash: the number of each user agent.
pub fn agents(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:agents")
}

/// String: a block of the tracking log.
pub fn hits(id: &DeliveryId, block: u64) -> String {
    format!("{}{block}", hits_prefix(id))
}

/// The beginning of all keys of [`hits`].
pub fn hits_prefix(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:hits:")
}

/// Hash: the replies of the relay, by position in the chunk.
pub fn replies(id: &DeliveryId, chunk: u32) -> String {
    format!("versand:{{{id}}}:replies:{chunk}")
}

/// String, expires: the answer to an idempotency key. `name` is a digest of principal and key.
pub fn idempotency(id: &DeliveryId, name: &str) -> String {
    format!("versand:{{{id}}}:idempotency:{name}")
}

/// String, expires: what the id of a job's JWT was used for.
pub fn spent(id: &DeliveryId, jwt_id: &str) -> String {
    format!("versand:{{{id}}}:spent:{jwt_id}")
}

/// Hash, expires: a token bucket.
pub fn token_bucket(name: &str) -> String {
    format!("versand:bucket:{name}")
}

/// String, expires: the outcome of a job, for its producer.
pub fn outcome(job: &str) -> String {
    format!("versand:outcome:{job}")
}

/// String: proves to a daemon that it has the key of the installation.
pub const INSTALLATION: &str = "versand:installation";

/// String: a secret that all daemons share, sealed with the key of the installation.
pub fn secret(name: &str) -> String {
    format!("versand:secret:{name}")
}
