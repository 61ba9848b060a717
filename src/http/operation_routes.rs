//! Health, metrics, outcomes of jobs, and dead jobs.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json as Reply,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    api::Api,
    problem::{Problem, RouteError},
    request::{Caller, PathWords, Query, limit},
};
use crate::{
    domain::Principal,
    queue::{DeadJob, QueueName},
    store::{StoreError, keys},
};

/// How long a readiness check waits for Redis.
const READY_LIMIT: Duration = Duration::from_millis(80);

/// Serves `GET /healthz`.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Serves `GET /readyz`.
pub async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let writable = api.operations.redis_state.writable.load(Ordering::Relaxed);
    // If Redis is slow to answer, the last finding of its pulse counts.
    let ping = tokio::time::timeout(READY_LIMIT, api.stores.redis.ping());
    let redis = ping.await.map_or(writable, |answer| answer.is_ok());
    let workers = api.operations.health.ready();
    let ending = api.daemon.shutdown.is_cancelled();
    let ready = redis && writable && workers && !ending;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let why = serde_json::json!({
        "ready": ready,
        "redis": redis,
        "redis_writable": writable,
        "workers": workers,
        "shutting_down": ending,
    });
    (status, Reply(why)).into_response()
}

/// Serves `GET /metrics`.
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        api.operations.metrics.text(),
    )
        .into_response()
}

/// Serves `GET /api/v1/jobs/{id}/outcome`.
pub async fn outcome(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    PathWords(id): PathWords<String>,
) -> Result<Response, RouteError> {
    let mut outcome = api.stores.deliveries.once(&keys::outcome(&id)).await?;
    if by.unit.is_some() && !sees_outcome(&api, &by, outcome.as_deref()).await? {
        outcome = None;
    }
    match outcome {
        Some(outcome) => {
            Ok(([(header::CONTENT_TYPE, "application/json")], outcome).into_response())
        }
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no outcome: the job is unknown, still waiting, or ended more than a day ago",
        )
        .into()),
    }
}

/// Whether an outcome is about a delivery that the principal sees.
async fn sees_outcome(
    api: &Api,
    by: &Principal,
    outcome: Option<&str>,
) -> Result<bool, StoreError> {
    let outcome: serde_json::Value =
        outcome.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let Some(id) = outcome["delivery"].as_str().and_then(|id| id.parse().ok()) else {
        return Ok(false);
    };
    let units = api.stores.deliveries.units(&[id]).await?;
    Ok(units.iter().flatten().any(|unit| by.sees_unit(unit.as_deref())))
}

/// The query of a page of dead jobs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// Serves `GET /api/v1/queues/{queue}/dead`.
pub async fn dead(
    State(api): State<Arc<Api>>,
    PathWords(queue): PathWords<String>,
    Query(query): Query<DeadQuery>,
) -> Result<Response, RouteError> {
    let queue: QueueName = queue.parse()?;
    let page = api.operations.queue.dead(queue, query.from, limit(query.limit)?).await?;
    let job = |job: &DeadJob| {
        // The payload of a confirmation holds a token, so it is never shown.
        let payload = (queue != QueueName::Confirm)
            .then(|| String::from_utf8_lossy(&job.payload).into_owned());
        serde_json::json!({
            "id": job.id,
            "payload": payload,
            "result": job.result,
            "attempts": job.attempts,
            "done_at": job.done_at,
        })
    };
    let items: Vec<_> = page.jobs.iter().map(job).collect();
    Ok(Reply(serde_json::json!({ "items": items, "next": (page.next != 0).then_some(page.next) }))
        .into_response())
}

/// Serves `POST /api/v1/queues/{queue}/dead/{id}/retry`.
pub async fn retry_dead(
    State(api): State<Arc<Api>>,
    PathWords((queue, id)): PathWords<(String, String)>,
) -> Result<StatusCode, RouteError> {
    found(api.operations.queue.retry_dead(queue.parse()?, &id).await?, StatusCode::ACCEPTED)
}

/// Serves `DELETE /api/v1/queues/{queue}/dead/{id}`.
pub async fn discard_dead(
    State(api): State<Arc<Api>>,
    PathWords((queue, id)): PathWords<(String, String)>,
) -> Result<StatusCode, RouteError> {
    found(api.operations.queue.discard_dead(queue.parse()?, &id).await?, StatusCode::NO_CONTENT)
}

/// The status if the dead job was there, else 404.
fn found(found: bool, status: StatusCode) -> Result<StatusCode, RouteError> {
    if found {
        Ok(status)
    } else {
        Err(Problem::new(StatusCode::NOT_FOUND, "there is no such dead job").into())
    }
}
