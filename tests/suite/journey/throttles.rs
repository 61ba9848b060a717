//! Throttles, circuit breakers and fairness: real servers, and one or two daemons on one Redis.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;
use versand::mail::catcher::{CatcherFault, CatcherStage};

use crate::harness::{
    LIMIT,
    app::idle,
    client::{Client, audience, definition},
    daemon::Daemon,
    direct_calls::started,
    eventually,
    redis::RedisServer,
    relay::TestRelay,
};

fn with_settings(settings: Value) -> Value {
    let mut definition = definition();
    definition["settings"] = settings;
    definition
}

/// `n` recipients at each of these domains, in turn.
fn at_domains(n: usize, domains: &[&str]) -> String {
    let line = |i: usize| {
        let domain = domains[i % domains.len()];
        format!("{}\n", json!({ "email": format!("r{i}@{domain}"), "name": "R" }))
    };
    (0..n * domains.len()).map(line).collect()
}

async fn two_daemons(redis: &RedisServer, relay: &TestRelay, more: &str) -> [Daemon; 2] {
    let settings = format!("{}[redis]\nurl = \"{}\"\n{more}", relay.settings(4), redis.url());
    [Daemon::start(&settings).await, Daemon::start(&settings).await]
}

/// How many passes a daemon needs to take its share of a limit on recipients or connections.
const SETTLED: usize = 5;

/// Waits until both daemons have taken their shares. This takes some passes after the second
/// daemon has started.
async fn shares_are_taken(daemons: &[Daemon; 2]) {
    for daemon in daemons {
        daemon.passes("throttles", SETTLED).await;
    }
}

/// Waits until both know that a breaker of this kind is open, and all begun transactions have
/// ended.
async fn breaker_is_known(daemons: &[Daemon; 2], kind: &str, id: &str) {
    let series = format!("versand_breakers_open{{kind=\"{kind}\"}}");
    for daemon in daemons {
        eventually("the daemon knows the breaker", LIMIT, async || {
            (daemon.series(&series).await == Some(1.0)).then_some(())
        })
        .await;
    }
    eventually("no recipient is attempted", LIMIT, async || {
        let progress = daemons[0].client.get(&format!("/deliveries/{id}/progress")).await;
        (progress["counts"]["attempting"] == 0).then_some(())
    })
    .await;
}

/// Lets the pause of a delivery's breaker end in a moment.
fn breaker_closes(redis: &RedisServer, id: &str) {
    let now = jiff::Timestamp::now().as_second();
    redis.ask(&format!("HSET versand:broken_deliveries {id} {}", now + 1)).unwrap();
}

async fn sent(client: &Client, id: &str) -> u64 {
    client.get(&format!("/deliveries/{id}/progress")).await["counts"]["sent"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_keeps_its_rate_over_all_daemons() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let daemons = two_daemons(&redis, &relay, "[preparation]\nchunk_size = 25\n").await;
    let client = &daemons[0].client;
    let started = Instant::now();
    let id = client.send(&with_settings(json!({ "messages_per_second": 50 })), audience(300)).await;
    let mut most = 0;
    loop {
        // The two extra seconds allow for a burst of one second and for transactions under way.
        let (accepted, allowed) = (relay.accepted(), 50 * (started.elapsed().as_secs() + 2));
        assert!(accepted as u64 <= allowed, "{accepted} after {:?}", started.elapsed());
        most = most.max(accepted);
        if accepted >= 300 {
            break;
        }
        assert!(started.elapsed() < LIMIT, "only {most} were accepted: sending takes too long");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
    client.wait_for(&id, &["finished"]).await;
    assert_eq!(daemons[0].metric("versand_conservation_difference").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_keeps_its_rate_and_the_others_do_not_wait_for_it() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let limit = "[throttle]\ndomains = [{ name = \"slow\", domains = [\"slow.example\", \"*.slow.example\"], messages_per_second = 10 }]\n";
    let daemons = two_daemons(&redis, &relay, limit).await;
    let client = &daemons[0].client;
    let started = Instant::now();
    let id = client
        .send(&definition(), at_domains(40, &["slow.example", "fast.example", "mx.slow.example"]))
        .await;
    let by_domain = || {
        let mut by: BTreeMap<bool, usize> = BTreeMap::new();
        for recipient in relay.received().keys() {
            *by.entry(recipient.contains("slow")).or_default() += 1;
        }
        by
    };
    eventually("the other domain gets its mail", LIMIT, async || {
        (by_domain().get(&false) == Some(&40)).then_some(())
    })
    .await;
    let slow = by_domain().get(&true).copied().unwrap_or(0) as u64;
    assert!(slow <= 10 * (started.elapsed().as_secs() + 2), "{slow} after {:?}", started.elapsed());
    client.wait_for(&id, &["finished"]).await;
    assert!(
        started.elapsed() >= Duration::from_secs(6),
        "80 at 10 a second: {:?}",
        started.elapsed()
    );
    assert_eq!(relay.accepted(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_gets_no_more_recipients_at_a_time_than_its_limit() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(10)).await);
    let limit = "[throttle]\ndomains = [{ name = \"few\", domains = [\"few.example\"], connections = 3 }]\n";
    let daemons = two_daemons(&redis, &relay, limit).await;
    let client = &daemons[0].client;
    shares_are_taken(&daemons).await;
    let id = client.send(&definition(), at_domains(60, &["few.example", "many.example"])).await;
    let mut most = 0;
    let ended = async {
        loop {
            let counts = client.get(&format!("/deliveries/{id}/progress")).await;
            if counts["state"] == "finished" {
                return;
            }
            let page =
                client.get(&format!("/deliveries/{id}/log?status=attempting&limit=1000")).await;
            let lines = page["items"].as_array().unwrap();
            most = most.max(
                lines
                    .iter()
                    .filter(|line| line["email"].as_str().unwrap().ends_with("@few.example"))
                    .count(),
            );
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap();
    assert!((1..=3).contains(&most), "{most} at a time");
    assert_eq!(relay.accepted(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_daemon_pauses_a_domain_that_defers_nearly_all() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let breaker = "[send]\nretry_minutes = [0.02]\n[breaker]\nminimum = 20\ndomain_errors_percent = 80\ndomain_pause_minutes = 0.5\n";
    let daemons = two_daemons(&redis, &relay, breaker).await;
    let client = &daemons[0].client;
    let deferred = |i: usize| json!({ "email": format!("defer{i}@deferred.example"), "name": "R" });
    let good = |i: usize| json!({ "email": format!("r{i}@good.example"), "name": "R" });
    let lines: String = (0..60).map(|i| format!("{}\n{}\n", deferred(i), good(i))).collect();
    // The answers are those of greylisting.
    let greylisted = CatcherFault::reply(CatcherStage::Recipient, "450 4.7.1 try again later");
    relay.catcher.change_rules(|rules| {
        (0..60).for_each(|i| {
            rules.script(&format!("defer{i}@deferred.example"), [Some(greylisted.clone())])
        })
    });
    let id = client.send(&definition(), lines).await;
    let tripped = async || {
        let mut trips = 0.0;
        for daemon in &daemons {
            trips +=
                daemon.series("versand_breaker_trips_total{kind=\"domain\"}").await.unwrap_or(0.0);
        }
        (trips > 0.0).then_some(())
    };
    eventually("the breaker opens", LIMIT, tripped).await;
    let counts = async || client.get(&format!("/deliveries/{id}/progress")).await["counts"].clone();
    breaker_is_known(&daemons, "domain", &id).await;
    eventually("the other domain gets its mail", LIMIT, async || {
        (sent(client, &id).await == 60).then_some(())
    })
    .await;
    let before = counts().await;
    for daemon in &daemons {
        daemon.passes("throttles", 2).await;
    }
    assert_eq!(counts().await, before, "no transaction begins while the breaker is open");
    assert_eq!(
        daemons[0].series("versand_breakers_open{kind=\"delivery\"}").await,
        Some(0.0),
        "a waiting recipient does not count as refused"
    );
    eventually("sending goes on afterwards", LIMIT, async || {
        (counts().await != before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_domain_delays_nobody_else_in_its_chunks() {
    // The relay is so slow that a chunk takes several job slices.
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(30)).await);
    let settings = format!(
        "{}[send]\nslice_ms = 300\n[redis]\nurl = \"{}\"\n",
        relay.settings(4),
        redis.url()
    );
    let daemon = Daemon::start(&settings).await;
    let in_an_hour = jiff::Timestamp::now().as_second() + 3600;
    redis.ask(&format!("HSET versand:breakers left.example {in_an_hour}")).unwrap();
    daemon.passes("throttles", 1).await;
    let id =
        daemon.client.send(&definition(), at_domains(150, &["good.example", "left.example"])).await;
    eventually("the other domain gets its mail", LIMIT, async || {
        (sent(&daemon.client, &id).await == 150).then_some(())
    })
    .await;
    assert!(relay.received().keys().all(|to| to.ends_with("@good.example")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_refused_as_spam_pauses_and_others_do_not() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(10)).await);
    let breaker = "[preparation]\nchunk_size = 20\n[breaker]\nminimum = 20\ndomain_errors_percent = 0\ndelivery_refusals_percent = 30\ndelivery_pause_minutes = 60\n";
    let daemons = two_daemons(&redis, &relay, breaker).await;
    let client = &daemons[0].client;
    let spam = CatcherFault::reply(CatcherStage::End, "554 5.7.1 rejected as spam");
    relay.catcher.change_rules(|rules| {
        for i in 0..2000 {
            rules.script(&format!("r{i}@spam.example"), [Some(spam.clone())]);
        }
    });
    let id = client.send(&definition(), at_domains(2000, &["spam.example"])).await;
    let tripped = async || {
        let mut trips = 0.0;
        for daemon in &daemons {
            trips += daemon
                .series("versand_breaker_trips_total{kind=\"delivery\"}")
                .await
                .unwrap_or(0.0);
        }
        (trips > 0.0).then_some(())
    };
    eventually("the breaker opens", LIMIT, tripped).await;
    breaker_is_known(&daemons, "delivery", &id).await;
    let failed = async || {
        client.get(&format!("/deliveries/{id}/progress")).await["counts"]["failed"]
            .as_u64()
            .unwrap()
    };
    let before = failed().await;
    assert!((20..1000).contains(&before), "{before}");
    let view = client.get(&format!("/deliveries/{id}/progress")).await;
    assert!(view["paused_until"].is_string(), "{view}");
    let other = client.send(&definition(), audience(20)).await;
    client.wait_for(&other, &["finished"]).await;
    assert_eq!(failed().await, before, "the delivery sends nothing while the breaker is open");
    breaker_closes(&redis, &id);
    eventually("sending goes on afterwards", LIMIT, async || {
        (failed().await > before).then_some(())
    })
    .await;
}

/// Confirms a delivery of ten recipients. Returns how many messages of others are sent before it is
/// finished. Unlike a time, this number does not depend on the load of the machine.
async fn others_sent_before(client: &Client, relay: &TestRelay) -> usize {
    let id = client.create(&definition()).await;
    client.upload(&id, at_domains(10, &["small.example"])).await;
    let view = client.prepare(&id).await;
    let before = relay.accepted();
    client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    client.wait_for(&id, &["finished"]).await;
    relay.accepted() - before - 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_delivery_does_not_wait_for_a_large_one() {
    // The relay is slow: the large delivery would take a minute or more.
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(20)).await);
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(20), redis.url())).await;
    let large = daemon.client.send(&definition(), at_domains(20_000, &["large.example"])).await;
    eventually("the large delivery is under way", LIMIT, async || {
        (relay.accepted() > 100).then_some(())
    })
    .await;
    // The relay takes some hundred messages a second. The limit is less than a third of the large
    // delivery.
    let others = others_sent_before(&daemon.client, &relay).await;
    assert!(others < 6000, "{others} of 20 000");
    assert_eq!(
        daemon.client.get(&format!("/deliveries/{large}")).await["state"],
        "in_progress",
        "the large delivery is still under way"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_delivery_does_not_wait_for_hundreds_of_others_or_for_throttled_ones() {
    // The relay is so slow that most of the others remain, however long their preparations take.
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(500)).await);
    let daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(20), redis.url())).await;
    let client = &daemon.client;
    for _ in 0..20 {
        client
            .send(
                &with_settings(json!({ "messages_per_second": 1 })),
                at_domains(100, &["throttled.example"]),
            )
            .await;
    }
    let other = definition();
    let others = (0..200).map(|_| client.send(&other, at_domains(200, &["other.example"])));
    let ids: Vec<String> = stream::iter(others).buffered(20).collect().await;
    relay.catcher.change_rules(|rules| rules.delay = Duration::from_millis(20));
    let others = others_sent_before(client, &relay).await;
    assert!(others < 5000, "{others} of 40 000");
    let mut under_way = 0;
    for id in &ids {
        under_way +=
            usize::from(client.get(&format!("/deliveries/{id}")).await["state"] != "finished");
    }
    assert!(under_way > 10, "{under_way} deliveries were still under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_gets_no_more_than_its_rate_and_connections_from_all_daemons_together() {
    // The relay is so slow that both daemons use all connections that their shares allow.
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::from_millis(200)).await);
    // Chunks are small and are given back soon, so that both daemons get some to send.
    let limits = "messages_per_second = 50\ntotal_connections = 3\n[preparation]\nchunk_size = 10\n[send]\nslice_ms = 300\n";
    let settings = format!("{}{limits}[redis]\nurl = \"{}\"\n", relay.settings(8), redis.url());
    let daemons = [Daemon::start(&settings).await, Daemon::start(&settings).await];
    shares_are_taken(&daemons).await;
    let (client, started) = (&daemons[0].client, Instant::now());
    let id = client.send(&definition(), audience(300)).await;
    let within_limits = || {
        let (accepted, allowed) = (relay.accepted() as u64, 50 * (started.elapsed().as_secs() + 2));
        assert!(accepted <= allowed, "{accepted} after {:?}", started.elapsed());
        let connections = relay.catcher.open_connections();
        assert!(connections <= 3, "{connections} connections");
        connections
    };
    eventually("all allowed connections are open", LIMIT, async || {
        (within_limits() == 3).then_some(())
    })
    .await;
    // From here on the relay is so fast that only the limits slow the daemons down.
    relay.catcher.change_rules(|rules| rules.delay = Duration::ZERO);
    while relay.accepted() < 300 {
        within_limits();
        assert!(started.elapsed() < LIMIT, "sending goes on at the rate");
        sleep(Duration::from_millis(10)).await;
    }
    client.wait_for(&id, &["finished"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_delivery_that_came_last_gets_the_next_job() {
    let redis = RedisServer::start();
    let (application, _state) = idle(&redis, "").await;
    let services = application.services();
    const WAITING: &str = "versand:{core:apalis:queues:list}:chunks:active";
    // The queue is made to look full, so that no job is queued while the deliveries start.
    let workers = services.config.send.workers;
    redis.ask(&format!("RPUSH {WAITING}{}", " x".repeat(workers))).unwrap();
    let mut others = Vec::new();
    for _ in 0..3 * workers {
        others.push(started(services, 300).await);
    }
    let fetched = async || {
        redis.ask(&format!("DEL {WAITING}")).unwrap();
        services.journey.release.fair_queue.request_jobs(&others[0]).await.unwrap();
    };
    fetched().await;
    let small = started(services, 10).await;
    assert!(
        services.stores.chunks.with_jobs(&small).await.unwrap().is_empty(),
        "the queue is full again, with jobs of the other deliveries"
    );
    fetched().await;
    assert_eq!(services.stores.chunks.with_jobs(&small).await.unwrap().len(), 1);
}
