//! Somebody deletes a delivery to hide what was sent, or to disable its opt-out links.

use reqwest::{Method, StatusCode};

use crate::harness::{
    app::App,
    client::{Client, audience, definition},
    people::{problem, start},
    redis::RedisServer,
    tracking::{self, links},
};

async fn delete(client: &Client, id: &str) -> reqwest::Response {
    client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap()
}

async fn one_click(link: &str) -> StatusCode {
    let form = reqwest::Client::new().post(link).body("List-Unsubscribe=One-Click");
    form.send().await.unwrap().status()
}

async fn is_denied(client: &Client, email: &str) -> bool {
    client.get(&format!("/denylist/{email}")).await["denylisted"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_release_only_administration_deletes_a_delivery() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let [preparer, starter, monitor, administrator] =
        ["preparer", "starter", "monitor", "administrator"].map(|name| app.client.with_token(name));
    // Before the release only somebody who may prepare can delete a delivery.
    let draft = preparer.create(&definition()).await;
    for (client, role) in [(&monitor, "prepare_deliveries"), (&administrator, "prepare_deliveries")]
    {
        assert_eq!(
            problem(delete(client, &draft).await, StatusCode::FORBIDDEN).await["role"],
            role
        );
    }
    assert_eq!(delete(&preparer, &draft).await.status(), StatusCode::NO_CONTENT);
    problem(delete(&monitor, &draft).await, StatusCode::FORBIDDEN).await;

    let id = app.client.send(&definition(), audience(3)).await;
    app.client.wait_for(&id, &["finished"]).await;
    for client in [&preparer, &starter, &monitor] {
        let refused = problem(delete(client, &id).await, StatusCode::FORBIDDEN).await;
        assert_eq!(refused["role"], "administration");
    }
    assert_eq!(app.client.log(&id).await.len(), 3, "the evidence is there");
    assert_eq!(delete(&administrator, &id).await.status(), StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opt_out_links_work_after_the_delivery_was_deleted() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[preparation]\nchunk_size = 4").await;
    let client = &app.client;
    let id = client.send(&tracking::definition(), audience(10)).await;
    client.wait_for(&id, &["finished"]).await;
    let mut of = Vec::new();
    for number in 0..10 {
        of.push(links(client, &id, number).await[&'u'][0].clone());
    }
    // one link was followed lately, so that the daemon still knows the delivery
    assert_eq!(reqwest::get(&of[0]).await.unwrap().status(), StatusCode::OK);
    assert_eq!(delete(client, &id).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(one_click(&of[0]).await, StatusCode::OK);
    assert!(is_denied(client, "user0@example.com").await);
    app.stop().await;

    // another daemon, which never knew the delivery
    let app = App::start(&redis, "").await;
    let client = &app.client;
    let url = &app.services.config.public.url;
    let of: Vec<String> =
        of.iter().map(|link| link.replace(&format!("http://{}", listener(link)), url)).collect();
    for number in [3, 4, 9] {
        let email = format!("user{number}@example.com");
        assert_eq!(reqwest::get(&of[number]).await.unwrap().status(), StatusCode::OK);
        assert!(!is_denied(client, &email).await, "a GET opts nobody out");
        assert_eq!(one_click(&of[number]).await, StatusCode::OK, "{number}");
        assert!(is_denied(client, &email).await, "{number}");
        assert_eq!(one_click(&of[number]).await, StatusCode::OK, "again");
    }
    for number in [1, 2, 5, 6, 7, 8] {
        assert!(!is_denied(client, &format!("user{number}@example.com")).await, "{number}");
    }
    // a forged link opts nobody out: neither another recipient nor one that does not exist
    let (path, token) = of[1].rsplit_once('/').unwrap();
    let bytes = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
    for at in [0, 3, 4, 7, 8, 15] {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let forged = format!("{path}/{}", data_encoding::BASE64URL_NOPAD.encode(&forged));
        assert_eq!(one_click(&forged).await, StatusCode::NOT_FOUND, "byte {at}");
    }
    // The key that is kept expires by itself, and holds no address.
    let kept = redis.ask("KEYS versand:{opt_outs:*").unwrap();
    let key = kept.lines().find(|line| line.starts_with("versand:")).unwrap().trim();
    let ttl = redis.ask(&format!("TTL {key}")).unwrap();
    let days = 86_400 * 400;
    let seconds: u64 = ttl.trim().trim_start_matches(':').parse().unwrap();
    assert!((days - 3600..=days).contains(&seconds), "{ttl}");
    assert!(!redis.ask(&format!("HGETALL {key}")).unwrap().contains("example"));
    app.stop().await;
}

/// The listener of a link.
fn listener(link: &str) -> &str {
    link.strip_prefix("http://").unwrap().split('/').next().unwrap()
}
