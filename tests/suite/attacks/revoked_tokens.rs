//! Somebody uses a bearer token that was revoked.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use versand::domain::Role;

use crate::harness::{
    client::{Client, definition},
    people::{PEOPLE, problem, start},
    redis::RedisServer,
};

async fn token_line(client: &Client, name: &str) -> Value {
    let tokens = client.get("/tokens").await;
    let items = tokens["items"].as_array().unwrap();
    assert_eq!(items.len(), PEOPLE.len(), "{tokens}");
    items.iter().find(|item| item["name"] == name).unwrap().clone()
}

async fn revoke(client: &Client, name: &str) -> reqwest::Response {
    client.request(Method::DELETE, &format!("/tokens/{name}")).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_at_once_by_all_daemons_and_after_a_restart() {
    let redis = RedisServer::start();
    let settings = "[auth]\nfailures_per_minute = 0";
    let (one, two) = (start(&redis, settings).await, start(&redis, settings).await);
    let unused = token_line(&one.client, "preparer").await;
    assert_eq!((&unused["last_used"], &unused["revoked"]), (&Value::Null, &Value::Null));
    assert_eq!(unused["roles"][0], Role::PrepareDeliveries.word());
    two.client.with_token("preparer").create(&definition()).await;
    assert!(token_line(&one.client, "preparer").await["last_used"].is_string(), "over all daemons");

    // only administration revokes, and nobody learns a secret or a hash from the list
    for token in ["preparer", "starter", "monitor"] {
        let client = one.client.with_token(token);
        problem(revoke(&client, "root").await, StatusCode::FORBIDDEN).await;
        let list = client.request(Method::GET, "/tokens").send().await.unwrap();
        problem(list, StatusCode::FORBIDDEN).await;
    }
    assert!(!one.client.get("/tokens").await.to_string().contains("sha256"));
    problem(revoke(&one.client, "nobody").await, StatusCode::NOT_FOUND).await;

    assert_eq!(revoke(&one.client, "preparer").await.status(), StatusCode::NO_CONTENT);
    for app in [&one, &two] {
        let client = app.client.with_token("preparer");
        let refused = client.request(Method::GET, "/deliveries").send().await.unwrap();
        let refused = problem(refused, StatusCode::UNAUTHORIZED).await;
        assert!(refused["detail"].as_str().unwrap().contains("revoked"), "{refused}");
    }
    let revoked = token_line(&two.client, "preparer").await["revoked"].clone();
    assert_eq!(revoked["by"], "root");
    let again = two.client.with_token("administrator");
    assert_eq!(revoke(&again, "preparer").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(token_line(&two.client, "preparer").await["revoked"], revoked, "the first one");
    assert_eq!(two.client.with_token("starter").get("/deliveries").await["next"], Value::Null);
    one.stop().await;
    two.stop().await;

    let later = start(&redis, settings).await;
    let client = later.client.with_token("preparer");
    let refused = client.request(Method::GET, "/deliveries").send().await.unwrap();
    problem(refused, StatusCode::UNAUTHORIZED).await;
    // a new secret under the same name works
    let sha256 =
        data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest("preparer"));
    let tokens = &later.services.stores;
    let store = versand::store::TokenStore::new(tokens.redis.clone());
    assert!(store.is_revoked(&sha256).await.unwrap());
    assert!(!store.is_revoked(&sha256.replace('a', "b")).await.unwrap());
    later.stop().await;
}
