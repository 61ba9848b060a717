//! Hits as they are recorded: the tracking log of a delivery, in blocks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use redis::{AsyncCommands, Script};

use crate::{
    domain::{
        delivery::DeliveryId,
        ledger::RecipientNumber,
        tracking::{HIT_BYTES, Hit, HitClass, NO_AGENT},
    },
    store::{Redis, StoreError, keys},
};

/// Keys that one command removes at the most.
const AT_A_TIME: usize = 100;
/// Hits in a block of the log.
pub const BLOCK: u64 = 4096;
/// User agents that are kept of one delivery; who makes more up has them forgotten.
const MOST_AGENTS: u64 = 10_000;
/// Hits of one recipient that are kept: a person has a few, a message that was passed on some dozens.
const MOST_HITS: u64 = 1000;
/// What the script is told of a hit beside its bytes.
const PLACE_BYTES: usize = 4;

/// A delivery whose mail is out there, as the links in it name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PreparationRef {
    pub delivery: DeliveryId,
    pub generation: u32,
    pub chunk_size: u32,
}

impl PreparationRef {
    /// The chunk of a recipient, and its position there.
    pub fn locate(&self, recipient: u32) -> Option<(u32, u16)> {
        RecipientNumber(recipient.into()).place(self.chunk_size)
    }
}

/// Tracking logs and the figures made of them. Cheap to clone.
#[derive(Clone)]
pub struct TrackingStore {
    pub(in crate::store) redis: Redis,
    pub(in crate::store) scripts: Arc<TrackingScripts>,
}

pub(in crate::store) struct TrackingScripts {
    pub(in crate::store) hit: Script,
    pub(in crate::store) reckoned: Script,
}

impl Default for TrackingScripts {
    fn default() -> Self {
        Self {
            hit: Script::new(concat!(
                include_str!("record_hits.lua"),
                include_str!("../chunks/prelude.lua"),
                include_str!("hit_resolves_in_doubt.lua"),
            )),
            reckoned: Script::new(include_str!("write_statistics.lua")),
        }
    }
}

impl TrackingStore {
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }
}

impl TrackingStore {
    /// Records hits of one delivery, each with its user agent; how many of them: none if they are of a preparation that was not
    /// released, and none of recipients that are not there. A thousand at a time at the most: a script can hand on no more values than some.
    pub async fn record_hits(
        &self,
        of: &PreparationRef,
        hits: &[(Hit, &str)],
        now: u32,
    ) -> Result<u64, StoreError> {
        let (mut agents, mut numbers) = (Vec::new(), HashMap::new());
        let mut ledgers: BTreeMap<u32, Vec<(u16, Hit)>> = BTreeMap::new();
        for (hit, agent) in hits {
            let Some((chunk, position)) = of.locate(hit.recipient) else { continue };
            let agent = match *agent {
                "" => NO_AGENT,
                agent => *numbers.entry(agent).or_insert_with(|| {
                    agents.push(agent);
                    agents.len() as u16 - 1
                }),
            };
            ledgers.entry(chunk).or_default().push((position, Hit { agent, ..*hit }));
        }
        if ledgers.is_empty() {
            return Ok(0);
        }
        let id = &of.delivery;
        let mut script = self.scripts.hit.prepare_invoke();
        script
            .key(keys::delivery(id))
            .key(keys::counts(id))
            .key(keys::tracking(id))
            .key(keys::agents(id));
        script
            .arg(of.generation)
            .arg(now)
            .arg(BLOCK)
            .arg(MOST_AGENTS)
            .arg(MOST_HITS)
            .arg(keys::hits_prefix(id));
        script.arg(agents.len()).arg(agents);
        for (chunk, mut hits) in ledgers {
            hits.sort_by_key(|(position, _)| *position);
            script.key(keys::ledger(id, chunk)).arg(pack(&hits));
        }
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// Removes the tracking log; its counters and the statistics stay.
    pub async fn remove_tracking(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        // the count stays, so that what a crash leaves, or who came in between, is found again
        let blocks = self.log_extent(id).await?.hits.div_ceil(BLOCK);
        for from in (0..blocks).step_by(AT_A_TIME) {
            let names: Vec<String> =
                (from..blocks.min(from + AT_A_TIME as u64)).map(|n| keys::hits(id, n)).collect();
            let () = conn.unlink(names).await?;
        }
        Ok(conn.unlink(keys::agents(id)).await?)
    }
}
/// Hits of one ledger, as the script reads them.
fn pack(hits: &[(u16, Hit)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(hits.len() * (PLACE_BYTES + HIT_BYTES));
    for (position, hit) in hits {
        packed.extend(position.to_be_bytes());
        packed.extend([hit.tracked(), u8::from(hit.label.class() == HitClass::Human)]);
        packed.extend(hit.encode());
    }
    packed
}
