//! Redis without memory or without room on its disk.
//!
//! Sending pauses, and the daemon reports it. Nothing is lost or doubled, and sending goes on when
//! there is room.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    LIMIT, at_rest,
    client::{Client, audience, definition},
    daemon::Daemon,
    eventually,
    redis::{RedisServer, limit_files},
    relay::TestRelay,
};

const RECIPIENTS: usize = 1000;
const CONNECTIONS: usize = 6;
/// Longer than three leases.
const OUTAGE: Duration = Duration::from_millis(3500);

fn settings(relay: &TestRelay, more: &str) -> String {
    format!("{}[preparation]\nchunk_size = 100\n{more}", relay.settings(CONNECTIONS))
}

/// A delivery of which a quarter has been sent. Its policy is `resend`: a recipient in doubt may
/// get a second message, and the test would fail.
async fn quarter_sent(daemon: &Daemon, relay: &TestRelay) -> String {
    let mut definition = definition();
    definition["settings"]["in_doubt"] = json!("resend");
    let id = daemon.client.send(&definition, audience(RECIPIENTS)).await;
    eventually("a quarter is sent", LIMIT, async || {
        (relay.accepted() >= RECIPIENTS / 4).then_some(())
    })
    .await;
    id
}

async fn ready(daemon: &Daemon) -> Option<Value> {
    reqwest::get(format!("{}/readyz", daemon.client.url)).await.ok()?.json().await.ok()
}

/// Waits until the daemon reports that it cannot send. Then checks for much longer than a lease
/// that it sends nothing.
async fn check_paused(daemons: &[&Daemon], relay: &TestRelay) {
    for daemon in daemons {
        eventually("the daemon reports it", LIMIT, async || {
            (ready(daemon).await?["redis_writable"] == false).then_some(())
        })
        .await;
        assert_eq!(ready(daemon).await.unwrap()["ready"], false);
        assert_eq!(daemon.metric("versand_redis_writable").await, 0.0);
    }
    let accepted =
        at_rest("begun transactions end", Duration::from_millis(500), || relay.accepted()).await;
    assert!(accepted < RECIPIENTS, "all messages were sent before the outage");
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(relay.accepted(), accepted, "the daemon still sends");
}

/// Checks that everybody got one message, and that the sending log says so.
async fn check_complete(client: &Client, id: &str, relay: &TestRelay) {
    client.wait_for(id, &["finished"]).await;
    let log = client.log(id).await;
    assert_eq!(log.iter().filter(|line| line["status"] == "sent").count(), RECIPIENTS);
    assert_eq!(relay.received().values().map(Vec::len).collect::<Vec<_>>(), vec![1; RECIPIENTS]);
}

fn logged_once(daemon: &Daemon, why: &str) {
    let log = daemon.log();
    let logged: Vec<&str> =
        log.lines().filter(|line| line.contains("Redis takes no writes")).collect();
    assert!(logged.len() == 1 && logged[0].contains(why), "{logged:?}");
    assert_eq!(log.matches("Redis takes writes again").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_memory_pauses_the_send_and_nobody_is_lost_or_doubled() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(2)).await);
    let settings = settings(&relay, &format!("[redis]\nurl = \"{}\"\n", redis.url()));
    // With two daemons, a chunk that is wrongly taken over would be sent twice.
    let (first, second) = (Daemon::start(&settings).await, Daemon::start(&settings).await);
    let id = quarter_sent(&first, &relay).await;
    redis.ask("CONFIG SET maxmemory 1").unwrap();
    check_paused(&[&first, &second], &relay).await;
    assert_eq!(first.metric("versand_redis_up").await, 1.0, "Redis answers");
    redis.ask("CONFIG SET maxmemory 0").unwrap();
    check_complete(&first.client, &id, &relay).await;
    for daemon in [&first, &second] {
        logged_once(daemon, "OOM");
        eventually("the daemon is ready again", LIMIT, async || {
            (ready(daemon).await?["ready"] == true).then_some(())
        })
        .await;
        assert_eq!(
            daemon.metric("versand_chunks_taken_over_total").await,
            0.0,
            "no holder was dead"
        );
        assert_eq!(daemon.metric("versand_conservation_difference").await, 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_writes_on_a_full_disk_pauses_the_send() {
    // A Redis that syncs at every write ends instead: see the next test.
    let redis = RedisServer::start_with(&["--appendfsync", "everysec"]);
    let relay = TestRelay::start(Duration::from_millis(2)).await;
    let more = format!("[redis]\nurl = \"{}\"\nallow_data_loss = true\n", redis.url());
    let daemon = Daemon::start(&settings(&relay, &more)).await;
    let id = quarter_sent(&daemon, &relay).await;
    redis.fill_disk(1);
    check_paused(&[&daemon], &relay).await;
    let refusal = redis.ask("SET a b").unwrap();
    assert!(refusal.starts_with("-MISCONF"), "{refusal}");
    redis.make_room();
    check_complete(&daemon.client, &id, &relay).await;
    logged_once(&daemon, "MISCONF");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_waits_for_a_redis_that_ended_on_a_full_disk() {
    let (mut redis, relay) =
        (RedisServer::start(), TestRelay::start(Duration::from_millis(2)).await);
    let daemon =
        Daemon::start(&settings(&relay, &format!("[redis]\nurl = \"{}\"\n", redis.url()))).await;
    let id = quarter_sent(&daemon, &relay).await;
    redis.fill_disk(1);
    eventually("Redis ends", LIMIT, async || (!redis.is_running()).then_some(())).await;
    check_paused(&[&daemon], &relay).await;
    redis.restart();
    check_complete(&daemon.client, &id, &relay).await;
    logged_once(&daemon, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_redis_is_restarted_until_the_disk_has_room() {
    let (folder, relay) =
        (tempfile::tempdir().unwrap(), TestRelay::start(Duration::from_millis(2)).await);
    let (full, program) = (folder.path().join("full"), folder.path().join("redis"));
    let limited = format!("[ ! -e {} ] || ulimit -S -f 1", full.display());
    fs::write(&program, format!("#!/bin/sh\ntrap '' XFSZ\n{limited}\nexec redis-server \"$@\"\n"))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::start(&settings(
        &relay,
        &format!("[redis]\nprogram = \"{}\"\n", program.display()),
    ))
    .await;
    let id = quarter_sent(&daemon, &relay).await;
    fs::write(&full, "").unwrap();
    limit_files(daemon.embedded_pid().unwrap(), Some(1));
    check_paused(&[&daemon], &relay).await;
    fs::remove_file(&full).unwrap();
    check_complete(&daemon.client, &id, &relay).await;
    assert!(daemon.log().contains("embedded Redis ended, starting it again"));
}
