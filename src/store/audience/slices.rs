//! Slices of recipients and exclusions: NDJSON, compressed, numbered from 0 within a part.

use std::collections::HashMap;

use redis::AsyncCommands;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    domain::{
        delivery::{Delivery, DeliveryId, Plan},
        ledger::ChunkRef,
        tracking::TrackedLink,
    },
    store::{Redis, StoreError, damaged, keys, unreadable},
};

/// zstd's default: about 29 bytes for a recipient with five short fields.
const LEVEL: i32 = 3;
/// A slice that grows beyond this is damaged.
const LARGEST: usize = 1 << 30;

/// What slices are made of. The number tells uploads and preparations apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceKind {
    /// Recipients as uploaded.
    Upload(u32),
    /// Recipients to deliver to, a slice per chunk.
    Chunks(u32),
    /// The exclusion log.
    Exclusions(u32),
    /// The table of waves, one slice that is not compressed.
    Waves(u32),
    /// The table of chunks, likewise.
    Places(u32),
    /// The tracked links, one slice.
    Links(u32),
}

impl SliceKind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Upload(n) => format!("upload.{n}"),
            Self::Chunks(n) => format!("chunks.{n}"),
            Self::Exclusions(n) => format!("exclusions.{n}"),
            Self::Waves(n) => format!("waves.{n}"),
            Self::Places(n) => format!("places.{n}"),
            Self::Links(n) => format!("links.{n}"),
        }
    }

    pub(crate) fn key(self, id: &DeliveryId, number: u32) -> String {
        keys::slice(id, &self.name(), number)
    }
}

/// Items as the text of a slice: one JSON document per line.
pub fn ndjson<T: Serialize>(items: &[T]) -> Result<Vec<u8>, StoreError> {
    let mut text = Vec::with_capacity(items.len() * 128);
    for item in items {
        serde_json::to_writer(&mut text, item).map_err(damaged)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().unwrap_or(0) as usize;
    zstd::bulk::decompress(packed, size.min(LARGEST)).map_err(damaged)
}

/// Slices of audiences and preparations. Cheap to clone.
#[derive(Clone)]
pub struct AudienceStore {
    pub(in crate::store) redis: Redis,
}

impl AudienceStore {
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

impl AudienceStore {
    /// The tracked links of a prepared delivery.
    pub async fn links(
        &self,
        delivery: &Delivery,
        plan: &Plan,
    ) -> Result<Vec<TrackedLink>, StoreError> {
        if plan.settings.tracking.url.is_empty() || delivery.document.cleaned.is_some() {
            // there are none, or none any more
            return Ok(Vec::new());
        }
        self.slice(&delivery.id, SliceKind::Links(plan.generation), 0).await
    }

    /// Writes a slice; `text` is what [`ndjson`] made.
    pub async fn write_slice(
        &self,
        id: &DeliveryId,
        part: SliceKind,
        number: u32,
        text: &[u8],
    ) -> Result<(), StoreError> {
        let packed = zstd::bulk::compress(text, LEVEL).map_err(damaged)?;
        let name = part.name();
        let mut pipe = redis::pipe();
        pipe.hset(keys::parts(id), &name, number + 1)
            .ignore()
            .set(keys::slice(id, &name, number), packed)
            .ignore();
        Ok(pipe.query_async(&mut self.redis.connection()).await?)
    }

    /// Copies the slices of an upload to another delivery.
    pub async fn copy_upload(
        &self,
        from: (&DeliveryId, u32),
        to: (&DeliveryId, u32),
        slices: u32,
    ) -> Result<(), StoreError> {
        let (from_part, to_part) = (SliceKind::Upload(from.1), SliceKind::Upload(to.1));
        for number in 0..slices {
            let packed: Option<Vec<u8>> =
                self.redis.connection().get(from_part.key(from.0, number)).await?;
            let packed = packed.ok_or_else(|| {
                damaged(format!("slice {number} of {} is missing", from_part.name()))
            })?;
            let mut pipe = redis::pipe();
            pipe.hset(keys::parts(to.0), to_part.name(), number + 1)
                .ignore()
                .set(to_part.key(to.0, number), packed)
                .ignore();
            let () = pipe.query_async(&mut self.redis.connection()).await?;
        }
        Ok(())
    }

    /// Reads a slice.
    pub async fn slice<T: DeserializeOwned>(
        &self,
        id: &DeliveryId,
        part: SliceKind,
        number: u32,
    ) -> Result<Vec<T>, StoreError> {
        let packed: Option<Vec<u8>> =
            self.redis.connection().get(keys::slice(id, &part.name(), number)).await?;
        let packed = packed
            .ok_or_else(|| damaged(format!("slice {number} of {} is missing", part.name())))?;
        unpack(&packed)?
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(unreadable))
            .collect()
    }

    /// How many lines the first `slices` slices of a part hold; one that is gone or damaged holds none.
    pub async fn lines(
        &self,
        id: &DeliveryId,
        part: SliceKind,
        slices: u32,
    ) -> Result<u64, StoreError> {
        let (mut conn, name, mut lines) = (self.redis.connection(), part.name(), 0);
        for number in 0..slices {
            let packed: Option<Vec<u8>> = conn.get(keys::slice(id, &name, number)).await?;
            let text = packed.and_then(|packed| unpack(&packed).ok()).unwrap_or_default();
            lines += text.iter().filter(|b| **b == b'\n').count() as u64;
        }
        Ok(lines)
    }

    /// Removes the parts of uploads before `upload` and of preparations before `generation`: what is no longer in use, and
    /// what was never finished.
    pub async fn remove_older(
        &self,
        id: &DeliveryId,
        upload: u32,
        generation: u32,
    ) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        let written: HashMap<String, u32> = conn.hgetall(keys::parts(id)).await?;
        for (name, slices) in written {
            let (kind, number) =
                name.split_once('.').ok_or_else(|| damaged(format!("part {name}")))?;
            let number: u32 = number.parse().map_err(damaged)?;
            if number >= if kind == "upload" { upload } else { generation } {
                continue;
            }
            for from in (0..slices).step_by(100) {
                let names: Vec<String> =
                    (from..slices.min(from + 100)).map(|n| keys::slice(id, &name, n)).collect();
                let () = conn.unlink(names).await?;
            }
            let () = conn.hdel(keys::parts(id), name).await?;
        }
        Ok(())
    }

    /// One recipient or exclusion line of a slice.
    pub async fn item<T: DeserializeOwned>(
        &self,
        at: &ChunkRef,
        part: SliceKind,
        position: u16,
    ) -> Result<Option<T>, StoreError> {
        let items: Vec<T> = self.slice(&at.delivery, part, at.chunk).await?;
        Ok(items.into_iter().nth(usize::from(position)))
    }
}
