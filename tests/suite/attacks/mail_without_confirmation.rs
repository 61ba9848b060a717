//! Somebody who may only prepare deliveries tries to send mail that nobody confirms.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use versand::mail::catcher::CaughtMessage;

use crate::harness::{
    app::App,
    client::{Client, answer, audience, definition},
    people::{problem, start},
    ports::ClosedPort,
    redis::RedisServer,
};

async fn prepared(client: &Client, recipients: usize) -> String {
    let mut definition = definition();
    definition["content"]["html"] =
        json!("<p>Dear {{ name }}, <a href=\"{{ unsubscribe_url }}\">unsubscribe</a></p>");
    let id = client.create(&definition).await;
    client.upload(&id, audience(recipients)).await;
    assert_eq!(client.prepare(&id).await["state"], "prepared");
    id
}

fn asked(recipients: usize, to: &[&str]) -> Value {
    json!({ "recipients": (0..recipients).collect::<Vec<_>>(), "to": to })
}

async fn prove(client: &Client, id: &str, body: &Value) -> (StatusCode, Value) {
    client.post(&format!("/deliveries/{id}/proofs"), body).await
}

fn header_of(message: &CaughtMessage, name: &str) -> String {
    let text = String::from_utf8(message.bytes.clone()).unwrap();
    let unfolded = text.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
    let line = unfolded.split("\r\n").find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name} in {unfolded}")).to_owned()
}

/// The one-click link of a message (RFC 8058).
fn opt_out_link(message: &CaughtMessage) -> String {
    let list = header_of(message, "List-Unsubscribe");
    list.trim_matches(['<', '>']).to_owned()
}

async fn is_denied(client: &Client, email: &str) -> bool {
    client.get(&format!("/denylist/{email}")).await["denylisted"] == true
}

async fn one_click(link: &str) -> StatusCode {
    let form = reqwest::Client::new().post(link).body("List-Unsubscribe=One-Click");
    form.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_outsider_gets_a_proof_by_default() {
    let redis = RedisServer::start();
    // A relay that cannot be reached: a proof that is allowed would be `not_started`.
    let closed = ClosedPort::new();
    let relay = format!("[relay]\nhost = \"127.0.0.1\"\nport = {}\n", closed.port());
    let app = start(&redis, &relay).await;
    let preparer = app.client.with_token("preparer");
    let id = prepared(&preparer, 3).await;
    for to in ["a@victim.example", "a@shop.example", "\"a@shop.example\"@victim.example"] {
        let (status, refused) = prove(&preparer, &id, &asked(1, &[to])).await;
        assert_eq!(
            (status, &refused["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &"to[0]".into())
        );
    }
    app.stop().await;

    let masks = format!("[preparation]\nproof_addresses = [\"*@shop.example\"]\n{relay}");
    let app = start(&redis, &masks).await;
    let preparer = app.client.with_token("preparer");
    for to in [
        "a@victim.example",
        "a@shop.example.victim.example",
        "a@victimshop.example",
        "\"b@shop.example\"@victim.example",
        "a@victim.example,b@shop.example",
        "a@victim.example b@shop.example",
        "a@victim.example>,<b@shop.example",
        "a%victim.example@shop.example@victim.example",
        "a@shop.example\u{0}@victim.example",
        "a@sh\u{200b}op.example",
    ] {
        let (status, refused) = prove(&preparer, &id, &asked(1, &[to])).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{to:?}: {refused}");
        // one bad address keeps the good ones back, too
        let (status, _) = prove(&preparer, &id, &asked(1, &["a@shop.example", to])).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{to:?}");
    }
    let (status, sent) = prove(&preparer, &id, &asked(1, &["a@shop.example"])).await;
    assert_eq!((status, &sent["proofs"][0]["outcome"]), (StatusCode::OK, &"not_started".into()));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_daemons_together_send_at_most_so_many_proofs_of_one_principal() {
    let redis = RedisServer::start();
    let settings = "[preparation]\nproofs_per_hour = 150";
    let (one, two) = (start(&redis, settings).await, start(&redis, settings).await);
    let id = prepared(&one.client.with_token("preparer"), 100).await;
    let path = format!("/deliveries/{id}/proofs");
    // 1000 messages at once, by two daemons
    let requests = (0..10).map(|i| {
        let app = if i % 2 == 0 { &one } else { &two };
        let to = format!("a{i}@test.example");
        let client = app.client.with_token("preparer");
        let request = client.request(Method::POST, &path).json(&asked(100, &[&to]));
        async move { request.send().await.unwrap() }
    });
    let answers = futures_util::future::join_all(requests).await;
    let (good, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == StatusCode::OK);
    assert_eq!((good.len(), refused.len()), (1, 9));
    for refused in refused {
        let wait = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse::<u64>();
        assert!((3000..=3600).contains(&wait.unwrap()));
        problem(refused, StatusCode::TOO_MANY_REQUESTS).await;
    }
    let caught =
        || [&one, &two].map(|app| app.catcher.as_ref().unwrap().messages().len()).iter().sum();
    let sent: usize = caught();
    assert_eq!(sent, 100);

    // The principal gets the rest of its hourly limit, and not one more. Another principal has a
    // limit of its own.
    let preparer = two.client.with_token("preparer");
    assert_eq!(prove(&preparer, &id, &asked(50, &["b@test.example"])).await.0, StatusCode::OK);
    let one_more = prove(&preparer, &id, &asked(1, &["b@test.example"])).await;
    assert_eq!(one_more.0, StatusCode::TOO_MANY_REQUESTS, "{}", one_more.1);
    assert_eq!(prove(&two.client, &id, &asked(1, &["b@test.example"])).await.0, StatusCode::OK);
    let sent: usize = caught();
    assert_eq!(sent, 151);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_proof_is_marked_whatever_its_prefix() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let preparer = app.client.with_token("preparer");
    let id = prepared(&preparer, 1).await;
    for prefix in ["", " ", "\t", "\u{200b}", "\u{202e}", "\u{feff}\u{2060}"] {
        let mut body = asked(1, &["a@test.example"]);
        body["subject_prefix"] = prefix.into();
        let (status, refused) = prove(&preparer, &id, &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{prefix:?}");
        assert_eq!(refused["field"], "subject_prefix");
    }
    let mut body = asked(1, &["a@test.example"]);
    body["subject_prefix"] = "Re: ".into();
    assert_eq!(prove(&preparer, &id, &body).await.0, StatusCode::OK);
    let caught = app.catcher.as_ref().unwrap().messages();
    let encoded = header_of(&caught[0], "Subject");
    let base64 = encoded.trim_start_matches("=?utf-8?B?").trim_end_matches("?=");
    let subject = data_encoding::BASE64.decode(base64.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(subject).unwrap(), "[Proof] Re: Hello Jörg 0");
    assert_eq!(header_of(&caught[0], "X-Versand-Proof"), format!("{id}/0"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_address_opts_out_of_proofs_with_their_link() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let catcher = app.catcher.clone().unwrap();
    let id = prepared(&app.client, 2).await;
    let two = asked(2, &["QA@test.example", "boss@test.example"]);
    assert_eq!(prove(&app.client, &id, &two).await.0, StatusCode::OK);
    let caught = catcher.messages();
    let links: Vec<String> = caught.iter().map(|message| opt_out_link(message)).collect();
    let different: std::collections::BTreeSet<&String> = links.iter().collect();
    assert_eq!(different.len(), 4, "{links:?}");
    // the second recipient's message, at the first test address
    assert_eq!(one_click(&links[2]).await, StatusCode::OK);
    assert!(is_denied(&app.client, "qa@test.example").await);
    for other in ["boss@test.example", "user0@example.com", "user1@example.com"] {
        assert!(!is_denied(&app.client, other).await, "{other}");
    }
    // The denylist applies to proofs, whatever the delivery says. A request with one denied address
    // is refused as a whole.
    let (status, refused) = prove(&app.client, &id, &two).await;
    assert_eq!((status, &refused["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &"to[0]".into()));
    assert!(refused["detail"].as_str().unwrap().contains("denylist"), "{refused}");
    assert_eq!(catcher.messages().len(), 4);

    // nobody can turn a link of a proof into another link: a link with a changed number is refused
    let (path, token) = links[3].rsplit_once('/').unwrap();
    let mut bytes = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
    for bit in [0x80, 0x40, 0x01] {
        bytes[4] ^= bit;
        let forged = format!("{path}/{}", data_encoding::BASE64URL_NOPAD.encode(&bytes));
        assert_eq!(one_click(&forged).await, StatusCode::NOT_FOUND);
        bytes[4] ^= bit;
    }

    // the link works after the next preparation and after the deletion of the delivery, too
    app.client.upload(&id, audience(1)).await;
    app.client.prepare(&id).await;
    let deleted = app.client.request(Method::DELETE, &format!("/deliveries/{id}"));
    assert_eq!(answer(deleted.send().await.unwrap()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(reqwest::get(&links[3]).await.unwrap().status(), StatusCode::OK);
    assert!(!is_denied(&app.client, "boss@test.example").await, "a GET opts nobody out");
    assert_eq!(one_click(&links[3]).await, StatusCode::OK);
    assert!(is_denied(&app.client, "boss@test.example").await);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_of_a_delivery_that_ignores_the_denylist_still_honour_it() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[overrides]\ndenylist = true").await;
    let mut receipt = definition();
    receipt["settings"]["denylist"] = false.into();
    let id = app.client.create(&receipt).await;
    app.client.upload(&id, audience(1)).await;
    app.client.prepare(&id).await;
    let denied = app.client.request(Method::PUT, "/denylist/gone@test.example");
    assert_eq!(answer(denied.send().await.unwrap()).await.0, StatusCode::CREATED);
    let (status, refused) = prove(&app.client, &id, &asked(1, &["Gone@TEST.example"])).await;
    assert_eq!((status, &refused["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &"to[0]".into()));
    app.stop().await;
}
