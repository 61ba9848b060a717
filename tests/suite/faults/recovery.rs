//! Every row of docs/recovery.md names tests that exist, and this file has some of these tests.
//!
//! They show that a state moves on after a job, a worker or a daemon is lost.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use serde_json::json;
use versand::{
    app::Services,
    clock::unix_now,
    domain::{
        delivery::{DeliveryId, DeliveryState},
        ledger::ChunkRef,
    },
    mail::catcher::{CatcherFault, CatcherStage},
    queue::{JobState, QueueName},
    send::operate::Control,
    store::chunks::{Batch, Claim, Lease, Taken, TakeoverGrounds},
};

use crate::{
    harness::{
        LIMIT,
        app::{App, idle, validity_ends},
        client::{audience, definition},
        direct_calls::{self, all_roles, connection, prepared, started},
        eventually,
        redis::RedisServer,
        repository, text,
    },
    tidy::table_rows,
};

/// The name of a process that nobody can prove dead.
const DEAD: u64 = 77;

fn sources(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { sources(path.to_str().unwrap()) } else { vec![path] })
        .collect()
}

#[test]
fn every_state_has_a_row_and_every_row_a_test_that_exists() {
    let page = text(repository("docs/recovery.md"));
    let code: String =
        ["src", "tests/suite"].iter().flat_map(|folder| sources(folder)).map(text).collect();
    let mut rows = 0;
    for section in ["Deliveries", "Chunks", "Jobs", "Redis"] {
        for row in table_rows(&page, section) {
            rows += 1;
            let [state, .., tests] = row.as_slice() else { panic!("{row:?}") };
            for test in tests.split(", ") {
                let test_fn = format!("#[test]\nfn {test}()");
                let exists =
                    [format!("async fn {test}()"), test_fn, format!("#[test]\n    fn {test}()")];
                assert!(
                    exists.iter().any(|function| code.contains(function)),
                    "{state}: there is no test {test:?}"
                );
            }
        }
    }
    assert!(rows > 30);
    let named: Vec<String> =
        table_rows(&page, "Deliveries").into_iter().map(|mut row| row.remove(0)).collect();
    assert_eq!(named, DeliveryState::ALL.map(|state| state.word().to_owned()));
}

/// Removes every trace of the jobs of a queue.
async fn lose_jobs(redis: &RedisServer, queue: QueueName) {
    let mut conn = connection(redis).await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("{}:*", queue.redis_name()))
        .query_async(&mut conn)
        .await
        .unwrap();
    assert!(!keys.is_empty(), "there were no jobs");
    let () = redis::cmd("DEL").arg(keys).query_async(&mut conn).await.unwrap();
}

async fn waiting(services: &Services, queue: QueueName) -> u64 {
    let depths = services.journey.preparations.jobs.queue.depths().await.unwrap();
    depths.iter().find(|depth| depth.queue == queue).unwrap().active
}

/// Runs passes of the reconciler, more often than a daemon does, until `probe` has an answer.
async fn reconciled<T>(
    services: &Services,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let pulse = tokio::spawn({
        let services = services.clone();
        async move { services.journey.recover.pulse.pulse().await }
    });
    let found = eventually(what, LIMIT, async || {
        services.journey.recover.reconciler.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        probe().await
    });
    let found = found.await;
    pulse.abort();
    found
}

/// Takes a chunk and claims its first recipient, as a worker that dies afterwards.
async fn claimed_by_dead_worker(services: &Services, at: &ChunkRef) -> Lease {
    let taken = services
        .stores
        .ledgers
        .take_lease(at, DEAD, TakeoverGrounds::default(), unix_now())
        .await
        .unwrap();
    let Taken::Yes(lease, _) = taken else { panic!("the chunk is leased by another") };
    let batch = Batch { claims: vec![Claim { position: 0, n: 1 }], ..Batch::default() };
    assert_eq!(
        services
            .stores
            .ledgers
            .write_batch(at, &lease, &batch, unix_now(), None)
            .await
            .unwrap()
            .granted,
        [true]
    );
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_whose_job_is_gone_is_queued_again() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let (id, _) = prepared(services, 10).await;
    services.journey.preparations.request(&all_roles(), &id, None).await.unwrap();
    lose_jobs(&redis, QueueName::Preparations).await;
    reconciled(services, "the job is queued again", async || {
        (waiting(services, QueueName::Preparations).await == 1).then_some(())
    })
    .await;
    assert_eq!(services.deliveries.delivery(&id).await.unwrap().state, DeliveryState::Preparing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_job_is_gone_is_queued_again() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let (id, digest) = prepared(services, 10).await;
    direct_calls::confirm(services, &id, &digest).await;
    lose_jobs(&redis, QueueName::Steps).await;
    reconciled(services, "the job is queued again", async || {
        (waiting(services, QueueName::Steps).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_whose_job_is_gone_is_queued_again() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = started(services, 10).await;
    // The validity period ends before the chunk is sent, so all recipients fail without an attempt.
    validity_ends(services, &id).await;
    services.journey.chunks.send_chunk(&id, 0).await.unwrap();
    assert_eq!(services.stores.ledgers.counts(&id).await.unwrap().failed, 10);
    lose_jobs(&redis, QueueName::Steps).await;
    reconciled(services, "the job is queued again", async || {
        (waiting(services, QueueName::Steps).await > 0).then_some(())
    })
    .await;
    services.journey.recover.finishes.finish(&id).await.unwrap();
    assert_eq!(services.deliveries.delivery(&id).await.unwrap().state, DeliveryState::Finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_a_stop_end_though_the_worker_died() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 10").await;
    let services = application.services();
    for (action, end) in
        [(Control::Pause, DeliveryState::Paused), (Control::Stop, DeliveryState::Stopped)]
    {
        let id = started(services, 20).await;
        let at = ChunkRef { delivery: id.clone(), chunk: 1 };
        claimed_by_dead_worker(services, &at).await;
        services.journey.operate.controls.control(&all_roles(), &id, action, None).await.unwrap();
        services.journey.recover.reconciler.reconcile().await.unwrap();
        assert_ne!(
            services.deliveries.delivery(&id).await.unwrap().state,
            end,
            "a holder may still be sending"
        );
        let state =
            async || (services.deliveries.delivery(&id).await.unwrap().state == end).then_some(());
        reconciled(services, end.word(), state).await;
        let counts = services.stores.ledgers.counts(&id).await.unwrap();
        assert_eq!((counts.attempting, counts.in_doubt), (0, 1));
    }
}

async fn lose_sets(redis: &RedisServer, id: &DeliveryId) {
    redis.ask(&format!("DEL versand:{{{id}}}:open versand:{{{id}}}:offered")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_in_no_set_is_found() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 10").await;
    let services = application.services();
    let id = started(services, 30).await;
    lose_sets(&redis, &id).await;
    lose_jobs(&redis, QueueName::Chunks).await;
    reconciled(services, "the chunk has a job", async || {
        (waiting(services, QueueName::Chunks).await == 3).then_some(())
    })
    .await;
    assert_eq!(services.stores.chunks.with_jobs(&id).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_holder_of_a_chunk_that_is_in_no_set_is_found() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = started(services, 10).await;
    let at = ChunkRef { delivery: id.clone(), chunk: 0 };
    claimed_by_dead_worker(services, &at).await;
    lose_sets(&redis, &id).await;
    let free = async || {
        (services.stores.ledgers.headers(&id, &[0]).await.unwrap()[0].owner == 0).then_some(())
    };
    reconciled(services, "taken over", free).await;
    assert_eq!(services.stores.ledgers.counts(&id).await.unwrap().in_doubt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_holder_counts_as_dead_while_redis_takes_no_writes() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = started(services, 10).await;
    let at = ChunkRef { delivery: id.clone(), chunk: 0 };
    let lease = claimed_by_dead_worker(services, &at).await;
    let holder = async || services.stores.ledgers.headers(&id, &[0]).await.unwrap()[0].owner;
    let pulse = tokio::spawn({
        let services = services.clone();
        async move { services.journey.recover.pulse.pulse().await }
    });
    for (refuse, allow) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 9", "REPLICAOF NO ONE"),
    ] {
        services.journey.recover.reconciler.reconcile().await.unwrap();
        redis.ask(refuse).unwrap();
        // The reconciler looks at the chunk again and again, for twice the length of a lease.
        for _ in 0..20 {
            let _ = services.journey.recover.reconciler.reconcile().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(
            !services
                .journey
                .recover
                .pulse
                .state
                .writable
                .load(std::sync::atomic::Ordering::Relaxed)
        );
        redis.ask(allow).unwrap();
        services.journey.recover.reconciler.reconcile().await.unwrap();
        assert_eq!(holder().await, DEAD, "{refuse}: the holder could not beat");
        services.stores.ledgers.renew_lease(&at, &lease).await.unwrap();
    }
    eventually("the holder counts as dead in the end", LIMIT, async || {
        services.journey.recover.reconciler.reconcile().await.unwrap();
        (holder().await == 0).then_some(())
    })
    .await;
    pulse.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_whose_job_is_gone_is_offered_again() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let id = started(services, 10).await;
    let queue = QueueName::Chunks.redis_name();
    for (round, (loss, state)) in [
        ("DEL QUEUE:data QUEUE:active", None),
        ("DEL QUEUE:active", Some(JobState::Lost)),
        ("SMOVE QUEUE:from QUEUE:dead JOB", Some(JobState::Dead)),
        ("SMOVE QUEUE:from QUEUE:done JOB", Some(JobState::Done)),
    ]
    .into_iter()
    .enumerate()
    {
        let job = format!("{id}:0:{}", round + 1);
        redis.ask(&format!("SADD {queue}:from {job}")).unwrap();
        if loss.contains("JOB") {
            redis.ask(&format!("DEL {queue}:active")).unwrap();
        }
        redis.ask(&loss.replace("QUEUE", queue).replace("JOB", &job)).unwrap();
        let status =
            services.journey.preparations.jobs.queue.status(QueueName::Chunks, &job).await.unwrap();
        assert_eq!(status.map(|status| status.state), state);
        reconciled(services, loss, async || {
            (waiting(services, QueueName::Chunks).await == 1).then_some(())
        })
        .await;
        assert_eq!(services.stores.chunks.with_jobs(&id).await.unwrap()[0].2 as usize, round + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_does_the_work_left_on_the_queue() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "[preparation]\nchunk_size = 10").await;
    let id = started(application.services(), 30).await;
    assert_eq!(waiting(application.services(), QueueName::Chunks).await, 3);
    let app = App::start(&redis, "").await;
    let done = app.client.wait_for(id.as_str(), &["finished"]).await;
    assert_eq!(done["counts"]["sent"], 30);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_daemon_retries_deferred_recipients() {
    let redis = RedisServer::start();
    let first = App::start(&redis, "").await;
    let later = || Some(CatcherFault::reply(CatcherStage::Recipient, "451 4.2.1 later"));
    first.catcher.as_ref().unwrap().change_rules(|rules| rules.every = later());
    let mut definition = definition();
    definition["settings"]["retry_minutes"] = json!([0.05]);
    let id = first.client.send(&definition, audience(5)).await;
    let deferred =
        async || first.client.get(&format!("/deliveries/{id}")).await["counts"]["deferred"] == 5;
    eventually("deferred", LIMIT, async || deferred().await.then_some(())).await;
    first.stop().await;
    let next = App::start(&redis, "").await;
    let done = next.client.wait_for(&id, &["finished"]).await;
    assert_eq!(done["counts"]["sent"], 5);
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_delivery_holds_up_no_other() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(started(services, 10).await);
    }
    // Three of the four deliveries are broken, and the fourth one must go on.
    let broken: BTreeSet<&DeliveryId> = ids[..3].iter().collect();
    for id in &broken {
        let (offered, counts) =
            (format!("versand:{{{id}}}:offered"), format!("versand:{{{id}}}:counts"));
        redis.ask(&format!("DEL {offered} {counts}")).unwrap();
        redis.ask(&format!("SET {offered} x")).unwrap();
        redis.ask(&format!("SET {counts} x")).unwrap();
    }
    // No job can be queued for this delivery.
    let unnamed = started(services, 10).await;
    lose_sets(&redis, &unnamed).await;
    redis.ask(&format!("SET versand:{{{unnamed}}}:open x")).unwrap();
    redis.ask(&format!("ZADD versand:wanting 0 {unnamed}")).unwrap();
    lose_sets(&redis, &ids[3]).await;
    lose_jobs(&redis, QueueName::Chunks).await;
    reconciled(services, "the good one", async || {
        (waiting(services, QueueName::Chunks).await == 1).then_some(())
    })
    .await;
    // The check of the figures goes on, too: a difference in the good delivery is seen.
    redis.ask(&format!("HINCRBY versand:{{{}}}:counts sent 3", ids[3])).unwrap();
    for _ in 0..2 * ids.len() {
        services.observation.gauges.observe().await;
    }
    assert_eq!(services.observation.gauges.conservation.differences.largest(), 3);
}
