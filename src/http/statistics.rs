//! Statistics, tracked links and the tracking log.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    logs::{ExportAsked, LogSource, export as exported},
    problem::Answer,
    request::{Asked, Id, limit},
    router::Api,
};
use crate::{
    deliveries::Refusal,
    domain::tracking::{HitClass, HitKind, HitLabel, LinkClicks, Statistics, TrackedLink},
    report::TrackingFilter,
};

/// The members of a line in their order.
const TRACKING: &str = "line,recipient,at,kind,class,label,certain,rules,link,link_label,url,agent,address,head,prefetch\n";

pub async fn compute(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Reply<Statistics>, Answer> {
    Ok(Reply(api.feedback.statistics.compute(&id, false).await?))
}

pub async fn relabel(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Reply<Statistics>, Answer> {
    Ok(Reply(api.feedback.statistics.compute(&id, true).await?))
}

pub async fn read(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Reply<Statistics>, Answer> {
    api.deliveries.delivery(&id).await?;
    let kept = api.stores.tracking.statistics(&id).await.map_err(Refusal::from)?;
    Ok(Reply(kept.ok_or(Refusal::Conflict("its statistics were not computed yet"))?))
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

pub async fn links(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Answer> {
    let delivery = api.deliveries.delivery(&id).await?;
    let links = match &delivery.document.plan {
        Some(plan) => api.stores.audiences.links(&delivery, plan).await.map_err(Refusal::from)?,
        None => Vec::new(),
    };
    let kept = api.stores.tracking.statistics(&id).await.map_err(Refusal::from)?;
    let clicks = |link: usize| {
        kept.as_ref().and_then(|kept| kept.links.get(link).copied()).unwrap_or_default()
    };
    let line = |(link, target)| LinkLine { link, target, clicks: clicks(link) };
    let items: Vec<LinkLine> = links.into_iter().enumerate().map(line).collect();
    Ok(Reply(
        serde_json::json!({ "items": items, "computed_at": kept.map(|kept| kept.computed_at) }),
    )
    .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackingAsked {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
    kind: Option<HitKind>,
    class: Option<HitClass>,
    label: Option<HitLabel>,
    recipient: Option<u32>,
}

pub async fn tracking(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Asked(asked): Asked<TrackingAsked>,
) -> Result<Response, Answer> {
    let filter = TrackingFilter {
        kind: asked.kind,
        class: asked.class,
        label: asked.label,
        recipient: asked.recipient,
    };
    Ok(Reply(api.reports.tracking_logs.page(&id, asked.from, limit(asked.limit)?, filter).await?)
        .into_response())
}

pub async fn export(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Asked(asked): Asked<ExportAsked>,
) -> Result<Response, Answer> {
    let delivery = api.deliveries.delivery_with_tracking(&id).await?;
    let log = Arc::new(api.reports.tracking_logs.open(&delivery).await.map_err(Refusal::from)?);
    let blocks = u32::try_from(log.lines.div_ceil(crate::store::tracking::HITS_PER_BLOCK))
        .unwrap_or(u32::MAX);
    let lines = move |source: Arc<LogSource>, block| {
        let log = log.clone();
        async move {
            source
                .0
                .reports
                .tracking_logs
                .lines(&source.1.id, &log, u64::from(block), |_, _| true)
                .await
        }
    };
    Ok(exported(LogSource(api, delivery), blocks, (asked.format, TRACKING), lines))
}
