//! Recovery after a crash between two writes, and after a race.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use versand::{
    app::Services,
    clock::unix_now,
    deliveries::Decision,
    domain::{
        delivery::{DeliveryId, DeliveryState},
        ledger::ChunkRef,
    },
    queue::QueueName,
    send::operate::Control,
    store::chunks::{Taken, TakeoverGrounds},
};

use crate::harness::{
    LIMIT,
    app::{App, idle},
    client::{audience, definition},
    direct_calls::{self, all_roles, connection, prepared, started},
    eventually,
    redis::RedisServer,
};

/// Sets the state, and marks a confirmation as started, without the other effects of a change.
async fn force(services: &Services, id: &DeliveryId, state: DeliveryState) {
    let force = |delivery: &versand::domain::delivery::Delivery, _| {
        let mut document = delivery.document.clone();
        document.confirmation.iter_mut().for_each(|confirmation| confirmation.started = true);
        Ok(Decision { state, document, answer: (), act: None })
    };
    services.deliveries.change(id, "test", &[], force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciler_with_an_outdated_state_loses_no_delivery() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = started(services, 10).await;
    // Acts as often as possible like a reconciler that has read a delivery at rest.
    let over = AtomicBool::new(false);
    let take_off = async {
        let script = "if redis.call('HGET', KEYS[1], 'state') == 'paused' then redis.call('SREM', KEYS[2], ARGV[1]) end";
        let mut conn = connection(&redis).await;
        while !over.load(Ordering::Relaxed) {
            let mut call = redis::cmd("EVAL");
            call.arg(script)
                .arg(2)
                .arg(format!("versand:{{{id}}}:delivery"))
                .arg("versand:moving")
                .arg(id.as_str());
            let () = call.query_async(&mut conn).await.unwrap();
        }
    };
    let change = async {
        for _ in 0..50 {
            force(services, &id, DeliveryState::Paused).await;
            force(services, &id, DeliveryState::InProgress).await;
            assert!(
                services.stores.deliveries.moving().await.unwrap().contains(&id),
                "the delivery is not in the set of moving deliveries"
            );
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(take_off, change);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_is_found_among_many_deliveries() {
    const LEASE_MS: u64 = 600;
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, &format!("[send]\nlease_ms = {LEASE_MS}")).await;
    let services = application.services();
    let id = started(services, 10).await;
    let at = ChunkRef { delivery: id.clone(), chunk: 0 };
    // The name of a process that nobody can prove dead.
    assert!(matches!(
        services
            .stores
            .ledgers
            .take_lease(&at, 77, TakeoverGrounds::default(), unix_now())
            .await
            .unwrap(),
        Taken::Yes(..)
    ));
    // Other deliveries that the reconciler only looks at, again and again.
    let document =
        serde_json::to_string(&services.deliveries.delivery(&id).await.unwrap().document).unwrap();
    let mut pipe = redis::pipe();
    for n in 0..1500 {
        let other = format!("{n:016}");
        let key = format!("versand:{{{other}}}:delivery");
        pipe.hset_multiple(
            key,
            &[("revision", "1"), ("state", "start_pending"), ("document", &document)],
        )
        .ignore();
        pipe.sadd("versand:moving", other).ignore();
    }
    let () = pipe.query_async(&mut connection(&redis).await).await.unwrap();
    let pulse = tokio::spawn({
        let services = services.clone();
        async move { services.journey.recover.pulse.pulse().await }
    });
    let began = Instant::now();
    services.journey.recover.reconciler.reconcile().await.unwrap();
    assert!(
        began.elapsed() > Duration::from_millis(LEASE_MS / 4),
        "a pass is too fast for this test: {:?}",
        began.elapsed()
    );
    tokio::time::sleep(Duration::from_millis(LEASE_MS)).await;
    services.journey.recover.reconciler.reconcile().await.unwrap();
    let ledgers = services.stores.ledgers.headers(&id, &[0]).await.unwrap();
    assert_eq!(ledgers[0].owner, 0, "the chunk was not taken over");
    pulse.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_missing_from_the_moving_set_is_found_at_the_start() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let (id, _) = prepared(services, 10).await;
    services.journey.preparations.request(&all_roles(), &id, None).await.unwrap();
    services.stores.deliveries.unlist_moving(&id).await.unwrap();
    redis.ask(&format!("DEL {}:active", QueueName::Preparations.redis_name())).unwrap();
    let app = App::start(&redis, "").await;
    // The start finds the delivery sooner than the pass that runs every minute.
    tokio::time::timeout(Duration::from_secs(30), app.client.wait_for(id.as_str(), &["prepared"]))
        .await
        .unwrap();
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deletion_is_finished() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 10").await;
    let services = application.services();
    let left = async |id: &DeliveryId| -> Vec<String> {
        let mut conn = connection(&redis).await;
        redis::cmd("KEYS").arg(format!("versand:{{{id}}}:*")).query_async(&mut conn).await.unwrap()
    };
    for by_a_person in [true, false] {
        let id = started(services, 25).await;
        // The tombstone exists, and then the process died.
        force(services, &id, DeliveryState::Deleted).await;
        assert!(left(&id).await.len() > 10);
        match by_a_person {
            true => services.journey.define.definitions.delete(&all_roles(), &id).await.unwrap(),
            false => assert!(services.journey.recover.sweep.sweep().await),
        }
        let mut left = left(&id).await;
        left.sort_unstable();
        assert_eq!(left, ["audit", "delivery"].map(|name| format!("versand:{{{id}}}:{name}")));
        assert_eq!(services.stores.deliveries.delivery_ids(0, 10).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_preparations_do_not_delay_other_deliveries() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[send]\nlease_ms = 10000").await;
    let client = &app.client;
    let small = client.create(&definition()).await;
    client.upload(&small, audience(10)).await;
    let digest = client.prepare(&small).await["plan"]["digest"].as_str().unwrap().to_owned();
    let mut slow = definition();
    let loops = "{% for a in range(30) %}{% for b in range(30) %}{{ name }}{% endfor %}{% endfor %}unsubscribe";
    slow["content"]["html"] = loops.into();
    let mut preparing = Vec::new();
    for _ in 0..5 {
        let id = client.create(&slow).await;
        client.upload(&id, audience(6000)).await;
        preparing.push(id);
    }
    for id in &preparing {
        client.post(&format!("/deliveries/{id}/prepare"), &serde_json::json!({})).await;
    }
    client.confirm(&small, &digest).await;
    client.wait_for(&small, &["finished"]).await;
    for id in &preparing {
        let state = client.get(&format!("/deliveries/{id}")).await["state"].clone();
        assert_eq!(state, "preparing", "the preparations ended too early");
        client.post(&format!("/deliveries/{id}/stop"), &serde_json::json!({})).await;
    }
    eventually("the jobs see that they were stopped", LIMIT, async || {
        let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
        depths.iter().all(|depth| (depth.active, depth.in_flight) == (0, 0)).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_delivery_goes_on_without_waiting_for_the_reconciler() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let (id, digest) = prepared(services, 10).await;
    direct_calls::confirm(services, &id, &digest).await;
    force(services, &id, DeliveryState::Paused).await;
    services.stores.chunks.mark_ready(&id, 0..1).await.unwrap();
    let waiting = async || {
        let depths = services.journey.preparations.jobs.queue.depths().await.unwrap();
        depths.iter().find(|depth| depth.queue == QueueName::Chunks).unwrap().active
    };
    assert_eq!(waiting().await, 0);
    services
        .journey
        .operate
        .controls
        .control(&all_roles(), &id, Control::Resume, None)
        .await
        .unwrap();
    assert_eq!(waiting().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_interrupted_just_before_its_end_is_repeated() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = started(services, 10).await;
    // Its ledgers exist and its waves are released, but its state is not `in_progress` yet.
    force(services, &id, DeliveryState::StartPending).await;
    services.journey.release.starts.start(&id).await.unwrap();
    assert_eq!(services.deliveries.delivery(&id).await.unwrap().state, DeliveryState::InProgress);
    // A call that has nothing to write does not fail.
    services.stores.chunks.mark_all_ready(&id, u32::MAX).await.unwrap();
    services.stores.chunks.mark_ready(&id, std::iter::empty()).await.unwrap();
    services.stores.addresses.note_messages(1, Vec::new()).await.unwrap();
}
