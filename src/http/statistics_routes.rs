//! Statistics, tracked links and the tracking log.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    api::Api,
    log_routes::{ExportQuery, LogSource, export as export_log},
    problem::RouteError,
    request::{Caller, Id, Query, limit},
};
use crate::{
    deliveries::{Actor, Refusal},
    domain::tracking::{HitClass, HitKind, HitLabel, LinkClicks, Statistics, TrackedLink},
    report::TrackingFilter,
    store::tracking::HITS_PER_BLOCK,
};

/// The CSV head of the tracking log: the fields of a line in their order.
const TRACKING: &str = "line,recipient,at,kind,class,label,certain,rules,link,link_label,url,\
                        agent,address,head,prefetch\n";

/// Serves `POST /api/v1/deliveries/{id}/statistics`.
pub async fn compute(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
) -> Result<Reply<Statistics>, RouteError> {
    Actor::from(&by).check(&api.deliveries.delivery(&id).await?)?;
    Ok(Reply(api.feedback.statistics.compute(&id, false).await?))
}

/// Serves `POST /api/v1/deliveries/{id}/relabel`.
pub async fn relabel(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
) -> Result<Reply<Statistics>, RouteError> {
    Actor::from(&by).check(&api.deliveries.delivery(&id).await?)?;
    Ok(Reply(api.feedback.statistics.compute(&id, true).await?))
}

/// Serves `GET /api/v1/deliveries/{id}/statistics`.
pub async fn read(
    State(api): State<Arc<Api>>,
    Id(id): Id,
) -> Result<Reply<Statistics>, RouteError> {
    api.deliveries.delivery(&id).await?;
    let stored = api.stores.tracking.statistics(&id).await.map_err(Refusal::from)?;
    Ok(Reply(stored.ok_or(Refusal::Conflict("the statistics have not been computed yet"))?))
}

/// A link as the API shows it.
#[derive(Serialize)]
struct LinkLine {
    link: usize,
    #[serde(flatten)]
    target: TrackedLink,
    #[serde(flatten)]
    clicks: LinkClicks,
}

/// Serves `GET /api/v1/deliveries/{id}/links`.
pub async fn links(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, RouteError> {
    let delivery = api.deliveries.delivery(&id).await?;
    let links = match &delivery.document.plan {
        Some(plan) => api.stores.audiences.links(&delivery, plan).await.map_err(Refusal::from)?,
        None => Vec::new(),
    };
    let stored = api.stores.tracking.statistics(&id).await.map_err(Refusal::from)?;
    let clicks = |link: usize| {
        stored.as_ref().and_then(|stored| stored.links.get(link).copied()).unwrap_or_default()
    };
    let line = |(link, target)| LinkLine { link, target, clicks: clicks(link) };
    let items: Vec<LinkLine> = links.into_iter().enumerate().map(line).collect();
    let computed_at = stored.map(|stored| stored.computed_at);
    Ok(Reply(serde_json::json!({ "items": items, "computed_at": computed_at })).into_response())
}

/// The query of a page of the tracking log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
    kind: Option<HitKind>,
    class: Option<HitClass>,
    label: Option<HitLabel>,
    recipient: Option<u32>,
}

/// Serves `GET /api/v1/deliveries/{id}/tracking`.
pub async fn tracking(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<TrackingQuery>,
) -> Result<Response, RouteError> {
    let filter = TrackingFilter {
        kind: query.kind,
        class: query.class,
        label: query.label,
        recipient: query.recipient,
    };
    Ok(Reply(api.reports.tracking_logs.page(&id, query.from, limit(query.limit)?, filter).await?)
        .into_response())
}

/// Serves `GET /api/v1/deliveries/{id}/tracking/export`.
pub async fn export(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<ExportQuery>,
) -> Result<Response, RouteError> {
    let delivery = api.deliveries.delivery_with_tracking(&id).await?;
    let log = Arc::new(api.reports.tracking_logs.open(&delivery).await.map_err(Refusal::from)?);
    let blocks = u32::try_from(log.lines.div_ceil(HITS_PER_BLOCK)).unwrap_or(u32::MAX);
    let lines = move |source: Arc<LogSource>, block| {
        let log = log.clone();
        async move {
            source
                .api
                .reports
                .tracking_logs
                .lines(&source.delivery.id, &log, u64::from(block), |_, _| true)
                .await
        }
    };
    Ok(export_log(LogSource { api, delivery }, blocks, (query.format, "tracking", TRACKING), lines))
}
