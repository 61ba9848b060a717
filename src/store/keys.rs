//! Every key of the store. All keys of one delivery carry its id as the hash tag and so live on one shard.

use crate::domain::delivery::DeliveryId;

/// Hint: all deliveries, by creation time in ms.
pub const INDEX: &str = "versand:deliveries";
/// Hint: deliveries that the daemon moves on by itself.
pub const MOVING: &str = "versand:moving";
/// Hint: deliveries that want jobs for their chunks, by virtual time.
pub const WANTING: &str = "versand:wanting";
/// Hint: the virtual time at which a job was named last.
pub const VIRTUAL_TIME: &str = "versand:virtual_time";
/// Hint: deliveries that wait for a wave, by when it is due (Unix seconds).
pub const DUE: &str = "versand:due";
/// Hint: templates and occurrences, by when the task of recurring deliveries is to look at them (Unix seconds).
pub const RECURRING: &str = "versand:recurring";
/// Hint: deliveries with waves that are held for a person.
pub const HELD: &str = "versand:held";
/// Sorted sets: daemons by when they were seen last, and by when they came (ms of Redis' clock).
pub const ATTENDANCE: &str = "versand:{daemons}:seen";
pub const ARRIVALS: &str = "versand:{daemons}:came";
/// Hash: domains whose breakers are open, and until when.
pub const BREAKERS: &str = "versand:breakers";
/// Hash: deliveries whose breakers are open, and until when.
pub const BROKEN_DELIVERIES: &str = "versand:broken_deliveries";
/// Written before it is asked whether the replicas have everything.
pub const DURABLE: &str = "versand:durable";
/// The chain that holds the heads of the deliveries' audit chains.
pub const AUDIT_HEADS: &str = "versand:{audit}:heads";
/// Hash: the sequence number of the last head noted of each delivery.
pub const AUDIT_NOTED: &str = "versand:{audit}:noted";

/// Nothing: written to see whether Redis takes writes.
pub const PULSE: &str = "versand:pulse";

/// Hash: what the numbers in the index of messages stand for: delivery, generation, chunk size, whether it has a rule.
pub const PREPARATIONS: &str = "versand:preparations";

/// Set: digests of addresses that are on the denylist, those with the same first four bits.
pub fn denylist(set: u8) -> String {
    format!("versand:{{denylist:{set:x}}}")
}

/// String: entries of the index of messages. A sixteenth of the buckets is in one slot.
pub fn messages(bucket: u16) -> String {
    format!("versand:{{messages:{:x}}}:{:03x}", messages_slot(bucket), bucket & 0x1ff)
}

/// Buckets of one slot may be named in one call.
pub fn messages_slot(bucket: u16) -> u16 {
    bucket >> 9
}

/// Hash: `revision`, `state`, `document`, `planned` (the generation of its plan); `swept_logs` and `swept_tracking`
/// once retention has removed these; `wakes` if it is a template or an occurrence:
/// see [`RECURRING`].
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

/// Hash: progress of the preparation.
pub fn preparation(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:preparation")
}

/// Sorted set: chunks that want attention, by when (Unix seconds).
pub fn open(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:open")
}

/// Sorted set: chunks for which a job was named, by when (Unix seconds).
pub fn offered(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:offered")
}

/// Hash: how many jobs were named for each chunk.
pub fn rounds(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:rounds")
}

/// Set: chunks that were set aside.
pub fn aside(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:aside")
}

/// Hash: how often a worker died with each chunk since its last good end.
pub fn crashes(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:crashes")
}

/// Hash: how many slices of each kind were written, so that all can be removed.
pub fn parts(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:parts")
}

/// String: a compressed slice of recipients or exclusions.
pub fn slice(id: &DeliveryId, part: &str, number: u32) -> String {
    format!("versand:{{{id}}}:{part}:{number}")
}

/// String: the ledger of a chunk.
pub fn ledger(id: &DeliveryId, chunk: u32) -> String {
    format!("versand:{{{id}}}:ledger:{chunk}")
}

/// Hash: how many hits were recorded (`hits`), and how often labels were changed (`labels`).
pub fn tracking(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:tracking")
}

/// String: the figures that were computed last, as JSON.
pub fn statistics(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:statistics")
}

/// String, expires: who computes, or has computed, the statistics of an hour (hours of Unix time).
pub fn hour(hour: i64) -> String {
    format!("versand:statistics:{hour}")
}

/// Hash: user agents to their numbers.
pub fn agents(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:agents")
}

/// String: a block of the tracking log.
pub fn hits(id: &DeliveryId, block: u64) -> String {
    format!("{}{block}", hits_prefix(id))
}

pub fn hits_prefix(id: &DeliveryId) -> String {
    format!("versand:{{{id}}}:hits:")
}

/// Hash: position in the chunk to the server's replies.
pub fn replies(id: &DeliveryId, chunk: u32) -> String {
    format!("versand:{{{id}}}:replies:{chunk}")
}

/// String, expires: the answer an idempotency key got. `name` is a digest of principal and key.
pub fn idempotency(id: &DeliveryId, name: &str) -> String {
    format!("versand:{{{id}}}:idempotency:{name}")
}

/// String, expires: what the identity of a job's JWT was spent on.
pub fn spent(id: &DeliveryId, jwt_id: &str) -> String {
    format!("versand:{{{id}}}:spent:{jwt_id}")
}

/// Hash, expires: a token bucket.
pub fn bucket(name: &str) -> String {
    format!("versand:bucket:{name}")
}

/// String, expires: the outcome of a job, for its producer.
pub fn outcome(job: &str) -> String {
    format!("versand:outcome:{job}")
}

/// String: a secret that all daemons share.
pub fn secret(name: &str) -> String {
    format!("versand:secret:{name}")
}
