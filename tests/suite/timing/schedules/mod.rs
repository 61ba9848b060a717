//! Schedules: a wave is sent once, at its time, by any daemon, and held when it is too late.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp, ToSpan};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{
    LIMIT,
    app::App,
    client::{Client, definition},
    daemon::Daemon,
    eventually,
    redis::RedisServer,
    relay::TestRelay,
};

mod agreement;
mod clock_changes;
mod hold_and_release;
mod many_waves;

/// The time so many whole seconds from now.
fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
}

/// The same time in a zone with an odd offset.
fn local(at: Timestamp) -> Value {
    json!(at.in_tz("Asia/Kathmandu").unwrap().datetime().to_string())
}

fn at(at: Timestamp) -> Value {
    json!({ "type": "at", "at": local(at), "zone": "Asia/Kathmandu" })
}

fn with(schedule: Value, settings: Value) -> Value {
    let mut definition = definition();
    definition["schedule"] = schedule;
    definition["settings"] = settings;
    definition
}

/// Recipients with a field `when`.
fn dated(dates: &[Value]) -> String {
    let line = |(n, when): (usize, &Value)| {
        let who = json!({ "email": format!("r{n}@example.com"), "name": "R", "when": when });
        format!("{who}\n")
    };
    dates.iter().enumerate().map(line).collect()
}

fn ten_recipients() -> String {
    dated(&vec![json!("Europe/Berlin"); 10])
}

/// Creates, uploads and prepares. Returns the id and the prepared delivery.
async fn prepared(client: &Client, definition: &Value, audience: String) -> (String, Value) {
    let id = client.create(definition).await;
    let (status, answer) = client.upload(&id, audience).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let view = client.prepare(&id).await;
    assert_eq!(view["state"], "prepared", "{}", view["checks"]);
    (id, view)
}

/// Like [`prepared`], and confirms the delivery.
async fn scheduled(client: &Client, definition: &Value, audience: String) -> String {
    let (id, view) = prepared(client, definition, audience).await;
    let (status, answer) = client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    assert_eq!(
        (status, answer["state"].as_str()),
        (StatusCode::ACCEPTED, Some("scheduled")),
        "{answer}"
    );
    id
}

async fn waves(client: &Client, id: &str) -> Vec<Value> {
    client.get(&format!("/deliveries/{id}/waves")).await["items"].as_array().unwrap().clone()
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_delivery_is_sent_at_its_time_and_once_by_two_daemons() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let settings = format!("{}[redis]\nurl = \"{}\"\n", relay.settings(4), redis.url());
    let daemons = [Daemon::start(&settings).await, Daemon::start(&settings).await];
    let client = &daemons[0].client;
    let due = in_seconds(10);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(scheduled(client, &with(at(due), json!({})), ten_recipients()).await);
    }
    let view = client.get(&format!("/deliveries/{}", ids[0])).await;
    assert_eq!(instant(&view["plan"]["first_due"]), due);
    assert_eq!(
        view["waves"],
        json!({ "waiting": 1, "released": 0, "held": 0, "next_due": due.to_string() })
    );
    eventually("the time of the wave has come", LIMIT, async || {
        let accepted = relay.accepted();
        let is_due = Timestamp::now() >= due;
        assert!(is_due || accepted == 0, "a message came before its time");
        is_due.then_some(())
    })
    .await;
    for id in &ids {
        client.wait_for(id, &["finished"]).await;
        let late = instant(&waves(client, id).await[0]["released_at"]).duration_since(due);
        assert!(!late.is_negative() && late < SignedDuration::from_secs(30), "{late:?}");
    }
    assert_eq!(relay.accepted(), 50, "each message is sent once");
    let released = daemons[0].series("versand_waves_total{became=\"released\"}").await.unwrap()
        + daemons[1].series("versand_waves_total{became=\"released\"}").await.unwrap();
    assert_eq!(released, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_is_sent_to_at_its_own_time_and_its_message_says_so() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 4").await;
    let client = &app.client;
    let (first, second) = (in_seconds(8), in_seconds(12));
    let dates: Vec<Value> =
        (0..10).map(|n| json!(if n % 3 == 0 { second } else { first }.to_string())).collect();
    let schedule = json!({ "type": "per_recipient", "field": "when" });
    let id = scheduled(client, &with(schedule, json!({})), dated(&dates)).await;
    let lines = waves(client, &id).await;
    let by_due: Vec<_> = lines
        .iter()
        .map(|wave| (instant(&wave["due"]), wave["recipients"].as_u64().unwrap()))
        .collect();
    assert_eq!(by_due, [(first, 6), (second, 4)]);
    // Between the waves the delivery is in progress, and the recipients of the second wave are
    // pending.
    eventually("the first wave", LIMIT, async || {
        let progress = client.get(&format!("/deliveries/{id}/progress")).await;
        (progress["counts"]["sent"] == 6).then_some(progress)
    })
    .await;
    let progress = client.get(&format!("/deliveries/{id}/progress")).await;
    if Timestamp::now() < second {
        assert_eq!(
            (progress["state"].as_str(), &progress["counts"]["pending"]),
            (Some("in_progress"), &json!(4))
        );
    }
    client.wait_for(&id, &["finished"]).await;
    let released: BTreeMap<String, Timestamp> = waves(client, &id)
        .await
        .iter()
        .map(|wave| (wave["due"].as_str().unwrap().to_owned(), instant(&wave["released_at"])))
        .collect();
    let messages = app.catcher.as_ref().unwrap().messages();
    assert_eq!(messages.len(), 10);
    for message in messages.iter() {
        let n: usize = message.to[0][1..].split('@').next().unwrap().parse().unwrap();
        let text = String::from_utf8_lossy(&message.bytes).into_owned();
        let date = text.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
        let date = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
        assert_eq!(
            date,
            released[dates[n].as_str().unwrap()],
            "the Date of r{n} is its wave's release"
        );
        assert!(date >= dates[n].as_str().unwrap().parse().unwrap());
    }
    // The recipient numbers have gaps, and each recipient has its message.
    let log = client.log(&id).await;
    assert_eq!(log.len(), 10);
    for line in &log {
        let path = format!("/deliveries/{id}/recipients/{}/preview", line["recipient"]);
        let preview = String::from_utf8(client.bytes(&path).await).unwrap();
        assert!(preview.contains(line["email"].as_str().unwrap()));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waves_follow_the_zones_of_recipients_and_the_shares_of_steps() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let tomorrow = Timestamp::now().checked_add(48.hours()).unwrap().in_tz("UTC").unwrap().date();
    let nine = format!("{tomorrow}T09:00:00");
    let zones = ["Asia/Tokyo", "Europe/Berlin", "America/New_York", "", "Asia/Kolkata"];
    let audience = dated(&(0..50).map(|n| json!(zones[n % 5])).collect::<Vec<_>>());
    let local =
        json!({ "type": "local_time", "at": nine, "zone_field": "when", "default_zone": "UTC" });
    let (id, view) = prepared(client, &with(local, json!({})), audience).await;
    let mut expected: Vec<Timestamp> =
        ["Asia/Tokyo", "Europe/Berlin", "America/New_York", "UTC", "Asia/Kolkata"]
            .map(|zone| tomorrow.at(9, 0, 0, 0).in_tz(zone).unwrap().timestamp())
            .to_vec();
    expected.sort();
    let lines = waves(client, &id).await;
    assert_eq!(lines.iter().map(|wave| instant(&wave["due"])).collect::<Vec<_>>(), expected);
    assert!(lines.iter().all(|wave| wave["recipients"] == 10 && wave["state"] == "waiting"));
    assert_eq!(instant(&view["plan"]["last_due"]), expected[4]);

    let steps =
        json!([{ "share": 10, "at": nine }, { "share": 90, "at": format!("{tomorrow}T12:00:00") }]);
    let ramp_up = json!({ "type": "ramp_up", "zone": "Europe/Berlin", "steps": steps });
    let (id, _) = prepared(client, &with(ramp_up, json!({})), dated(&vec![json!(""); 50])).await;
    assert_eq!(
        waves(client, &id)
            .await
            .iter()
            .map(|wave| wave["recipients"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [5, 45]
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meaningless_schedule_is_refused_with_field_and_line() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let tomorrow = in_seconds(86_400);
    let (status, problem) = client
        .post(
            "/deliveries",
            &with(json!({ "type": "at", "at": local(tomorrow), "zone": "Berlin" }), json!({})),
        )
        .await;
    assert_eq!(
        (status, problem["field"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("schedule.zone")),
        "{problem}"
    );
    let unasked = json!({ "request_confirmation": false });
    let (status, problem) =
        client.post("/deliveries", &with(json!({ "type": "now" }), unasked)).await;
    assert_eq!(
        (status, problem["field"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("settings.request_confirmation"))
    );

    let failed = async |schedule: Value, audience: String| {
        let id = client.create(&with(schedule, json!({}))).await;
        assert_eq!(client.upload(&id, audience).await.0, StatusCode::OK);
        let view = client.prepare(&id).await;
        assert_eq!(view["state"], "preparation_failed", "{view}");
        view["checks"]["errors"].as_array().unwrap().clone()
    };
    let errors = failed(at(in_seconds(-60)), ten_recipients()).await;
    assert_eq!(errors, [json!({ "field": "schedule.at", "message": "is in the past" })]);
    let (good, past) = (json!(tomorrow.to_string()), json!(in_seconds(-60).to_string()));
    let dates =
        [good.clone(), json!("2030-01-01T09:00:00"), good.clone(), past.clone(), past, json!(null)];
    let errors = failed(json!({ "type": "per_recipient", "field": "when" }), dated(&dates)).await;
    let found: Vec<_> = errors
        .iter()
        .map(|e| (e["field"].as_str().unwrap(), e["line"].as_u64().unwrap()))
        .collect();
    // Two recipients share a time that has passed: there is one error.
    assert_eq!(found, [("audience.when", 2), ("schedule", 4), ("audience.when", 6)]);
    let zones = [json!("Europe/Berlin"), json!("Europe/Atlantis"), json!("")];
    let errors = failed(
        json!({ "type": "local_time", "at": local(tomorrow), "zone_field": "when" }),
        dated(&zones),
    )
    .await;
    assert_eq!(errors.iter().map(|e| e["line"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_second_of_a_due_wave_sends_it_after_its_restart() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let mut daemon =
        Daemon::start(&format!("{}[redis]\nurl = \"{}\"\n", relay.settings(4), redis.url())).await;
    for offset_ms in [-200, 20, 300] {
        let (before, due) = (relay.accepted(), in_seconds(6));
        let id = scheduled(
            &daemon.client,
            &with(at(due), json!({ "in_doubt": "resend" })),
            ten_recipients(),
        )
        .await;
        let wait = due
            .checked_add(SignedDuration::from_millis(offset_ms))
            .unwrap()
            .duration_since(Timestamp::now());
        sleep(wait.try_into().unwrap_or_default()).await;
        daemon.restart().await;
        daemon.client.wait_for(&id, &["finished"]).await;
        let log = daemon.client.log(&id).await;
        assert!(
            log.iter().all(|line| line["status"] == "sent"),
            "killed {offset_ms} ms after it was due: {log:?}"
        );
        let resent = log.iter().filter(|line| line["resent"] == true).count();
        assert!(
            (10..=10 + resent).contains(&(relay.accepted() - before)),
            "killed {offset_ms} ms after it was due"
        );
    }
}
