//! Somebody who defines deliveries asks for less than the configuration does.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    app::App,
    client::{answer, audience, definition},
    people::start,
    redis::RedisServer,
};

const STRICT: &str = "[send]\napprovals = 2\n[fatigue]\nmessages = 2\ndays = 7\n\
                      [tracking]\nopens = false\nclicks = false";

/// Settings below that configuration, each with the field of the refusal.
fn lower() -> [(Value, &'static str); 8] {
    [
        (json!({ "approvals": 1 }), "settings.approvals"),
        (json!({ "denylist": false }), "settings.denylist"),
        (json!({ "fatigue": false }), "settings.fatigue"),
        (json!({ "fatigue": { "messages": 3, "days": 7 } }), "settings.fatigue"),
        (json!({ "fatigue": { "messages": 2, "days": 6.9 } }), "settings.fatigue"),
        (json!({ "fatigue": { "messages": 1000, "days": 366 } }), "settings.fatigue"),
        (json!({ "tracking": { "opens": true } }), "settings.tracking.opens"),
        (json!({ "tracking": { "clicks": true } }), "settings.tracking.clicks"),
    ]
}

fn with(settings: &Value) -> Value {
    let mut definition = definition();
    definition["settings"] = settings.clone();
    definition
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_below_the_floor_is_refused_wherever_it_comes_from() {
    let redis = RedisServer::start();
    // definitions from a time without floors
    let loose = "[overrides]\ndenylist = true\nfatigue = true\ntracking = true";
    let app = start(&redis, loose).await;
    let mut old = Vec::new();
    for (settings, field) in lower() {
        let id = app.client.create(&with(&settings)).await;
        app.client.upload(&id, audience(3)).await;
        old.push((id, field));
    }
    app.stop().await;

    let app = start(&redis, STRICT).await;
    let client = &app.client;
    let good = client.create(&definition()).await;
    client.upload(&good, audience(3)).await;
    for (settings, field) in lower() {
        let (status, refused) = client.post("/deliveries", &with(&settings)).await;
        assert_eq!((status, &refused["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &field.into()));
        let change = client.request(Method::PUT, &format!("/deliveries/{good}"));
        let (status, refused) = answer(change.json(&with(&settings)).send().await.unwrap()).await;
        assert_eq!((status, &refused["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &field.into()));
        assert!(refused["detail"].as_str().unwrap().len() > 20, "a reason: {refused}");
    }
    for (id, field) in &old {
        // neither prepared nor copied nor made a template
        let view = client.prepare(id).await;
        assert_eq!(view["state"], "preparation_failed", "{field}: {view}");
        assert_eq!(view["checks"]["errors"][0]["field"], *field);
        let copy = json!({ "name": "Copy" });
        let (status, refused) = client.post(&format!("/deliveries/{id}/copy"), &copy).await;
        assert_eq!(
            (status, &refused["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &(*field).into())
        );
        let rule = json!({ "cron": "0 9 * * *", "zone": "UTC" });
        let recur = client.request(Method::PUT, &format!("/deliveries/{id}/recurrence"));
        let (status, refused) = answer(recur.json(&rule).send().await.unwrap()).await;
        assert_eq!(
            (status, &refused["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &(*field).into())
        );
    }
    let stricter = json!({ "approvals": 2, "denylist": true,
        "fatigue": { "messages": 1, "days": 30 }, "tracking": { "opens": false } });
    assert_eq!(client.post("/deliveries", &with(&stricter)).await.0, StatusCode::CREATED);
    let view = client.prepare(&good).await;
    let settings = &view["plan"]["settings"];
    assert_eq!(
        [&settings["approvals"], &settings["denylist"], &settings["tracking"]["opens"]],
        [&json!(2), &json!(true), &json!(false)]
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_override_the_denylist_holds_by_default() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let (status, refused) =
        app.client.post("/deliveries", &with(&json!({ "denylist": false }))).await;
    assert_eq!(
        (status, &refused["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &"settings.denylist".into())
    );
    app.stop().await;
}
