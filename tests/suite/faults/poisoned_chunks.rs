//! Poisoned chunks: they are set aside, a person retries them, and all other chunks go on.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::json;
use versand::{
    app::Services,
    clock::unix_now,
    domain::ledger::ChunkRef,
    queue::QueueName,
    store::chunks::{Taken, TakeoverGrounds},
};

use crate::harness::{
    LIMIT,
    app::{App, idle, idle_after, validity_ends},
    client::audience,
    direct_calls::{self, all_roles, connection, prepared, started},
    eventually,
    redis::RedisServer,
};

/// The name of a process that is proven dead.
const DEAD: u64 = 77;
/// The default of `queue.crashes`.
const CRASHES: usize = 3;

/// A worker takes the chunk and dies. The reconciler notices.
async fn crash(services: &Services, at: &ChunkRef) {
    assert!(matches!(
        services
            .stores
            .ledgers
            .take_lease(at, DEAD, TakeoverGrounds::default(), unix_now())
            .await
            .unwrap(),
        Taken::Yes(..)
    ));
    services.journey.recover.reconciler.reconcile().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_kills_its_workers_is_set_aside_and_the_rest_goes_on() {
    let redis = RedisServer::start();
    let (application, _state) = idle_after(DEAD, &redis, "[preparation]\nchunk_size = 10").await;
    let services = application.services();
    let id = started(services, 30).await;
    let at = ChunkRef { delivery: id.clone(), chunk: 1 };
    for _ in 0..CRASHES {
        crash(services, &at).await;
        assert!(services.stores.chunks.poisoned(&id).await.unwrap().is_empty());
    }
    crash(services, &at).await;
    assert_eq!(services.stores.chunks.poisoned(&id).await.unwrap(), BTreeSet::from([1]));

    let app = App::start(&redis, "").await;
    let view = async || app.client.get(&format!("/deliveries/{id}")).await;
    eventually("the rest is sent", LIMIT, async || {
        (view().await["counts"]["sent"] == 20).then_some(())
    })
    .await;
    // Several passes of the reconciler must not open the chunk.
    let rounds: Vec<(u32, u32)> = redis_hash(&redis, &format!("versand:{{{id}}}:rounds")).await;
    passes(&app).await;
    let shown = view().await;
    assert_eq!(
        (&shown["state"], &shown["set_aside"]),
        (&json!("in_progress"), &json!([1])),
        "{shown}"
    );
    assert_eq!(shown["counts"]["pending"], 10);
    let of_chunk = app.client.get(&format!("/deliveries/{id}/log?chunk=1")).await;
    let recipients: Vec<&str> = of_chunk["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["email"].as_str().unwrap())
        .collect();
    assert_eq!(recipients, (10..20).map(|n| format!("user{n}@example.com")).collect::<Vec<_>>());
    eventually("the poisoned chunk is counted", LIMIT, async || {
        let metrics =
            reqwest::get(format!("{}/metrics", app.client.url)).await.ok()?.text().await.ok()?;
        // All daemons in this process set this gauge: they share one recorder.
        metrics.contains("versand_chunks_aside 1\n").then_some(())
    })
    .await;
    assert_eq!(
        redis_hash(&redis, &format!("versand:{{{id}}}:rounds")).await,
        rounds,
        "the chunk gets no job"
    );

    let retry = async |chunk: u32| {
        app.client.post(&format!("/deliveries/{id}/chunks/{chunk}/retry"), &json!({})).await
    };
    assert_eq!(retry(0).await.0, StatusCode::CONFLICT);
    assert_eq!(retry(1).await, (StatusCode::ACCEPTED, json!({ "id": id, "state": "in_progress" })));
    let done = app.client.wait_for(id.as_str(), &["finished"]).await;
    assert_eq!((&done["counts"]["sent"], &done["set_aside"]), (&json!(30), &json!([])));
    let audit = app.client.get(&format!("/deliveries/{id}/audit")).await;
    let retried =
        audit["items"].as_array().unwrap().iter().filter(|entry| entry["action"] == "retry_chunk");
    assert_eq!(
        retried.map(|entry| entry["details"]["chunk"].clone()).collect::<Vec<_>>(),
        [json!(1)]
    );
    app.stop().await;
}

/// Runs several passes of the reconciler, each with time for the jobs that it queues.
async fn passes(app: &App) {
    for _ in 0..4 {
        app.services.journey.recover.reconciler.reconcile().await.unwrap();
        eventually("the jobs end", LIMIT, async || {
            let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
            let jobs = depths.iter().find(|depth| depth.queue == QueueName::Chunks).unwrap();
            (jobs.active + jobs.in_flight == 0).then_some(())
        })
        .await;
    }
}

async fn redis_hash(redis: &RedisServer, key: &str) -> Vec<(u32, u32)> {
    let mut fields: Vec<(u32, u32)> =
        ::redis::cmd("HGETALL").arg(key).query_async(&mut connection(redis).await).await.unwrap();
    fields.sort_unstable();
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_job_resets_the_crash_count_of_its_chunk() {
    let redis = RedisServer::start();
    let (application, _state) = idle_after(
        DEAD,
        &redis,
        "[relay]\nhost = \"127.0.0.1\"\nport = 9\n[send]\nslice_ms = 100\nworkers = 100",
    )
    .await;
    let services = application.services();
    let id = started(services, 30).await;
    let at = ChunkRef { delivery: id.clone(), chunk: 0 };
    for _ in 0..3 {
        for _ in 0..CRASHES {
            crash(services, &at).await;
        }
        // The relay accepts no mail, but the worker lives.
        services.journey.chunks.send_chunk(&id, 0).await.unwrap();
    }
    assert!(services.stores.chunks.poisoned(&id).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_that_kills_its_workers_has_failed() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let (id, _) = prepared(services, 3000).await;
    services.journey.preparations.request(&all_roles(), &id, None).await.unwrap();
    for _ in 0..=CRASHES {
        let before = services.deliveries.delivery(&id).await.unwrap().document.generation;
        let begun = eventually("the job has begun", LIMIT, async || {
            let progress = services.stores.audiences.preparation(&id).await.unwrap();
            (progress.generation > before).then_some(())
        });
        // The task is dropped in the middle, as by a crash.
        tokio::select! {
            biased;
            () = begun => {}
            ended = services.journey.preparations.run(&id) => panic!("the job ended before the crash: {ended:?}"),
        }
    }
    services.journey.preparations.run(&id).await.unwrap();
    let delivery = services.deliveries.delivery(&id).await.unwrap();
    assert_eq!(delivery.state.word(), "preparation_failed");
    let checks = delivery.document.checks;
    assert_eq!((checks.errors[0].field.as_str(), checks.errors_total), ("preparation", 1));
    // A person may try again.
    direct_calls::prepare(services, &id).await;
    assert_eq!(services.deliveries.delivery(&id).await.unwrap().state.word(), "prepared");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_cannot_be_read_is_set_aside_at_once() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 10").await;
    let id = started(application.services(), 20).await;
    let plan =
        application.services().deliveries.delivery(&id).await.unwrap().document.plan.unwrap();
    let key = format!("versand:{{{id}}}:chunks.{}:0", plan.generation);
    redis.ask(&format!("RENAME {key} kept")).unwrap();
    let app = App::start(&redis, "").await;
    let sent = async || {
        (app.client.get(&format!("/deliveries/{id}")).await["counts"]["sent"] == 10).then_some(())
    };
    eventually("the rest is sent", LIMIT, sent).await;
    passes(&app).await;
    assert_eq!(
        app.client.get(&format!("/deliveries/{id}/progress")).await["set_aside"],
        json!([0])
    );
    let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
    assert_eq!(
        depths.iter().find(|depth| depth.queue == QueueName::Chunks).unwrap().dead,
        1,
        "only one dead job, not one each second"
    );
    redis.ask(&format!("RENAME kept {key}")).unwrap();
    let (status, answer) =
        app.client.post(&format!("/deliveries/{id}/chunks/0/retry"), &json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    app.client.wait_for(id.as_str(), &["finished"]).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_limit_does_not_affect_approved_deliveries() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let mut definition = crate::harness::client::definition();
    definition["content"]["html"] = format!("<p>{}unsubscribe", "word ".repeat(2000)).into();
    let id = direct_calls::create(services, definition).await;
    direct_calls::upload(services, &id, audience(5)).await;
    direct_calls::prepare(services, &id).await;
    let app = App::start(&redis, "[preparation]\nmessage_limit_kib = 8").await;
    let digest = app.client.get(&format!("/deliveries/{id}")).await["plan"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(app.client.confirm(id.as_str(), &digest).await.0, StatusCode::ACCEPTED);
    let done = app.client.wait_for(id.as_str(), &["finished"]).await;
    assert_eq!(done["counts"]["sent"], 5);
    app.stop().await;
    let app = App::start(&redis, "[preparation]\nmessage_limit_kib = 8").await;
    assert!(app.client.bytes(&format!("/deliveries/{id}/recipients/0/preview")).await.len() > 9000);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_was_set_aside_expires_with_its_delivery() {
    let redis = RedisServer::start();
    let (application, _state) = idle_after(DEAD, &redis, "[preparation]\nchunk_size = 10").await;
    let services = application.services();
    let id = started(services, 20).await;
    for chunk in 0..2 {
        let at = ChunkRef { delivery: id.clone(), chunk };
        for _ in 0..=CRASHES {
            crash(services, &at).await;
        }
    }
    assert_eq!(services.stores.chunks.poisoned(&id).await.unwrap(), BTreeSet::from([0, 1]));
    // Another worker takes the chunk that is set aside, and dies, too.
    let at = ChunkRef { delivery: id.clone(), chunk: 1 };
    assert!(matches!(
        services
            .stores
            .ledgers
            .take_lease(&at, DEAD, TakeoverGrounds::default(), unix_now())
            .await
            .unwrap(),
        Taken::Yes(..)
    ));
    services.journey.recover.reconciler.reconcile().await.unwrap();
    assert_eq!(
        services.stores.ledgers.counts(&id).await.unwrap().pending,
        20,
        "nobody fails before the validity period ends"
    );
    validity_ends(services, &id).await;
    for _ in 0..3 {
        services.journey.recover.reconciler.reconcile().await.unwrap();
    }
    assert_eq!(services.stores.ledgers.counts(&id).await.unwrap().failed, 20);
    assert!(services.stores.chunks.poisoned(&id).await.unwrap().is_empty());
    services.journey.recover.finishes.finish(&id).await.unwrap();
    assert_eq!(services.deliveries.delivery(&id).await.unwrap().state.word(), "finished");
}
