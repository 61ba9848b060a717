//! The store as a whole: whether it is held, and the release by a person.

use std::sync::Arc;

use axum::{Json as Reply, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::Api,
    problem::RouteError,
    request::{Caller, Json},
};
use crate::{
    deliveries::Refusal,
    domain::{Invalid, instant, unix_seconds},
};

/// The body of a hold or a release: since when the store is behind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    since: Timestamp,
}

/// Serves `GET /api/v1/store`.
pub async fn read(State(api): State<Arc<Api>>) -> Result<Reply<Value>, RouteError> {
    let view = api.journey.operate.held_store.view().await?;
    Ok(Reply(json!({
        "format": view.format,
        "last_heartbeat": view.last_heartbeat.map(instant),
        "released_at": view.released_at.map(instant),
        "hold": view.hold.map(|hold| json!({
            "since": instant(hold.since),
            "why": hold.why,
            "reason": hold.why.to_string(),
            "found_at": instant(hold.found),
        })),
    })))
}

/// Serves `POST /api/v1/store/hold`.
pub async fn hold(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    body: Json<HoldRequest>,
) -> Result<StatusCode, RouteError> {
    if body.value.since > Timestamp::now() {
        let invalid = Invalid::new("since", "must not be in the future");
        return Err(Refusal::from(invalid).into());
    }
    api.journey.operate.held_store.hold(&by, unix_seconds(body.value.since)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Serves `POST /api/v1/store/release`.
pub async fn release(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    body: Json<HoldRequest>,
) -> Result<Reply<Value>, RouteError> {
    let since = unix_seconds(body.value.since);
    let held_store = api.journey.operate.held_store.clone();
    // a client that goes away does not cut the release off
    let work = api.daemon.tracker.spawn(async move { held_store.release(&by, since).await });
    let cut_off = |_| Refusal::Conflict("the release was cut off: ask again");
    Ok(Reply(json!(work.await.map_err(cut_off)??)))
}
