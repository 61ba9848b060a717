//! The main job: prepare, confirm, send, log.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{
    app::App,
    client::{audience, definition},
    redis::RedisServer,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_goes_from_the_first_request_to_a_complete_sending_log() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 100").await;
    let client = &app.client;
    let lines = format!(
        "{}{{\"email\":\"refuse1@example.com\",\"name\":\"R\"}}\n{{\"email\":\"defer1@example.com\",\"name\":\"D\"}}\n{{\"email\":\"USER3@Example.com\",\"name\":\"D\"}}\n{{\"email\":\"nobody\",\"name\":\"D\"}}\n{{\"email\":null,\"name\":\"E\"}}\n",
        audience(250)
    );
    let mut untracked = definition();
    untracked["settings"]["tracking"] = json!({ "opens": false, "clicks": false });
    let id = client.send(&untracked, lines).await;
    let view = client.wait_for(&id, &["finished"]).await;

    assert_eq!(
        view["plan"]["causes"],
        json!({ "empty_address": 1, "invalid_address": 1, "duplicate": 1 })
    );
    let kpis = &view["kpis"];
    assert_eq!(
        (&kpis["targeted"], &kpis["to_deliver"], &kpis["processed"]),
        (&json!(255), &json!(252), &json!(252))
    );
    assert_eq!(
        (&kpis["delivered"], &kpis["bounces_and_errors"], &kpis["in_doubt"]),
        (&json!(251), &json!(1), &json!(0))
    );
    assert_eq!(kpis["unique_opens"], Value::Null, "a figure that is not tracked is not zero");

    let log = client.log(&id).await;
    assert_eq!(log.len(), 252);
    let of = |email: &str| log.iter().find(|line| line["email"] == email).unwrap();
    assert_eq!(
        (&of("user7@example.com")["status"], &of("user7@example.com")["attempts"]),
        (&json!("sent"), &json!(1))
    );
    assert_eq!(
        (&of("defer1@example.com")["status"], &of("defer1@example.com")["attempts"]),
        (&json!("sent"), &json!(2))
    );
    let refused = of("refuse1@example.com");
    assert_eq!(
        (&refused["status"], &refused["failure_reason"], &refused["failure_type"]),
        (&json!("failed"), &json!("user_unknown"), &json!("hard"))
    );
    assert!(refused["reply"].as_str().unwrap().starts_with("550 5.1.1"), "{refused}");

    let mut received: Vec<String> =
        app.catcher.as_ref().unwrap().messages().iter().flat_map(|m| m.to.clone()).collect();
    received.sort();
    let mut sent: Vec<String> = log
        .iter()
        .filter(|l| l["status"] == "sent")
        .map(|l| l["email"].as_str().unwrap().to_owned())
        .collect();
    sent.sort();
    assert_eq!(received, sent, "the log equals the mail of the server");
    let (status, _) = client.confirm(&id, view["plan"]["digest"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_nobody_can_open_fails_the_preparation() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let mut definition = definition();
    definition["content"]["html"] = json!(
        "<p>Dear {{ name }}, <a href=\"/autumn\">see</a> or <a href=\"https://shop.example/{{ name }}\">unsubscribe</a>."
    );
    let id = app.client.create(&definition).await;
    app.client.upload(&id, audience(3)).await;
    let prepared = app.client.prepare(&id).await;
    assert_eq!(prepared["state"], "preparation_failed");
    let errors = &prepared["checks"]["errors"];
    assert_eq!(
        errors,
        &json!([{ "field": "content.html", "line": 1, "message": "the link \"/autumn\" is not absolute" }])
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_errors_end_a_preparation_early() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nerrors_shown = 5").await;
    let mut definition = definition();
    definition["content"]["subject"] = json!("{{ nobody_has_this }}");
    let id = app.client.create(&definition).await;
    app.client.upload(&id, audience(5000)).await;
    let checks = app.client.prepare(&id).await["checks"].clone();
    assert_eq!(
        (checks["errors"].as_array().map(Vec::len), &checks["errors_total"]),
        (Some(5), &json!(1000))
    );
    assert!(checks["warnings"][0]["message"].as_str().unwrap().contains("ended early"), "{checks}");
    app.stop().await;
}
