//! SIGTERM: the daemon finishes begun work within its limit, and reports the rest.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use versand::mail::catcher::{CatcherAction, CatcherFault, CatcherStage};

use crate::harness::{
    LIMIT, at_rest,
    client::{audience, definition},
    daemon::Daemon,
    eventually,
    redis::RedisServer,
    relay::TestRelay,
};

const RECIPIENTS: usize = 1000;
const CONNECTIONS: usize = 6;
const DELAY: Duration = Duration::from_millis(2);

async fn accepted(relay: &TestRelay, n: usize) {
    eventually(&format!("{n} messages"), LIMIT, async || (relay.accepted() >= n).then_some(()))
        .await;
}

fn settings(relay: &TestRelay, more: &str) -> String {
    format!("{}[preparation]\nchunk_size = 100\n{more}", relay.settings(CONNECTIONS))
}

/// The number of lines of the sending log with this status.
async fn with_status(daemon: &Daemon, id: &str, status: &str) -> usize {
    daemon.client.log(id).await.iter().filter(|line| line["status"] == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_daemon_leaves_nobody_in_doubt_and_the_next_one_goes_on() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let settings = settings(&relay, &format!("[redis]\nurl = \"{}\"\n", redis.url()));
    let mut daemon = Daemon::start(&settings).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    for at in [200, 600] {
        accepted(&relay, at).await;
        let asked = Instant::now();
        assert_eq!(daemon.terminate().await.code(), Some(0));
        assert!(
            asked.elapsed() < Duration::from_secs(20),
            "the daemon waited for the limit of 25 s: {:?}",
            asked.elapsed()
        );
        assert!(relay.accepted() < RECIPIENTS, "all was sent before the daemon ended");
        daemon.restart().await;
    }
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(with_status(&daemon, &id, "sent").await, RECIPIENTS);
    assert_eq!(relay.received().values().map(Vec::len).collect::<Vec<_>>(), vec![1; RECIPIENTS]);
    assert!(daemon.log().contains("ended drained=true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_redis_ends_with_its_daemon_and_loses_nothing() {
    let relay = TestRelay::start(DELAY).await;
    let mut daemon = Daemon::start(&settings(&relay, "")).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 300).await;
    // `terminate` also checks that no redis-server remains.
    assert_eq!(daemon.terminate().await.code(), Some(0));
    daemon.restart().await;
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(with_status(&daemon, &id, "sent").await, RECIPIENTS);
    assert_eq!(relay.accepted(), RECIPIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_waits_for_a_stalling_relay_only_up_to_the_limit() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(DELAY).await);
    let more = format!("[redis]\nurl = \"{}\"\n[server]\ndrain_ms = 1500\n", redis.url());
    let mut daemon = Daemon::start(&settings(&relay, &more)).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 150).await;
    let stall = CatcherFault::new(CatcherStage::End, CatcherAction::Stall(Duration::from_secs(60)));
    relay.catcher.change_rules(|rules| rules.every = Some(stall));
    at_rest("all connections stall", Duration::from_millis(300), || relay.accepted()).await;
    let url = daemon.client.url.clone();
    let ask = async |path| reqwest::get(format!("{url}{path}")).await.unwrap().status();
    assert_eq!((ask("/readyz").await, ask("/healthz").await), (StatusCode::OK, StatusCode::OK));
    let asked = Instant::now();
    daemon.ask_to_end();
    eventually("the daemon is no longer ready", LIMIT, async || {
        (ask("/readyz").await == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    assert_eq!(ask("/healthz").await, StatusCode::OK);
    assert_eq!(daemon.ended(LIMIT).await.code(), Some(2));
    assert!(
        (1500..30_000).contains(&asked.elapsed().as_millis()),
        "the relay stalls for a minute: {:?}",
        asked.elapsed()
    );
    assert!(daemon.log().contains("the drain time is over"));
    relay.catcher.change_rules(|rules| rules.every = None);
    daemon.restart().await;
    daemon.client.wait_for(&id, &["finished"]).await;
    // These transactions stood at the end of data: nobody knows whether the relay accepted them.
    let in_doubt = with_status(&daemon, &id, "in_doubt").await;
    assert!((1..=CONNECTIONS).contains(&in_doubt), "{in_doubt}");
    assert_eq!(with_status(&daemon, &id, "sent").await, RECIPIENTS - in_doubt);
    assert!(relay.received().values().all(|ids| ids.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_takes_effect_within_a_second_though_the_relay_is_slow() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    relay.catcher.change_rules(|rules| {
        rules.every = Some(CatcherFault::new(
            CatcherStage::End,
            CatcherAction::Stall(Duration::from_millis(600)),
        ))
    });
    let daemon =
        Daemon::start(&settings(&relay, &format!("[redis]\nurl = \"{}\"\n", redis.url()))).await;
    let id = daemon.client.send(&definition(), audience(RECIPIENTS)).await;
    accepted(&relay, 2 * CONNECTIONS).await;
    let before = relay.accepted();
    daemon.client.post(&format!("/deliveries/{id}/pause"), &json!({})).await;
    daemon.client.wait_for(&id, &["paused"]).await;
    // Transactions at the end of data were finished. The test measures the second in messages: in
    // a second each connection sends at most two.
    let after = relay.accepted();
    assert!(after - before <= 2 * CONNECTIONS, "{} more", after - before);
    daemon.passes("reconcile", 1).await;
    assert_eq!(relay.accepted(), after);
    let counts = daemon.client.get(&format!("/deliveries/{id}/progress")).await["counts"].clone();
    assert_eq!(
        (&counts["sent"], &counts["attempting"], &counts["in_doubt"]),
        (&json!(after), &json!(0), &json!(0))
    );
    relay.catcher.change_rules(|rules| rules.every = None);
    daemon.client.post(&format!("/deliveries/{id}/resume"), &json!({})).await;
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(relay.accepted(), RECIPIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_is_ever_logged() {
    let relay = TestRelay::start(DELAY).await;
    let reply =
        |code: &str| format!("{code} <user1@example.com>: unknown; ask postmaster@example.com");
    relay.catcher.change_rules(|rules| {
        let at = |stage, reply: String| Some(CatcherFault::reply(stage, &reply));
        rules.script("user1@example.com", [at(CatcherStage::Recipient, reply("550 5.1.1"))]);
        rules.script("user2@example.com", [at(CatcherStage::Recipient, reply("451 4.2.1"))]);
        rules.script("user3@example.com", [at(CatcherStage::End, reply("421 4.3.2"))]);
        rules.script("user4@example.com", [at(CatcherStage::End, reply("554 5.7.1"))]);
        rules.script(
            "user5@example.com",
            [Some(CatcherFault::new(CatcherStage::End, CatcherAction::Garbage))],
        );
        rules.script(
            "user6@example.com",
            [Some(CatcherFault::new(CatcherStage::Data, CatcherAction::Close))],
        );
        rules.next.push_back(CatcherFault::reply(
            CatcherStage::Mail,
            "421 4.3.2 news@shop.example is blocked",
        ));
    });
    let mut daemon =
        Daemon::start(&settings(&relay, "[log]\nlevel = \"versand=trace,info\"\n")).await;
    let mut definition = definition();
    definition["sender"]["envelope_from"] = json!("bounces@shop.example");
    let lines =
        format!("{}{{\"email\":\"nobody\"}}\n{{\"email\":\"user1@example.com\"}}\n", audience(100));
    let id = daemon.client.create(&definition).await;
    let broken = "{\"email\":\"user1@example.com\",\"name\":7,\"email\":\"user1@example.com\"}\n{\"email\":\"who@example.com\"";
    let (status, _) = daemon.client.upload(&id, broken).await;
    assert!(status.is_client_error());
    daemon.client.upload(&id, lines).await;
    let prepared = daemon.client.prepare(&id).await;
    assert_eq!(prepared["state"], "prepared", "{}", prepared["checks"]);
    daemon.client.confirm(&id, prepared["plan"]["digest"].as_str().unwrap()).await;
    accepted(&relay, 30).await;
    daemon.restart().await;
    daemon.client.wait_for(&id, &["finished"]).await;
    assert_eq!(with_status(&daemon, &id, "failed").await, 2);
    assert!(daemon.terminate().await.success());
    let log = daemon.log();
    let with_address = log.lines().find(|line| line.contains('@'));
    assert_eq!(with_address, None);
    for word in ["Jörg", "Autumn", "unsubscribe", "shop.example"] {
        assert!(!log.contains(word), "{word} is content");
    }
    assert!(log.contains("ended drained=true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_sends_on_without_a_gap_of_ten_seconds() {
    const LOAD: usize = 3000;
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(8)).await);
    // The leases have the length of the default settings.
    let more = format!("[redis]\nurl = \"{}\"\n[send]\nlease_ms = 10000\n", redis.url());
    let settings = settings(&relay, &more);
    let mut daemons = [Daemon::start(&settings).await, Daemon::start(&settings).await];
    let id = daemons[0].client.send(&definition(), audience(LOAD)).await;
    accepted(&relay, 200).await;
    // An observer of the relay measures the longest time in which it accepts nothing.
    let (began, over) = (Instant::now(), std::sync::atomic::AtomicBool::new(false));
    let observe = async {
        let (mut seen, mut last, mut largest) = (relay.accepted(), Instant::now(), Duration::ZERO);
        while seen < LOAD && !over.load(std::sync::atomic::Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            largest = largest.max(last.elapsed());
            if relay.accepted() > seen {
                (seen, last) = (relay.accepted(), Instant::now());
            }
        }
        largest
    };
    let restart = async {
        for _ in 0..2 {
            for daemon in &mut daemons {
                assert_eq!(daemon.terminate().await.code(), Some(0));
                daemon.restart().await;
                accepted(&relay, relay.accepted() + 100).await;
            }
        }
        assert!(
            relay.accepted() < LOAD,
            "the load ended before the restarts: {:?}",
            began.elapsed()
        );
        daemons[0].client.wait_for(&id, &["finished"]).await;
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (largest, ()) = tokio::join!(observe, restart);
    assert!(largest < Duration::from_secs(10), "nothing was accepted for {largest:?}");
    assert_eq!(relay.received().values().map(Vec::len).collect::<Vec<_>>(), vec![1; LOAD]);
    assert_eq!(with_status(&daemons[0], &id, "sent").await, LOAD);
}
