//! Many waves at once, the limit of waves, and a delivery that fell off its list.

use versand::{
    app::Services,
    clock::unix_now,
    domain::delivery::{DeliveryId, DeliveryState},
};

use super::*;
use crate::harness::{app::idle, direct_calls};

/// A scheduled delivery with a wave for each recipient, made by direct calls. The first wave is due
/// in an hour, and each further one a second later.
async fn with_waves(services: &Services, waves: usize) -> DeliveryId {
    let definition = with(
        json!({ "type": "per_recipient", "field": "when" }),
        json!({ "grace_minutes": 10_080 }),
    );
    let id = direct_calls::create(services, definition).await;
    let dates: Vec<Value> =
        (0..waves).map(|n| json!(in_seconds(3600 + n as i64).to_string())).collect();
    direct_calls::upload(services, &id, dated(&dates)).await;
    let plan = direct_calls::prepare(services, &id).await.document.plan.unwrap();
    assert_eq!((plan.waves, plan.chunks), (waves as u32, waves as u32));
    direct_calls::confirm(services, &id, &plan.digest).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_waves_that_are_due_at_once_are_released_once_each() {
    // The test makes thousands of writes, and needs none of them after a crash.
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let (first, _state) = idle(&redis, "").await;
    let (second, _other) = idle(&redis, "").await;
    let (first, second) = (first.services(), second.services());
    let id = with_waves(first, 10_000).await;
    let plan = first.deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    // Both daemons release at once, twice each. At the time `later` all waves are due.
    let later = unix_now() + 3600 + 10_000;
    let released = futures_util::future::join_all(
        [first, second, first, second]
            .map(|services| services.stores.schedules.release_waves(&id, &plan, later, false)),
    )
    .await;
    let sum: u64 = released.into_iter().map(|released| released.unwrap().released).sum();
    assert_eq!(sum, 10_000);
    assert_eq!(
        first.stores.deliveries.state(&id).await.unwrap(),
        Some(DeliveryState::StartPending)
    );
    first.journey.release.starts.start(&id).await.unwrap();
    second.journey.release.starts.start(&id).await.unwrap();
    let offered = first.stores.chunks.with_jobs(&id).await.unwrap().len();
    assert_eq!(first.stores.chunks.ready_count(&id).await.unwrap() + offered, 10_000);
    assert_eq!(offered, first.config.send.chunks_in_flight);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_due_times_than_waves_allowed_are_an_error() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let definition = with(json!({ "type": "per_recipient", "field": "when" }), json!({}));
    let id = direct_calls::create(services, definition).await;
    let dates: Vec<Value> = (0..10_001).map(|n| json!(in_seconds(3600 + n).to_string())).collect();
    direct_calls::upload(services, &id, dated(&dates)).await;
    let delivery = direct_calls::prepare(services, &id).await;
    assert_eq!(delivery.state, DeliveryState::PreparationFailed);
    assert!(
        delivery.document.checks.errors[0].message.contains("10000"),
        "{:?}",
        delivery.document.checks
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_sweep_finds_a_scheduled_delivery_that_fell_off_its_list() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = with_waves(services, 3).await;
    redis.ask("DEL versand:due").unwrap();
    services.journey.recover.sweep.sweep().await;
    services.journey.release.due_waves.release_due().await;
    let (scheduled, next) = services.stores.schedules.waiting_deliveries().await.unwrap();
    let plan = services.deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    assert_eq!((scheduled, next.map(i64::from)), (1, plan.first_due.map(|due| due.as_second())));
}
