//! The audit log: pages of the chains, and the head that this daemon kept.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::Api,
    problem::RouteError,
    request::{Id, Query, from, limit},
};
use crate::{domain::delivery::CheckedEntry, report::Page};

/// The query of a page of an audit chain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    #[serde(default)]
    from: u64,
    limit: Option<usize>,
}

impl AuditQuery {
    fn range(&self) -> Result<(usize, usize), RouteError> {
        Ok((from(self.from), limit(self.limit)?))
    }
}

fn page(items: Vec<CheckedEntry>, (from, limit): (usize, usize)) -> Response {
    let next = (items.len() == limit).then_some((from + limit) as u64);
    Reply(Page { items, next }).into_response()
}

/// Serves `GET /api/v1/deliveries/{id}/audit`.
pub async fn delivery(
    State(api): State<Arc<Api>>,
    Id(id): Id,
    Query(query): Query<AuditQuery>,
) -> Result<Response, RouteError> {
    let (from, limit) = query.range()?;
    Ok(page(api.stores.audits.delivery(&id, from, limit).await?, (from, limit)))
}

/// Serves `GET /api/v1/audit`.
pub async fn heads(
    State(api): State<Arc<Api>>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, RouteError> {
    let (from, limit) = query.range()?;
    Ok(page(api.stores.audits.heads(from, limit).await?, (from, limit)))
}

/// Serves `GET /api/v1/audit/operations`.
pub async fn operations(
    State(api): State<Arc<Api>>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, RouteError> {
    let (from, limit) = query.range()?;
    Ok(page(api.stores.audits.operations(from, limit).await?, (from, limit)))
}

/// Serves `GET /api/v1/audit/kept-head`.
pub async fn kept_head(State(api): State<Arc<Api>>) -> Reply<Value> {
    Reply(json!({ "kept": api.deliveries.heads.kept.now() }))
}
