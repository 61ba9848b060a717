//! Deliveries: create, list, read, change, copy, delete, and upload of the audience.

use std::sync::Arc;

use axum::{
    Json as Reply,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    api::Api,
    problem::{Problem, RouteError},
    progress::{Progress, progress_of},
    request::{Caller, Id, Json, Query, from, idempotency_key, limit, media_type},
};
use crate::{
    deliveries::Refusal,
    domain::{
        audience::AudienceFormat,
        delivery::{
            Alteration, Approval, Audience, Checks, Confirmation, Definition, Delivery, DeliveryId,
            DeliveryState, ExpectedRevisions, Plan,
        },
        schedule::{Occurrence, Recurrence},
    },
};

/// A delivery as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: DeliveryId,
    /// Raised by every change. It is the entity tag of the answer, for `If-Match`.
    revision: u64,
    definition: Definition,
    created_by: String,
    created_at: Timestamp,
    changed_at: Timestamp,
    audience: Option<Audience>,
    checks: Checks,
    plan: Option<Plan>,
    approval: Option<Approval>,
    #[serde(rename = "release")]
    confirmation: Option<Confirmation>,
    ended_at: Option<Timestamp>,
    /// The part that was altered in Redis, if one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    altered: Option<Alteration>,
    /// How the delivery recurs, if it is a template.
    recurrence: Option<Recurrence>,
    /// The template and the due time, if a template created the delivery.
    occurrence: Option<Occurrence>,
    #[serde(flatten)]
    progress: Progress,
}

async fn view(api: &Api, delivery: Delivery) -> Result<View, Refusal> {
    let progress = progress_of(api, &delivery).await?;
    let d = delivery.document;
    Ok(View {
        id: delivery.id,
        revision: delivery.revision,
        definition: d.definition,
        created_by: d.created_by,
        created_at: d.created_at,
        changed_at: d.changed_at,
        audience: d.audience,
        checks: d.checks,
        plan: d.plan,
        approval: d.approval,
        confirmation: d.confirmation,
        ended_at: d.ended_at,
        altered: d.altered,
        recurrence: d.recurrence,
        occurrence: d.occurrence,
        progress,
    })
}

/// Serves `POST /api/v1/deliveries`.
pub async fn create(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    headers: HeaderMap,
    body: Json<Definition>,
) -> Result<Response, RouteError> {
    let key = idempotency_key(&headers, &by, "create", &body.bytes)?;
    let created =
        api.journey.define.definitions.create(&by, body.value, key.as_ref()).await?.answer();
    created_answer(&api, created).await
}

/// 201 with the path, the entity tag and the view of a new delivery.
async fn created_answer(api: &Api, created: Delivery) -> Result<Response, RouteError> {
    let headers = [
        (header::LOCATION, format!("/api/v1/deliveries/{}", created.id)),
        (header::ETAG, ExpectedRevisions::tag(created.revision)),
    ];
    Ok((StatusCode::CREATED, headers, Reply(view(api, created).await?)).into_response())
}

/// The query of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    offset: u64,
    limit: Option<usize>,
}

/// A delivery in the list.
#[derive(Debug, Serialize)]
struct ListItem {
    id: DeliveryId,
    name: String,
    state: DeliveryState,
    created_at: Timestamp,
    to_deliver: Option<u64>,
}

/// Serves `GET /api/v1/deliveries`.
pub async fn list(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, RouteError> {
    let (offset, limit) = (from(query.offset), limit(query.limit)?);
    let ids = match &by.unit {
        Some(unit) => api.stores.deliveries.delivery_ids_of(unit, offset, limit).await?,
        None => api.stores.deliveries.delivery_ids(offset, limit).await?,
    };
    let next = (ids.len() == limit).then_some(offset + limit);
    let mut items = Vec::new();
    for id in ids {
        let Some(delivery) = api
            .deliveries
            .read(&id)
            .await?
            .filter(|d| d.state != DeliveryState::Deleted && by.sees(d))
        else {
            continue;
        };
        let document = delivery.document;
        items.push(ListItem {
            id,
            name: document.definition.name,
            state: delivery.state,
            created_at: document.created_at,
            to_deliver: document.plan.map(|plan| plan.to_deliver),
        });
    }
    Ok(Reply(serde_json::json!({ "items": items, "next": next })).into_response())
}

/// Serves `GET /api/v1/deliveries/{id}`.
pub async fn read(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, RouteError> {
    let delivery = api.deliveries.delivery(&id).await?;
    let tag = [(header::ETAG, ExpectedRevisions::tag(delivery.revision))];
    Ok((tag, Reply(view(&api, delivery).await?)).into_response())
}

/// Serves `GET /api/v1/deliveries/{id}/progress`.
pub async fn progress(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, RouteError> {
    Ok(Reply(progress_of(&api, &api.deliveries.delivery(&id).await?).await?).into_response())
}

/// Serves `PUT /api/v1/deliveries/{id}`.
pub async fn change(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    body: Json<Definition>,
) -> Result<Response, RouteError> {
    api.journey.define.definitions.redefine(&by, &id, body.value).await?;
    read(State(api), Id(id)).await
}

/// A request to copy a delivery.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRequest {
    /// The name of the copy.
    name: String,
    /// True to copy the audience, too.
    #[serde(default)]
    audience: bool,
}

/// Serves `POST /api/v1/deliveries/{id}/copy`.
pub async fn copy(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<CopyRequest>,
) -> Result<Response, RouteError> {
    let key = idempotency_key(&headers, &by, &format!("copy {id}"), &body.bytes)?;
    let CopyRequest { name, audience } = body.value;
    let copy = api.journey.define.copies.copy(&by, &id, name, audience, key.as_ref()).await?;
    created_answer(&api, copy).await
}

/// Serves `DELETE /api/v1/deliveries/{id}`.
pub async fn delete(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
) -> Result<StatusCode, RouteError> {
    api.journey.define.definitions.delete(&by, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Serves `PUT /api/v1/deliveries/{id}/audience`.
pub async fn upload(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RouteError> {
    let format = match media_type(&headers).as_deref() {
        Some("application/x-ndjson" | "application/jsonl") => AudienceFormat::Ndjson,
        Some("text/csv") => AudienceFormat::Csv,
        _ => {
            let detail = "the audience must be application/x-ndjson or text/csv";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into());
        }
    };
    let (audience, revision) =
        api.journey.define.uploads.upload(&by, &id, format, body.into_data_stream()).await?;
    Ok(([(header::ETAG, ExpectedRevisions::tag(revision))], Reply(audience)).into_response())
}
