//! Each trap of apalis that the queue must avoid.
//!
//! A test that fails after an upgrade may mean that a trap is gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use versand::queue::{Job, JobError, JobState, QueueError, QueueName, ReceivedJob};

use crate::harness::{
    LIMIT,
    queue::{Daemon, Redis, SOON, eventually, reaches, state},
    redis::RedisServer,
};

#[tokio::test]
async fn a_bad_payload_is_dead_and_the_worker_lives() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let daemon = Daemon::start(&queue, QueueName::Steps, 1, |job| async move {
        Job::decode(&job.payload).map(|_| ())
    });
    let good = Job::Prepare { delivery: "d".into() }.encode();
    for (id, payload) in [
        ("bad:text", b"not json".as_slice()),
        ("bad:bytes", &[0xff, 0, 0xfe]),
        ("bad:empty", b""),
        ("bad:field", br#"{"job":"prepare","delivery":"d","x":"a@b.c"}"#),
        ("good:1", &good),
    ] {
        queue.enqueue(QueueName::Steps, id, payload).await.expect("enqueue");
    }
    reaches(&queue, QueueName::Steps, "good:1", JobState::Done).await;
    for id in ["bad:text", "bad:bytes", "bad:empty", "bad:field"] {
        reaches(&queue, QueueName::Steps, id, JobState::Dead).await;
    }
    let page = queue.dead(QueueName::Steps, 0, 100).await.expect("dead");
    assert_eq!((page.jobs.len(), page.next), (4, 0));
    let field = page.jobs.iter().find(|job| job.id == "bad:field").expect("listed");
    assert!(field.result.contains("not a job of this queue") && !field.result.contains("a@b.c"));
    assert!(field.done_at > 1_700_000_000);
    assert_eq!(daemon.workers.health.states()[0].restarts, 0);

    assert!(queue.retry_dead(QueueName::Steps, "bad:text").await.expect("retry"));
    reaches(&queue, QueueName::Steps, "bad:text", JobState::Dead).await;
    assert!(queue.discard_dead(QueueName::Steps, "bad:text").await.expect("discard"));
    assert!(!queue.discard_dead(QueueName::Steps, "bad:text").await.expect("discard"));
    assert!(!queue.retry_dead(QueueName::Steps, "bad:text").await.expect("retry"));
    assert_eq!(state(&queue, QueueName::Steps, "bad:text").await, None);
    daemon.stop(SOON).await;
}

#[tokio::test]
async fn ids_that_apalis_would_change_are_refused() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let long = "x".repeat(201);
    for id in ["007", "7", "", "a b", "a\n", "ä", "a@b", &long, "01arz3ndektsv4rrffq69g5fav"] {
        let answer = queue.enqueue(QueueName::Steps, id, b"{}").await;
        assert!(matches!(answer, Err(QueueError::BadId)), "{id:?}");
    }
}

/// Entries that other programs may put on the queue without our script. Each would end one worker
/// after another.
#[tokio::test]
async fn bad_entries_are_set_aside_and_the_queue_goes_on() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let ran = Arc::new(std::sync::Mutex::new(Vec::new()));
    let prefix = QueueName::Confirm.redis_name();
    let meta = "attempts 0 max_attempts 25 status Pending";
    for id in ["007", "01arz3ndektsv4rrffq69g5fav", "no:meta", "bad:meta", "bad:status"] {
        let _: u64 = redis.run(&format!("HSET {prefix}:data {id} {{}}")).await;
    }
    for id in ["007", "01arz3ndektsv4rrffq69g5fav", "no:payload"] {
        let _: u64 = redis.run(&format!("HSET {prefix}:meta:{id} {meta}")).await;
    }
    let _: u64 = redis.run(&format!("HSET {prefix}:meta:bad:meta attempts x")).await;
    let _: u64 = redis
        .run(&format!("HSET {prefix}:meta:bad:status attempts 0 max_attempts 25 status Odd"))
        .await;
    let poison =
        ["007", "01arz3ndektsv4rrffq69g5fav", "no:meta", "no:payload", "bad:meta", "bad:status"];
    for id in poison {
        let _: u64 = redis.run(&format!("RPUSH {prefix}:active {id}")).await;
    }
    queue.enqueue(QueueName::Confirm, "good:1", b"{}").await.expect("enqueue");
    let listed = ran.clone();
    let daemon = Daemon::start(&queue, QueueName::Confirm, 4, move |job| {
        listed.lock().unwrap().push(job.id);
        async { Ok(()) }
    });
    eventually(LIMIT, "all bad entries are set aside", async || {
        queue.depths().await.expect("depths")[0].dead == poison.len() as u64
    })
    .await;
    reaches(&queue, QueueName::Confirm, "good:1", JobState::Done).await;
    assert_eq!(
        *ran.lock().unwrap(),
        ["good:1"],
        "no bad entry reaches a step, not even under another id"
    );
    eventually(SOON, "the worker lives", async || daemon.workers.health.ready()).await;
    assert!(daemon.workers.health.states()[0].restarts >= 1);
    assert!(daemon.stop(SOON).await);
}

#[tokio::test]
async fn after_a_restart_of_redis_the_workers_come_back_and_lose_nothing() {
    let mut redis = Redis::start();
    let queue = redis.queue("").await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let daemon = Daemon::start(&queue, QueueName::Steps, 4, move |job| {
        let counted = counted.clone();
        async move {
            if job.id == "slow:1" {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(3)).await;
                counted.fetch_add(100, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    queue.enqueue(QueueName::Steps, "slow:1", b"{}").await.expect("enqueue");
    reaches(&queue, QueueName::Steps, "slow:1", JobState::Running).await;
    redis.restart(Duration::from_millis(500)).await;
    eventually(SOON, "the worker lives", async || daemon.workers.health.ready()).await;
    eventually(SOON, "enqueued", async || {
        queue.enqueue(QueueName::Steps, "after:1", b"{}").await.is_ok()
    })
    .await;
    reaches(&queue, QueueName::Steps, "after:1", JobState::Done).await;
    reaches(&queue, QueueName::Steps, "slow:1", JobState::Done).await;
    assert_eq!(
        runs.load(Ordering::SeqCst),
        101,
        "a repeated job waits for the run that is under way"
    );
    assert!(daemon.workers.health.states()[0].restarts >= 1);
    assert!(daemon.stop(SOON).await);
}

/// A daemon that dies without a report: its runtime is dropped in the middle of the job.
#[test]
fn the_job_of_a_worker_that_died_is_run_by_another() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime")
    };
    let rest = runtime();
    let redis = Redis::start();
    let victim = runtime();
    victim.block_on(async {
        let queue = redis.queue("").await;
        let _daemon = Daemon::start(&queue, QueueName::Chunks, 1, |_| std::future::pending());
        queue.enqueue(QueueName::Chunks, "d:0:1", b"{}").await.expect("enqueue");
        reaches(&queue, QueueName::Chunks, "d:0:1", JobState::Running).await;
    });
    victim.shutdown_background();
    rest.block_on(async {
        let queue = redis.queue("").await;
        let daemon = Daemon::start(&queue, QueueName::Chunks, 1, |job| async move {
            assert_eq!(job.attempt, 1, "a crash does not count as an attempt");
            Ok(())
        });
        reaches(&queue, QueueName::Chunks, "d:0:1", JobState::Done).await;
        assert!(daemon.stop(SOON).await);
    });
}

#[tokio::test]
async fn a_job_that_always_crashes_is_dead_after_the_limit() {
    let redis = Redis::start();
    let queue = redis.queue("crashes = 2").await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let daemon = Daemon::start(&queue, QueueName::Chunks, 1, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { panic!("a bug") }
    });
    queue.enqueue(QueueName::Chunks, "d:0:1", b"{}").await.expect("enqueue");
    reaches(&queue, QueueName::Chunks, "d:0:1", JobState::Dead).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    let status = queue.status(QueueName::Chunks, "d:0:1").await.expect("status").expect("there");
    assert!(status.result.contains("started 2 times"), "{}", status.result);
    assert!(daemon.stop(SOON).await);
}

/// The process dies with the job each time. Only the start is on record.
#[tokio::test]
async fn starts_without_an_end_are_counted_across_processes() {
    let redis = Redis::start();
    let queue = redis.queue("crashes = 3").await;
    queue.enqueue(QueueName::Chunks, "d:0:1", b"{}").await.expect("enqueue");
    let meta = format!("{}:meta:d:0:1", QueueName::Chunks.redis_name());
    let _: u64 = redis.run(&format!("HSET {meta} starts 3")).await;
    let daemon = Daemon::start(&queue, QueueName::Chunks, 1, |_| async { Ok(()) });
    reaches(&queue, QueueName::Chunks, "d:0:1", JobState::Dead).await;
    assert!(daemon.stop(SOON).await);
}

#[tokio::test]
async fn ten_thousand_due_retries_do_not_end_the_workers() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let () = redis.run("CONFIG SET appendfsync no").await;
    let name = QueueName::Chunks;
    let mut conn = redis.connect().await;
    let mut pipe = redis::pipe();
    for n in 0..10_000 {
        let id = format!("d:{n}:1");
        pipe.hset(format!("{}:data", name.redis_name()), &id, "{}").ignore();
        pipe.cmd("HSET")
            .arg(format!("{}:meta:{id}", name.redis_name()))
            .arg(&["attempts", "1", "max_attempts", "25", "status", "Failed"])
            .ignore();
        pipe.zadd(format!("{}:scheduled", name.redis_name()), &id, 1).ignore();
    }
    let () = pipe.query_async(&mut conn).await.expect("fill");
    let daemon = Daemon::start(&queue, name, 8, |_| async { Ok(()) });
    eventually(LIMIT, "all jobs are done", async || {
        queue.depths().await.expect("depths")[2].done == 10_000
    })
    .await;
    assert_eq!(daemon.workers.health.states()[0].restarts, 0);
    assert!(daemon.stop(SOON).await);
}

#[tokio::test]
async fn our_jobs_never_use_the_scheduled_set() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    for n in 0..20 {
        queue.enqueue(QueueName::Chunks, &format!("d:{n}:1"), b"{}").await.expect("enqueue");
    }
    let depths = queue.depths().await.expect("depths");
    let depth = &depths[2];
    assert_eq!((depth.active, depth.scheduled, depth.due), (20, 0, 0));
}

#[tokio::test]
async fn ended_jobs_are_removed_after_their_retention() {
    let redis = Redis::start();
    let queue = redis.queue("keep_done_hours = 2\nkeep_dead_hours = 5").await;
    let daemon = Daemon::start(&queue, QueueName::Steps, 4, |job| async move {
        if job.id.starts_with("dead") {
            return Err(JobError::Abort("never".into()));
        }
        Ok(())
    });
    for n in 0..450 {
        queue.enqueue(QueueName::Steps, &format!("done:{n}"), b"{}").await.expect("enqueue");
    }
    queue.enqueue(QueueName::Steps, "dead:1", b"{}").await.expect("enqueue");
    eventually(SOON, "all jobs have ended", async || {
        let depths = queue.depths().await.expect("depths");
        let depth = &depths[1];
        (depth.done, depth.dead, depth.in_flight) == (450, 1, 0)
    })
    .await;
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("clock")
        .as_secs();
    let swept = queue.sweep(now_s + 3600).await.expect("sweep");
    assert_eq!((swept.done, swept.dead), (0, 0));
    let swept = queue.sweep(now_s + 3 * 3600).await.expect("sweep");
    assert_eq!((swept.done, swept.dead), (450, 0));
    let swept = queue.sweep(now_s + 6 * 3600).await.expect("sweep");
    assert_eq!((swept.done, swept.dead), (0, 1));
    let prefix = QueueName::Steps.redis_name();
    let left: Vec<String> = redis.run(&format!("KEYS {prefix}:meta:*")).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(redis.run::<u64>(&format!("HLEN {prefix}:data")).await, 0);
    assert_eq!(daemon.workers.health.states()[0].restarts, 0);
    assert!(daemon.stop(SOON).await);
}

/// A worker that fetched more than it can start would send no heartbeat, and others would run its
/// jobs a second time.
#[tokio::test]
async fn a_long_job_is_not_taken_over_while_its_worker_lives() {
    let redis = Redis::start();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let handler = move |job: ReceivedJob| {
        let counted = counted.clone();
        async move {
            if job.id == "long:0" {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            Ok(())
        }
    };
    // A worker without a heartbeat for two and a half seconds counts as dead.
    let queue = redis.queue("heartbeat_ms = 500").await;
    for n in 0..30 {
        queue.enqueue(QueueName::Chunks, &format!("long:{n}"), b"{}").await.expect("enqueue");
    }
    let first = Daemon::start(&queue, QueueName::Chunks, 1, handler.clone());
    reaches(&queue, QueueName::Chunks, "long:0", JobState::Running).await;
    let second =
        Daemon::start(&redis.queue("heartbeat_ms = 500").await, QueueName::Chunks, 1, handler);
    eventually(SOON, "all jobs are done", async || {
        queue.depths().await.expect("depths")[2].done == 30
    })
    .await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    for daemon in [first, second] {
        assert_eq!(daemon.workers.health.states()[0].restarts, 0);
        assert!(daemon.stop(SOON).await);
    }
}

/// A cluster refuses scripts over several slots. Apalis registers its queues in a key of its own.
#[tokio::test]
async fn all_keys_of_the_queues_share_one_slot() {
    let folder = tempfile::tempdir().expect("folder");
    let nodes = folder.path().join("nodes.conf").display().to_string();
    let (server, _port) =
        RedisServer::start_on_port(&["--cluster-enabled", "yes", "--cluster-config-file", &nodes]);
    let redis = Redis { server };
    let () = redis.run("CLUSTER ADDSLOTSRANGE 0 16383").await;
    eventually(SOON, "the cluster is up", async || {
        redis.run::<String>("CLUSTER INFO").await.contains("cluster_state:ok")
    })
    .await;
    // One node with all slots would not refuse such a script, so the test compares the slots.
    let theirs: u64 = redis.run("CLUSTER KEYSLOT core:apalis:queues:list").await;
    for name in QueueName::ALL {
        assert_eq!(
            redis.run::<u64>(&format!("CLUSTER KEYSLOT {}:active", name.redis_name())).await,
            theirs
        );
    }
    let queue = redis.queue("keep_done_hours = 0").await;
    let daemon = Daemon::start(&queue, QueueName::Confirm, 1, |_| async { Ok(()) });
    queue.enqueue(QueueName::Confirm, "confirm:1", b"{}").await.expect("enqueue");
    reaches(&queue, QueueName::Confirm, "confirm:1", JobState::Done).await;
    assert_eq!(queue.sweep(u64::MAX).await.expect("sweep").done, 1);
    assert!(daemon.stop(SOON).await);
}
