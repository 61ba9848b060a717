//! The audience: streamed in, counted, stored in slices; a broken upload changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{definitions::unprepared, recurrences::may_change};
use crate::{
    config::Config,
    deliveries::{Decision, Deliveries, Refusal, require},
    domain::{
        Principal, Role,
        audience::{AudienceFormat, AudienceReader, Recipient},
        delivery::{Action, Audience, DeliveryId},
    },
    send::operate::Removal,
    store::{
        StoreError,
        audience::{AudienceStore, SliceKind, ndjson},
    },
};

#[derive(Clone)]
pub struct Uploads {
    pub deliveries: Deliveries,
    pub audiences: AudienceStore,
    pub removal: Removal,
    pub config: Arc<Config>,
}

impl Uploads {
    /// Replaces the audience by what `body` streams.
    pub async fn upload<S, E>(
        &self,
        by: &Principal,
        id: &DeliveryId,
        format: AudienceFormat,
        body: S,
    ) -> Result<Audience, Refusal>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        require(by, Role::PrepareDeliveries)?;
        let upload = self.begin_upload(by, id).await?;
        let audience = self.store_upload(id, upload, format, body).await?;
        match self.adopt_upload(by, id, &audience).await {
            Ok(()) => self.audiences.remove_older(id, upload, 0).await?,
            // it was deleted meanwhile: nobody comes by again to remove what was written
            Err(Refusal::NotFound) => {
                self.removal.remove_older(id, u32::MAX, u32::MAX).await?;
                return Err(Refusal::NotFound);
            }
            Err(other) => return Err(other),
        }
        Ok(audience)
    }

    pub(super) async fn adopt_upload(
        &self,
        by: &Principal,
        id: &DeliveryId,
        audience: &Audience,
    ) -> Result<(), Refusal> {
        let changed = self
            .deliveries
            .change(id, &by.name, &[], |delivery, now| {
                if delivery.document.uploads != audience.upload {
                    return Err(Refusal::Conflict("another upload began after this one"));
                }
                let details =
                    json!({ "recipients": audience.recipients, "sha256": audience.sha256 });
                let mut decision = unprepared(by, delivery, now, "upload", details)?;
                decision.document.audience = Some(audience.clone());
                Ok(decision)
            })
            .await?;
        changed.answer();
        Ok(())
    }

    /// Takes a number for the upload, so that what an unfinished one left is known; the delivery is not otherwise changed.
    pub(super) async fn begin_upload(
        &self,
        by: &Principal,
        id: &DeliveryId,
    ) -> Result<u32, Refusal> {
        let changed = self
            .deliveries
            .change(id, &by.name, &[], |delivery, _| {
                delivery.state.after(Action::Change)?;
                may_change(by, &delivery.document)?;
                let mut document = delivery.document.clone();
                document.uploads += 1;
                let answer = document.uploads;
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
        let mut reader = AudienceReader::new(format, self.config.preparation.line_limit_kib * 1024);
        let mut writer = UploadWriter {
            uploads: self,
            id,
            upload,
            audience: Sha256::new(),
            recipients: 0,
            slices: 0,
        };
        let mut waiting = Vec::new();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|e| Refusal::BrokenUpload(e.to_string()))?;
            // a piece may hold many recipients: never more of them at a time than a slice or two
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

struct UploadWriter<'a> {
    uploads: &'a Uploads,
    id: &'a DeliveryId,
    upload: u32,
    audience: Sha256,
    recipients: u64,
    slices: u32,
}

impl UploadWriter<'_> {
    async fn write_full_slices(&mut self, waiting: &mut Vec<Recipient>) -> Result<(), StoreError> {
        let size = self.uploads.config.preparation.chunk_size;
        while waiting.len() >= size {
            let rest = waiting.split_off(size);
            self.write(waiting).await?;
            *waiting = rest;
        }
        Ok(())
    }

    async fn write(&mut self, recipients: &[Recipient]) -> Result<(), StoreError> {
        let text = ndjson(recipients)?;
        self.audience.update(&text);
        self.uploads
            .audiences
            .write_slice(self.id, SliceKind::Upload(self.upload), self.slices, &text)
            .await?;
        self.recipients += recipients.len() as u64;
        self.slices += 1;
        Ok(())
    }

    fn end(self) -> Audience {
        let sha256 = HEXLOWER.encode(&self.audience.finalize());
        Audience { upload: self.upload, recipients: self.recipients, slices: self.slices, sha256 }
    }
}
