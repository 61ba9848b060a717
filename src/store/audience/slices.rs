//! Slices: compressed NDJSON of recipients, exclusions or links, numbered from 0 within a kind.

use std::collections::HashMap;

use redis::AsyncCommands;
use serde::{Serialize, de::DeserializeOwned};

use super::sealed_slice::SliceName;
use crate::{
    domain::{
        delivery::{Delivery, DeliveryId, Plan},
        ledger::ChunkRef,
        seal::SealKey,
        tracking::TrackedLink,
    },
    store::{Redis, StoreError, damaged, keys, unreadable},
};

/// Compression level of zstd, its default. A recipient with five short fields takes about 29 bytes.
const COMPRESSION_LEVEL: i32 = 3;
/// Maximum size of an uncompressed slice in bytes. A larger slice is damaged.
const MAX_BYTES: usize = 1 << 30;

/// Maximum of keys that one command removes.
const KEYS_PER_REMOVAL: u32 = 100;

/// The content of a slice. The number is that of the upload, or the generation of the preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceKind {
    /// Recipients as uploaded.
    Upload(u32),
    /// Recipients to deliver to, one slice per chunk.
    Chunks(u32),
    /// The exclusion log.
    Exclusions(u32),
    /// The table of waves, one slice, not compressed.
    Waves(u32),
    /// The table of chunks, one slice, not compressed.
    Places(u32),
    /// The tracked links, one slice.
    Links(u32),
}

impl SliceKind {
    /// The name of the kind in keys.
    pub(in crate::store) fn name(self) -> String {
        match self {
            Self::Upload(n) => format!("upload.{n}"),
            Self::Chunks(n) => format!("chunks.{n}"),
            Self::Exclusions(n) => format!("exclusions.{n}"),
            Self::Waves(n) => format!("waves.{n}"),
            Self::Places(n) => format!("places.{n}"),
            Self::Links(n) => format!("links.{n}"),
        }
    }

    /// The key of a slice.
    pub(in crate::store) fn key(self, id: &DeliveryId, number: u32) -> String {
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
    zstd::bulk::decompress(packed, size.min(MAX_BYTES)).map_err(damaged)
}

/// Slices of audiences and preparations. Cheap to clone.
#[derive(Clone)]
pub struct AudienceStore {
    pub(super) redis: Redis,
    pub(super) seals: SealKey,
}

impl AudienceStore {
    /// Makes the handle from a connection and the key of the seals.
    pub fn new(redis: Redis, seals: SealKey) -> Self {
        Self { redis, seals }
    }

    /// The tracked links of a prepared delivery.
    pub async fn links(
        &self,
        delivery: &Delivery,
        plan: &Plan,
    ) -> Result<Vec<TrackedLink>, StoreError> {
        if plan.settings.tracking.url.is_empty() || delivery.document.cleaned.is_some() {
            // The delivery has no tracked links, or they were removed.
            return Ok(Vec::new());
        }
        self.slice(&delivery.id, SliceKind::Links(plan.generation), 0).await
    }

    /// Writes a slice. [`ndjson`] makes its text.
    pub async fn write_slice(
        &self,
        id: &DeliveryId,
        kind: SliceKind,
        number: u32,
        text: &[u8],
    ) -> Result<(), StoreError> {
        self.write_slice_of(id, kind, number, text, 0).await
    }

    /// Writes a slice whose items share a due time (Unix seconds), as the recipients of a chunk do.
    pub async fn write_slice_of(
        &self,
        id: &DeliveryId,
        kind: SliceKind,
        number: u32,
        text: &[u8],
        due: u32,
    ) -> Result<(), StoreError> {
        let packed = zstd::bulk::compress(text, COMPRESSION_LEVEL).map_err(damaged)?;
        let name = SliceName { delivery: id, kind: &kind.name(), number };
        self.set_slice(&name, name.seal(&self.seals, due, &packed)).await
    }

    async fn set_slice(&self, name: &SliceName<'_>, sealed: Vec<u8>) -> Result<(), StoreError> {
        let mut pipe = redis::pipe();
        pipe.hset(keys::slice_counts(name.delivery), name.kind, name.number + 1)
            .ignore()
            .set(name.key(), sealed)
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
        let (from_kind, to_kind) = (SliceKind::Upload(from.1), SliceKind::Upload(to.1));
        for number in 0..slices {
            let original = SliceName { delivery: from.0, kind: &from_kind.name(), number };
            let stored = self.stored(&original).await?;
            let (due, packed) = original.open(&self.seals, &stored)?;
            let copy = SliceName { delivery: to.0, kind: &to_kind.name(), number };
            self.set_slice(&copy, copy.seal(&self.seals, due, packed)).await?;
        }
        Ok(())
    }

    /// Reads all items of a slice.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the slice is missing or cannot be read; [`StoreError::Altered`]
    /// if no daemon of this installation wrote it for this Redis key.
    pub async fn slice<T: DeserializeOwned>(
        &self,
        id: &DeliveryId,
        kind: SliceKind,
        number: u32,
    ) -> Result<Vec<T>, StoreError> {
        Ok(self.slice_with_due(id, kind, number).await?.0)
    }

    /// Reads all items of a slice, and the due time that they share (Unix seconds).
    ///
    /// # Errors
    /// As [`AudienceStore::slice`].
    pub async fn slice_with_due<T: DeserializeOwned>(
        &self,
        id: &DeliveryId,
        kind: SliceKind,
        number: u32,
    ) -> Result<(Vec<T>, u32), StoreError> {
        let kind = kind.name();
        let name = SliceName { delivery: id, kind: &kind, number };
        let stored = self.stored(&name).await?;
        let (due, packed) = name.open(&self.seals, &stored)?;
        let items: Result<Vec<T>, StoreError> = unpack(packed)?
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(unreadable))
            .collect();
        Ok((items?, due))
    }

    /// The bytes of a slice as they are stored.
    async fn stored(&self, name: &SliceName<'_>) -> Result<Vec<u8>, StoreError> {
        let stored: Option<Vec<u8>> = self.redis.connection().get(name.key()).await?;
        stored.ok_or_else(|| damaged(format!("slice {} of {} is missing", name.number, name.kind)))
    }

    /// The number of lines in the first `slices` slices of a kind. A missing, damaged or altered
    /// slice counts as empty.
    pub async fn lines(
        &self,
        id: &DeliveryId,
        kind: SliceKind,
        slices: u32,
    ) -> Result<u64, StoreError> {
        let (mut conn, kind, mut lines) = (self.redis.connection(), kind.name(), 0);
        for number in 0..slices {
            let name = SliceName { delivery: id, kind: &kind, number };
            let stored: Option<Vec<u8>> = conn.get(name.key()).await?;
            let text = stored
                .and_then(|stored| unpack(name.open(&self.seals, &stored).ok()?.1).ok())
                .unwrap_or_default();
            lines += text.iter().filter(|b| **b == b'\n').count() as u64;
        }
        Ok(lines)
    }

    /// Removes all slices of uploads before `upload` and of preparations before `generation`. They
    /// are no longer in use, or were never completed.
    pub async fn remove_older(
        &self,
        id: &DeliveryId,
        upload: u32,
        generation: u32,
    ) -> Result<(), StoreError> {
        let mut conn = self.redis.connection();
        let written: HashMap<String, u32> = conn.hgetall(keys::slice_counts(id)).await?;
        for (name, slices) in written {
            let (prefix, number) =
                name.split_once('.').ok_or_else(|| damaged(format!("slice kind {name}")))?;
            let number: u32 = number.parse().map_err(damaged)?;
            if number >= if prefix == "upload" { upload } else { generation } {
                continue;
            }
            for from in (0..slices).step_by(KEYS_PER_REMOVAL as usize) {
                let names: Vec<String> = (from..slices.min(from + KEYS_PER_REMOVAL))
                    .map(|n| keys::slice(id, &name, n))
                    .collect();
                let () = conn.unlink(names).await?;
            }
            let () = conn.hdel(keys::slice_counts(id), name).await?;
        }
        Ok(())
    }

    /// One item of the slice that belongs to a chunk; `None` if the slice has fewer items.
    pub async fn item<T: DeserializeOwned>(
        &self,
        at: &ChunkRef,
        kind: SliceKind,
        position: u16,
    ) -> Result<Option<T>, StoreError> {
        let items: Vec<T> = self.slice(&at.delivery, kind, at.chunk).await?;
        Ok(items.into_iter().nth(usize::from(position)))
    }
}
