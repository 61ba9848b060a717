//! Prepare, proofs, approve, confirm, release, pause, resume, stop, settle.

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
    problem::Answer,
    request::{Caller, Id, Json, Words, idempotency_key, no_parameters},
    router::Api,
};
use crate::{
    deliveries::RepeatKey,
    domain::{
        delivery::{DeliveryId, DeliveryState as Stage},
        ledger::ChunkRef,
    },
    send::operate::{Control, ProofRequest, Resolution},
    store::chunks::Settlement,
};

fn accepted(id: &DeliveryId, state: Stage) -> Response {
    (StatusCode::ACCEPTED, Reply(serde_json::json!({ "id": id, "state": state }))).into_response()
}

pub async fn prepare(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Answer> {
    no_parameters(body).await?;
    let key = idempotency_key(&headers, &by, &format!("prepare {id}"), b"")?;
    api.journey.preparations.request(&by, &id, key.as_ref()).await?;
    Ok(accepted(&id, Stage::Preparing))
}

pub async fn proofs(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ProofRequest>,
) -> Result<Response, Answer> {
    let key = idempotency_key(&headers, &by, &format!("proofs {id}"), &body.bytes)?;
    Ok(Reply(api.journey.operate.proofs.send_proofs(&by, &id, &body.value, key.as_ref()).await?)
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmationRequest {
    digest: String,
}

pub async fn confirm(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ConfirmationRequest>,
) -> Result<Response, Answer> {
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

pub async fn approve(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<ConfirmationRequest>,
) -> Result<Response, Answer> {
    let key =
        idempotency_key(&headers, &by, &format!("approve {id}"), body.value.digest.as_bytes())?;
    Ok(Reply(
        api.journey.confirm.approvals.approve(&by, &id, &body.value.digest, key.as_ref()).await?,
    )
    .into_response())
}

/// A request without parameters.
#[derive(Debug, Clone, Copy)]
pub enum PlainAction {
    Control(Control),
    Release,
    Unschedule,
}

/// What serves requests without parameters, such as pause.
pub fn bare(
    bare: PlainAction,
) -> impl Fn(State<Arc<Api>>, Caller, Id, HeaderMap, Body) -> Controlled + Clone {
    move |State(api), Caller(by), Id(id), headers, body| {
        Box::pin(async move {
            no_parameters(body).await?;
            let key = idempotency_key(&headers, &by, &format!("{bare:?} {id}"), b"")?;
            let (api, key) = (&api, key.as_ref());
            let state = match bare {
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

type Controlled = BoxFuture<'static, Result<Response, Answer>>;

pub async fn retry_chunk(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    Words((_, chunk)): Words<(String, u32)>,
    request: (HeaderMap, Body),
) -> Result<Response, Answer> {
    no_parameters(request.1).await?;
    let key = idempotency_key(&request.0, &by, &format!("retry {id} {chunk}"), b"")?;
    let at = ChunkRef { delivery: id.clone(), chunk };
    Ok(accepted(&id, api.journey.operate.controls.retry_chunk(&by, &at, key.as_ref()).await?))
}

/// All recipients in doubt, or those of these numbers.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be \"all\" or an array of recipient numbers")]
enum Which {
    All(All),
    Some(Vec<u64>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum All {
    All,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettlementAsked {
    #[serde(rename = "as")]
    settlement: Settlement,
    recipients: Which,
}

pub async fn settle(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<SettlementAsked>,
) -> Result<Response, Answer> {
    let key = idempotency_key(&headers, &by, &format!("settle {id}"), &body.bytes)?;
    let numbers = match body.value.recipients {
        Which::All(All::All) => None,
        Which::Some(numbers) => Some(numbers),
    };
    let what = Resolution { settlement: body.value.settlement, numbers };
    Ok(Reply(api.journey.operate.in_doubt.resolve(&by, &id, &what, key.as_ref()).await?)
        .into_response())
}
