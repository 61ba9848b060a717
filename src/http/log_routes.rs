//! Logs and exports, waves, previews and the archive.

use std::sync::Arc;

use axum::{
    Json as Reply,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    answer_headers::attachment,
    api::Api,
    csv_cells::csv_lines,
    problem::RouteError,
    request::{Id, PathWords, Query, from, limit},
};
use crate::{
    deliveries::Refusal,
    domain::{
        audience::ExclusionCause,
        delivery::{Delivery, Plan},
        instant,
        ledger::Status,
        schedule::{Wave, WaveState},
    },
    report::Page,
    store::{StoreError, audience::ndjson},
};

/// The query of a page of a log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
    status: Option<Status>,
    chunk: Option<u32>,
}

/// Serves `GET /api/v1/deliveries/{id}/log`.
pub async fn sending(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<PageQuery>,
) -> Result<Response, RouteError> {
    Ok(Reply(
        api.reports
            .sending_log
            .page(&id, query.from, limit(query.limit)?, query.status, query.chunk)
            .await?,
    )
    .into_response())
}

/// A wave as the API shows it.
#[derive(Serialize)]
struct WaveLine {
    /// Number of the wave, from 0.
    wave: u64,
    /// When the wave is due; none: at once.
    due: Option<Timestamp>,
    recipients: u32,
    state: WaveState,
    /// When the wave was released: the `Date` of its messages.
    released_at: Option<Timestamp>,
}

/// Serves `GET /api/v1/deliveries/{id}/waves`.
pub async fn waves(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<RangeQuery>,
) -> Result<Response, RouteError> {
    let (delivery, limit) = (api.deliveries.delivery_with_logs(&id).await?, limit(query.limit)?);
    let waves = match &delivery.document.plan {
        Some(plan) => api.stores.schedules.waves(&id, plan).await?,
        None => Vec::new(),
    };
    let line = |(number, wave): (u64, &Wave)| WaveLine {
        wave: number,
        due: (wave.due > 0).then(|| instant(wave.due)),
        recipients: wave.recipients,
        state: wave.state,
        released_at: wave.state.is_released().then(|| instant(wave.released_at)),
    };
    let items: Vec<WaveLine> =
        (0..).zip(&waves).skip(from(query.from)).take(limit).map(line).collect();
    let next = items.last().map(|last| last.wave + 1).filter(|next| (*next as usize) < waves.len());
    Ok(Reply(Page { items, next }).into_response())
}

/// The query of a page that has no filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// Serves `GET /api/v1/deliveries/{id}/exclusions`.
pub async fn exclusions(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<RangeQuery>,
) -> Result<Response, RouteError> {
    Ok(Reply(api.reports.exclusion_log.page(&id, query.from, limit(query.limit)?).await?)
        .into_response())
}

/// The format of an exported log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExportFormat {
    Csv,
    Ndjson,
}

/// The CSV head of the sending log: the fields of a line in their order. An empty log has it, too.
const SENDING: &str = "recipient,line,email,status,attempts,failure_type,failure_reason,cause,at,\
                       due,resent,settled,duplicate,expired,test,reply\n";
/// The CSV head of the exclusion log.
const EXCLUSIONS: &str = "line,email,cause\n";

/// The query of an export.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    pub(super) format: ExportFormat,
}

/// Serves `GET /api/v1/deliveries/{id}/log/export`.
pub async fn export_sending(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<ExportQuery>,
) -> Result<Response, RouteError> {
    let delivery = api.deliveries.delivery_with_logs(&id).await?;
    let chunks = delivery.document.plan.as_ref().map_or(0, |plan| plan.chunks);
    let lines = |source: Arc<LogSource>, chunk| async move {
        source.api.reports.sending_log.lines(&source.delivery, source.plan()?, chunk).await
    };
    Ok(export(LogSource { api, delivery }, chunks, (query.format, "log", SENDING), lines))
}

/// Serves `GET /api/v1/deliveries/{id}/exclusions/export`.
pub async fn export_exclusions(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<ExportQuery>,
) -> Result<Response, RouteError> {
    let delivery = api.deliveries.delivery_with_logs(&id).await?;
    let slices = delivery.document.plan.as_ref().map_or(0, |plan| plan.exclusion_slices);
    let lines = |source: Arc<LogSource>, slice| async move {
        source.api.reports.exclusion_log.slice(&source.delivery, source.plan()?, slice).await
    };
    Ok(export(LogSource { api, delivery }, slices, (query.format, "exclusions", EXCLUSIONS), lines))
}

/// The services and the delivery that an export reads from.
pub(super) struct LogSource {
    pub api: Arc<Api>,
    pub delivery: Delivery,
}

impl LogSource {
    fn plan(&self) -> Result<&Plan, StoreError> {
        self.delivery
            .document
            .plan
            .as_ref()
            .ok_or_else(|| StoreError::Damaged("a log without a plan".into()))
    }
}

/// Streams a log piece by piece, so that its length does not matter.
///
/// `read` reads one of the `pieces`. `log` names the log in the name of the file, and `head` is
/// the first line of a CSV export.
pub(super) fn export<T, F, R>(
    source: LogSource,
    pieces: u32,
    (format, log, head): (ExportFormat, &'static str, &'static str),
    read: R,
) -> Response
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<Vec<T>, StoreError>> + Send + 'static,
    R: Fn(Arc<LogSource>, u32) -> F + Send + 'static,
{
    let (kind, ending) = match format {
        ExportFormat::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        ExportFormat::Ndjson => ("application/x-ndjson", "ndjson"),
    };
    let file = attachment(&format!("versand-{}-{log}.{ending}", source.delivery.id));
    let source = Arc::new(source);
    let head = (format == ExportFormat::Csv).then_some(Ok(Bytes::from_static(head.as_bytes())));
    let body = stream::iter(0..pieces).then(move |piece| {
        let lines = read(source.clone(), piece);
        async move { text(&lines.await?, format) }
    });
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    ([kind, file], streamed(stream::iter(head).chain(body))).into_response()
}

/// The body of an export. An error breaks the transfer off, so that no client takes a part for the
/// whole log.
fn streamed(body: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static) -> Body {
    Body::from_stream(body.inspect(|piece| {
        if let Err(error) = piece {
            tracing::error!(%error, "an export was broken off");
        }
    }))
}

/// The text of some lines in the format.
fn text<T: Serialize>(items: &[T], format: ExportFormat) -> Result<Bytes, StoreError> {
    if format == ExportFormat::Ndjson {
        return Ok(ndjson(items)?.into());
    }
    Ok(csv_lines(items).map_err(|e| StoreError::Damaged(e.to_string()))?.into())
}

/// Serves `GET /api/v1/deliveries/{id}/archive`.
pub async fn archive(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, RouteError> {
    let delivery = api.deliveries.delivery_with_logs(&id).await?;
    let archive = api.reports.archives.stream(delivery).await.map_err(Refusal::from)?;
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/zstd"));
    let file = attachment(&format!("versand-{id}.ndjson.zst"));
    Ok(([kind, file], streamed(archive)).into_response())
}

/// The query of a preview.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewQuery {
    /// The `Date` of the message if its wave is not released yet (RFC 3339).
    date: Option<Timestamp>,
}

/// Serves `GET /api/v1/deliveries/{id}/recipients/{number}/preview`.
pub async fn preview(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    PathWords((_, number)): PathWords<(String, String)>,
    Query(query): Query<PreviewQuery>,
) -> Result<Response, RouteError> {
    let number = number.parse().map_err(|_| Refusal::NoRecipient)?;
    let preview = api.reports.previews.preview(&id, number, query.date).await?;
    let headers = [
        ("content-type", "message/rfc822".to_owned()),
        ("versand-date", preview.date.to_string()),
        ("versand-date-assumed", preview.assumed.to_string()),
    ];
    let file = attachment(&format!("versand-{id}-{number}.eml"));
    Ok((headers, [file], preview.message).into_response())
}

/// Serves `GET /api/v1/exclusion-causes`.
pub async fn exclusion_causes() -> Response {
    let causes = ExclusionCause::ALL
        .map(|cause| serde_json::json!({ "cause": cause, "description": cause.description() }));
    Reply(causes).into_response()
}
