//! The queue on a real redis-server.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use versand::queue::{ConfirmSend, Job, JobError, JobState, QueueName, ReceivedJob};

use crate::harness::{
    python::python,
    queue::{Daemon, Redis, SOON, eventually, reaches, state},
};

#[tokio::test]
async fn a_job_is_delivered_with_its_payload_and_is_done() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let (seen, mut received) = mpsc::unbounded_channel();
    let daemon = Daemon::start(&queue, QueueName::Steps, 2, move |job| {
        let seen = seen.clone();
        async move {
            let _ = seen.send(job);
            Ok(())
        }
    });
    let job = Job::SendChunk { delivery: "d1".into(), chunk: 7, round: 1 };
    assert!(queue.enqueue(QueueName::Steps, "d1:7:1", &job.encode()).await.expect("enqueue"));
    let got = tokio::time::timeout(SOON, received.recv()).await.expect("delivered").expect("open");
    assert_eq!((got.id.as_str(), got.attempt), ("d1:7:1", 1));
    assert_eq!(Job::decode(&got.payload).expect("decode"), job);
    reaches(&queue, QueueName::Steps, "d1:7:1", JobState::Done).await;
    assert!(daemon.workers.health.ready());
    assert!(daemon.stop(SOON).await);
    let left: Vec<String> =
        redis.run("KEYS versand:{core:apalis:queues:list}:steps:*metadata*").await;
    assert!(left.is_empty(), "a worker that stopped leaves no key: {left:?}");
}

#[tokio::test]
async fn a_known_id_is_not_queued_again() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    assert!(queue.enqueue(QueueName::Steps, "a:1", b"1").await.expect("enqueue"));
    assert!(!queue.enqueue(QueueName::Steps, "a:1", b"2").await.expect("enqueue"));
    assert_eq!(queue.depths().await.expect("depths")[1].active, 1);
    assert_eq!(state(&queue, QueueName::Steps, "a:1").await, Some(JobState::Waiting));
    assert_eq!(state(&queue, QueueName::Chunks, "a:1").await, None);
}

#[tokio::test]
async fn a_job_usually_starts_within_about_a_tenth_of_a_second() {
    let redis = Redis::start();
    // A worker also looks for jobs after each heartbeat. Heartbeats are too rare here to help.
    let (ours, theirs) = (redis.queue("heartbeat_ms = 30000").await, redis.queue("").await);
    let (seen, mut received) = mpsc::unbounded_channel();
    let daemon = Daemon::start(&ours, QueueName::Steps, 1, move |_| {
        let _ = seen.send(Instant::now());
        async { Ok(()) }
    });
    eventually(SOON, "ready", async || daemon.workers.health.ready()).await;
    for (queue, limit_ms) in [(&ours, 60), (&theirs, 120)] {
        let (mut waits, mut round) = (VecDeque::new(), 0);
        // The test takes the median of ten jobs in sequence. A busy machine gets as many tries as
        // it needs.
        eventually(SOON, &format!("a median under {limit_ms} ms"), async || {
            // The job comes at any moment between two polls.
            tokio::time::sleep(Duration::from_millis(37)).await;
            let (put, id) = (Instant::now(), format!("wake:{limit_ms}:{round}"));
            queue.enqueue(QueueName::Steps, &id, b"{}").await.expect("enqueue");
            let started = received.recv().await.expect("open");
            waits.push_back(started.duration_since(put));
            round += 1;
            if waits.len() > 10 {
                waits.pop_front();
            }
            let mut sorted = Vec::from_iter(waits.iter().copied());
            sorted.sort();
            sorted.len() == 10 && sorted[5] < Duration::from_millis(limit_ms)
        })
        .await;
    }
    daemon.stop(SOON).await;
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_and_does_not_count_as_a_crash() {
    let redis = Redis::start();
    let queue = redis.queue("crashes = 1").await;
    let daemon = Daemon::start(&queue, QueueName::Chunks, 1, |job| async move {
        match job.attempt {
            1 | 2 => Err(JobError::Retry("away".into())),
            _ => Ok(()),
        }
    });
    queue.enqueue(QueueName::Chunks, "d:0:1", b"{}").await.expect("enqueue");
    reaches(&queue, QueueName::Chunks, "d:0:1", JobState::Retrying).await;
    reaches(&queue, QueueName::Chunks, "d:0:1", JobState::Done).await;
    assert!(daemon.stop(SOON).await);
}

#[tokio::test]
async fn a_shutdown_finishes_running_jobs_and_others_do_the_rest() {
    let redis = Redis::start();
    // A worker without a heartbeat for two and a half seconds counts as dead.
    let queue = redis.queue("heartbeat_ms = 500").await;
    let (ended, mut endings) = mpsc::unbounded_channel();
    let run_slowly = |who: &'static str, wait: Duration| {
        let ended = ended.clone();
        move |job: ReceivedJob| {
            let ended = ended.clone();
            async move {
                tokio::time::sleep(wait).await;
                let _ = ended.send((job.id, who));
                Ok(())
            }
        }
    };
    // These jobs take longer than the time after which a worker counts as dead. While the worker
    // drains, others must not take its jobs.
    let leaving = run_slowly("leaving", Duration::from_secs(5));
    let leaving = Daemon::start(&queue, QueueName::Steps, 2, leaving);
    for n in 0..6 {
        let id = format!("slow:{n}");
        queue.enqueue(QueueName::Steps, &id, b"{}").await.expect("enqueue");
    }
    eventually(SOON, "two jobs run", async || queue.depths().await.expect("depths")[1].active == 4)
        .await;
    leaving.workers.shutdown.cancel();
    let staying = run_slowly("staying", Duration::ZERO);
    let staying =
        Daemon::start(&redis.queue("heartbeat_ms = 500").await, QueueName::Steps, 2, staying);
    assert!(leaving.stop(SOON).await);
    eventually(SOON, "all jobs are done", async || {
        queue.depths().await.expect("depths")[1].done == 6
    })
    .await;
    assert!(staying.stop(SOON).await);
    drop(ended);
    let mut all = Vec::new();
    while let Some(ending) = endings.recv().await {
        all.push(ending);
    }
    all.sort();
    let ids: Vec<_> = all.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["slow:0", "slow:1", "slow:2", "slow:3", "slow:4", "slow:5"]);
    assert_eq!(all.iter().filter(|(_, who)| *who == "leaving").count(), 2);
    let depths = queue.depths().await.expect("depths");
    let depth = &depths[1];
    assert_eq!((depth.in_flight, depth.workers), (0, 0));
}

#[tokio::test]
async fn the_age_of_the_first_job_is_known() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    for id in ["job:old", "job:new"] {
        queue.enqueue(QueueName::Steps, id, b"{}").await.expect("enqueued");
    }
    let first =
        async || queue.depths().await.expect("depths")[1].first.clone().expect("a job waits");
    assert!(first().await.waits_s.is_some_and(|seconds| seconds < 60));
    let meta = format!("{}:meta:job:old", QueueName::Steps.redis_name());
    let at = redis.run::<u64>(&format!("HGET {meta} queued_at")).await;
    let _: u64 = redis.run(&format!("HSET {meta} queued_at {}", at - 100)).await;
    assert!(first().await.waits_s.is_some_and(|seconds| (100..160).contains(&seconds)));
    // A producer that copied an earlier script.
    let _: u64 = redis.run(&format!("HDEL {meta} queued_at")).await;
    assert_eq!((first().await.id.as_str(), first().await.waits_s), ("job:old", None));
}

/// The script that producers copy must be the script that we run.
#[test]
fn the_contract_and_the_example_match_the_program() {
    let script: Vec<&str> = include_str!("../../../src/queue/enqueue.lua")
        .lines()
        .filter(|l| !l.starts_with("--"))
        .collect();
    let script = script.join("\n");
    let name = QueueName::Confirm.redis_name();
    for (file, text) in [
        ("docs/queue.md", include_str!("../../../docs/queue.md")),
        ("examples/confirm_send.py", include_str!("../../../examples/confirm_send.py")),
    ] {
        assert!(text.contains(&script), "{file} has another script");
        assert!(text.contains(name), "{file} has another queue name");
        assert!(text.contains("versand:outcome:"), "{file} has another outcome key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_producer_in_python_queues_a_signed_job_and_reads_the_outcome() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let folder = tempfile::tempdir().expect("folder");
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, b"a key of thirty-two bytes or more\n").expect("key");
    // White space around the key does not count, here as in the daemon.
    let answers = redis.connect().await;
    let daemon = Daemon::start(&queue, QueueName::Confirm, 1, move |received| {
        let mut answers = answers.clone();
        async move {
            let job = ConfirmSend::decode(&received.payload)?;
            let mut wanted = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
            wanted.set_audience(&["versand"]);
            wanted.set_issuer(&["shop"]);
            let key = jsonwebtoken::DecodingKey::from_secret(b"a key of thirty-two bytes or more");
            let token = jsonwebtoken::decode::<serde_json::Value>(&job.token, &key, &wanted)
                .map_err(|e| JobError::Abort(e.to_string()))?;
            let outcome = serde_json::json!({"status": "confirmed", "claims": token.claims, "delivery": job.delivery, "digest": job.digest});
            let key = format!("versand:outcome:{}", received.id);
            let () = redis::AsyncCommands::set_ex(&mut answers, key, outcome.to_string(), 60)
                .await
                .map_err(|e| JobError::Retry(e.to_string()))?;
            Ok(())
        }
    });
    let producer = redis.server.producer_arguments();
    let key_file = key_file.display().to_string();
    let printed = tokio::task::spawn_blocking(move || {
        let fixed =
            "--delivery d1 --digest 5eed --issuer shop --subject ann --wait 10 --job-id confirm:1";
        let mut arguments: Vec<&str> = fixed.split(' ').collect();
        arguments.extend(producer.iter().map(String::as_str));
        arguments.extend(["--key-file", &key_file]);
        python("examples/confirm_send.py", &arguments, SOON)
    })
    .await
    .expect("the producer");
    let (id, outcome) = printed.trim().split_once('\n').expect("two lines");
    assert_eq!(id, "confirm:1");
    let outcome: serde_json::Value = serde_json::from_str(outcome).expect("JSON");
    let claims = &outcome["claims"];
    assert_eq!(
        (&outcome["delivery"], &outcome["digest"]),
        (&claims["delivery"], &claims["digest"])
    );
    assert_eq!(
        (claims["sub"].as_str(), claims["action"].as_str()),
        (Some("ann"), Some("confirm_send"))
    );
    assert_eq!(claims["roles"], serde_json::json!(["start_deliveries"]));
    assert!(claims["jti"].as_str().is_some_and(|jti| jti.len() == 36) && claims["iat"].is_u64());
    assert!(daemon.stop(SOON).await);
}
