//! Profiles: what is known of an address.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{
    problem::Answer,
    request::{Asked, Words, from, limit},
    router::Api,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryAsked {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

pub async fn messages(
    State(api): State<Arc<Api>>,
    Words(email): Words<String>,
    Asked(asked): Asked<HistoryAsked>,
) -> Result<Response, Answer> {
    Ok(Reply(api.reports.history.page(&email, from(asked.from), limit(asked.limit)?).await?)
        .into_response())
}
