//! Uploads of audiences: streamed in, counted and stored in slices.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::definitions::{may_change, unprepared};
use crate::{
    config::Config,
    deliveries::{Decision, Deliveries, Refusal, require},
    domain::{
        Principal, Role,
        audience::{AudienceFormat, AudienceReader, Recipient},
        delivery::{Action, Audience, DeliveryId},
    },
    live::Live,
    send::operate::Removal,
    store::{
        StoreError,
        audience::{AudienceStore, SliceKind, ndjson},
    },
};

/// Takes uploads. A broken upload raises the revision and changes nothing else.
#[derive(Clone)]
pub struct Uploads {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub removal: Removal,
    pub config: Live<Config>,
}

impl Uploads {
    /// Replaces the audience by the recipients in `body`. Returns the new audience and revision.
    ///
    /// # Errors
    /// If the principal lacks a role, a line is bad, the stream breaks off, the state allows no
    /// change, or another upload began meanwhile.
    pub async fn upload<S, E>(
        &self,
        by: &Principal,
        id: &DeliveryId,
        format: AudienceFormat,
        body: S,
    ) -> Result<(Audience, u64), Refusal>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        require(by, Role::PrepareDeliveries)?;
        let (upload, revision) = self.begin_upload(by, id).await?;
        let by = &by.going_on(revision);
        let audience = self.store_upload(id, upload, format, body).await?;
        let revision = match self.adopt_upload(by, id, &audience).await {
            Ok(revision) => revision,
            // the delivery was deleted meanwhile, so nobody else would remove these slices
            Err(Refusal::NotFound) => {
                self.removal.remove_older(id, u32::MAX, u32::MAX).await?;
                return Err(Refusal::NotFound);
            }
            Err(other) => return Err(other),
        };
        self.audiences.remove_older(id, upload, 0).await?;
        Ok((audience, revision))
    }

    /// Makes an uploaded audience the audience of the delivery. Returns the new revision.
    pub(super) async fn adopt_upload(
        &self,
        by: &Principal,
        id: &DeliveryId,
        audience: &Audience,
    ) -> Result<u64, Refusal> {
        let changed = self
            .deliveries
            .change(id, by, &[], |delivery, now| {
                if delivery.document.uploads != audience.upload {
                    return Err(Refusal::Conflict("another upload began after this one"));
                }
                let details =
                    json!({ "recipients": audience.recipients, "sha256": audience.sha256 });
                let decision = unprepared(by, delivery, now, "upload", details)?;
                let mut document = decision.document;
                document.audience = Some(audience.clone());
                document.audience_by = by.name.clone();
                let Decision { state, act, .. } = decision;
                Ok(Decision { state, document, answer: delivery.revision + 1, act })
            })
            .await?;
        Ok(changed.answer())
    }

    /// Takes a number for the upload, under which the slices of an unfinished upload are found.
    /// Returns it with the new revision.
    pub(super) async fn begin_upload(
        &self,
        by: &Principal,
        id: &DeliveryId,
    ) -> Result<(u32, u64), Refusal> {
        let changed = self
            .deliveries
            .change(id, by, &[], |delivery, _| {
                delivery.state.after(Action::Change)?;
                may_change(by, &delivery.document)?;
                let mut document = delivery.document.clone();
                document.uploads += 1;
                let answer = (document.uploads, delivery.revision + 1);
                Ok(Decision { state: delivery.state, document, answer, act: None })
            })
            .await?;
        Ok(changed.answer())
    }

    async fn store_upload<S, E>(
        &self,
        id: &DeliveryId,
        upload: u32,
        format: AudienceFormat,
        body: S,
    ) -> Result<Audience, Refusal>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let mut body = std::pin::pin!(body);
        let config = self.config.now();
        let mut reader = AudienceReader::new(format, config.preparation.line_limit_kib * 1024);
        let mut writer = UploadWriter {
            audiences: &self.audiences,
            slice_size: config.preparation.chunk_size,
            id,
            upload,
            hash: Sha256::new(),
            recipients: 0,
            slices: 0,
        };
        let mut waiting: Vec<Recipient> = Vec::new();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|e| Refusal::BrokenUpload(e.to_string()))?;
            // the stream may give large parts: small pieces limit how many recipients wait
            for piece in bytes.chunks(64 * 1024) {
                reader.push(piece, &mut waiting)?;
                writer.write_full_slices(&mut waiting).await?;
            }
        }
        reader.finish(&mut waiting)?;
        writer.write_full_slices(&mut waiting).await?;
        if !waiting.is_empty() {
            writer.write(&waiting).await?;
        }
        Ok(writer.end())
    }
}

/// Writes the slices of one upload and counts them.
struct UploadWriter<'a> {
    audiences: &'a AudienceStore,
    /// Recipients in a slice.
    slice_size: usize,
    id: &'a DeliveryId,
    upload: u32,
    hash: Sha256,
    recipients: u64,
    slices: u32,
}

impl UploadWriter<'_> {
    async fn write_full_slices(&mut self, waiting: &mut Vec<Recipient>) -> Result<(), StoreError> {
        while waiting.len() >= self.slice_size {
            let rest = waiting.split_off(self.slice_size);
            self.write(waiting).await?;
            *waiting = rest;
        }
        Ok(())
    }

    async fn write(&mut self, recipients: &[Recipient]) -> Result<(), StoreError> {
        let text = ndjson(recipients)?;
        self.hash.update(&text);
        self.audiences
            .write_slice(self.id, SliceKind::Upload(self.upload), self.slices, &text)
            .await?;
        self.recipients += recipients.len() as u64;
        self.slices += 1;
        Ok(())
    }

    fn end(self) -> Audience {
        let sha256 = HEXLOWER.encode(&self.hash.finalize());
        Audience { upload: self.upload, recipients: self.recipients, slices: self.slices, sha256 }
    }
}
