//! Outages of the relay and of Redis, and a stop before the start.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use versand::{
    app::Application,
    deliveries::Decision,
    domain::delivery::{Confirmation, DeliveryId, DeliveryState},
    mail::catcher::{CatcherAction, CatcherFault, CatcherStage},
};

use crate::harness::{
    LIMIT,
    app::{App, config, metrics},
    at_rest,
    client::{audience, definition},
    eventually,
    ports::ClosedPort,
    redis::RedisServer,
};

fn statuses(log: &[Value], status: &str) -> usize {
    log.iter().filter(|line| line["status"] == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_validity_period_ends_also_while_the_relay_is_away() {
    let redis = RedisServer::start();
    let away = ClosedPort::new();
    let app =
        App::start(&redis, &format!("[relay]\nhost = \"127.0.0.1\"\nport = {}", away.port())).await;
    let mut definition = definition();
    definition["settings"] = json!({ "validity_hours": 1.5 / 3600.0 });
    let began = Instant::now();
    let id = app.client.send(&definition, audience(600)).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert!(began.elapsed() > Duration::from_millis(1400), "failed too early");
    assert_eq!((&view["counts"]["failed"], &view["counts"]["sent"]), (&json!(600), &json!(0)));
    let log = app.client.log(&id).await;
    assert!(
        log.iter().all(|line| line["expired"] == true && line["failure_reason"] == "unreachable"),
        "{}",
        log[0]
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_in_doubt_at_the_end_of_validity_is_not_sent_to_again() {
    let redis = RedisServer::start();
    // A recipient in doubt is due again a lease and a second later. By then the validity period has
    // ended.
    let app = App::start(&redis, "[send]\nlease_ms = 10000").await;
    let silent = CatcherFault::new(CatcherStage::End, CatcherAction::Close);
    app.catcher.as_ref().unwrap().change_rules(|rules| rules.every = Some(silent));
    let mut definition = definition();
    definition["settings"] = json!({ "validity_hours": 8.0 / 3600.0, "in_doubt": "resend" });
    let id = app.client.send(&definition, audience(5)).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        (&view["counts"]["in_doubt"], &view["counts"]["resent"]),
        (&json!(5), &json!(0)),
        "{view}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_in_doubt_that_is_due_as_the_validity_ends_stays_in_doubt() {
    let redis = RedisServer::start();
    // Recipients in doubt are due again two seconds later. There is only one slow connection, so
    // the validity period ends while they wait for it.
    let app = App::start(&redis, "[send]\nlease_ms = 1000\n[relay]\nconnections = 1").await;
    let silent = CatcherFault::new(CatcherStage::End, CatcherAction::Close);
    app.catcher.as_ref().unwrap().change_rules(|rules| {
        rules.every = Some(silent);
        rules.delay = Duration::from_millis(30);
    });
    let mut definition = definition();
    definition["settings"] = json!({ "validity_hours": 3.5 / 3600.0, "in_doubt": "resend" });
    let id = app.client.send(&definition, audience(40)).await;
    app.client.wait_for(&id, &["finished"]).await;
    let log = app.client.log(&id).await;
    assert!(statuses(&log, "in_doubt") > 0);
    let undone = log.iter().find(|line| line["status"] == "failed" && line["resent"] == true);
    assert_eq!(undone, None, "the first attempt may have been accepted");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_stopped_before_its_start_is_cancelled_completely() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 10").await;
    let id = app.client.create(&definition()).await;
    app.client.upload(&id, audience(25)).await;
    app.client.prepare(&id).await;
    // A wave is due. The daemon died before it queued the start.
    let delivery: DeliveryId = id.parse().unwrap();
    let released = |d: &versand::domain::delivery::Delivery, now| {
        let mut document = d.document.clone();
        document.confirmation =
            Some(Confirmation { by: "ann".into(), confirmed_at: now, started: false });
        Ok(Decision { state: DeliveryState::StartPending, document, answer: (), act: None })
    };
    app.services.deliveries.change(&delivery, "ann", &[], released).await.unwrap();
    let (status, answer) = app.client.post(&format!("/deliveries/{id}/stop"), &json!({})).await;
    assert!(status.is_success(), "{answer}");
    let view = app.client.wait_for(&id, &["stopped"]).await;
    assert_eq!((&view["counts"]["cancelled"], &view["counts"]["pending"]), (&json!(25), &json!(0)));
    assert_eq!(statuses(&app.client.log(&id).await, "cancelled"), 25);
    app.stop().await; // This also checks that the figures agree.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_durability_is_refused_unless_the_settings_allow_it() {
    for settings in
        [["--appendonly", "no"], ["--appendfsync", "no"], ["--no-appendfsync-on-rewrite", "yes"]]
    {
        let redis = RedisServer::start_with(&settings);
        let (mut config, _state) = config(&redis, "");
        let refusal =
            Application::build(config.clone(), metrics()).await.err().unwrap().to_string();
        assert!(
            refusal.contains(settings[0].trim_start_matches('-'))
                && refusal.contains("redis.allow_data_loss"),
            "{refusal}"
        );
        config.redis.allow_data_loss = true;
        assert!(Application::build(config, metrics()).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_takes_no_writes_is_refused_at_the_start() {
    let redis = RedisServer::start();
    let (config, _state) = config(&redis, "");
    redis.ask("CONFIG SET maxmemory 1").unwrap();
    let refusal = Application::build(config.clone(), metrics()).await.err().unwrap().to_string();
    assert!(refusal.contains("OOM"), "{refusal}");
    redis.ask("CONFIG SET maxmemory 0").unwrap();
    assert!(Application::build(config, metrics()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_leaves_recipients_in_doubt_and_sends_nothing_twice() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[relay]\nconnections = 2").await;
    let catcher = app.catcher.as_ref().unwrap();
    catcher.change_rules(|rules| {
        rules.every = Some(CatcherFault::new(
            CatcherStage::Mail,
            CatcherAction::Stall(Duration::from_millis(10)),
        ))
    });
    let id = app.client.send(&definition(), audience(300)).await;
    let ledger = format!("versand:{{{id}}}:ledger:0");
    eventually("some messages are sent", LIMIT, async || {
        (catcher.messages().len() >= 50).then_some(())
    })
    .await;
    // An old ledger: its sequence number is lower, and ten recipients that were sent to are pending
    // again.
    let went_back = redis::Script::new(
        "redis.call('SETRANGE', KEYS[1], 12, struct.pack('>I4', 1))
         for i = 0, 9 do redis.call('SETRANGE', KEYS[1], 32 + 16 * i, struct.pack('B', 0)) end
         redis.call('HINCRBY', KEYS[2], 'sent', -10)
         redis.call('HINCRBY', KEYS[2], 'pending', 10)",
    );
    let counts = format!("versand:{{{id}}}:counts");
    let () = went_back
        .key(ledger)
        .key(counts)
        .invoke_async(&mut app.services.stores.redis.connection())
        .await
        .unwrap();
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert!(view["counts"]["in_doubt"].as_u64().unwrap() >= 10, "{}", view["counts"]);
    let mut received: Vec<String> = catcher.messages().iter().flat_map(|m| m.to.clone()).collect();
    let all = received.len();
    received.sort();
    received.dedup();
    assert_eq!(received.len(), all, "somebody got two messages");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_cannot_beat_starts_no_more_of_its_claims() {
    let redis = RedisServer::start();
    // One connection claims all sixty recipients and sends ten messages a second. The work takes
    // far longer than the lease of one second.
    let app = App::start(&redis, "[relay]\nconnections = 1\n[send]\nclaim_window = 100").await;
    let catcher = app.catcher.as_ref().unwrap();
    catcher.change_rules(|rules| {
        rules.every = Some(CatcherFault::new(
            CatcherStage::Mail,
            CatcherAction::Stall(Duration::from_millis(100)),
        ))
    });
    let id = app.client.send(&definition(), audience(60)).await;
    eventually("some messages are sent", LIMIT, async || {
        (catcher.messages().len() >= 5).then_some(())
    })
    .await;
    redis.freeze();
    let before = catcher.messages().len();
    let when_the_lease_was_over =
        at_rest("the lease has ended", Duration::from_secs(1), || catcher.messages().len()).await;
    // The limit is what one and a half leases allow. A busy machine sends fewer messages, not more.
    assert!(
        when_the_lease_was_over <= before + 16,
        "messages were sent without a lease: {when_the_lease_was_over} after {before}"
    );
    catcher.change_rules(|rules| rules.every = None);
    redis.thaw();
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!((&view["counts"]["sent"], catcher.messages().len()), (&json!(60), 60));
    app.stop().await;
}
