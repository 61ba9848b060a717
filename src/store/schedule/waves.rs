//! The waves of a delivery and the chunks of each; and the list of deliveries whose next wave is to be released.

use redis::AsyncCommands;

use crate::{
    domain::{
        delivery::{DeliveryId, DeliveryState, Plan},
        schedule::{ChunkPlace, PLACE_BYTES, WAVE_BYTES, Wave, WaveState},
    },
    store::{Store, StoreError, audience::SliceKind, chunks::ChunkRef, damaged, keys},
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

impl Store {
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
            (SliceKind::Places(generation), places.iter().flat_map(|place| place.bytes()).collect()),
        ];
        for (part, bytes) in tables {
            pipe.hset(keys::parts(id), part.name(), 1).ignore().set(part.key(id, 0), bytes).ignore();
        }
        self.run(&pipe).await
    }

    /// All waves, by when they are due.
    pub async fn waves(&self, id: &DeliveryId, plan: &Plan) -> Result<Vec<Wave>, StoreError> {
        let raw: Vec<u8> = self.conn.clone().get(SliceKind::Waves(plan.generation).key(id, 0)).await?;
        match raw.len() == WAVE_BYTES * plan.waves as usize {
            true => Ok(Wave::parse_all(&raw)),
            false => Err(damaged("the table of waves")),
        }
    }

    /// The wave and the number of recipients of every chunk.
    pub async fn places(&self, id: &DeliveryId, plan: &Plan) -> Result<Vec<ChunkPlace>, StoreError> {
        let raw: Vec<u8> = self.conn.clone().get(SliceKind::Places(plan.generation).key(id, 0)).await?;
        match raw.len() == PLACE_BYTES * plan.chunks as usize {
            true => Ok(ChunkPlace::parse_all(&raw)),
            false => Err(damaged("the table of chunks")),
        }
    }

    /// The wave of a chunk.
    pub async fn wave_of(&self, at: &ChunkRef, plan: &Plan) -> Result<Wave, StoreError> {
        let range = async |part: SliceKind, number: usize, bytes: usize| {
            let (key, from) = (part.key(&at.delivery, 0), (number * bytes) as isize);
            let raw: redis::RedisResult<Vec<u8>> = self.conn.clone().getrange(key, from, from + bytes as isize - 1).await;
            raw
        };
        let place = ChunkPlace::parse_all(&range(SliceKind::Places(plan.generation), at.chunk as usize, PLACE_BYTES).await?);
        let place = place.first().ok_or_else(|| damaged("the table of chunks"))?;
        let wave = Wave::parse_all(&range(SliceKind::Waves(plan.generation), usize::from(place.wave), WAVE_BYTES).await?);
        wave.first().copied().ok_or_else(|| damaged("the table of waves"))
    }

    /// Releases what is due; with `held` also what is held for a person.
    pub async fn release_waves(&self, id: &DeliveryId, plan: &Plan, now: u32, held: bool) -> Result<ReleasedWaves, StoreError> {
        let mut script = self.scripts.due.prepare_invoke();
        script.key(keys::delivery(id)).key(SliceKind::Waves(plan.generation).key(id, 0));
        script.arg(now).arg(plan.settings.grace_s()).arg(u8::from(held));
        type Answer = (String, u64, u64, u64, u64, u64, i64);
        let (state, released, newly_held, unopened, held, unreleased, next): Answer =
            script.invoke_async(&mut self.conn.clone()).await?;
        let state = serde_json::from_value(state.into()).map_err(damaged)?;
        Ok(ReleasedWaves { state, released, newly_held, unopened, held, unreleased, next_due: u32::try_from(next).ok() })
    }

    /// Says that the chunks of the waves that are released want attention, and then that they were opened.
    pub async fn open_released(&self, id: &DeliveryId, plan: &Plan) -> Result<(), StoreError> {
        let (waves, places) = (self.waves(id, plan).await?, self.places(id, plan).await?);
        let unopened = |place: &ChunkPlace| waves.get(usize::from(place.wave)).is_some_and(|w| w.state == WaveState::Released);
        self.open(id, (0..).zip(&places).filter(|(_, place)| unopened(place)).map(|(chunk, _)| chunk)).await?;
        let mut pipe = redis::pipe();
        for (number, _) in waves.iter().enumerate().filter(|(_, wave)| wave.state == WaveState::Released) {
            let state = SliceKind::Waves(plan.generation).key(id, 0);
            pipe.setrange(state, (number * WAVE_BYTES + 12) as isize, &[WaveState::Open as u8][..]).ignore();
        }
        self.run(&pipe).await
    }

    /// Says that every chunk of the waves that are released wants attention: the sets are hints.
    pub async fn reopen_released(&self, id: &DeliveryId, plan: &Plan) -> Result<(), StoreError> {
        let (waves, places) = (self.waves(id, plan).await?, self.places(id, plan).await?);
        let released = |place: &ChunkPlace| waves.get(usize::from(place.wave)).is_some_and(|wave| wave.state.is_released());
        self.open(id, (0..).zip(&places).filter(|(_, place)| released(place)).map(|(chunk, _)| chunk)).await
    }

    /// Deliveries whose next wave is due.
    pub async fn due(&self, now: u32) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> = self.conn.clone().zrangebyscore(keys::DUE, "-inf", now).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// Deliveries that wait for their next wave, and when the earliest of them is due.
    pub async fn scheduled(&self) -> Result<(u64, Option<u32>), StoreError> {
        let mut conn = self.conn.clone();
        let first: Vec<(String, f64)> = conn.zrange_withscores(keys::DUE, 0, 0).await?;
        Ok((conn.zcard(keys::DUE).await?, first.first().map(|(_, due)| *due as u32)))
    }

    /// Puts a delivery on the list of those that wait for a wave, or takes it off.
    pub async fn list_due(&self, id: &DeliveryId, next_due: Option<u32>) -> Result<(), StoreError> {
        let mut conn = self.conn.clone();
        match next_due {
            Some(due) => Ok(conn.zadd(keys::DUE, id.as_str(), due).await?),
            None => Ok(conn.zrem(keys::DUE, id.as_str()).await?),
        }
    }

    /// Lets the next tick look at a delivery that may have fallen off the list of those that wait for a wave.
    pub async fn list_due_at_once(&self, id: &DeliveryId) -> Result<(), StoreError> {
        let mut list = redis::cmd("ZADD");
        list.arg(keys::DUE).arg("NX").arg(0).arg(id.as_str());
        Ok(list.query_async(&mut self.conn.clone()).await?)
    }

    /// Deliveries with waves that are held.
    pub async fn held(&self) -> Result<Vec<DeliveryId>, StoreError> {
        let ids: Vec<String> = self.conn.clone().smembers(keys::HELD).await?;
        ids.iter().map(|id| id.parse().map_err(damaged)).collect()
    }

    /// Puts a delivery on the list of those with waves that are held, or takes it off.
    pub async fn list_held(&self, id: &DeliveryId, held: bool) -> Result<(), StoreError> {
        let mut conn = self.conn.clone();
        match held {
            true => Ok(conn.sadd(keys::HELD, id.as_str()).await?),
            false => Ok(conn.srem(keys::HELD, id.as_str()).await?),
        }
    }
}
