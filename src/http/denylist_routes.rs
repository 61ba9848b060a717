//! The denylist: read, add and remove an address.

use std::sync::Arc;

use axum::{Json as Reply, extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::{
    api::Api,
    problem::{Problem, RouteError},
    request::PathWords,
};

/// Serves `GET /api/v1/denylist/{email}`.
pub async fn read(
    State(api): State<Arc<Api>>,
    PathWords(email): PathWords<String>,
) -> Result<Reply<Value>, RouteError> {
    Ok(Reply(json!({ "denylisted": api.feedback.denylist.is_denied(&email).await? })))
}

/// Serves `PUT /api/v1/denylist/{email}`.
pub async fn put(
    State(api): State<Arc<Api>>,
    PathWords(email): PathWords<String>,
) -> Result<StatusCode, RouteError> {
    Ok(if api.feedback.denylist.deny(&email).await? {
        StatusCode::CREATED
    } else {
        StatusCode::NO_CONTENT
    })
}

/// Serves `DELETE /api/v1/denylist/{email}`.
pub async fn remove(
    State(api): State<Arc<Api>>,
    PathWords(email): PathWords<String>,
) -> Result<StatusCode, RouteError> {
    match api.feedback.denylist.allow(&email).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => {
            Err(Problem::new(StatusCode::NOT_FOUND, "the address is not on the denylist").into())
        }
    }
}
