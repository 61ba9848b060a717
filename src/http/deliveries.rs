//! Deliveries: create, list, read, change, delete, upload.

use std::{collections::BTreeSet, sync::Arc};

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
    problem::{Answer, Problem},
    request::{Asked, Caller, Id, Json, from, idempotency_key, limit, media_type},
    router::Api,
};
use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::{
        audience::AudienceFormat,
        delivery::{
            Approval, Audience, Checks, Confirmation, Definition, Delivery, DeliveryId,
            DeliveryState as Stage, Document, Plan,
        },
        instant,
        ledger::Counts,
        schedule::{Occurrence, Recurrence, WaveState},
        tracking::Kpis,
    },
    store::audience::PreparationProgress,
};

/// A delivery as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    id: DeliveryId,
    definition: Definition,
    created_by: String,
    created_at: Timestamp,
    changed_at: Timestamp,
    audience: Option<Audience>,
    checks: Checks,
    plan: Option<Plan>,
    approval: Option<Approval>,
    release: Option<Confirmation>,
    ended_at: Option<Timestamp>,
    /// How it recurs, if it is a template.
    recurrence: Option<Recurrence>,
    /// Of which template it is which occurrence.
    occurrence: Option<Occurrence>,
    #[serde(flatten)]
    progress: Progress,
}

/// How far a delivery is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    pub state: Stage,
    /// Nothing is delivered: every transaction ends after RCPT.
    pub smtp_test: bool,
    /// While it is being prepared.
    pub preparation: Option<PreparationProgress>,
    /// Recipients by status, once it was released.
    pub counts: Option<Counts>,
    pub kpis: Option<Kpis>,
    /// The logs are removed: counts and KPIs are those of that moment.
    pub cleaned_at: Option<Timestamp>,
    pub tracking_cleaned_at: Option<Timestamp>,
    /// Chunks that no job is named for until a person retries them.
    pub set_aside: BTreeSet<u32>,
    /// So many of its messages were refused that its circuit breaker is open until then.
    pub paused_until: Option<Timestamp>,
    /// Of a delivery that was prepared.
    pub waves: Option<WaveCounts>,
}

/// Waves by state, and when the next one is due.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct WaveCounts {
    pub waiting: u64,
    pub released: u64,
    pub held: u64,
    pub next_due: Option<Timestamp>,
}

async fn waves_of(api: &Api, delivery: &Delivery) -> Result<Option<WaveCounts>, Refusal> {
    let Some(plan) = delivery
        .document
        .plan
        .as_ref()
        .filter(|_| delivery.state != Stage::Deleted && delivery.document.cleaned.is_none())
    else {
        return Ok(None);
    };
    let mut counts = WaveCounts::default();
    for wave in api.stores.schedules.waves(&delivery.id, plan).await? {
        match wave.state {
            WaveState::Waiting => {
                counts.waiting += 1;
                counts.next_due = counts.next_due.or((wave.due > 0).then(|| instant(wave.due)));
            }
            WaveState::Held => counts.held += 1,
            WaveState::Released | WaveState::Open => counts.released += 1,
        }
    }
    Ok(Some(counts))
}

pub async fn progress_of(api: &Api, delivery: &Delivery) -> Result<Progress, Refusal> {
    let preparation = match delivery.state {
        Stage::Preparing => Some(preparation_of(api, delivery).await?),
        _ => None,
    };
    let released = delivery.document.plan.as_ref().filter(|_| delivery.document.has_started());
    let (counts, kpis) = match released {
        Some(plan) => {
            let counts = match &delivery.document.cleaned {
                Some(cleaned) => cleaned.counts,
                None => api.stores.ledgers.counts(&delivery.id).await?,
            };
            let opens = api.stores.tracking.statistics(&delivery.id).await?;
            (
                Some(counts),
                Some(Kpis::of(&counts, plan.excluded, plan.settings.smtp_test, opens.as_ref())),
            )
        }
        None => (None, None),
    };
    let set_aside = match released.is_some() && !delivery.state.has_ended() {
        true => api.stores.chunks.poisoned(&delivery.id).await?,
        false => BTreeSet::new(),
    };
    let waves = waves_of(api, delivery).await?;
    let paused_until = match delivery.state {
        Stage::InProgress => Some(api.stores.limits.delivery_breaker_until(&delivery.id).await?)
            .filter(|until| *until > unix_now())
            .map(instant),
        _ => None,
    };
    let own = delivery.document.definition.settings.smtp_test.unwrap_or(false);
    let smtp_test = delivery.document.plan.as_ref().map_or(own, |plan| plan.settings.smtp_test);
    let cleaned_at = delivery.document.cleaned.as_ref().map(|cleaned| cleaned.cleaned_at);
    let tracking_cleaned_at = delivery.document.tracking_cleaned_at;
    let state = delivery.state;
    Ok(Progress {
        state,
        smtp_test,
        preparation,
        counts,
        kpis,
        cleaned_at,
        tracking_cleaned_at,
        set_aside,
        paused_until,
        waves,
    })
}

/// What is kept may still be that of an earlier preparation.
async fn preparation_of(api: &Api, delivery: &Delivery) -> Result<PreparationProgress, Refusal> {
    let kept = api.stores.audiences.preparation(&delivery.id).await?;
    let Document { generation, audience, .. } = &delivery.document;
    let of = audience.as_ref().map_or(0, |audience| audience.recipients);
    let none = PreparationProgress { generation: *generation, done: 0, of, beat: 0 };
    Ok(if kept.generation == *generation { kept } else { none })
}

async fn view(api: &Api, delivery: Delivery) -> Result<View, Refusal> {
    let progress = progress_of(api, &delivery).await?;
    let d = delivery.document;
    Ok(View {
        id: delivery.id,
        definition: d.definition,
        created_by: d.created_by,
        created_at: d.created_at,
        changed_at: d.changed_at,
        audience: d.audience,
        checks: d.checks,
        plan: d.plan,
        approval: d.approval,
        release: d.confirmation,
        ended_at: d.ended_at,
        recurrence: d.recurrence,
        occurrence: d.occurrence,
        progress,
    })
}

pub async fn create(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    headers: HeaderMap,
    body: Json<Definition>,
) -> Result<Response, Answer> {
    let key = idempotency_key(&headers, &by, "create", &body.bytes)?;
    let created =
        api.journey.define.definitions.create(&by, body.value, key.as_ref()).await?.answer();
    let location = [(header::LOCATION, format!("/api/v1/deliveries/{}", created.id))];
    Ok((StatusCode::CREATED, location, Reply(view(&api, created).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAsked {
    #[serde(default)]
    offset: u64,
    limit: Option<usize>,
}

/// A line of the list.
#[derive(Debug, Serialize)]
struct Line {
    id: DeliveryId,
    name: String,
    state: Stage,
    created_at: Timestamp,
    to_deliver: Option<u64>,
}

pub async fn list(
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<ListAsked>,
) -> Result<Response, Answer> {
    let (offset, limit) = (from(asked.offset), limit(asked.limit)?);
    let ids = api.stores.deliveries.delivery_ids(offset, limit).await?;
    let next = (ids.len() == limit).then_some(offset + limit);
    let mut items = Vec::new();
    for id in ids {
        let Some(delivery) =
            api.stores.deliveries.delivery(&id).await?.filter(|d| d.state != Stage::Deleted)
        else {
            continue;
        };
        let document = delivery.document;
        items.push(Line {
            id,
            name: document.definition.name,
            state: delivery.state,
            created_at: document.created_at,
            to_deliver: document.plan.map(|plan| plan.to_deliver),
        });
    }
    Ok(Reply(serde_json::json!({ "items": items, "next": next })).into_response())
}

pub async fn read(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Answer> {
    Ok(Reply(view(&api, api.deliveries.delivery(&id).await?).await?).into_response())
}

pub async fn progress(State(api): State<Arc<Api>>, Id(id): Id) -> Result<Response, Answer> {
    Ok(Reply(progress_of(&api, &api.deliveries.delivery(&id).await?).await?).into_response())
}

pub async fn change(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    body: Json<Definition>,
) -> Result<Response, Answer> {
    api.journey.define.definitions.redefine(&by, &id, body.value).await?;
    read(State(api), Id(id)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyAsked {
    name: String,
    #[serde(default)]
    audience: bool,
}

pub async fn copy(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Json<CopyAsked>,
) -> Result<Response, Answer> {
    let key = idempotency_key(&headers, &by, &format!("copy {id}"), &body.bytes)?;
    let CopyAsked { name, audience } = body.value;
    let copy = api.journey.define.copies.copy(&by, &id, name, audience, key.as_ref()).await?;
    let location = [(header::LOCATION, format!("/api/v1/deliveries/{}", copy.id))];
    Ok((StatusCode::CREATED, location, Reply(view(&api, copy).await?)).into_response())
}

pub async fn delete(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
) -> Result<StatusCode, Answer> {
    api.journey.define.definitions.delete(&by, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn upload(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Answer> {
    let format = match media_type(&headers).as_deref() {
        Some("application/x-ndjson" | "application/jsonl") => AudienceFormat::Ndjson,
        Some("text/csv") => AudienceFormat::Csv,
        _ => {
            let detail = "the audience must be application/x-ndjson or text/csv";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).into());
        }
    };
    let audience =
        api.journey.define.uploads.upload(&by, &id, format, body.into_data_stream()).await?;
    Ok(Reply(audience).into_response())
}
