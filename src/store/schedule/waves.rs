//! The waves of a delivery, the chunks of each wave, and the release of due waves.

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

/// The waves of a delivery after the release of the due ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasedWaves {
    /// The state of the delivery.
    pub state: DeliveryState,
    /// Number of waves that were released now.
    pub released: u64,
    /// Number of waves that were found overdue now.
    pub newly_held: u64,
    /// Number of released waves whose chunks are not open yet.
    pub unopened: u64,
    /// Number of held waves.
    pub held: u64,
    /// Number of recipients in waves that are not released.
    pub unreleased: u64,
    /// When the next waiting wave is due (Unix seconds).
    pub next_due: Option<u32>,
}

/// The waves of the deliveries and when they are due. Cheap to clone.
#[derive(Clone)]
pub struct ScheduleStore {
    pub(super) redis: Redis,
    chunks: ChunkLists,
    release_waves: Arc<Script>,
    hold_waves: Arc<Script>,
}

impl ScheduleStore {
    /// Makes the handle. It opens the chunks of released waves through `chunks`.
    pub fn new(redis: Redis, chunks: ChunkLists) -> Self {
        let release_waves = Arc::new(with_prelude(include_str!("release_waves.lua")));
        let hold_waves = Arc::new(Script::new(include_str!("hold_waves.lua")));
        Self { redis, chunks, release_waves, hold_waves }
    }

    /// Writes the table of waves and the table of chunks of a preparation.
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
        for (kind, bytes) in tables {
            pipe.hset(keys::slice_counts(id), kind.name(), 1)
                .ignore()
                .set(kind.key(id, 0), bytes)
                .ignore();
        }
        self.redis.run(&pipe).await
    }

    /// All waves of a plan, by when they are due.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the table does not have the size that the plan says.
    pub async fn waves(&self, id: &DeliveryId, plan: &Plan) -> Result<Vec<Wave>, StoreError> {
        let raw: Vec<u8> =
            self.redis.connection().get(SliceKind::Waves(plan.generation).key(id, 0)).await?;
        match raw.len() == WAVE_BYTES * plan.waves as usize {
            true => Ok(Wave::parse_all(&raw)),
            false => Err(damaged("the table of waves has the wrong size")),
        }
    }

    /// The wave and the number of recipients of each chunk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the table does not have the size that the plan says.
    pub async fn places(
        &self,
        id: &DeliveryId,
        plan: &Plan,
    ) -> Result<Vec<ChunkPlace>, StoreError> {
        let raw: Vec<u8> =
            self.redis.connection().get(SliceKind::Places(plan.generation).key(id, 0)).await?;
        match raw.len() == PLACE_BYTES * plan.chunks as usize {
            true => Ok(ChunkPlace::parse_all(&raw)),
            false => Err(damaged("the table of chunks has the wrong size")),
        }
    }

    /// The wave of a chunk. Reads only two rows of the tables.
    pub async fn wave_of(&self, at: &ChunkRef, plan: &Plan) -> Result<Wave, StoreError> {
        let range = async |kind: SliceKind, number: usize, bytes: usize| {
            let (key, from) = (kind.key(&at.delivery, 0), (number * bytes) as isize);
            let raw: redis::RedisResult<Vec<u8>> =
                self.redis.connection().getrange(key, from, from + bytes as isize - 1).await;
            raw
        };
        let place = ChunkPlace::parse_all(
            &range(SliceKind::Places(plan.generation), at.chunk as usize, PLACE_BYTES).await?,
        );
        let place =
            place.first().ok_or_else(|| damaged("the table of chunks has the wrong size"))?;
        let wave = Wave::parse_all(
            &range(SliceKind::Waves(plan.generation), usize::from(place.wave), WAVE_BYTES).await?,
        );
        wave.first().copied().ok_or_else(|| damaged("the table of waves has the wrong size"))
    }

    /// Releases the due waves of a delivery, and holds the overdue ones. With `release_held`, it
    /// releases held waves, too.
    pub async fn release_waves(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        now: u32,
        release_held: bool,
    ) -> Result<ReleasedWaves, StoreError> {
        let mut script = self.release_waves.prepare_invoke();
        script.key(keys::delivery(id)).key(SliceKind::Waves(plan.generation).key(id, 0));
        script.arg(now).arg(plan.settings.grace_s()).arg(u8::from(release_held));
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

    /// Holds the due waves of a delivery. If it has not `started`, holds released ones, too.
    /// Returns the number of newly held waves.
    pub async fn hold_due_waves(
        &self,
        id: &DeliveryId,
        plan: &Plan,
        now: u32,
        started: bool,
    ) -> Result<u64, StoreError> {
        let mut script = self.hold_waves.prepare_invoke();
        script.key(SliceKind::Waves(plan.generation).key(id, 0)).arg(now).arg(u8::from(started));
        Ok(script.invoke_async(&mut self.redis.connection()).await?)
    }

    /// Opens the chunks of newly released waves, and then notes that these waves are open.
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
            let table = SliceKind::Waves(plan.generation).key(id, 0);
            pipe.setrange(table, (number * WAVE_BYTES + 12) as isize, &[WaveState::Open as u8][..])
                .ignore();
        }
        self.redis.run(&pipe).await
    }

    /// Opens every chunk of all released waves again, because the lists of chunks are hints.
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
