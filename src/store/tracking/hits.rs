//! Records hits in the tracking log of a delivery.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use redis::Script;

use crate::{
    domain::{
        delivery::DeliveryId,
        ledger::RecipientNumber,
        tracking::{HIT_BYTES, Hit, HitClass, NO_AGENT},
    },
    store::{Redis, StoreError, damaged, keys},
};

/// Number of hits in a block of the tracking log.
pub const HITS_PER_BLOCK: u64 = 4096;
/// Maximum of user agents that are kept per delivery. Invented user agents must not fill Redis.
const MAX_AGENTS: u64 = 10_000;
/// Maximum of logged hits per recipient. A person makes a few, a forwarded message some dozens.
const MAX_HITS: u64 = 1000;
/// Bytes before each hit for the script: position, tracked bits, whether a human did it.
const PREFIX_BYTES: usize = 4;

/// A preparation of a delivery, as the tracked links in its messages name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PreparationRef {
    pub delivery: DeliveryId,
    pub generation: u32,
    pub chunk_size: u32,
}

impl PreparationRef {
    /// The chunk of a recipient number, and the position in the chunk.
    pub fn locate(&self, recipient: u32) -> Option<(u32, u16)> {
        RecipientNumber(recipient.into()).place(self.chunk_size)
    }

    /// The text that is stored for the time when the preparation has left the registry of
    /// preparations.
    pub(in crate::store) fn words(&self) -> String {
        format!("{} {} {}", self.delivery, self.generation, self.chunk_size)
    }

    /// Reads [`PreparationRef::words`].
    pub(in crate::store) fn parse(words: &str) -> Result<Self, StoreError> {
        let mut parts = words.split(' ');
        let mut next = || parts.next().ok_or_else(|| damaged("a kept preparation"));
        Ok(Self {
            delivery: next()?.parse().map_err(damaged)?,
            generation: next()?.parse().map_err(damaged)?,
            chunk_size: next()?.parse().map_err(damaged)?,
        })
    }
}

/// Tracking logs and statistics. Cheap to clone.
#[derive(Clone)]
pub struct TrackingStore {
    pub(super) redis: Redis,
    pub(super) scripts: Arc<TrackingScripts>,
}

pub(super) struct TrackingScripts {
    record_hits: Script,
    pub(super) write_statistics: Script,
}

impl Default for TrackingScripts {
    fn default() -> Self {
        Self {
            record_hits: Script::new(concat!(
                include_str!("record_hits.lua"),
                include_str!("../chunks/prelude.lua"),
                include_str!("hit_resolves_in_doubt.lua"),
            )),
            write_statistics: Script::new(include_str!("write_statistics.lua")),
        }
    }
}

impl TrackingStore {
    /// Makes the handle from a connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }

    /// Records hits of one preparation, each with its user agent. Returns the number of recorded
    /// hits.
    ///
    /// Hits of unknown recipients are not recorded. Nothing is recorded if the preparation is not
    /// the current plan, or if the log was removed. A call takes at most 1 000 hits, because the
    /// number of values on the stack of a script is limited.
    pub async fn record_hits(
        &self,
        preparation: &PreparationRef,
        hits: &[(Hit, &str)],
        now: u32,
    ) -> Result<u64, StoreError> {
        let (mut agents, mut numbers) = (Vec::new(), HashMap::new());
        let mut ledgers: BTreeMap<u32, Vec<(u16, Hit)>> = BTreeMap::new();
        for (hit, agent) in hits {
            let Some((chunk, position)) = preparation.locate(hit.recipient) else { continue };
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
        let id = &preparation.delivery;
        let mut script = self.scripts.record_hits.prepare_invoke();
        script
            .key(keys::delivery(id))
            .key(keys::counts(id))
            .key(keys::tracking(id))
            .key(keys::agents(id));
        script
            .arg(preparation.generation)
            .arg(now)
            .arg(HITS_PER_BLOCK)
            .arg(MAX_AGENTS)
            .arg(MAX_HITS)
            .arg(keys::hits_prefix(id));
        script.arg(agents.len()).arg(agents);
        for (chunk, mut hits) in ledgers {
            hits.sort_by_key(|(position, _)| *position);
            script.key(keys::ledger(id, chunk)).arg(pack(&hits));
        }
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }
}

/// The hits of one ledger, as the script reads them.
fn pack(hits: &[(u16, Hit)]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(hits.len() * (PREFIX_BYTES + HIT_BYTES));
    for (position, hit) in hits {
        packed.extend(position.to_be_bytes());
        packed.extend([hit.tracked(), u8::from(hit.label.class() == HitClass::Human)]);
        packed.extend(hit.encode());
    }
    packed
}
