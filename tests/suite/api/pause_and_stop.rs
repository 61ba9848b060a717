//! Pause, resume, stop and in-doubt resolution over HTTP, with a relay that misbehaves.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::mail::catcher::{CatcherAction, CatcherFault, CatcherStage};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    eventually,
    people::{problem, start},
    redis::RedisServer,
};

/// How often the relay accepted a message for each address.
fn received(app: &App) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in app.catcher.as_ref().unwrap().messages() {
        for to in &message.to {
            *counts.entry(to.clone()).or_default() += 1;
        }
    }
    counts
}

fn accepted(app: &App) -> u64 {
    app.catcher.as_ref().unwrap().counts().accepted.load(Ordering::Relaxed)
}

async fn post(app: &App, id: &str, action: &str, body: Value) -> (StatusCode, Value) {
    app.client.post(&format!("/deliveries/{id}/{action}"), &body).await
}

/// The most messages that four connections can send in a second, if each message takes [`SLOW`].
const IN_A_SECOND: u64 = 4 * 20;
const SLOW: Duration = Duration::from_millis(50);

/// Asks for `action`, which must take effect within a second. The test counts messages instead of
/// time, because a busy machine sends no faster. Returns when `state` is reached.
async fn within_a_second(app: &App, id: &str, action: &str, state: &str) {
    eventually("some messages are sent", LIMIT, async || (accepted(app) > 10).then_some(())).await;
    let before = accepted(app);
    let (status, body) = post(app, id, action, json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    app.client.wait_for(id, &[state]).await;
    let after = accepted(app);
    assert!(after - before <= IN_A_SECOND, "{action}: {} more", after - before);
    for _ in 0..2 {
        app.services.journey.recover.reconciler.reconcile().await.unwrap();
    }
    assert_eq!(accepted(app), after, "no transaction begins any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_message_twice_after_pause_and_resume() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 40\n[relay]\nconnections = 4").await;
    let delay = |delay| app.catcher.as_ref().unwrap().change_rules(|rules| rules.delay = delay);
    delay(SLOW);
    let id = app.client.send(&definition(), audience(400)).await;
    app.client.wait_for(&id, &["in_progress"]).await;
    within_a_second(&app, &id, "pause", "paused").await;
    let view = app.client.get(&format!("/deliveries/{id}")).await;
    let counts = &view["counts"];
    assert_eq!((&counts["attempting"], &counts["in_doubt"]), (&json!(0), &json!(0)), "{counts}");
    assert_eq!(counts["sent"], accepted(&app), "{counts}");
    assert!(counts["sent"].as_u64() > Some(0) && counts["pending"].as_u64() > Some(0), "{counts}");
    for action in ["pause", "prepare"] {
        assert_eq!(post(&app, &id, action, json!({})).await.0, StatusCode::CONFLICT, "{action}");
    }
    delay(Duration::ZERO);
    assert_eq!(post(&app, &id, "resume", json!({})).await.1["state"], "in_progress");
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!((&view["counts"]["sent"], &view["counts"]["duplicates"]), (&json!(400), &json!(0)));
    let received = received(&app);
    assert_eq!((received.len(), received.values().max()), (400, Some(&1)));
    for action in ["pause", "resume", "stop"] {
        assert_eq!(post(&app, &id, action, json!({})).await.0, StatusCode::CONFLICT, "{action}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cancels_the_rest_for_good() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 40\n[relay]\nconnections = 4").await;
    app.catcher.as_ref().unwrap().change_rules(|rules| rules.delay = SLOW);
    let lines = format!("{{\"email\":\"defer1@example.com\",\"name\":\"D\"}}\n{}", audience(400));
    let mut slow = definition();
    slow["settings"]["retry_minutes"] = json!([60]);
    let id = app.client.send(&slow, lines).await;
    app.client.wait_for(&id, &["in_progress"]).await;
    within_a_second(&app, &id, "stop", "stopped").await;
    let view = app.client.get(&format!("/deliveries/{id}")).await;
    let counts = &view["counts"];
    let of = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!((of("sent") + of("cancelled"), of("sent")), (401, accepted(&app)), "{counts}");
    assert!(of("sent") > 0 && of("cancelled") > 0 && view["ended_at"].is_string(), "{view}");
    let received = received(&app);
    for line in app.client.log(&id).await {
        let times = received.get(line["email"].as_str().unwrap()).copied().unwrap_or(0);
        assert_eq!(times, usize::from(line["status"] == "sent"), "{line}");
    }
    for (action, body) in [
        ("resume", json!({})),
        ("stop", json!({})),
        ("in-doubt", json!({ "as": "resend", "recipients": "all" })),
    ] {
        assert_eq!(post(&app, &id, action, body).await.0, StatusCode::CONFLICT, "{action}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_can_be_stopped_while_it_is_paused() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 40\n[relay]\nconnections = 2").await;
    app.catcher.as_ref().unwrap().change_rules(|rules| rules.delay = Duration::from_millis(10));
    let id = app.client.send(&definition(), audience(300)).await;
    app.client.wait_for(&id, &["in_progress"]).await;
    within_a_second(&app, &id, "pause", "paused").await;
    let sent = accepted(&app);
    within_a_second(&app, &id, "stop", "stopped").await;
    let counts = app.client.get(&format!("/deliveries/{id}")).await["counts"].clone();
    assert_eq!((&counts["sent"], &counts["cancelled"]), (&json!(sent), &json!(300 - sent)));
    app.stop().await;
}

/// A finished delivery of ten recipients. Recipients 2 to 6 are in doubt: the connection was closed
/// after the end of data.
async fn in_doubt(app: &App) -> String {
    app.catcher.as_ref().unwrap().change_rules(|rules| {
        for i in 2..=6 {
            let close = CatcherFault::new(CatcherStage::End, CatcherAction::Close);
            // The server has the mail of two of them nevertheless.
            rules.script(
                &format!("user{i}@example.com"),
                [Some(if i < 4 { close.accepted() } else { close })],
            );
        }
    });
    let id = app.client.send(&definition(), audience(10)).await;
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(
        (&view["counts"]["in_doubt"], &view["counts"]["sent"]),
        (&json!(5), &json!(5)),
        "recipients in doubt do not keep the delivery open"
    );
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_in_doubt_are_settled_by_a_person() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 4").await;
    let client = &app.client;
    let id = in_doubt(&app).await;
    let settle = async |word: &str, recipients: Value| {
        post(&app, &id, "in-doubt", json!({ "as": word, "recipients": recipients })).await
    };
    for token in ["preparer", "administrator", "monitor"] {
        let request =
            client.with_token(token).request(Method::POST, &format!("/deliveries/{id}/in-doubt"));
        let body = json!({ "as": "sent", "recipients": "all" });
        assert_eq!(
            problem(request.json(&body).send().await.unwrap(), StatusCode::FORBIDDEN).await["role"],
            "start_deliveries"
        );
    }
    for unknown in [json!([10]), json!([2, 99]), json!([u64::MAX])] {
        assert_eq!(settle("sent", unknown).await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(
        client.get(&format!("/deliveries/{id}")).await["counts"]["in_doubt"],
        5,
        "a refused request settles nobody"
    );
    assert_eq!(settle("sent", json!([])).await, (StatusCode::OK, json!({ "settled": 0 })));
    assert_eq!(
        settle("sent", json!([2, 3, 3, 0])).await,
        (StatusCode::OK, json!({ "settled": 2 })),
        "recipient 0 is not in doubt"
    );
    assert_eq!(settle("failed", json!([4])).await, (StatusCode::OK, json!({ "settled": 1 })));
    assert_eq!(client.get(&format!("/deliveries/{id}")).await["state"], "finished");
    assert_eq!(settle("resend", json!("all")).await, (StatusCode::OK, json!({ "settled": 2 })));
    let view = client.wait_for(&id, &["finished"]).await;
    let counts = &view["counts"];
    assert_eq!(
        (&counts["sent"], &counts["failed"], &counts["in_doubt"]),
        (&json!(9), &json!(1), &json!(0)),
        "{counts}"
    );
    assert_eq!(settle("sent", json!("all")).await, (StatusCode::OK, json!({ "settled": 0 })));

    let log = client.log(&id).await;
    let of = |i: usize| {
        (log[i]["status"].as_str().unwrap(), log[i]["settled"] == true, log[i]["resent"] == true)
    };
    assert_eq!(
        [of(0), of(2), of(4), of(5)],
        [
            ("sent", false, false),
            ("sent", true, false),
            ("failed", true, false),
            ("sent", false, true)
        ]
    );
    let received = received(&app);
    assert_eq!(
        (received.len(), received.values().max()),
        (9, Some(&1)),
        "2 and 3 had the message, 5 and 6 have it now, 4 never got it"
    );
    let audit = client.get(&format!("/deliveries/{id}/audit")).await;
    let settled: Vec<&Value> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "settle")
        .map(|entry| &entry["details"])
        .collect();
    assert!(
        settled.contains(&&json!({ "settlement": "failed", "recipients": [4] })),
        "{settled:?}"
    );
    assert!(
        settled.contains(&&json!({ "settlement": "resend", "recipients": null })),
        "{settled:?}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_doubt_resolution_with_a_key_happens_once() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 4").await;
    let id = in_doubt(&app).await;
    let path = format!("/deliveries/{id}/in-doubt");
    let settle = async |body: &Value| {
        let request =
            app.client.request(Method::POST, &path).header("idempotency-key", "s").json(body);
        crate::harness::client::answer(request.send().await.unwrap()).await
    };
    let body = json!({ "as": "resend", "recipients": [4, 5] });
    // They are in doubt again after the second attempt.
    app.catcher.as_ref().unwrap().change_rules(|rules| {
        for i in 4..=5 {
            rules.script(
                &format!("user{i}@example.com"),
                [Some(CatcherFault::new(CatcherStage::End, CatcherAction::Close))],
            );
        }
    });
    let all = futures_util::future::join_all((0..20).map(|_| settle(&body))).await;
    assert!(all.iter().all(|one| *one == (StatusCode::OK, json!({ "settled": 2 }))), "{all:?}");
    let again = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(again["counts"]["in_doubt"], 5);
    assert_eq!(settle(&body).await, (StatusCode::OK, json!({ "settled": 2 })), "the first answer");
    assert_eq!(
        settle(&json!({ "as": "sent", "recipients": [4, 5] })).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        app.client.get(&format!("/deliveries/{id}")).await["counts"]["in_doubt"],
        5,
        "a repeated request sends nothing again"
    );
    let audit = app.client.get(&format!("/deliveries/{id}/audit")).await;
    assert_eq!(
        audit["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["action"] == "settle")
            .count(),
        1
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeating_an_interrupted_in_doubt_resolution_sends_to_nobody_a_third_time() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 4").await;
    let id = in_doubt(&app).await;
    let settle = async || {
        let request = app
            .client
            .request(Method::POST, &format!("/deliveries/{id}/in-doubt"))
            .header("idempotency-key", "s");
        let body = json!({ "as": "resend", "recipients": "all" });
        crate::harness::client::answer(request.json(&body).send().await.unwrap()).await
    };
    let counts = async || app.client.wait_for(&id, &["finished"]).await["counts"].clone();
    // Recipients 4 and 5 are in doubt again after the second attempt.
    app.catcher.as_ref().unwrap().change_rules(|rules| {
        for i in 4..=5 {
            rules.script(
                &format!("user{i}@example.com"),
                [Some(CatcherFault::new(CatcherStage::End, CatcherAction::Close))],
            );
        }
    });
    assert_eq!(settle().await, (StatusCode::OK, json!({ "settled": 5 })));
    assert_eq!((&counts().await["in_doubt"], received(&app).len()), (&json!(2), 8));
    // This is the state of a crash between the last ledger and the end: the resolution is not
    // recorded as done.
    let forget = "local keys = redis.call('KEYS', '*:idempotency:*:done') redis.call('DEL', keys[1]) return #keys";
    assert_eq!(redis.ask(&format!("EVAL \"{forget}\" 0")).unwrap(), ":1\r\n");
    assert_eq!(settle().await, (StatusCode::OK, json!({ "settled": 5 })), "the first answer");
    assert_eq!(
        (&counts().await["in_doubt"], received(&app).len()),
        (&json!(2), 8),
        "nobody got another message"
    );
    let request = app.client.request(Method::POST, &format!("/deliveries/{id}/in-doubt"));
    let other = request.json(&json!({ "as": "resend", "recipients": "all" })).send().await.unwrap();
    assert_eq!(
        crate::harness::client::answer(other).await.1,
        json!({ "settled": 2 }),
        "a request without a key is another one"
    );
    assert_eq!((&counts().await["in_doubt"], received(&app).len()), (&json!(0), 10));
    app.stop().await;
}
