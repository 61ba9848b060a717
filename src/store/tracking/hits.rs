//! Hits as they are recorded: the tracking log of a delivery, in blocks.

use std::collections::{BTreeMap, HashMap};

use redis::AsyncCommands;

use crate::{
    domain::{
        delivery::DeliveryId,
        tracking::{HIT_BYTES, Hit, HitClass, NO_AGENT},
    },
    store::{Store, StoreError, addresses::RegisteredPreparation, keys},
};

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
        let chunk = recipient.checked_div(self.chunk_size)?;
        Some((chunk, u16::try_from(recipient % self.chunk_size).ok()?))
    }
}

impl Store {
    /// What the number of a preparation stands for.
    pub async fn mailing(&self, preparation: u32) -> Result<Option<PreparationRef>, StoreError> {
        let text: Option<String> = self.conn.clone().hget(keys::PREPARATIONS, preparation).await?;
        let Some(text) = text else { return Ok(None) };
        let RegisteredPreparation { delivery, generation, chunk_size, .. } = RegisteredPreparation::parse(&text)?;
        Ok(Some(PreparationRef { delivery, generation, chunk_size }))
    }

    /// Records hits of one delivery, each with its user agent; how many of them: none if they are of a preparation that was not
    /// released, and none of recipients that are not there. A thousand at a time at the most: a script can hand on no more values than some.
    pub async fn record_hits(&self, of: &PreparationRef, hits: &[(Hit, &str)], now: u32) -> Result<u64, StoreError> {
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
        script.key(keys::delivery(id)).key(keys::counts(id)).key(keys::tracking(id)).key(keys::agents(id));
        script.arg(of.generation).arg(now).arg(BLOCK).arg(MOST_AGENTS).arg(MOST_HITS).arg(keys::hits_prefix(id));
        script.arg(agents.len()).arg(agents);
        for (chunk, mut hits) in ledgers {
            hits.sort_by_key(|(position, _)| *position);
            script.key(keys::ledger(id, chunk)).arg(pack(&hits));
        }
        Ok(script.invoke_async(&mut self.conn.clone()).await?)
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
