//! A Redis that goes back in time, and the rules that hold then ("What Redis promises").
//!
//! The tests use real crashes, cut append-only files and a replica that was behind.

use std::time::Instant;

use super::*;

const EVERYSEC: &[&str] = &["--appendfsync", "everysec"];
/// `appendfsync everysec` loses less than two seconds.
const LOST: Duration = Duration::from_millis(1500);
/// The default of `send.chunks_in_flight`, times the size of a chunk.
const MOST_IN_DOUBT: usize = 8 * 125;

async fn two_daemons(redis: &RedisServer, policy: &str) -> (TestRelay, [Daemon; 2], String) {
    let relay = TestRelay::start(DELAY).await;
    let settings = settings(redis, &relay);
    let daemons = [Daemon::start(&settings).await, Daemon::start(&settings).await];
    let id = daemons[0].client.send(&with_policy(policy), audience(RECIPIENTS)).await;
    (relay, daemons, id)
}

/// Lets the daemons send for a while, and then removes their writes of that time from Redis.
async fn lose_recent_writes(redis: &mut RedisServer) {
    let length = redis.log_length();
    sleep(LOST).await;
    redis.roll_back(length);
}

async fn sum(daemons: &[Daemon], series: &str) -> f64 {
    let mut sum = 0.0;
    for daemon in daemons {
        sum += daemon.series(series).await.unwrap_or_default();
    }
    sum
}

const PUT_BACK: &str = "versand_redis_went_back_total{became=\"put_back\"}";
const IN_DOUBT: &str = "versand_redis_went_back_total{became=\"in_doubt\"}";

#[tokio::test(flavor = "multi_thread")]
async fn living_daemons_replay_what_redis_lost() {
    let mut redis = RedisServer::start_with(EVERYSEC);
    let (relay, daemons, id) = two_daemons(&redis, "hold").await;
    for at in [200, 1000] {
        accepted(&relay, at).await;
        lose_recent_writes(&mut redis).await;
    }
    finished(&daemons[0].client, &id).await;
    assert!(sum(&daemons, PUT_BACK).await > 0.0, "Redis has lost nothing");
    assert_eq!(sum(&daemons, IN_DOUBT).await, 0.0);
    Account::of(&daemons[0].client, &id, &relay).await.nobody_twice(RECIPIENTS, 0);
    figures_agree(&daemons[0]).await;
    figures_agree(&daemons[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_lost_with_redis_and_daemons_are_in_doubt_and_nobody_gets_a_mail_twice() {
    let mut redis = RedisServer::start_with(EVERYSEC);
    let (relay, mut daemons, id) = two_daemons(&redis, "hold").await;
    accepted(&relay, 600).await;
    let length = redis.log_length();
    sleep(LOST).await;
    daemons.iter_mut().for_each(Daemon::kill);
    redis.roll_back(length);
    for daemon in &mut daemons {
        daemon.restart().await;
    }
    finished(&daemons[0].client, &id).await;
    let account = Account::of(&daemons[0].client, &id, &relay).await;
    account.nobody_twice(RECIPIENTS, MOST_IN_DOUBT);
    assert!(account.with_status("in_doubt") > CONNECTIONS * WINDOW, "Redis has lost nothing");
    figures_agree(&daemons[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_redis_lost_was_never_used() {
    let mut redis = RedisServer::start_with(EVERYSEC);
    let (relay, mut daemons, id) = two_daemons(&redis, "hold").await;
    let length = redis.log_length();
    let taken = async || (redis.log_length() > length + 10_000).then_some(());
    eventually("the chunks are leased", RECOVERY, taken).await;
    sleep(LOST).await;
    daemons.iter_mut().for_each(Daemon::kill);
    redis.roll_back(length);
    for daemon in &mut daemons {
        daemon.restart().await;
    }
    finished(&daemons[0].client, &id).await;
    Account::of(&daemons[0].client, &id, &relay).await.nobody_twice(RECIPIENTS, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn resend_repeats_attempts_that_redis_lost_and_records_it() {
    let mut redis = RedisServer::start_with(EVERYSEC);
    let (relay, mut daemons, id) = two_daemons(&redis, "resend").await;
    accepted(&relay, 600).await;
    let length = redis.log_length();
    sleep(LOST).await;
    daemons.iter_mut().for_each(Daemon::kill);
    redis.roll_back(length);
    for daemon in &mut daemons {
        daemon.restart().await;
    }
    finished(&daemons[0].client, &id).await;
    Account::of(&daemons[0].client, &id, &relay).await.nobody_missing(RECIPIENTS);
    figures_agree(&daemons[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_frozen_takes_over_and_nobody_gets_a_mail_twice() {
    let (mut redis, port) = RedisServer::start_on_port(&[]);
    let mut replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port.to_string()]);
    let synced = async || {
        replica.ask("INFO replication").ok()?.contains("master_link_status:up").then_some(())
    };
    eventually("the replica has everything", RECOVERY, synced).await;
    let (relay, daemons, id) = two_daemons(&redis, "hold").await;
    assert!(
        daemons[0].log().contains("when one of its 1 replicas takes over"),
        "{}",
        daemons[0].log()
    );
    accepted(&relay, 400).await;
    replica.freeze();
    sleep(LOST).await;
    let frozen_at = relay.accepted();
    redis.freeze();
    // the replica loses what waits in its socket, as a machine that was cut off does
    replica.restart();
    replica.take_over(&mut redis);
    finished(&daemons[0].client, &id).await;
    assert!(frozen_at > 400, "nothing was sent while the replica was frozen");
    assert!(sum(&daemons, PUT_BACK).await > 0.0, "Redis has lost nothing");
    Account::of(&daemons[0].client, &id, &relay).await.nobody_twice(RECIPIENTS, 0);
    figures_agree(&daemons[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_confirmation_and_an_answered_pause_are_not_undone() {
    // The delivery is some seconds of work for a slow relay.
    const SLOW: usize = 1000;
    let mut redis = RedisServer::start_with(EVERYSEC);
    let relay = TestRelay::start(Duration::from_millis(20)).await;
    let daemon = Daemon::start(&settings(&redis, &relay)).await;
    let id = daemon.client.create(&definition()).await;
    daemon.client.upload(&id, audience(SLOW)).await;
    let digest = daemon.client.prepare(&id).await["plan"]["digest"].as_str().unwrap().to_owned();
    let asked = Instant::now();
    let (status, answer) = daemon.client.confirm(&id, &digest).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert!(
        asked.elapsed() >= Duration::from_secs(2),
        "the answer did not await durability: {:?}",
        asked.elapsed()
    );
    accepted(&relay, 10).await;
    let (path, nothing) = (format!("/deliveries/{id}/pause"), json!({}));
    let mut paused = std::pin::pin!(daemon.client.post(&path, &nothing));
    let mut lengths = Vec::new();
    let (status, answer) = loop {
        lengths.push((Instant::now(), redis.log_length()));
        if let Ok(answered) = tokio::time::timeout(Duration::from_millis(20), &mut paused).await {
            break answered;
        }
    };
    assert!(status.is_success(), "{answer}");
    // Data that was written two seconds before the answer survives any crash of Redis.
    let (_, length) = lengths
        .into_iter()
        .rfind(|(then, _)| then.elapsed() >= Duration::from_millis(1950))
        .unwrap();
    redis.roll_back(length);
    let view = daemon.client.wait_for(&id, &["paused"]).await;
    assert_eq!(view["state"], "paused");
    let (status, answer) =
        daemon.client.post(&format!("/deliveries/{id}/resume"), &json!({})).await;
    assert!(status.is_success(), "{answer}");
    finished(&daemon.client, &id).await;
    Account::of(&daemon.client, &id, &relay).await.nobody_twice(SLOW, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_restart_of_redis_leaves_nobody_in_doubt() {
    let mut redis = RedisServer::start_with(EVERYSEC);
    let (relay, daemons, id) = two_daemons(&redis, "hold").await;
    for at in [300, 900] {
        accepted(&relay, at).await;
        redis.restart();
    }
    finished(&daemons[0].client, &id).await;
    assert!(sum(&daemons, "versand_redis_restarts_total").await >= 2.0);
    Account::of(&daemons[0].client, &id, &relay).await.nobody_twice(RECIPIENTS, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_logs_and_exports_the_durability_of_redis() {
    for (options, word) in [(&[][..], "strict"), (EVERYSEC, "goes_back")] {
        let redis = RedisServer::start_with(options);
        let relay = TestRelay::start(DELAY).await;
        let daemon = Daemon::start(&settings(&redis, &relay)).await;
        let series = format!("versand_redis_durability{{promise=\"{word}\"}}");
        assert_eq!(daemon.series(&series).await, Some(1.0));
        assert_eq!(
            daemon.metric("versand_redis_durable").await,
            f64::from(u8::from(word == "strict"))
        );
        let logged = if word == "strict" {
            "all guarantees hold"
        } else {
            "nobody is sent to twice unnoticed"
        };
        assert!(daemon.log().contains(logged), "{}", daemon.log());
        // Somebody weakens the durability while Redis runs.
        redis.ask("CONFIG SET appendfsync no").unwrap();
        let weak = async || {
            (daemon.series("versand_redis_durability{promise=\"weak\"}").await == Some(1.0))
                .then_some(())
        };
        eventually("the change is noticed", RECOVERY, weak).await;
        assert!(daemon.log().contains("the durability that Redis promises has changed"));
    }
}
