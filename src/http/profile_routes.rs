//! Profiles: the messages of one address.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    api::Api,
    problem::RouteError,
    request::{Caller, PathWords, Query, from, limit},
};

/// The query of a page of messages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

/// Serves `GET /api/v1/profiles/{email}/messages`.
pub async fn messages(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    PathWords(email): PathWords<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, RouteError> {
    Ok(Reply(api.reports.history.page(&by, &email, from(query.from), limit(query.limit)?).await?)
        .into_response())
}
