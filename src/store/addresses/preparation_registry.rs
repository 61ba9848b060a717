//! The registry of preparations: what a preparation number of the message index stands for.

use crate::domain::ledger::RecipientNumber;
use std::collections::HashMap;

use redis::AsyncCommands;
use sha2::{Digest, Sha256};

use super::address_store::AddressStore;
use crate::{
    domain::{
        audience::fatigue,
        delivery::{DeliveryId, DeliveryState},
        ledger::ChunkRef,
        schedule::{ChunkPlace, Wave},
    },
    store::{StoreError, audience::SliceKind, damaged, keys, tracking::PreparationRef},
};

/// The preparation that a preparation number stands for.
#[derive(Debug, Clone)]
pub struct RegisteredPreparation {
    pub delivery: DeliveryId,
    pub generation: u32,
    pub chunk_size: u32,
    /// Whether the delivery has a rule of fatigue.
    pub has_fatigue_rule: bool,
    /// The name of the delivery; empty if the preparation is older than this field.
    pub name: String,
}

impl RegisteredPreparation {
    /// All fields but the name, as they are stored.
    fn words(&self) -> String {
        format!(
            "{} {} {} {}",
            self.delivery,
            self.generation,
            self.chunk_size,
            u8::from(self.has_fatigue_rule)
        )
    }

    /// Reads the stored text.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let mut words = text.splitn(5, ' ');
        let mut next =
            || words.next().ok_or_else(|| damaged("an entry of the registry of preparations"));
        let (id, generation, chunk_size, fatigue) = (next()?, next()?, next()?, next()?);
        Ok(Self {
            delivery: id.parse().map_err(damaged)?,
            generation: generation.parse().map_err(damaged)?,
            chunk_size: chunk_size.parse().map_err(damaged)?,
            has_fatigue_rule: fatigue == "1",
            name: next().unwrap_or_default().to_owned(),
        })
    }
}

/// The numbers that a preparation may have. It gets the first free one.
///
/// They derive from the preparation. If a roll-back of Redis forgets a number, no other preparation
/// gets the same one.
pub(super) fn candidate_numbers(id: &DeliveryId, generation: u32) -> [u32; 8] {
    let digest = Sha256::digest(format!("{id} {generation}"));
    std::array::from_fn(|i| {
        u32::from_be_bytes([digest[4 * i], digest[4 * i + 1], digest[4 * i + 2], digest[4 * i + 3]])
    })
}

/// A preparation whose messages may count for the rule of fatigue.
#[derive(Debug, Clone)]
pub struct PreparationStanding {
    pub delivery: DeliveryId,
    pub chunk_size: u32,
    /// Whether the delivery has a rule of fatigue.
    pub has_fatigue_rule: bool,
    pub state: DeliveryState,
    waves: Vec<Wave>,
    places: Vec<ChunkPlace>,
}

impl PreparationStanding {
    /// The chunk of a recipient number, the position in the chunk, and the wave.
    pub fn find(&self, recipient: u32) -> Option<(ChunkRef, u16, &Wave)> {
        let (chunk, position) = RecipientNumber(recipient.into()).place(self.chunk_size)?;
        let wave = self.waves.get(usize::from(self.places.get(chunk as usize)?.wave))?;
        Some((ChunkRef { delivery: self.delivery.clone(), chunk }, position, wave))
    }
}

/// Reads `state` and `planned` of a delivery. Returns the state if the messages of this generation
/// count: the plan of the delivery has this generation, and the delivery was confirmed.
pub(super) fn counting_state(
    head: &redis::Value,
    generation: u32,
) -> Result<Option<DeliveryState>, StoreError> {
    let (state, planned): (Option<String>, Option<u32>) =
        redis::from_redis_value_ref(head).map_err(damaged)?;
    let Some(state) = state.filter(|_| planned == Some(generation)) else { return Ok(None) };
    let state: DeliveryState = state.parse().map_err(damaged)?;
    Ok(fatigue::counts(state).then_some(state))
}

impl AddressStore {
    /// Registers a preparation and returns its number. The same preparation always gets the same
    /// number.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if other preparations have all its candidate numbers.
    pub async fn number_preparation(
        &self,
        preparation: &RegisteredPreparation,
    ) -> Result<u32, StoreError> {
        let words = preparation.words();
        for number in candidate_numbers(&preparation.delivery, preparation.generation) {
            let mut conn = self.redis.connection();
            if conn
                .hset_nx(keys::PREPARATIONS, number, format!("{words} {}", preparation.name))
                .await?
            {
                return Ok(number);
            }
            let stored: Option<String> = conn.hget(keys::PREPARATIONS, number).await?;
            let stored = stored.map(|text| RegisteredPreparation::parse(&text)).transpose()?;
            if stored.is_some_and(|stored| stored.words() == words) {
                return Ok(number);
            }
        }
        Err(damaged("other preparations have all candidate numbers of this one"))
    }

    /// The preparation behind a number; `None` if the number is not registered.
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
    /// The preparations behind some numbers. Leaves out preparations whose messages do not count,
    /// see `counting_state`.
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
            if let Some(state) = counting_state(head, preparation.generation)? {
                let waves: Vec<u8> = redis::from_redis_value_ref(waves).map_err(damaged)?;
                let places: Vec<u8> = redis::from_redis_value_ref(places).map_err(damaged)?;
                let (waves, places) = (Wave::parse_all(&waves), ChunkPlace::parse_all(&places));
                let RegisteredPreparation { delivery, chunk_size, has_fatigue_rule, .. } =
                    preparation;
                standings.insert(
                    number,
                    PreparationStanding {
                        delivery,
                        chunk_size,
                        has_fatigue_rule,
                        state,
                        waves,
                        places,
                    },
                );
            }
        }
        Ok(standings)
    }

    /// The preparations of a delivery before `generation` that wrote chunks: generation and number
    /// of chunks.
    pub async fn prepared_before(
        &self,
        id: &DeliveryId,
        generation: u32,
    ) -> Result<Vec<(u32, u32)>, StoreError> {
        let written: HashMap<String, u32> =
            self.redis.connection().hgetall(keys::slice_counts(id)).await?;
        let chunks = |(name, slices): (String, u32)| {
            Some((name.strip_prefix("chunks.")?.parse::<u32>().ok()?, slices))
        };
        Ok(written
            .into_iter()
            .filter_map(chunks)
            .filter(|(number, _)| *number < generation)
            .collect())
    }
}
