//! The waves of a delivery and the chunks of each; and the list of deliveries whose next wave is to be released.

use std::sync::Arc;

use redis::{AsyncCommands, Script};

use crate::{
    domain::{
        delivery::{DeliveryId, DeliveryState, Plan},
        ledger::ChunkRef,
        schedule::{ChunkPlace, PLACE_BYTES, WAVE_BYTES, Wave, WaveState},
    },
    store::{
        Redis, StoreError, audience::SliceKind, chunks::ChunkLists, damaged, keys, with_prelude,
    },
};

/// What became of the waves that were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasedWaves {
    /// Of the delivery, afterwards.
    pub state: DeliveryState,
    pub released: u64,
    pub newly_held: u64,
    /// Waves that are released and whose chunks were not opened yet.
    pub unopened: u64,
    pub held: u64,
    /// Recipients of waves that are not released.
    pub unreleased: u64,
    /// When the next wave is due.
    pub next_due: Option<u32>,
}

/// The waves of the deliveries, and when they are due. Cheap to clone.
#[derive(Clone)]
pub struct ScheduleStore {
    pub(in crate::store) redis: Redis,
    chunks: ChunkLists,
    pub(in crate::store) scripts: Arc<ScheduleScripts>,
}

pub(in crate::store) struct ScheduleScripts {
    pub(in crate::store) due: Script,
}

impl Default for ScheduleScripts {
    fn default() -> Self {
        Self { due: with_prelude(include_str!("release_waves.lua")) }
    }
}

impl ScheduleStore {
    pub fn new(redis: Redis, chunks: ChunkLists) -> Self {
        Self { redis, chunks, scripts: Arc::default() }
    }
}

impl ScheduleStore {
    /// Writes the tables of a preparation.
    pub async fn write_waves(
        &self,
        id: &DeliveryId,
        generation: u32,
        waves: &[Wave],
        places: &[ChunkPlace],
    ) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        let tables = [
            (SliceKind::Waves(generation), waves.iter().flat_map(Wave::bytes).collect::<Vec<u8>>()),
            (
                SliceKind::Places(generation),
                places.iter().flat_map(|place| place.bytes()).collect(),
            ),
        ];
        for (part, bytes) in tables {
            pipe.hset(keys::parts(id), part.name(), 1)
                .ignore()
                .set(part.key(id, 0), bytes)
                .ignore();
        }
        self.redis.run(&pipe).await
    }

    /// All waves, by when they are due.
    pub async fn waves(&self, id: &DeliveryId, plan: &Plan) -> Result<Vec<Wave>, StoreError> {
        let raw: Vec<u8> =
            self.redis.connection().get(SliceKind::Waves(plan.generation).key(id, 0)).await?;
        match raw.len() == WAVE_BYTES * plan.waves as usize {
            true => Ok(Wave::parse_all(&raw)),
            false => Err(damaged("the table of waves")),
        }
    }

    /// The wave and the number of recipients of every chunk.
    pub async fn places(
        &self,
        id: &DeliveryId,
        plan: &Plan,
    ) -> Result<Vec<ChunkPlace>, StoreError> {
        let raw: Vec<u8> =
            self.redis.connection().get(SliceKind::Places(plan.generation).key(id, 0)).await?;
        match raw.len() == PLACE_BYTES * plan.chunks as usize {
            true => Ok(ChunkPlace::parse_all(&raw)),
            false => Err(damaged("the table of chunks")),
        }
    }

    /// The wave of a chunk.
    pub async fn wave_of(&self, at: &ChunkRef, plan: &Plan) -> Result<Wave, StoreError> {
        let range = async |part: SliceKind, number: usize, bytes: usize| {
            let (key, from) = (part.key(&at.delivery, 0), (number * bytes) as isize);
            let raw: redis::RedisResult<Vec<u8>> =
                self.redis.connection().getrange(key, from, from + bytes as isize - 1).await;
            raw
        };
        let place = ChunkPlace::parse_all(
            &range(SliceKind::Places(plan.generation), at.chunk as usize, PLACE_BYTES).await?,
        );
        let place = place.first().ok_or_else(|| damaged("the table of chunks"))?;
        let wave = Wave::parse_all(
            &range(SliceKind::Waves(plan.generation), usize::from(place.wave), WAVE_BYTES).await?,
        );
        wave.first().copied().ok_or_else(|| damaged("the table of waves"))
    }

    /// Releases what is due; with `held` also what is held for a person.
    pub async fn release_waves(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        now: u32,
        held: bool,
    ) -> Result<ReleasedWaves, StoreError> {
        let mut script = self.scripts.due.prepare_invoke();
        script.key(keys::delivery(id)).key(SliceKind::Waves(plan.generation).key(id, 0));
        script.arg(now).arg(plan.settings.grace_s()).arg(u8::from(held));
        type Answer = (String, u64, u64, u64, u64, u64, i64);
        let (state, released, newly_held, unopened, held, unreleased, next): Answer =
            script.invoke_async(&mut self.redis.connection()).await?;
        let state = state.parse().map_err(damaged)?;
        Ok(ReleasedWaves {
            state,
            released,
            newly_held,
            unopened,
            held,
            unreleased,
            next_due: u32::try_from(next).ok(),
        })
    }

    /// Says that the chunks of the waves that are released want attention, and then that they were opened.
    pub async fn mark_released_ready(
        &self,
        id: &DeliveryId,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let (waves, places) = (self.waves(id, plan).await?, self.places(id, plan).await?);
        let unopened = |place: &ChunkPlace| {
            waves.get(usize::from(place.wave)).is_some_and(|w| w.state == WaveState::Released)
        };
        self.chunks
            .mark_ready(
                id,
                (0..).zip(&places).filter(|(_, place)| unopened(place)).map(|(chunk, _)| chunk),
            )
            .await?;
        let mut pipe = redis::pipe();
        for (number, _) in
            waves.iter().enumerate().filter(|(_, wave)| wave.state == WaveState::Released)
        {
            let state = SliceKind::Waves(plan.generation).key(id, 0);
            pipe.setrange(state, (number * WAVE_BYTES + 12) as isize, &[WaveState::Open as u8][..])
                .ignore();
        }
        self.redis.run(&pipe).await
    }

    /// Says that every chunk of the waves that are released wants attention: the sets are hints.
    pub async fn mark_all_released_ready(
        &self,
        id: &DeliveryId,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let (waves, places) = (self.waves(id, plan).await?, self.places(id, plan).await?);
        let released = |place: &ChunkPlace| {
            waves.get(usize::from(place.wave)).is_some_and(|wave| wave.state.is_released())
        };
        self.chunks
            .mark_ready(
                id,
                (0..).zip(&places).filter(|(_, place)| released(place)).map(|(chunk, _)| chunk),
            )
            .await
    }
}
