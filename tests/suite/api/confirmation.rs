//! Confirmation and idempotency: each action happens once, however often it is requested.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    app::App,
    client::{Client, answer, audience, definition},
    people::{problem, start},
    redis::RedisServer,
};

const KEY: &str = "idempotency-key";

async fn keyed(client: &Client, path: &str, key: &str, body: &Value) -> Response {
    client.request(Method::POST, path).header(KEY, key).json(body).send().await.unwrap()
}

/// Sends the same request twenty times at once. All answers must be the same; returns that answer.
async fn at_once(client: &Client, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
    let all =
        join_all((0..20).map(|_| async { answer(keyed(client, path, key, body).await).await }))
            .await;
    for one in &all {
        assert_eq!(one, &all[0], "{path}");
    }
    all[0].clone()
}

/// The actions in the audit log of a delivery.
async fn audited_actions(client: &Client, id: &str) -> Vec<String> {
    let page = client.get(&format!("/deliveries/{id}/audit?limit=1000")).await;
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect()
}

async fn uploaded(app: &App, n: usize) -> String {
    let id = app.client.create(&definition()).await;
    app.client.upload(&id, audience(n)).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_with_a_key_creates_once() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let (status, first) = at_once(client, "/deliveries", "k1", &definition()).await;
    assert_eq!((status, &first["state"]), (StatusCode::CREATED, &json!("editing")));
    let id = first["id"].as_str().unwrap();
    assert_eq!(client.get("/deliveries").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(audited_actions(client, id).await, ["create"]);

    let mut other = definition();
    other["name"] = "Winter".into();
    problem(keyed(client, "/deliveries", "k1", &other).await, StatusCode::CONFLICT).await;
    let theirs =
        answer(keyed(&client.with_token("second"), "/deliveries", "k1", &other).await).await;
    assert_eq!(theirs.0, StatusCode::CREATED, "each principal has its own keys");
    assert_ne!(theirs.1["id"], first["id"]);
    let later = answer(keyed(client, "/deliveries", "k2", &definition()).await).await.1;
    assert_ne!(later["id"], first["id"]);

    client.upload(id, audience(3)).await;
    client.prepare(id).await;
    let again = keyed(client, "/deliveries", "k1", &definition()).await;
    assert_eq!(again.headers()["location"], format!("/api/v1/deliveries/{id}"));
    assert_eq!(
        answer(again).await,
        (StatusCode::CREATED, first.clone()),
        "the answer is the first one"
    );
    let newest: Vec<Value> = client.get("/deliveries").await["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["id"].clone())
        .collect();
    assert_eq!(
        newest,
        [&later["id"], &theirs.1["id"], &first["id"]].map(Clone::clone),
        "a repeat does not move the delivery up"
    );

    let deleted =
        client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        answer(keyed(client, "/deliveries", "k1", &definition()).await).await.1,
        first,
        "a repeat does not bring the delivery back"
    );
    assert_eq!(client.get("/deliveries").await["items"].as_array().unwrap().len(), 2);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_neither_moves_nor_revives_a_delivery() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let first = answer(keyed(client, "/deliveries", "k", &definition()).await).await.1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = client.create(&definition()).await;
    let forget =
        "for _, key in ipairs(redis.call('KEYS', '*:idempotency:*')) do redis.call('DEL', key) end";
    redis.ask(&format!("EVAL \"{forget}\" 0")).unwrap();
    problem(keyed(client, "/deliveries", "k", &definition()).await, StatusCode::CONFLICT).await;
    let listed = async || {
        app.services
            .stores
            .deliveries
            .delivery_ids(0, 10)
            .await
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [second.clone(), first.clone()], "the newest delivery comes first");
    let deleted =
        client.request(Method::DELETE, &format!("/deliveries/{first}")).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    problem(keyed(client, "/deliveries", "k", &definition()).await, StatusCode::CONFLICT).await;
    assert_eq!(listed().await, [second], "a deleted delivery is not listed again");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_idempotency_key_is_refused() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = uploaded(&app, 3).await;
    let path = format!("/deliveries/{id}/prepare");
    for key in ["", " ", "\"\"", &"x".repeat(201)] {
        for (path, body) in [(path.as_str(), json!({})), ("/deliveries", definition())] {
            let body = problem(
                keyed(&app.client, path, key, &body).await,
                StatusCode::UNPROCESSABLE_ENTITY,
            )
            .await;
            assert_eq!(body["field"], "Idempotency-Key", "{body}");
        }
    }
    let bytes = app
        .client
        .request(Method::POST, &path)
        .header(KEY, reqwest::header::HeaderValue::from_bytes(b"\xff").unwrap());
    problem(bytes.send().await.unwrap(), StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(
        audited_actions(&app.client, &id).await,
        ["create", "upload"],
        "no refused request had an effect"
    );
    assert_eq!(
        keyed(&app.client, &path, &"x".repeat(200), &json!({})).await.status(),
        StatusCode::ACCEPTED
    );
    app.client.wait_for(&id, &["prepared"]).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_action_with_a_key_happens_once_and_repeats_its_answer() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 20").await;
    let client = &app.client;
    app.catcher
        .as_ref()
        .unwrap()
        .change_rules(|rules| rules.delay = std::time::Duration::from_millis(20));
    let id = uploaded(&app, 2000).await;
    let path = |action: &str| format!("/deliveries/{id}/{action}");
    let none = json!({});
    // A key is bound to its action, so each action has its own key.
    assert_eq!(at_once(client, &path("prepare"), "p", &none).await.1["state"], "preparing");
    assert_eq!(
        answer(
            client.request(Method::POST, &path("prepare")).header(KEY, "p").send().await.unwrap()
        )
        .await
        .0,
        StatusCode::ACCEPTED
    );
    problem(keyed(client, &path("stop"), "p", &none).await, StatusCode::CONFLICT).await;
    let view = client.wait_for(&id, &["prepared"]).await;
    assert_eq!(
        at_once(client, &path("prepare"), "p", &none).await.1["state"],
        "preparing",
        "the answer is the first one"
    );
    assert_eq!(
        client.get(&format!("/deliveries/{id}")).await["plan"],
        view["plan"],
        "the action was not repeated"
    );

    let digest = json!({ "digest": view["plan"]["digest"] });
    let (status, confirmed) = at_once(client, &path("confirm"), "c", &digest).await;
    assert_eq!(
        (status, &confirmed["confirmed_by"], &confirmed["to_deliver"]),
        (StatusCode::ACCEPTED, &json!("root"), &json!(2000))
    );
    problem(
        keyed(client, &path("confirm"), "c", &json!({ "digest": "0" })).await,
        StatusCode::CONFLICT,
    )
    .await;
    let second = client.with_token("second");
    problem(keyed(&second, &path("confirm"), "c", &digest).await, StatusCode::CONFLICT).await;
    client.wait_for(&id, &["in_progress"]).await;
    assert_eq!(
        at_once(client, &path("pause"), "1", &none).await,
        (StatusCode::ACCEPTED, json!({ "id": id, "state": "pausing" }))
    );
    client.wait_for(&id, &["paused"]).await;
    assert_eq!(at_once(client, &path("pause"), "1", &none).await.1["state"], "pausing");
    assert_eq!(
        at_once(client, &path("resume"), "2", &none).await,
        (StatusCode::ACCEPTED, json!({ "id": id, "state": "in_progress" }))
    );
    assert_eq!(
        at_once(client, &path("stop"), "3", &none).await,
        (StatusCode::ACCEPTED, json!({ "id": id, "state": "stopping" }))
    );
    client.wait_for(&id, &["stopped"]).await;
    assert_eq!(
        keyed(client, &path("confirm"), "c", &digest).await.json::<Value>().await.unwrap(),
        confirmed
    );
    let expected =
        ["create", "upload", "prepare", "prepared", "confirm", "pause", "resume", "stop"];
    assert_eq!(audited_actions(client, &id).await, expected);
    app.stop().await;
}

/// All recipients that were sent to, with the number of messages.
fn received(app: &App) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in app.catcher.as_ref().unwrap().messages() {
        for to in &message.to {
            *counts.entry(to.clone()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_confirmations_at_once_give_one_send() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 50").await;
    let id = uploaded(&app, 300).await;
    let digest = app.client.prepare(&id).await["plan"]["digest"].clone();
    let path = format!("/deliveries/{id}/confirm");
    let people = ["root", "starter", "second"];
    let all = join_all((0..100).map(|i| {
        let client = app.client.with_token(people[i % people.len()]);
        let (path, body) = (path.clone(), json!({ "digest": digest }));
        tokio::spawn(async move {
            // Some requests have a key, and some share one.
            let request = client.request(Method::POST, &path).json(&body);
            let request =
                if i % 2 == 0 { request.header(KEY, format!("key {}", i % 10)) } else { request };
            answer(request.send().await.unwrap()).await
        })
    }))
    .await;
    let answers: Vec<(StatusCode, Value)> = all.into_iter().map(Result::unwrap).collect();
    let yes: BTreeSet<String> = answers
        .iter()
        .filter(|(s, _)| *s == StatusCode::ACCEPTED)
        .map(|(_, b)| b.to_string())
        .collect();
    assert_eq!(yes.len(), 1, "one confirmation, or the same answer to its repeats: {yes:?}");
    let no = answers.iter().filter(|(status, _)| *status != StatusCode::ACCEPTED);
    assert!(
        no.clone().all(|(status, _)| *status == StatusCode::CONFLICT) && no.count() >= 80,
        "{answers:?}"
    );
    let view = app.client.wait_for(&id, &["finished"]).await;
    assert_eq!(view["counts"]["sent"], 300);
    let received = received(&app);
    assert_eq!((received.len(), received.values().max()), (300, Some(&1)), "everybody, once");
    let audited = audited_actions(&app.client, &id).await;
    assert_eq!(audited.iter().filter(|action| *action == "confirm").count(), 1);
    app.stop().await;
}
