//! A store that is behind (copied, replaced, restored, silent, gone back) sends no second mail.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    LIMIT, app,
    client::{Client, answer, audience, definition},
    daemon::{Daemon, copy},
    eventually,
    redis::{RedisServer, connect},
    relay::TestRelay,
};

const RECIPIENTS: usize = 500;
const HEARTBEAT: &str = "versand:{daemons}:heartbeat";
const HOLD: &str = "versand:{daemons}:hold";
const SEEN: &str = "versand:{daemons}:seen";

fn settings(relay: &TestRelay, more: &str) -> String {
    let only_administrator = app::token("administrator", &["administration"]);
    format!(
        "{}[preparation]\nchunk_size = 50\n[auth]\ntokens = [{only_administrator}]\n{more}",
        relay.settings(4)
    )
}

/// A definition whose recipients in doubt are sent to again.
fn resending() -> Value {
    let mut definition = definition();
    definition["settings"]["in_doubt"] = json!("resend");
    definition
}

async fn hold(client: &Client) -> Value {
    client.get("/store").await["hold"].clone()
}

async fn accepted(relay: &TestRelay, n: usize) {
    eventually(&format!("{n} messages"), LIMIT, async || (relay.accepted() >= n).then_some(()))
        .await;
}

async fn counts(client: &Client, id: &str) -> Value {
    client.get(&format!("/deliveries/{id}/progress")).await["counts"].clone()
}

/// Checks that the store is held for this reason and sends nothing, releases it, and returns the
/// answer.
async fn hold_and_release(daemon: &Daemon, relay: &TestRelay, why: &str) -> Value {
    let sent = relay.accepted();
    let held = hold(&daemon.client).await;
    assert_eq!(held["why"], why, "{held}");
    assert_eq!(daemon.metric("versand_store_held").await, 1.0);
    daemon.passes("reconcile", 3).await;
    daemon.passes("release", 1).await;
    assert_eq!(relay.accepted(), sent, "a held store has sent");
    let request = json!({ "since": held["since"] });
    let release = async |client: &Client, body: &Value| {
        let request = client.request(Method::POST, "/store/release").json(body);
        answer(request.send().await.unwrap()).await
    };
    let half = daemon.client.with_token("administrator");
    assert_eq!(release(&half, &request).await.0, StatusCode::FORBIDDEN);
    let other = json!({ "since": "2001-02-03T04:05:06Z" });
    assert_eq!(release(&daemon.client, &other).await.0, StatusCode::CONFLICT);
    let (status, released) = release(&daemon.client, &request).await;
    assert_eq!(status, StatusCode::OK, "{released}");
    assert_eq!(hold(&daemon.client).await, Value::Null);
    released
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_state_directory_sends_nobody_a_second_mail() {
    let relay = TestRelay::start(Duration::from_millis(4)).await;
    let mut original = Daemon::start(&settings(&relay, "")).await;
    let id = original.client.send(&resending(), audience(RECIPIENTS)).await;
    accepted(&relay, 100).await;
    assert!(original.terminate().await.success());
    let before = relay.accepted();
    let mut copy = Daemon::start_on_copy(&original).await;
    // the original is at its place: it goes on by itself
    original.restart().await;
    assert_eq!(hold(&original.client).await, Value::Null);
    original.client.wait_for(&id, &["finished"]).await;
    assert_eq!(relay.accepted(), RECIPIENTS);

    let released = hold_and_release(&copy, &relay, "copied").await;
    assert_eq!(released["in_doubt"], RECIPIENTS - before);
    copy.client.wait_for(&id, &["finished"]).await;
    copy.passes("reconcile", 2).await;
    assert_eq!(relay.accepted(), RECIPIENTS, "somebody got a second mail");
    let counts = counts(&copy.client, &id).await;
    assert_eq!(
        (&counts["sent"], &counts["in_doubt"]),
        (&json!(before), &json!(RECIPIENTS - before))
    );
    // a person settles them
    let (status, settled) = copy
        .client
        .post(&format!("/deliveries/{id}/in-doubt"), &json!({ "as": "sent", "recipients": "all" }))
        .await;
    assert!(status.is_success(), "{settled}");
    // the copy has become an original: its next start is not held
    assert!(copy.terminate().await.success());
    copy.restart().await;
    assert_eq!(hold(&copy.client).await, Value::Null);
    assert!(copy.terminate().await.success() && original.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_files_that_are_copied_over_the_new_ones_are_found_out() {
    let relay = TestRelay::start(Duration::from_millis(4)).await;
    let mut daemon = Daemon::start(&settings(&relay, "")).await;
    let id = daemon.client.send(&resending(), audience(RECIPIENTS)).await;
    accepted(&relay, 100).await;
    assert!(daemon.terminate().await.success());
    let before = relay.accepted();
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    copy(&daemon.state_dir(), &old);
    daemon.restart().await;
    assert_eq!(hold(&daemon.client).await, Value::Null);
    daemon.client.wait_for(&id, &["finished"]).await;
    daemon.passes("reconcile", 4).await;
    assert!(daemon.terminate().await.success());
    // into the same directories, with the old times of the files
    let mut command = std::process::Command::new("cp");
    crate::harness::run(command.arg("-a").arg(old.join(".")).arg(daemon.state_dir()), LIMIT);
    daemon.restart().await;
    let released = hold_and_release(&daemon, &relay, "replaced").await;
    assert_eq!(released["in_doubt"], RECIPIENTS - before);
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(relay.accepted(), RECIPIENTS, "somebody got a second mail");
    assert!(daemon.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_store_confirms_nothing_and_holds_what_became_due() {
    let relay = TestRelay::start(Duration::ZERO).await;
    let mut original = Daemon::start(&settings(&relay, "")).await;
    let mut scheduled = definition();
    scheduled["schedule"] = json!({ "type": "at", "at": "2031-02-03T04:05:06", "zone": "UTC" });
    let later = original.client.send(&scheduled, audience(3)).await;
    // The wave is due late enough that the copy is made before.
    let soon = jiff::Timestamp::now() + Duration::from_secs(15);
    let local = soon.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    scheduled["schedule"] = json!({ "type": "at", "at": local, "zone": "UTC" });
    let due = original.client.send(&scheduled, audience(4)).await;
    let prepared = original.client.create(&definition()).await;
    original.client.upload(&prepared, audience(2)).await;
    let digest = original.client.prepare(&prepared).await["plan"]["digest"].clone();
    assert!(original.terminate().await.success());
    let copy = Daemon::start_on_copy(&original).await;
    let (status, problem) = copy.client.confirm(&prepared, digest.as_str().unwrap()).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("held"), "{problem}");
    // preparations go on
    let another = copy.client.create(&definition()).await;
    copy.client.upload(&another, audience(2)).await;
    assert_eq!(copy.client.prepare(&another).await["state"], "prepared");
    // one of the waves becomes due while the store is held
    eventually("the wave is due", LIMIT, async || (jiff::Timestamp::now() > soon).then_some(()))
        .await;
    let released = hold_and_release(&copy, &relay, "copied").await;
    assert_eq!((&released["deliveries"], &released["held_waves"]), (&json!(2), &json!(1)));
    // it is within its grace window, and still a person decides
    copy.client.wait_for(&due, &["held"]).await;
    copy.client.wait_for(&later, &["scheduled"]).await;
    let view = copy.client.get(&format!("/deliveries/{another}")).await;
    copy.client.confirm(&another, view["plan"]["digest"].as_str().unwrap()).await;
    copy.client.wait_for(&another, &["finished"]).await;
    assert_eq!(relay.accepted(), 2);
    copy.client.post(&format!("/deliveries/{due}/release"), &json!({})).await;
    copy.client.wait_for(&due, &["finished"]).await;
    assert_eq!(relay.accepted(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_a_heartbeat_for_longer_than_the_grace_window_is_held() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(4)).await);
    let url = format!("[redis]\nurl = \"{}\"\n[send]\ngrace_minutes = 30\n", redis.url());
    let mut daemon = Daemon::start(&settings(&relay, &url)).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 50).await;
    assert!(daemon.terminate().await.success());
    let mut conn = connect(&redis.url()).await;
    let ms: i64 = redis::cmd("HGET").arg(HEARTBEAT).arg("at").query_async(&mut conn).await.unwrap();
    let () = redis::cmd("DEL").arg(SEEN).query_async(&mut conn).await.unwrap();
    for (age_minutes, held) in [(29, false), (31, true)] {
        let () = redis::cmd("HSET")
            .arg(HEARTBEAT)
            .arg("at")
            .arg(ms - age_minutes * 60_000)
            .query_async(&mut conn)
            .await
            .unwrap();
        let () = redis::cmd("DEL").arg(SEEN).query_async(&mut conn).await.unwrap();
        daemon.restart().await;
        assert_eq!(!hold(&daemon.client).await.is_null(), held, "{age_minutes} minutes");
        if !held {
            assert!(daemon.terminate().await.success());
        }
    }
    let before = relay.accepted();
    let released = hold_and_release(&daemon, &relay, "silent").await;
    assert_eq!(released["in_doubt"], RECIPIENTS - before);
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(relay.accepted(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_back_under_a_running_daemon_is_held() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let daemon =
        Daemon::start(&settings(&relay, &format!("[redis]\nurl = \"{}\"\n", redis.url()))).await;
    let mut conn = connect(&redis.url()).await;
    let (count, at): (u64, u64) = redis::cmd("HMGET")
        .arg(HEARTBEAT)
        .arg("count")
        .arg("at")
        .query_async(&mut conn)
        .await
        .unwrap();
    // A backup of an hour ago holds such values.
    let () = redis::cmd("HSET")
        .arg(HEARTBEAT)
        .arg("count")
        .arg(count / 2)
        .arg("at")
        .arg(at - 3_600_000)
        .query_async(&mut conn)
        .await
        .unwrap();
    eventually("the store is held", LIMIT, async || {
        daemon.series("versand_store_held").await.filter(|held| *held == 1.0)
    })
    .await;
    hold_and_release(&daemon, &relay, "went_back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_a_person_writes_into_redis_counts_before_the_first_message() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(4)).await);
    let url = format!("[redis]\nurl = \"{}\"\n", redis.url());
    let mut daemon = Daemon::start(&settings(&relay, &url)).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 50).await;
    daemon.kill();
    let before = relay.accepted();
    // the command of docs/operations.md, for a Redis that was restored from its own backup
    let () = redis::cmd("HSET")
        .arg(HOLD)
        .arg("since")
        .arg(1_764_400_000)
        .arg("why")
        .arg("by_hand")
        .query_async(&mut connect(&redis.url()).await)
        .await
        .unwrap();
    daemon.restart().await;
    let late = relay.accepted();
    assert!(late - before <= 4, "only what was under way at the kill");
    hold_and_release(&daemon, &relay, "by_hand").await;
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(relay.accepted(), late);
}
