//! The index of messages: which addresses every prepared delivery is to send to, in packed buckets.
//!
//! An entry is written with the chunk, says which recipient of which preparation it is, and is removed with it. What became of
//! the message stands in the ledger, when it goes in the table of waves: nothing is written twice.

use crate::domain::ledger::RecipientNumber;

use crate::domain::ledger::ChunkRef;
use crate::store::Redis;
use crate::store::tracking::PreparationRef;
use redis::Script;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::AsyncCommands;
use sha2::{Digest, Sha256};

use crate::{
    domain::{
        audience::{AddressKey, fatigue},
        delivery::{DeliveryId, DeliveryState},
        schedule::{ChunkPlace, Wave},
    },
    store::{StoreError, audience::SliceKind, damaged, keys},
};

/// Buckets that one call goes through to remove entries: others wait for it.
const AT_A_TIME: usize = 16;

/// A message in the index: which preparation, and which recipient of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedMessage {
    pub preparation: u32,
    pub recipient: u32,
}

/// What is known of a preparation whose messages may count.
#[derive(Debug, Clone)]
pub struct PreparationStanding {
    pub delivery: DeliveryId,
    pub chunk_size: u32,
    /// Whether it has a rule of fatigue itself.
    pub ruled: bool,
    pub state: DeliveryState,
    waves: Vec<Wave>,
    places: Vec<ChunkPlace>,
}

impl PreparationStanding {
    /// The chunk, the position in it and the wave of a recipient.
    pub fn find(&self, recipient: u32) -> Option<(ChunkRef, u16, &Wave)> {
        let (chunk, position) = RecipientNumber(recipient.into()).place(self.chunk_size)?;
        let wave = self.waves.get(usize::from(self.places.get(chunk as usize)?.wave))?;
        Some((ChunkRef { delivery: self.delivery.clone(), chunk }, position, wave))
    }
}

/// The numbers that a preparation may have: the first one that is free is its. They derive from it, so that one that a
/// roll-back of Redis has forgotten does not come a second time for another.
fn numbers(id: &DeliveryId, generation: u32) -> [u32; 8] {
    let digest = Sha256::digest(format!("{id} {generation}"));
    std::array::from_fn(|i| {
        u32::from_be_bytes([digest[4 * i], digest[4 * i + 1], digest[4 * i + 2], digest[4 * i + 3]])
    })
}

/// What a number in the index stands for.
#[derive(Debug, Clone)]
pub struct RegisteredPreparation {
    pub delivery: DeliveryId,
    pub generation: u32,
    pub chunk_size: u32,
    /// Whether it has a rule of fatigue.
    pub ruled: bool,
    /// Of the delivery; empty if it was prepared before names were noted.
    pub name: String,
}

impl RegisteredPreparation {
    /// All but the name, in words.
    fn words(&self) -> String {
        format!(
            "{} {} {} {}",
            self.delivery,
            self.generation,
            self.chunk_size,
            u8::from(self.ruled)
        )
    }

    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let mut words = text.splitn(5, ' ');
        let mut next =
            || words.next().ok_or_else(|| damaged("what a number in the index stands for"));
        let (id, generation, chunk_size, ruled) = (next()?, next()?, next()?, next()?);
        Ok(Self {
            delivery: id.parse().map_err(damaged)?,
            generation: generation.parse().map_err(damaged)?,
            chunk_size: chunk_size.parse().map_err(damaged)?,
            ruled: ruled == "1",
            name: next().unwrap_or_default().to_owned(),
        })
    }
}

/// What is known by address: messages, and who opted out. Cheap to clone.
#[derive(Clone)]
pub struct AddressStore {
    pub(in crate::store) redis: Redis,
    pub(in crate::store) scripts: Arc<AddressScripts>,
}

pub(in crate::store) struct AddressScripts {
    pub(in crate::store) find: Script,
    pub(in crate::store) forget: Script,
}

impl Default for AddressScripts {
    fn default() -> Self {
        Self {
            find: Script::new(include_str!("find_messages.lua")),
            forget: Script::new(include_str!("forget_messages.lua")),
        }
    }
}

impl AddressStore {
    pub fn new(redis: Redis) -> Self {
        Self { redis, scripts: Arc::default() }
    }
}

impl AddressStore {
    /// The number of a preparation in the index, the same one each time.
    pub async fn number_preparation(
        &self,
        preparation: &RegisteredPreparation,
    ) -> Result<u32, StoreError> {
        let words = preparation.words();
        for number in numbers(&preparation.delivery, preparation.generation) {
            let mut conn = self.redis.connection();
            if conn
                .hset_nx(keys::PREPARATIONS, number, format!("{words} {}", preparation.name))
                .await?
            {
                return Ok(number);
            }
            let there: Option<String> = conn.hget(keys::PREPARATIONS, number).await?;
            let there = there.map(|text| RegisteredPreparation::parse(&text)).transpose()?;
            if there.is_some_and(|there| there.words() == words) {
                return Ok(number);
            }
        }
        Err(damaged("all numbers of a preparation are taken"))
    }

    /// Notes messages: to whom, and the number of the recipient. Many at once cost least: a command for each bucket.
    pub async fn note_messages(
        &self,
        preparation: u32,
        mut messages: Vec<(AddressKey, u32)>,
    ) -> Result<(), StoreError> {
        messages.sort_unstable_by_key(|(address, recipient)| (address.bucket(), *recipient));
        let mut pipe = redis::pipe();
        for bucket in messages.chunk_by(|(a, _), (b, _)| a.bucket() == b.bucket()) {
            let entries: Vec<u8> = bucket
                .iter()
                .flat_map(|(address, recipient)| address.entry(preparation, *recipient))
                .collect();
            pipe.append(keys::messages(bucket[0].0.bucket()), entries).ignore();
        }
        self.redis.run(&pipe).await
    }

    /// The messages to some addresses, in their order.
    pub async fn messages_to(
        &self,
        addresses: &[AddressKey],
    ) -> Result<Vec<Vec<IndexedMessage>>, StoreError> {
        // by slot
        let mut slots: HashMap<u16, Vec<usize>> = HashMap::new();
        for (i, address) in addresses.iter().enumerate() {
            slots.entry(keys::messages_slot(address.bucket())).or_default().push(i);
        }
        let find = |asked: Vec<usize>| async move {
            let mut script = self.scripts.find.prepare_invoke();
            for i in &asked {
                script.key(keys::messages(addresses[*i].bucket())).arg(&addresses[*i].rest()[..]);
            }
            let found: Vec<Vec<u8>> = script.invoke_async(&mut self.redis.connection()).await?;
            Ok::<_, StoreError>((asked, found))
        };
        let mut messages = vec![Vec::new(); addresses.len()];
        for (asked, found) in try_join_all(slots.into_values().map(find)).await? {
            for (i, raw) in asked.into_iter().zip(found) {
                let message = |b: &[u8; 8]| IndexedMessage {
                    preparation: u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
                    recipient: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
                };
                messages[i] = raw.as_chunks::<8>().0.iter().map(message).collect();
            }
        }
        Ok(messages)
    }

    /// What is known of some preparations; none of those whose messages do not count: their delivery is not released nor
    /// scheduled, or another preparation of it is.
    pub async fn preparation_standings(
        &self,
        preparations: &[u32],
    ) -> Result<HashMap<u32, PreparationStanding>, StoreError> {
        if preparations.is_empty() {
            return Ok(HashMap::new());
        }
        let texts: Vec<Option<String>> = redis::cmd("HMGET")
            .arg(keys::PREPARATIONS)
            .arg(preparations)
            .query_async(&mut self.redis.connection())
            .await?;
        let mut pipe = redis::pipe();
        let mut asked = Vec::new();
        for (number, text) in preparations
            .iter()
            .zip(&texts)
            .filter_map(|(number, text)| Some((*number, text.as_ref()?)))
        {
            let preparation = RegisteredPreparation::parse(text)?;
            let (id, generation) = (&preparation.delivery, preparation.generation);
            pipe.cmd("HMGET").arg(keys::delivery(id)).arg(&["state", "planned"]);
            pipe.get(SliceKind::Waves(generation).key(id, 0))
                .get(SliceKind::Places(generation).key(id, 0));
            asked.push((number, preparation));
        }
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let answers: Vec<redis::Value> = pipe.query_async(&mut self.redis.connection()).await?;
        let mut standings = HashMap::new();
        for ((number, preparation), answer) in asked.into_iter().zip(answers.chunks(3)) {
            let [head, waves, places] = answer else { continue };
            let (state, planned): (Option<String>, Option<u32>) =
                redis::from_redis_value_ref(head).map_err(damaged)?;
            let Some(state) = state.filter(|_| planned == Some(preparation.generation)) else {
                continue;
            };
            let state: DeliveryState = state.parse().map_err(damaged)?;
            if fatigue::counts(state) {
                let waves: Vec<u8> = redis::from_redis_value_ref(waves).map_err(damaged)?;
                let places: Vec<u8> = redis::from_redis_value_ref(places).map_err(damaged)?;
                let (waves, places) = (Wave::parse_all(&waves), ChunkPlace::parse_all(&places));
                let RegisteredPreparation { delivery, chunk_size, ruled, .. } = preparation;
                standings.insert(
                    number,
                    PreparationStanding { delivery, chunk_size, ruled, state, waves, places },
                );
            }
        }
        Ok(standings)
    }

    /// The preparations of a delivery before `generation` that wrote chunks, and how many.
    pub async fn prepared_before(
        &self,
        id: &DeliveryId,
        generation: u32,
    ) -> Result<Vec<(u32, u32)>, StoreError> {
        let written: HashMap<String, u32> =
            self.redis.connection().hgetall(keys::parts(id)).await?;
        let chunks = |(name, slices): (String, u32)| {
            Some((name.strip_prefix("chunks.")?.parse::<u32>().ok()?, slices))
        };
        Ok(written
            .into_iter()
            .filter_map(chunks)
            .filter(|(number, _)| *number < generation)
            .collect())
    }

    /// Takes the messages of some preparations of a delivery out of these buckets, and forgets the preparations.
    pub async fn remove_messages(
        &self,
        id: &DeliveryId,
        generations: &[u32],
        buckets: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        let mut own = Vec::new();
        for generation in generations {
            let candidates = numbers(id, *generation);
            let texts: Vec<Option<String>> = redis::cmd("HMGET")
                .arg(keys::PREPARATIONS)
                .arg(&candidates)
                .query_async(&mut self.redis.connection())
                .await?;
            let prefix = format!("{id} {generation} ");
            let is_own =
                |text: &Option<String>| text.as_ref().is_some_and(|text| text.starts_with(&prefix));
            own.extend(
                candidates
                    .iter()
                    .zip(&texts)
                    .filter(|(_, text)| is_own(text))
                    .map(|(number, _)| *number),
            );
        }
        if own.is_empty() {
            return Ok(());
        }
        let buckets: Vec<u16> = buckets.iter().copied().collect();
        for some in buckets
            .chunk_by(|a, b| keys::messages_slot(*a) == keys::messages_slot(*b))
            .flat_map(|slot| slot.chunks(AT_A_TIME))
        {
            let mut script = self.scripts.forget.prepare_invoke();
            for bucket in some {
                script.key(keys::messages(*bucket));
            }
            for number in &own {
                script.arg(&number.to_be_bytes()[..]);
            }
            let _: u64 = script.invoke_async(&mut self.redis.connection()).await?;
        }
        // afterwards, so that what a crash leaves is found again
        Ok(self.redis.connection().hdel(keys::PREPARATIONS, own).await?)
    }

    /// What the number of a preparation stands for.
    pub async fn preparation_ref(
        &self,
        preparation: u32,
    ) -> Result<Option<PreparationRef>, StoreError> {
        let text: Option<String> =
            self.redis.connection().hget(keys::PREPARATIONS, preparation).await?;
        let Some(text) = text else { return Ok(None) };
        let RegisteredPreparation { delivery, generation, chunk_size, .. } =
            RegisteredPreparation::parse(&text)?;
        Ok(Some(PreparationRef { delivery, generation, chunk_size }))
    }
}
