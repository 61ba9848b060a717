//! Proofs of a delivery, before and after it is sent, with real servers.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::{
    domain::delivery::DeliveryId,
    mail::catcher::{CatcherAction, CatcherFault, CatcherStage, CaughtMessage},
};

use crate::harness::{
    LIMIT,
    app::App,
    client::{Client, answer, audience, definition},
    eventually,
    people::{problem, start},
    ports::ClosedPort,
    redis::RedisServer,
};

mod smtp_test_mode;

/// A prepared delivery.
async fn prepared(client: &Client, definition: &Value, audience: String) -> String {
    let id = client.create(definition).await;
    let (status, answer) = client.upload(&id, audience).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let view = client.prepare(&id).await;
    assert_eq!(view["state"], "prepared", "{}", view["checks"]);
    id
}

async fn prove(client: &Client, id: &str, body: &Value) -> Vec<Value> {
    let (status, answer) = client.post(&format!("/deliveries/{id}/proofs"), body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["proofs"].as_array().unwrap().clone()
}

fn outcomes(proofs: &[Value]) -> Vec<&str> {
    proofs.iter().map(|proof| proof["outcome"].as_str().unwrap()).collect()
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let head = message.split("\r\n\r\n").next().unwrap();
    head.split("\r\n")
        .find_map(|line| line.strip_prefix(&format!("{name}: ")))
        .unwrap_or_else(|| panic!("{name} in {head}"))
}

fn text(caught: &CaughtMessage) -> String {
    String::from_utf8(caught.bytes.clone()).unwrap()
}

/// The numbers of accepted messages: as the relay layer counts them, and as the daemon records
/// them.
fn acceptances(app: &App) -> (u64, u64) {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    (
        app.services.journey.throttle_watch.relays.accepted(),
        load(&app.services.observation.gauges.acceptances),
    )
}

/// Everything that a proof must not change: ledgers, logs, counters, figures, the digest.
async fn untouched(app: &App, id: &str) -> (Vec<Vec<u8>>, Value) {
    let mut bytes = Vec::new();
    for path in [
        "log/export?format=ndjson",
        "log/export?format=csv",
        "exclusions/export?format=csv",
        "waves",
    ] {
        bytes.push(app.client.bytes(&format!("/deliveries/{id}/{path}")).await);
    }
    let delivery: DeliveryId = id.parse().unwrap();
    let ledgers = app.services.stores.ledgers.ledgers(&delivery, 0..3).await.unwrap();
    bytes.extend(ledgers.into_iter().flatten().map(|ledger| ledger.bytes().to_vec()));
    let mut view = app.client.get(&format!("/deliveries/{id}")).await;
    // The audit entry of a proof raises the revision.
    view["revision"] = Value::Null;
    (bytes, view)
}

/// The tokens in the links of a message, in their order. The message has no soft line breaks.
fn tokens(message: &str) -> Vec<String> {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let after = |(at, _): (usize, &str)| {
        message[at + 3..].chars().take_while(|c| is_of_token(*c)).collect::<String>()
    };
    let mut tokens: Vec<(usize, String)> = ["/o/", "/c/", "/u/", "/m/"]
        .iter()
        .flat_map(|path| message.match_indices(path))
        .map(|found| (found.0, after(found)))
        .collect();
    tokens.sort();
    tokens.into_iter().map(|(_, token)| token).filter(|token| token.len() >= 22).collect()
}

/// The expected proof: made from the real message, with the date of the proof `caught`.
async fn expected(client: &Client, (id, number): (&str, u64), to: &str, caught: &str) -> String {
    let date = jiff::fmt::rfc2822::parse(header(caught, "Date")).unwrap().timestamp();
    let path = format!("/deliveries/{id}/recipients/{number}/preview?date={date}");
    let message = String::from_utf8(client.bytes(&path).await).unwrap();
    let subject = |prefix: &str| {
        let subject =
            data_encoding::BASE64.encode(format!("{prefix}Hello Jörg {number}").as_bytes());
        format!("\r\nSubject: =?utf-8?B?{subject}?=\r\n")
    };
    let usual = format!("\r\nTo: user{number}@example.com\r\n");
    assert!(message.contains(&usual) && message.contains(&subject("")), "{message}");
    let proof = message.replacen(&usual, &format!("\r\nTo: {to}\r\n"), 1);
    let proof = proof.replacen(
        &subject(""),
        &format!("\r\nX-Versand-Proof: {id}/{number}{}", subject("[Proof] ")),
        1,
    );
    // A proof has tokens of its own: hits on its links count for nothing.
    let mut proof = proof.replace("=\r\n", "");
    for (theirs, own) in tokens(&proof).into_iter().zip(tokens(&caught.replace("=\r\n", ""))) {
        assert_ne!(theirs, own);
        proof = proof.replace(&theirs, &own);
    }
    proof.replacen(header(&message, "Message-ID"), header(caught, "Message-ID"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_reach_the_test_addresses_and_leave_the_delivery_as_it_is() {
    let redis = RedisServer::start();
    let app = start(
        &redis,
        "[preparation]\nchunk_size = 4\nproof_addresses = [\"*@test.example\", \"qa@*\"]",
    )
    .await;
    let (catcher, preparer) = (app.catcher.clone().unwrap(), app.client.with_token("preparer"));
    let id = prepared(
        &app.client,
        &definition(),
        audience(10) + "{\"email\":\"nobody\",\"name\":\"N\"}\n",
    )
    .await;
    let before = untouched(&app, &id).await;
    let asked = json!({ "recipients": [7, 3], "to": ["QA@Other.example", "ann@test.example"] });
    let proofs = prove(&preparer, &id, &asked).await;
    let of: Vec<_> = proofs
        .iter()
        .map(|p| (p["recipient"].as_u64().unwrap(), p["to"].as_str().unwrap()))
        .collect();
    assert_eq!(
        of,
        [
            (7, "QA@other.example"),
            (7, "ann@test.example"),
            (3, "QA@other.example"),
            (3, "ann@test.example")
        ]
    );
    for proof in &proofs {
        assert_eq!(
            (&proof["outcome"], &proof["reply"]),
            (&json!("accepted"), &json!("250 2.0.0 Ok: caught")),
            "{proof}"
        );
        assert_eq!(proof["fault"], Value::Null);
    }
    let caught = catcher.messages();
    assert_eq!(caught.len(), 4);
    for (caught, (number, to)) in caught.iter().zip(of) {
        assert_eq!(
            (caught.from.as_str(), caught.to.as_slice()),
            ("news@shop.example", &[to.to_owned()][..])
        );
        assert_eq!(
            text(caught).replace("=\r\n", ""),
            expected(&app.client, (&id, number), to, &text(caught)).await
        );
    }
    assert_eq!(untouched(&app, &id).await, before);
    assert_eq!(acceptances(&app), (4, 4));

    // The approved content is sent. Proofs of a sent delivery have the date of its real messages.
    let digest = before.1["plan"]["digest"].as_str().unwrap();
    assert_eq!(app.client.confirm(&id, digest).await.0, StatusCode::ACCEPTED);
    app.client.wait_for(&id, &["finished"]).await;
    let (before, real) = (untouched(&app, &id).await, catcher.messages().split_off(4));
    assert_eq!(real.len(), 10);
    assert_eq!(outcomes(&prove(&preparer, &id, &asked).await), ["accepted"; 4]);
    assert_eq!(untouched(&app, &id).await, before);
    let again = catcher.messages().split_off(14);
    let ids = |messages: &[std::sync::Arc<CaughtMessage>]| -> BTreeSet<String> {
        messages.iter().map(|caught| header(&text(caught), "Message-ID").to_owned()).collect()
    };
    assert_eq!(ids(&again), ids(&caught), "the same proof has the same Message-ID");
    assert_eq!(
        ids(&again).union(&ids(&real)).count(),
        14,
        "no real message has the Message-ID of a proof"
    );
    for (proof, to) in again.iter().zip([7, 7, 3, 3]) {
        let real =
            real.iter().find(|caught| caught.to == [format!("user{to}@example.com")]).unwrap();
        assert_eq!(header(&text(proof), "Date"), header(&text(real), "Date"));
        let body = |message: &CaughtMessage| {
            let body =
                text(message).split_once("\r\nContent-Type: ").unwrap().1.replace("=\r\n", "");
            tokens(&body).iter().fold(body.clone(), |body, token| body.replace(token, "TOKEN"))
        };
        assert_eq!(body(proof), body(real), "proof and message are equal, with their boundaries");
    }

    let audit = app.client.get(&format!("/deliveries/{id}/audit")).await;
    let entries: Vec<&Value> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "proof")
        .collect();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!(entry["principal"], "preparer");
        let details = &entry["details"];
        assert_eq!(
            (&details["recipients"], &details["addresses"], &details["digest"]),
            (&json!([7, 3]), &json!(2), &json!(digest))
        );
        assert_eq!(details["address_keys"].as_array().unwrap().len(), 2, "{details}");
        assert!(!details.to_string().contains('@'), "no address: {details}");
    }
    assert_eq!(acceptances(&app), (18, 18));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_proof_request_is_refused_by_its_field_and_sends_nothing() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nproof_addresses = [\"*@test.example\"]").await;
    let id = app.client.create(&definition()).await;
    app.client.upload(&id, audience(120)).await;
    let path = format!("/deliveries/{id}/proofs");
    let good = json!({ "recipients": [0], "to": ["a@test.example"] });
    let ask = async |client: &Client, body: &Value| {
        client.request(Method::POST, &path).json(body).send().await.unwrap()
    };
    problem(ask(&app.client, &good).await, StatusCode::CONFLICT).await;
    app.client.prepare(&id).await;
    let of = |recipients: Vec<u64>, to: &[&str]| json!({ "recipients": recipients, "to": to });
    let many: Vec<String> = (0..51).map(|i| format!("a{i}@test.example")).collect();
    let cases = [
        (of(vec![], &["a@test.example"]), "recipients"),
        (of(vec![0], &[]), "to"),
        (of((0..101).collect(), &["a@test.example"]), "recipients"),
        (json!({ "recipients": [0, 1], "to": many }), "recipients"),
        (of(vec![0, 120], &["a@test.example"]), "recipients[1]"),
        (of(vec![u64::MAX], &["a@test.example"]), "recipients[0]"),
        (of(vec![4, 5, 4], &["a@test.example"]), "recipients[2]"),
        (json!({ "recipients": [-1], "to": ["a@test.example"] }), "recipients[0]"),
        (of(vec![0], &["a@test.example", "nobody"]), "to[1]"),
        (of(vec![0], &["a@test.example>\r\nRCPT TO:<b@test.example"]), "to[0]"),
        (of(vec![0], &["a@other.example"]), "to[0]"),
        (of(vec![0], &["a@Test.example", "a@test.example"]), "to[1]"),
        (
            json!({ "recipients": [0], "to": ["a@test.example"], "subject_prefix": "a\r\nBcc: b" }),
            "subject_prefix",
        ),
        (
            json!({ "recipients": [0], "to": ["a@test.example"], "subject_prefix": "x".repeat(101) }),
            "subject_prefix",
        ),
        (
            json!({ "recipients": [0], "to": ["a@test.example"], "subject_prefix": "" }),
            "subject_prefix",
        ),
        (json!({ "recipients": [0], "to": ["a@test.example"], "cc": [] }), "cc"),
        (json!({ "recipients": [0] }), "to"),
    ];
    for (body, field) in cases {
        let problem =
            problem(ask(&app.client, &body).await, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(problem["field"], field, "{problem}");
    }
    let forbidden =
        problem(ask(&app.client.with_token("monitor"), &good).await, StatusCode::FORBIDDEN).await;
    assert_eq!(forbidden["role"], "prepare_deliveries");
    let catcher = app.catcher.clone().unwrap();
    assert_eq!(catcher.messages().len(), 0);
    let audit = app.client.get(&format!("/deliveries/{id}/audit")).await;
    assert!(
        audit["items"].as_array().unwrap().iter().all(|entry| entry["action"] != "proof"),
        "{audit}"
    );

    // The largest number of proofs, and a subject prefix of the caller.
    let hundred = json!({ "recipients": (0..50).collect::<Vec<_>>(), "to": &many[..2], "subject_prefix": "QA " });
    assert_eq!(outcomes(&prove(&app.client, &id, &hundred).await), ["accepted"; 100]);
    assert_eq!(catcher.messages().len(), 100);
    app.client
        .request(Method::PUT, &format!("/deliveries/{id}"))
        .json(&definition())
        .send()
        .await
        .unwrap();
    problem(ask(&app.client, &good).await, StatusCode::CONFLICT).await;
    app.client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap();
    problem(ask(&app.client, &good).await, StatusCode::NOT_FOUND).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_repeats_the_first_answer_and_sends_nothing_again() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = prepared(&app.client, &definition(), audience(5)).await;
    let catcher = app.catcher.clone().unwrap();
    let path = format!("/deliveries/{id}/proofs");
    let ask = async |key: &str, body: Value| {
        let request =
            app.client.request(Method::POST, &path).header("idempotency-key", key).json(&body);
        answer(request.send().await.unwrap()).await
    };
    let body = json!({ "recipients": [0, 1], "to": ["a@test.example", "defer@test.example"] });
    let first = ask("one", body.clone()).await;
    assert_eq!(
        outcomes(first.1["proofs"].as_array().unwrap()),
        ["accepted", "deferred", "accepted", "accepted"]
    );
    for _ in 0..2 {
        assert_eq!(ask("one", body.clone()).await, first);
    }
    assert_eq!(
        ask("one", json!({ "recipients": [2], "to": ["a@test.example"] })).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(catcher.messages().len(), 3);

    // While proofs are being sent, and after the caller has disconnected, nothing is sent a second
    // time, either.
    catcher.change_rules(|rules| rules.delay = Duration::from_millis(100));
    let slow = json!({ "recipients": [0, 1, 2, 3, 4], "to": ["a@test.example"] });
    let request =
        app.client.request(Method::POST, &path).header("idempotency-key", "two").json(&slow);
    assert!(request.timeout(Duration::from_millis(300)).send().await.unwrap_err().is_timeout());
    let repeated = eventually("the first answer", LIMIT, async || {
        let (status, answer) = ask("two", slow.clone()).await;
        assert!([StatusCode::OK, StatusCode::CONFLICT].contains(&status), "{answer}");
        (status == StatusCode::OK).then_some(answer)
    });
    assert_eq!(outcomes(repeated.await["proofs"].as_array().unwrap()), ["accepted"; 5]);
    assert_eq!(catcher.messages().len(), 8);
    assert_eq!(acceptances(&app), (8, 8));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_reports_the_reply_of_the_relay_and_none_is_started_without_a_connection() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "").await;
    let id = prepared(&app.client, &definition(), audience(3)).await;
    let catcher = app.catcher.clone().unwrap();
    catcher.change_rules(|rules| {
        rules.script(
            "lost@test.example",
            [Some(CatcherFault::new(CatcherStage::End, CatcherAction::Close))],
        );
        rules.script(
            "broken@test.example",
            [Some(CatcherFault::new(CatcherStage::Recipient, CatcherAction::Close))],
        );
    });
    let to = [
        "refuse@test.example",
        "defer@test.example",
        "lost@test.example",
        "broken@test.example",
        "a@test.example",
    ];
    let proofs = prove(&app.client, &id, &json!({ "recipients": [1], "to": to })).await;
    assert_eq!(outcomes(&proofs), ["refused", "deferred", "in_doubt", "deferred", "accepted"]);
    assert_eq!(
        (&proofs[0]["reply"], &proofs[0]["fault"]),
        (&json!("550 5.1.1 User unknown"), &Value::Null)
    );
    assert!(proofs[1]["reply"].as_str().unwrap().starts_with("451 "), "{}", proofs[1]);
    for broken in &proofs[2..4] {
        assert!(
            broken["reply"].is_null() && broken["fault"].as_str().unwrap().contains("closed"),
            "{broken}"
        );
    }
    assert_eq!(acceptances(&app), (1, 1));
    app.stop().await;

    let closed = ClosedPort::new();
    let nobody = format!(
        "[preparation]\nproof_addresses = [\"*@test.example\"]\n\
         [relay]\nhost = \"127.0.0.1\"\nport = {}\n",
        closed.port()
    );
    let app = App::start(&redis, &nobody).await;
    let proofs =
        prove(&app.client, &id, &json!({ "recipients": [0, 1, 2], "to": ["a@test.example"] }))
            .await;
    assert_eq!(outcomes(&proofs), ["not_started"; 3]);
    assert!(
        proofs.iter().all(|proof| proof["fault"].as_str().unwrap().starts_with("connect: ")),
        "{proofs:?}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_end_with_the_request_and_with_the_daemon() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[server]\nrequest_timeout_ms = 2000").await;
    let id = prepared(&app.client, &definition(), audience(50)).await;
    app.catcher.as_ref().unwrap().change_rules(|rules| rules.delay = Duration::from_millis(50));
    let asked = json!({ "recipients": (0..50).collect::<Vec<_>>(), "to": ["a@test.example"] });
    let proofs = prove(&app.client, &id, &asked).await;
    let outcomes = outcomes(&proofs);
    assert!(
        outcomes.starts_with(&["accepted"]) && outcomes.ends_with(&["not_started"]),
        "{outcomes:?}"
    );
    assert!(proofs[49]["fault"].as_str().unwrap().contains("time"), "{}", proofs[49]);
    let (client, path) = (app.client.clone(), format!("/deliveries/{id}/proofs"));
    let unanswered =
        tokio::spawn(async move { client.request(Method::POST, &path).json(&asked).send().await });
    let sent = app.catcher.clone().unwrap();
    let before = sent.messages().len();
    eventually("another message", LIMIT, async || (sent.messages().len() > before).then_some(()))
        .await;
    app.stop().await;
    unanswered.abort();
}
