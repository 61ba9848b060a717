//! Somebody changes a delivery between another person's look and decision.

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use versand::http::ROUTES;

use crate::harness::{
    client::{Client, answer, audience, definition},
    people::{method, problem, start},
    redis::RedisServer,
};

/// The entity tag of a delivery, as a reader gets it.
async fn tag(client: &Client, id: &str) -> String {
    let read = client.request(Method::GET, &format!("/deliveries/{id}")).send().await.unwrap();
    read.headers()[header::ETAG].to_str().unwrap().to_owned()
}

async fn status(request: RequestBuilder, tag: &str) -> StatusCode {
    request.header(header::IF_MATCH, tag).send().await.unwrap().status()
}

fn scheduled() -> Value {
    let mut definition = definition();
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    definition["schedule"] = json!({ "type": "at", "at": at.to_string()[..19], "zone": "UTC" });
    definition["settings"]["request_confirmation"] = false.into();
    definition
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_that_confirms_must_name_the_revision_that_was_looked_at() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let (starter, attacker) = (&app.client, app.client.with_token("preparer"));
    let id = starter.create(&scheduled()).await;
    starter.upload(&id, audience(3)).await;
    let prepare = || starter.request(Method::POST, &format!("/deliveries/{id}/prepare"));
    for unnamed in [None, Some("*")] {
        let request = unnamed.map_or_else(prepare, |tag| prepare().header(header::IF_MATCH, tag));
        problem(request.send().await.unwrap(), StatusCode::PRECONDITION_REQUIRED).await;
    }
    let looked_at = tag(starter, &id).await;
    // Between the look and the preparation, somebody who may only prepare swaps the content.
    let mut swapped = scheduled();
    swapped["content"]["subject"] = "Something else".into();
    let change = attacker.request(Method::PUT, &format!("/deliveries/{id}")).json(&swapped);
    assert_eq!(change.send().await.unwrap().status(), StatusCode::OK);
    let stale = prepare().header(header::IF_MATCH, &looked_at).send().await.unwrap();
    let detail = problem(stale, StatusCode::PRECONDITION_FAILED).await["detail"].to_string();
    assert!(detail.contains("revision"), "{detail}");
    assert_eq!(starter.get(&format!("/deliveries/{id}")).await["state"], "editing");

    let now = tag(starter, &id).await;
    assert_eq!(status(prepare(), &format!("W/{now}")).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(status(prepare(), &now).await, StatusCode::ACCEPTED);
    starter.wait_for(&id, &["scheduled"]).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_delivery_honours_if_match() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(3)).await;
    let digest = client.prepare(&id).await["plan"]["digest"].clone();
    let before = client.get(&format!("/deliveries/{id}")).await;
    for route in ROUTES
        .iter()
        .filter(|route| route.path.starts_with("/api/v1/deliveries/{id}") && route.method != "get")
    {
        let path = route.path.replace("{id}", &id).replace("{chunk}", "0");
        let body = match route.path.rsplit('/').next().unwrap() {
            "{id}" => definition(),
            "confirm" | "approve" => json!({ "digest": digest }),
            "in-doubt" => json!({ "as": "sent", "recipients": "all" }),
            "copy" => json!({ "name": "Copy" }),
            "proofs" => json!({ "recipients": [0], "to": ["a@test.example"] }),
            "recurrence" => json!({ "cron": "0 9 * * *", "zone": "UTC" }),
            _ => json!({}),
        };
        let request = client.request(method(route), path.strip_prefix("/api/v1").unwrap());
        let request = request.header(header::IF_MATCH, "\"1\"");
        let request = match route.path.ends_with("/audience") {
            true => request.header(header::CONTENT_TYPE, "application/x-ndjson").body(audience(1)),
            false => request.json(&body),
        };
        let stale = request.send().await.unwrap();
        assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED, "{route:?}");
    }
    assert_eq!(client.get(&format!("/deliveries/{id}")).await, before, "nothing has changed");
    assert_eq!(app.catcher.as_ref().unwrap().messages().len(), 0);

    // malformed tags, tags of no revision (one of them in a list), and two header lines
    let confirm = || {
        let request = client.request(Method::POST, &format!("/deliveries/{id}/confirm"));
        request.json(&json!({ "digest": digest }))
    };
    for bad in ["7", "\"7", "\"7\" \"8\"", "", "*, \"7\""] {
        assert_eq!(status(confirm(), bad).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    let now = tag(client, &id).await;
    for never in ["\"x\"", "W/\"3\"", "\"99\"", "\"99\", \"98\""] {
        assert_eq!(status(confirm(), never).await, StatusCode::PRECONDITION_FAILED, "{never}");
    }
    // a repeated request gets its first answer, although the revision has changed
    let keyed = || confirm().header("idempotency-key", "once").header(header::IF_MATCH, "\"99\"");
    let first = answer(keyed().header(header::IF_MATCH, &now).send().await.unwrap()).await;
    assert_eq!(first.0, StatusCode::ACCEPTED);
    client.wait_for(&id, &["finished"]).await;
    assert_eq!(answer(keyed().send().await.unwrap()).await, first);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_changes_at_once_that_name_one_revision_one_is_made() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    let looked_at = tag(client, &id).await;
    let changes = (0..20).map(|i| {
        let mut changed = definition();
        changed["name"] = format!("Change {i}").into();
        let request = client.request(Method::PUT, &format!("/deliveries/{id}")).json(&changed);
        let request = request.header(header::IF_MATCH, &looked_at);
        async move { request.send().await.unwrap().status() }
    });
    let answers = futures_util::future::join_all(changes).await;
    let made = answers.iter().filter(|status| **status == StatusCode::OK).count();
    assert_eq!(made, 1, "{answers:?}");

    // an upload changes the delivery twice, and both steps belong to the named revision
    let now = tag(client, &id).await;
    let upload = client.request(Method::PUT, &format!("/deliveries/{id}/audience"));
    let upload = upload.header(header::CONTENT_TYPE, "application/x-ndjson").body(audience(2));
    let done = upload.header(header::IF_MATCH, now).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::OK);
    assert_eq!(done.headers()[header::ETAG].to_str().unwrap(), tag(client, &id).await);
    app.stop().await;
}
