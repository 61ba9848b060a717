//! The conservation difference shows every corruption.

use versand::domain::delivery::DeliveryId;

use crate::harness::{
    app::App,
    client::{audience, definition},
    redis::RedisServer,
};

async fn difference(app: &App, id: &DeliveryId) -> Option<u64> {
    let delivery = app.services.stores.deliveries.delivery(id).await.unwrap().unwrap();
    app.services.journey.recover.finishes.recounts.difference(&delivery).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_difference_shows_every_corruption() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 10").await;
    let id = app
        .client
        .send(&definition(), audience(25) + "{\"email\":\"nobody\",\"name\":\"N\"}\n")
        .await;
    app.client.wait_for(&id, &["finished"]).await;
    let key = |name: &str| format!("versand:{{{id}}}:{name}");
    let delivery: DeliveryId = id.parse().unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(0));

    // A live counter is changed.
    redis.ask(&format!("HINCRBY {} sent 3", key("counts"))).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(3));
    redis.ask(&format!("HINCRBY {} sent -3", key("counts"))).unwrap();

    // A record is changed: recipient 0 is pending again.
    redis.ask(&format!("SETBIT {} 262 0", key("ledger:0"))).unwrap();
    redis.ask(&format!("SETBIT {} 263 0", key("ledger:0"))).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(1));
    redis.ask(&format!("SETBIT {} 262 1", key("ledger:0"))).unwrap();
    redis.ask(&format!("SETBIT {} 263 1", key("ledger:0"))).unwrap();

    // A whole ledger is removed.
    redis.ask(&format!("RENAME {} {}", key("ledger:2"), key("away"))).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(5));
    redis.ask(&format!("RENAME {} {}", key("away"), key("ledger:2"))).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(0));

    // A slice of the exclusion log is removed.
    let generation = app
        .services
        .stores
        .deliveries
        .delivery(&delivery)
        .await
        .unwrap()
        .unwrap()
        .document
        .plan
        .unwrap()
        .generation;
    let slice = key(&format!("exclusions.{generation}:0"));
    redis.ask(&format!("RENAME {slice} {}", key("away"))).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(1));
    redis.ask(&format!("SET {slice} garbage")).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(1));
    redis.ask(&format!("RENAME {} {slice}", key("away"))).unwrap();
    assert_eq!(difference(&app, &delivery).await, Some(0));

    // The audience gets a line that is in no ledger and in no exclusion log.
    let mut corrupt = app.services.stores.deliveries.delivery(&delivery).await.unwrap().unwrap();
    corrupt.document.audience.as_mut().unwrap().recipients += 1;
    assert_eq!(
        app.services.journey.recover.finishes.recounts.difference(&corrupt).await.unwrap(),
        Some(1)
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_agree_with_what_the_relay_accepted() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = app.client.send(&definition(), audience(40)).await;
    app.client.wait_for(&id, &["finished"]).await;
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        (
            app.services.journey.throttle_watch.relays.accepted(),
            load(&app.services.observation.gauges.acceptances)
        ),
        (40, 40)
    );
    app.stop().await;
}
