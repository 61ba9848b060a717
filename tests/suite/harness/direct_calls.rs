//! Deliveries made by direct calls, without workers that would continue them.

use std::collections::BTreeSet;

use jiff::ToSpan;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use versand::{
    app::Services,
    domain::{
        Principal, Role,
        audience::AudienceFormat,
        delivery::{Delivery, DeliveryId},
    },
    store::{CommitOutcome, DeliveryChange},
};

use crate::harness::{
    app::App,
    client::{audience, definition},
    redis::{RedisServer, connect},
};

/// A principal with all roles except `Auditor`.
pub fn all_roles() -> Principal {
    let roles = vec![
        Role::PrepareDeliveries,
        Role::StartDeliveries,
        Role::Administration,
        Role::Monitoring,
    ];
    Principal::new("anybody", roles)
}

pub async fn connection(redis: &RedisServer) -> MultiplexedConnection {
    connect(&redis.url()).await
}

pub async fn create(services: &Services, definition: Value) -> DeliveryId {
    let definition = serde_json::from_value(definition).unwrap();
    let definitions = &services.journey.define.definitions;
    definitions.create(&all_roles(), definition, None).await.unwrap().answer().id
}

pub async fn upload(services: &Services, id: &DeliveryId, audience: String) {
    let body = futures_util::stream::iter([Ok::<_, String>(audience.into())]);
    let uploads = &services.journey.define.uploads;
    uploads.upload(&all_roles(), id, AudienceFormat::Ndjson, body).await.unwrap();
}

/// Prepares the delivery. The preparation may fail.
pub async fn prepare(services: &Services, id: &DeliveryId) -> Delivery {
    services.journey.preparations.request(&all_roles(), id, None).await.unwrap();
    services.journey.preparations.run(id).await.unwrap();
    services.deliveries.delivery(id).await.unwrap()
}

pub async fn confirm(services: &Services, id: &DeliveryId, digest: &str) {
    let confirmations = &services.journey.confirm.confirmations;
    confirmations.confirm(&all_roles(), id, digest, "test", &[]).await.unwrap();
}

/// Creates and prepares a delivery. Returns its id and its digest.
pub async fn prepared(services: &Services, recipients: usize) -> (DeliveryId, String) {
    let id = create(services, definition()).await;
    upload(services, &id, audience(recipients)).await;
    let plan = prepare(services, &id).await.document.plan.unwrap();
    (id, plan.digest)
}

/// Like [`prepared`], and also confirms and starts the delivery.
pub async fn started(services: &Services, recipients: usize) -> DeliveryId {
    let (id, digest) = prepared(services, recipients).await;
    confirm(services, &id, &digest).await;
    services.journey.release.starts.start(&id).await.unwrap();
    id
}

/// Moves the last change and the end, if there is one, `hours` into the past. The delivery also
/// moves back in the list of deliveries.
pub async fn aged(app: &App, id: &str, hours: i64) {
    let (id, stores): (DeliveryId, _) = (id.parse().unwrap(), &app.services.stores);
    let delivery = stores.deliveries.delivery(&id).await.unwrap().unwrap();
    let mut document = delivery.document.clone();
    document.ended_at = document.ended_at.map(|at| at - hours.hours());
    document.changed_at -= hours.hours();
    let change = DeliveryChange {
        id: &id,
        revision: delivery.revision,
        state: delivery.state,
        document: &document,
        entry: None,
        once: &[],
    };
    assert!(matches!(stores.deliveries.commit(&change).await.unwrap(), CommitOutcome::Done { .. }));
    let mut list = ::redis::cmd("ZINCRBY");
    let _: String = list
        .arg("versand:deliveries")
        .arg(-hours * 3_600_000)
        .arg(id.as_str())
        .query_async(&mut stores.redis.connection())
        .await
        .unwrap();
}

/// The keys of a delivery, without their common prefix. Idempotency keys are left out, because they
/// expire.
pub async fn keys(redis: &RedisServer, id: &str) -> BTreeSet<String> {
    let prefix = format!("versand:{{{id}}}:");
    let all: Vec<String> = ::redis::cmd("KEYS")
        .arg(format!("{prefix}*"))
        .query_async(&mut connection(redis).await)
        .await
        .unwrap();
    let rests = all.iter().map(|key| key.strip_prefix(&prefix).unwrap().to_owned());
    rests.filter(|key| !key.starts_with("idempotency")).collect()
}

pub fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
