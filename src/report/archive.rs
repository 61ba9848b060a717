//! Archives: a delivery with all its logs as compressed NDJSON; each line names its kind.

use std::{error::Error, ffi::OsString, io, path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::{
    fs::{self, File},
    io::AsyncWriteExt,
};

use super::{
    exclusion_log::ExclusionLog,
    sending_log::SendingLog,
    tracking_log::{TrackingLog, TrackingLogs},
};
use crate::{
    deliveries::Deliveries,
    domain::delivery::{Delivery, Plan},
    store::{AuditStore, StoreError, audience::ndjson, tracking::HITS_PER_BLOCK},
};

/// Compression level of zstd; 3 is its default.
const LEVEL: i32 = 3;
/// How many audit entries are read in one round trip.
const ENTRIES: u64 = 1000;

/// The pieces of an archive, in this order. Each piece is a zstd frame of its own; frames may
/// follow each other (RFC 8878, section 3).
#[derive(Debug, Clone, Copy)]
enum ArchivePiece {
    Document,
    Exclusions(u32),
    Sending(u32),
    Tracking(u64),
    Audit(u64),
}

#[derive(Serialize)]
struct ArchiveLine<T> {
    kind: &'static str,
    #[serde(flatten)]
    line: T,
}

fn lines<T: Serialize>(kind: &'static str, items: Vec<T>) -> Result<Vec<u8>, StoreError> {
    ndjson(&items.into_iter().map(|line| ArchiveLine { kind, line }).collect::<Vec<_>>())
}

/// Makes archives.
#[derive(Clone)]
pub struct Archives {
    pub deliveries: Deliveries,
    pub audits: AuditStore,
    pub sending_log: SendingLog,
    pub exclusion_log: ExclusionLog,
    pub tracking_logs: TrackingLogs,
}

impl Archives {
    /// Streams an archive piece by piece, so that its length does not matter.
    ///
    /// # Errors
    /// If Redis does not answer, or a stored part is damaged. The stream may fail in the same way.
    pub async fn stream(
        &self,
        delivery: Delivery,
    ) -> Result<impl Stream<Item = Result<Bytes, StoreError>> + Send + use<>, StoreError> {
        let plan = delivery.document.plan.as_ref();
        let exclusions =
            (0..plan.map_or(0, |plan| plan.exclusion_slices)).map(ArchivePiece::Exclusions);
        let sending = (0..plan.map_or(0, |plan| plan.chunks)).map(ArchivePiece::Sending);
        let log = match delivery.document.tracking_cleaned_at {
            Some(_) => TrackingLog::default(),
            None => self.tracking_logs.open(&delivery).await?,
        };
        let tracking = (0..log.lines.div_ceil(HITS_PER_BLOCK)).map(ArchivePiece::Tracking);
        let audit = (0..delivery.document.audit.seq.div_ceil(ENTRIES)).map(ArchivePiece::Audit);
        let pieces: Vec<ArchivePiece> = [ArchivePiece::Document]
            .into_iter()
            .chain(exclusions)
            .chain(sending)
            .chain(tracking)
            .chain(audit)
            .collect();
        let source = Arc::new((self.clone(), delivery, log));
        Ok(stream::iter(pieces).then(move |piece| {
            let source = source.clone();
            async move {
                let text = source.0.piece(&source.1, &source.2, piece).await?;
                let packed = zstd::bulk::compress(&text, LEVEL)
                    .map_err(|e| StoreError::Damaged(e.to_string()))?;
                Ok(Bytes::from(packed))
            }
        }))
    }

    async fn piece(
        &self,
        delivery: &Delivery,
        log: &TrackingLog,
        piece: ArchivePiece,
    ) -> Result<Vec<u8>, StoreError> {
        let plan = || {
            delivery
                .document
                .plan
                .as_ref()
                .ok_or_else(|| StoreError::Damaged("a log without a plan".into()))
        };
        let plan: &Plan = match piece {
            ArchivePiece::Document => {
                let line = json!({
                    "id": delivery.id,
                    "state": delivery.state,
                    "document": delivery.document,
                });
                return lines("document", vec![line]);
            }
            ArchivePiece::Audit(page) => {
                let entries = self
                    .audits
                    .delivery(&delivery.id, (page * ENTRIES) as usize, ENTRIES as usize)
                    .await?;
                return lines("audit", entries);
            }
            _ => plan()?,
        };
        match piece {
            ArchivePiece::Exclusions(slice) => {
                lines("exclusion", self.exclusion_log.slice(delivery, plan, slice).await?)
            }
            ArchivePiece::Sending(chunk) => {
                lines("sending", self.sending_log.lines(delivery, plan, chunk).await?)
            }
            ArchivePiece::Tracking(block) => {
                let hits = self.tracking_logs.lines(&delivery.id, log, block, |_, _| true).await?;
                lines("tracking", hits.into_iter().map(|hit| json!({ "hit": hit })).collect())
            }
            ArchivePiece::Document | ArchivePiece::Audit(_) => Ok(Vec::new()),
        }
    }
}

/// Writes a file whole or not at all, so that it outlives a crash.
///
/// The file is written under another name first and then renamed. `tag` tells the names of several
/// writers apart.
///
/// # Errors
/// If the body breaks off or the file cannot be written: an older file stays as it was. Also if
/// only the sync of the folder fails: the new file is in place then.
pub async fn write_durably<E: Into<Box<dyn Error + Send + Sync>>>(
    target: &Path,
    tag: &str,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> io::Result<()> {
    let mut name = OsString::from(target);
    name.push(format!(".{tag}.part"));
    let part = Path::new(&name);
    let written = async {
        // new and private: a file or link that somebody else put there is not written to
        let _ = fs::remove_file(part).await;
        let mut new = fs::OpenOptions::new();
        let mut file = new.write(true).create_new(true).mode(0o600).open(part).await?;
        let mut body = std::pin::pin!(body);
        while let Some(bytes) = body.next().await {
            file.write_all(&bytes.map_err(io::Error::other)?).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        fs::rename(part, target).await?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder).await?.sync_all().await
    };
    let written = written.await;
    if written.is_err() {
        let _ = fs::remove_file(part).await;
    }
    written
}
