//! The recurrence of a template: set, read, end.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    api::Api,
    problem::RouteError,
    request::{Caller, Id, Json},
};
use crate::{
    deliveries::Refusal,
    domain::{
        delivery::{Delivery, DeliveryId, DeliveryState},
        schedule::{Recurrence, RecurrenceRule, occurrence_id},
    },
};

/// How many coming occurrences are shown.
const SHOWN: usize = 10;

/// A recurrence as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    #[serde(flatten)]
    recurrence: Recurrence,
    upcoming: Vec<Upcoming>,
}

/// A coming occurrence.
#[derive(Debug, Serialize)]
struct Upcoming {
    id: DeliveryId,
    due: Timestamp,
    /// When the occurrence is created, or was to be created.
    creation: Timestamp,
    /// The state of the delivery; none before it is created.
    state: Option<DeliveryState>,
}

async fn view(api: &Api, delivery: Delivery) -> Result<Reply<View>, RouteError> {
    let recurrence = delivery.document.recurrence.ok_or(Refusal::NoRecurrence)?;
    let instants = recurrence.rule.instants()?;
    let dues = std::iter::successors(instants.after(Timestamp::now()), |due| instants.after(*due))
        .take(SHOWN);
    let (dues, ids): (Vec<_>, Vec<_>) =
        dues.map(|due| (due, occurrence_id(&delivery.id, due))).unzip();
    let states = api.stores.deliveries.states(&ids).await?;
    let upcoming = ids.into_iter().zip(dues).zip(states);
    let upcoming = upcoming
        .map(|((id, due), state)| Upcoming {
            id,
            due,
            creation: recurrence.rule.creation(due),
            state,
        })
        .collect();
    Ok(Reply(View { recurrence, upcoming }))
}

/// Serves `PUT /api/v1/deliveries/{id}/recurrence`.
pub async fn set(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    body: Json<RecurrenceRule>,
) -> Result<Response, RouteError> {
    let delivery = api.journey.define.recurrences.set_recurrence(&by, &id, body.value).await?;
    Ok(view(&api, delivery).await?.into_response())
}

/// Serves `GET /api/v1/deliveries/{id}/recurrence`.
pub async fn read(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, RouteError> {
    Ok(view(&api, api.deliveries.delivery(&id).await?).await?.into_response())
}

/// Serves `DELETE /api/v1/deliveries/{id}/recurrence`.
pub async fn end(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
) -> Result<StatusCode, RouteError> {
    api.journey.define.recurrences.end_recurrence(&by, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
