//! Everything that the scripts keep of a delivery with two chunks.
//!
//! The functions here read it from Redis and write it there.

use std::collections::BTreeMap;

use redis::aio::ConnectionManager;
use versand::{
    domain::{
        delivery::DeliveryId,
        tracking::{HIT_BYTES, Hit},
    },
    store::keys,
};

use super::tracking::CHUNK;

/// The number of log blocks that are compared. No sequence of steps fills more.
const BLOCKS: u64 = 3;
const FIELDS: [&str; 4] = ["revision", "state", "planned", "swept_tracking"];
const COUNTERS: [&str; 3] = ["hits", "beyond", "labels"];

#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// The values of `FIELDS`.
    pub delivery: [Option<String>; 4],
    pub ledger: Vec<u8>,
    pub neighbour: Vec<u8>,
    /// The counts without zeros.
    pub counts: BTreeMap<String, i64>,
    pub open: Option<u32>,
    pub offered: Option<u32>,
    pub poisoned: bool,
    pub round: u32,
    pub replies: BTreeMap<u16, String>,
    /// The values of `COUNTERS`.
    pub tracking: [u64; 3],
    pub agents: BTreeMap<String, u16>,
    /// The tracking log by block.
    pub log: Vec<(u64, Vec<Hit>)>,
}

impl Kept {
    pub async fn write_to_redis(&self, id: &DeliveryId, conn: &mut ConnectionManager) {
        let mut pipe = redis::pipe();
        let keys = [
            keys::delivery(id),
            keys::counts(id),
            keys::replies(id, CHUNK),
            keys::tracking(id),
            keys::agents(id),
        ];
        pipe.del(&keys[..]).del(keys::open(id)).del(keys::offered(id)).del(keys::poisoned(id));
        pipe.set(keys::ledger(id, CHUNK), &self.ledger)
            .set(keys::ledger(id, CHUNK + 1), &self.neighbour);
        for (field, value) in FIELDS.iter().zip(&self.delivery) {
            if let Some(value) = value {
                pipe.hset(keys::delivery(id), field, value);
            }
        }
        for (word, n) in &self.counts {
            pipe.hset(keys::counts(id), word, n);
        }
        for (key, since) in [(keys::open(id), self.open), (keys::offered(id), self.offered)] {
            if let Some(since) = since {
                pipe.zadd(&key, CHUNK, since);
            }
        }
        if self.poisoned {
            pipe.sadd(keys::poisoned(id), CHUNK);
        }
        pipe.hset(keys::rounds(id), CHUNK, self.round);
        for (position, text) in &self.replies {
            pipe.hset(keys::replies(id, CHUNK), position, text);
        }
        for (counter, n) in COUNTERS.iter().zip(self.tracking) {
            pipe.hset(keys::tracking(id), counter, n);
        }
        if !self.agents.is_empty() {
            pipe.hset_multiple(keys::agents(id), &self.agents.iter().collect::<Vec<_>>());
        }
        (0..BLOCKS).for_each(|block| _ = pipe.del(keys::hits(id, block)));
        for (block, lines) in &self.log {
            pipe.set(
                keys::hits(id, *block),
                lines.iter().flat_map(Hit::encode).collect::<Vec<u8>>(),
            );
        }
        let () = pipe.query_async(conn).await.unwrap();
    }

    pub async fn read(id: &DeliveryId, conn: &mut ConnectionManager) -> Self {
        let mut first = redis::pipe();
        first
            .hmget(keys::delivery(id), &FIELDS[..])
            .get(keys::ledger(id, CHUNK))
            .get(keys::ledger(id, CHUNK + 1));
        first
            .hgetall(keys::counts(id))
            .zscore(keys::open(id), CHUNK)
            .zscore(keys::offered(id), CHUNK);
        first
            .sismember(keys::poisoned(id), CHUNK)
            .hget(keys::rounds(id), CHUNK)
            .hgetall(keys::replies(id, CHUNK));
        type First = (
            [Option<String>; 4],
            Vec<u8>,
            Vec<u8>,
            BTreeMap<String, i64>,
            Option<f64>,
            Option<f64>,
            bool,
            Option<u32>,
            BTreeMap<u16, String>,
        );
        let (delivery, ledger, neighbour, mut counts, open, offered, poisoned, round, replies): First =
            first.query_async(conn).await.unwrap();
        counts.retain(|_, n| *n != 0);
        let (open, offered) = (open.map(|at| at as u32), offered.map(|at| at as u32));
        let round = round.unwrap_or_default();

        let mut second = redis::pipe();
        second
            .hmget(keys::tracking(id), &COUNTERS[..])
            .hlen(keys::tracking(id))
            .hgetall(keys::agents(id));
        second.mget((0..BLOCKS).map(|block| keys::hits(id, block)).collect::<Vec<_>>());
        type Second = ([u64; 3], usize, BTreeMap<String, u16>, Vec<Option<Vec<u8>>>);
        let (tracking, counters, agents, blocks): Second = second.query_async(conn).await.unwrap();
        assert_eq!(counters, COUNTERS.len(), "an unknown counter");
        let read = |bytes: Vec<u8>| {
            let (lines, rest) = bytes.as_chunks::<HIT_BYTES>();
            assert!(rest.is_empty(), "a part of a line");
            lines.iter().map(|line| Hit::decode(line).expect("a hit")).collect::<Vec<_>>()
        };
        let log =
            (0..).zip(blocks).filter_map(|(block, bytes)| Some((block, read(bytes?)))).collect();
        Self {
            delivery,
            ledger,
            neighbour,
            counts,
            open,
            offered,
            poisoned,
            round,
            replies,
            tracking,
            agents,
            log,
        }
    }
}
