//! Deliveries made by direct calls, without workers that would continue them.

use std::collections::BTreeSet;

use jiff::ToSpan;
use redis::aio::MultiplexedConnection;
use versand::{
    app::Services,
    domain::{Principal, Role, delivery::DeliveryId},
    store::{CommitOutcome, DeliveryChange},
};

use crate::harness::{
    app::App,
    client::{audience, definition},
    redis::{RedisServer, connect},
};

/// A principal with all roles.
pub fn all_roles() -> Principal {
    let roles = vec![
        Role::PrepareDeliveries,
        Role::StartDeliveries,
        Role::Administration,
        Role::Monitoring,
    ];
    Principal { name: "anybody".into(), roles }
}

pub async fn connection(redis: &RedisServer) -> MultiplexedConnection {
    connect(&redis.url()).await
}

/// Prepares a delivery by direct calls, and returns it with its digest. Nothing else runs.
pub async fn prepared(services: &Services, recipients: usize) -> (DeliveryId, String) {
    let definition = serde_json::from_value(definition()).unwrap();
    let id = services
        .journey
        .define
        .definitions
        .create(&all_roles(), definition, None)
        .await
        .unwrap()
        .answer()
        .id;
    let body = futures_util::stream::iter([Ok::<_, String>(audience(recipients).into())]);
    services
        .journey
        .define
        .uploads
        .upload(&all_roles(), &id, versand::domain::audience::AudienceFormat::Ndjson, body)
        .await
        .unwrap();
    services.journey.preparations.request(&all_roles(), &id, None).await.unwrap();
    services.journey.preparations.run(&id).await.unwrap();
    let plan = services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    (id, plan.digest)
}

/// Like [`prepared`], and also confirms and starts the delivery.
pub async fn started(services: &Services, recipients: usize) -> DeliveryId {
    let (id, digest) = prepared(services, recipients).await;
    services
        .journey
        .confirm
        .confirmations
        .confirm(&all_roles(), &id, &digest, "test", &[])
        .await
        .unwrap();
    services.journey.release.starts.start(&id).await.unwrap();
    id
}

/// Moves the creation, and the end if there is one, `hours` into the past.
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

/// The keys of a delivery, without keys that expire.
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
