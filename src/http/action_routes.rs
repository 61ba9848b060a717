//! Actions on a delivery, from prepare, proofs and confirm to stop, settle and retry.

use std::sync::Arc;

use axum::{
    Json as Reply,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::{
    api::Api,
    problem::RouteError,
    request::{Caller, Id, Json, PathWords, idempotency_key, no_parameters},
};
use crate::{
    deliveries::RepeatKey,
    domain::{
        delivery::{DeliveryId, DeliveryState},
        ledger::ChunkRef,
    },
    send::operate::{Control, ProofRequest, Resolution},
    store::chunks::Settlement,
};

/// 202 with the state that the action leads to.
fn accepted(id: &DeliveryId, state: DeliveryState) -> Response {
    (StatusCode::ACCEPTED, Reply(serde_json::json!({ "id": id, "state": state }))).into_response()
}

/// Serves `POST /api/v1/deliveries/{id}/prepare`.
pub async fn prepare(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RouteError> {
    no_parameters(body).await?;
    let key = idempotency_key(&headers, &by, &format!("prepare {id}"), b"")?;
    api.journey.preparations.request(&by, &id, key.as_ref()).await?;
    Ok(accepted(&id, DeliveryState::Preparing))
}

/// Serves `POST /api/v1/deliveries/{id}/proofs`.
pub async fn proofs(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ProofRequest>,
) -> Result<Response, RouteError> {
    let key = idempotency_key(&headers, &by, &format!("proofs {id}"), &body.bytes)?;
    Ok(Reply(api.journey.operate.proofs.send_proofs(&by, &id, &body.value, key.as_ref()).await?)
        .into_response())
}

/// A request to confirm or approve what a digest names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmationRequest {
    digest: String,
}

/// Serves `POST /api/v1/deliveries/{id}/confirm`.
pub async fn confirm(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ConfirmationRequest>,
) -> Result<Response, RouteError> {
    let key =
        idempotency_key(&headers, &by, &format!("confirm {id}"), body.value.digest.as_bytes())?;
    let repeats: Vec<RepeatKey> = key.iter().map(|key| RepeatKey::of(key, &id)).collect();
    let confirmed = api
        .journey
        .confirm
        .confirmations
        .confirm(&by, &id, &body.value.digest, "http", &repeats)
        .await?;
    Ok((StatusCode::ACCEPTED, Reply(confirmed)).into_response())
}

/// Serves `POST /api/v1/deliveries/{id}/approve`.
pub async fn approve(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ConfirmationRequest>,
) -> Result<Response, RouteError> {
    let key =
        idempotency_key(&headers, &by, &format!("approve {id}"), body.value.digest.as_bytes())?;
    Ok(Reply(
        api.journey.confirm.approvals.approve(&by, &id, &body.value.digest, key.as_ref()).await?,
    )
    .into_response())
}

/// An action whose request has no parameters.
///
/// The names of the variants are part of stored idempotency keys: do not change them.
#[derive(Debug, Clone, Copy)]
pub enum PlainAction {
    Control(Control),
    Release,
    Unschedule,
}

/// The handler of an action without parameters, such as pause.
pub fn plain(
    action: PlainAction,
) -> impl Fn(State<Arc<Api>>, Caller, Id, HeaderMap, Body) -> PlainAnswer + Clone {
    move |State(api), Caller(by), Id(id), headers, body| {
        Box::pin(async move {
            no_parameters(body).await?;
            let key = idempotency_key(&headers, &by, &format!("{action:?} {id}"), b"")?;
            let (api, key) = (&api, key.as_ref());
            let state = match action {
                PlainAction::Control(control) => {
                    api.journey.operate.controls.control(&by, &id, control, key).await?
                }
                PlainAction::Release => {
                    api.journey.release.due_waves.release_held(&by, &id, key).await?
                }
                PlainAction::Unschedule => {
                    api.journey.release.due_waves.unschedule(&by, &id, key).await?
                }
            };
            Ok(accepted(&id, state))
        })
    }
}

/// The future of a handler that [`plain`] makes.
type PlainAnswer = BoxFuture<'static, Result<Response, RouteError>>;

/// Serves `POST /api/v1/deliveries/{id}/chunks/{chunk}/retry`.
pub async fn retry_chunk(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    PathWords((_, chunk)): PathWords<(String, u32)>,
    request: (HeaderMap, Body),
) -> Result<Response, RouteError> {
    no_parameters(request.1).await?;
    let key = idempotency_key(&request.0, &by, &format!("retry {id} {chunk}"), b"")?;
    let at = ChunkRef { delivery: id.clone(), chunk };
    Ok(accepted(&id, api.journey.operate.controls.retry_chunk(&by, &at, key.as_ref()).await?))
}

/// The recipients to settle: all that are in doubt, or those with these numbers.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be \"all\" or an array of recipient numbers")]
enum RecipientChoice {
    All(AllWord),
    Numbers(Vec<u64>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum AllWord {
    All,
}

/// A request to settle recipients in doubt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolutionRequest {
    #[serde(rename = "as")]
    settlement: Settlement,
    recipients: RecipientChoice,
}

/// Serves `POST /api/v1/deliveries/{id}/in-doubt`.
pub async fn settle(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ResolutionRequest>,
) -> Result<Response, RouteError> {
    let key = idempotency_key(&headers, &by, &format!("settle {id}"), &body.bytes)?;
    let numbers = match body.value.recipients {
        RecipientChoice::All(AllWord::All) => None,
        RecipientChoice::Numbers(numbers) => Some(numbers),
    };
    let resolution = Resolution { settlement: body.value.settlement, numbers };
    Ok(Reply(api.journey.operate.in_doubt.resolve(&by, &id, &resolution, key.as_ref()).await?)
        .into_response())
}
