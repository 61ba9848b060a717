//! Somebody tries to sign off what he wrote himself.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    app::{App, token},
    client::{Client, answer, audience, definition},
    redis::RedisServer,
};

async fn change(client: &Client, id: &str) -> StatusCode {
    let mut changed = definition();
    changed["content"]["subject"] = "Changed".into();
    changed["settings"]["approvals"] = 2.into();
    let request = client.request(Method::PUT, &format!("/deliveries/{id}"));
    answer(request.json(&changed).send().await.unwrap()).await.0
}

async fn sign(client: &Client, id: &str, action: &str) -> (StatusCode, Value) {
    let view = client.get(&format!("/deliveries/{id}")).await;
    let digest = json!({ "digest": view["plan"]["digest"] });
    client.post(&format!("/deliveries/{id}/{action}"), &digest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_sign_off_is_by_whoever_wrote_definition_or_audience_last() {
    let redis = RedisServer::start();
    let names = ["ann", "bob", "carl", "dora", "eve"];
    let tokens = names.map(|name| token(name, &["start_deliveries", "administration"]));
    let app = App::start(&redis, &format!("[auth]\ntokens = [{}]", tokens.join(", "))).await;
    let [ann, bob, carl, dora, eve] = names.map(|name| app.client.with_token(name));
    let mut two = definition();
    two["settings"]["approvals"] = 2.into();
    let id = ann.create(&two).await;

    // bob writes the content, carl uploads the audience, dora prepares
    assert_eq!(change(&bob, &id).await, StatusCode::OK);
    carl.upload(&id, audience(3)).await;
    assert_eq!(dora.prepare(&id).await["state"], "prepared");
    for writer in [&bob, &carl] {
        let (status, refused) = sign(writer, &id, "approve").await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    }
    assert_eq!(sign(&dora, &id, "approve").await.0, StatusCode::FORBIDDEN, "she prepared it");
    // ann created it, but nothing of it is hers any more
    assert_eq!(sign(&ann, &id, "approve").await.0, StatusCode::OK);
    for writer in [&bob, &carl, &ann] {
        assert_eq!(sign(writer, &id, "confirm").await.0, StatusCode::FORBIDDEN);
    }

    // eve changes it after the approval: the approval is void, and she cannot give a new one
    assert_eq!(change(&eve, &id).await, StatusCode::OK);
    assert_eq!(dora.prepare(&id).await["state"], "prepared");
    assert_eq!(sign(&ann, &id, "confirm").await.0, StatusCode::CONFLICT);
    assert_eq!(sign(&eve, &id, "approve").await.0, StatusCode::FORBIDDEN);
    assert_eq!(sign(&bob, &id, "approve").await.0, StatusCode::OK);
    for forbidden in [&eve, &carl, &bob] {
        assert_eq!(sign(forbidden, &id, "confirm").await.0, StatusCode::FORBIDDEN);
    }
    assert_eq!(sign(&dora, &id, "confirm").await.0, StatusCode::ACCEPTED);
    ann.wait_for(&id, &["finished"]).await;

    // with one sign-off, whoever writes a delivery may confirm it
    let own = ann.create(&definition()).await;
    ann.upload(&own, audience(1)).await;
    ann.prepare(&own).await;
    assert_eq!(sign(&ann, &own, "confirm").await.0, StatusCode::ACCEPTED);
    ann.wait_for(&own, &["finished"]).await;

    // a delivery of an earlier version names no writers: whoever created it counts as one
    let mut old = app.services.deliveries.delivery(&id.parse().unwrap()).await.unwrap().document;
    old.definition_by.clear();
    old.audience_by.clear();
    assert!(old.was_written_by("ann") && !old.was_written_by("bob"));
    app.stop().await;
}
