//! Preparation over HTTP: its findings, its digest, its end by a stop or by a change.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::{
    domain::{Principal, Role},
    queue::QueueName,
};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    eventually,
    people::{problem, start},
    redis::RedisServer,
    relay::TestRelay,
};

/// Prepares a changed definition with an audience, and returns the delivery.
async fn prepared(app: &App, alter: impl FnOnce(&mut Value), ndjson: String) -> Value {
    let mut definition = definition();
    alter(&mut definition);
    let id = app.client.create(&definition).await;
    let (status, answer) = app.client.upload(&id, ndjson).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    app.client.prepare(&id).await
}

/// Field, line and message of the first error of a preparation that must have failed.
fn first_error(view: &Value) -> (String, Option<u64>, String) {
    assert_eq!(
        (&view["state"], &view["plan"]),
        (&json!("preparation_failed"), &Value::Null),
        "{view}"
    );
    let error = &view["checks"]["errors"][0];
    (
        error["field"].as_str().unwrap().into(),
        error["line"].as_u64(),
        error["message"].as_str().unwrap().into(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_names_mistakes_of_sender_and_content() {
    type Alter = fn(&mut Value);
    let redis = RedisServer::start();
    let app = start(
        &redis,
        "[preparation]\nallowed_senders = [\"*@shop.example\"]\nmessage_limit_kib = 8",
    )
    .await;
    let cases: [(Alter, &str, &str); 15] = [
        (|d| d["sender"]["email"] = "news@other.example".into(), "sender.email", "allowed_senders"),
        (
            |d| d["sender"]["email"] = "news@shop.example.evil.example".into(),
            "sender.email",
            "allowed_senders",
        ),
        (
            |d| d["sender"]["envelope_from"] = "b@other.example".into(),
            "sender.envelope_from",
            "allowed_senders",
        ),
        (
            |d| {
                d["sender"]["email"] = "a@shop.example\r\nBcc: <x@shop.example>@shop.example".into()
            },
            "sender.email",
            "address",
        ),
        (|d| d["sender"]["email"] = "a,b@shop.example".into(), "sender.email", "address"),
        (
            |d| d["sender"]["name"] = "Shop\r\nBcc: x@shop.example".into(),
            "sender.name",
            "control character",
        ),
        (
            |d| d["sender"]["reply_to"] = "a@shop.example\nBcc: b@shop.example".into(),
            "sender.reply_to",
            "address",
        ),
        (
            |d| d["sender"]["reply_to"] = "a@shop.example>, <b@shop.example".into(),
            "sender.reply_to",
            "address",
        ),
        (
            |d| d["sender"]["envelope_from"] = "a@shop.example> SIZE=1 <@shop.example".into(),
            "sender.envelope_from",
            "address",
        ),
        (|d| d["content"]["subject"] = "".into(), "content.subject", "empty"),
        (
            |d| d["content"]["subject"] = "a\r\nBcc: x@shop.example".into(),
            "content.subject",
            "control character",
        ),
        (|d| d["content"]["html"] = Value::Null, "content.html", "neither"),
        (|d| d["content"]["html"] = " \n".into(), "content.html", "empty"),
        (|d| d["content"]["html"] = "x".repeat(9000).into(), "content.html", "limit"),
        (
            |d| {
                let again = "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
                d["content"]["html"] = again.into();
            },
            "content.html",
            "endless",
        ),
    ];
    for (alter, field, message) in cases {
        let view = prepared(&app, alter, audience(2)).await;
        let (got, _, detail) = first_error(&view);
        assert_eq!(got, field, "{}", view["checks"]);
        assert!(detail.contains(message) && !detail.contains('\n'), "{detail}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_whose_template_cannot_be_parsed_is_refused_with_field_and_line() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    for (part, source, field, message) in [
        ("html", "<p>\n\n{% if name %}", "content.html", "template line 3: "),
        ("text", "a\n{{ name | loudly }}", "content.text", "template line 2: the filter loudly"),
        ("subject", "{{ name", "content.subject", "template line 1: "),
        ("html", "{% include 'x' %}", "content.html", "include is not in the template language"),
    ] {
        let mut definition = definition();
        definition["content"][part] = source.into();
        let (status, problem) = app.client.post("/deliveries", &definition).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(message), "{problem}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_links_and_a_missing_one_click_opt_out_give_warnings() {
    let (redis, relay) = (RedisServer::start(), TestRelay::start(Duration::ZERO).await);
    let relay = relay.settings(1);
    for (url, relay, expected) in [
        ("", relay.as_str(), Some("no recipient can reach")),
        ("http://mail.shop.example", &relay, Some("public.url is not https")),
        ("https://mail.shop.example", &relay, None),
        // No message leaves the built-in catcher.
        ("", "", None),
    ] {
        let app = start(&redis, &format!("[public]\nurl = {url:?}\n{relay}")).await;
        let view = prepared(&app, |_| {}, audience(2)).await;
        assert_eq!(view["state"], "prepared", "{}", view["checks"]);
        let warnings = view["checks"]["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{url}: {warnings:?}");
        for warning in warnings {
            assert_eq!(warning["field"], "public.url");
            assert!(
                warning["message"].as_str().unwrap().starts_with(expected.unwrap()),
                "{warning}"
            );
        }
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_names_bad_recipients_by_line_and_field() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 3\nerrors_shown = 2").await;
    let ten = audience(10);
    let line = |fields: &str| format!("{ten}{{\"email\":\"x@example.com\"{fields}}}\n");
    let cases = [
        (line(",\"name\":\"a\\r\\nBcc: x@example.com\""), "audience.name", 11, "control character"),
        (line(",\"name\":\"a\\u0000\""), "audience.name", 11, "control character"),
        (line(""), "audience.name", 11, "has no value"),
        (line(",\"name\":null"), "audience.name", 11, "has no value"),
    ];
    for (ndjson, field, line, message) in cases {
        let view = prepared(&app, |_| {}, ndjson).await;
        let (got, at, detail) = first_error(&view);
        assert_eq!((got.as_str(), at), (field, Some(line)), "{view}");
        assert!(detail.contains(message), "{detail}");
    }
    let view = prepared(
        &app,
        |d| d["content"]["html"] = "{{ n }}".into(),
        line(",\"name\":\"n\",\"n\":100"),
    )
    .await;
    assert_eq!(
        (
            view["checks"]["errors_total"].as_u64(),
            view["checks"]["errors"].as_array().unwrap().len()
        ),
        (Some(10), 2)
    );
    let looping = "{% for i in range(n) %}{% for j in range(n) %}x{% endfor %}{% endfor %}";
    let fields = "{\"email\":\"a@example.com\",\"name\":\"n\",\"n\":9}\n{\"email\":\"b@example.com\",\"name\":\"n\",\"n\":90000}\n";
    let view = prepared(&app, |d| d["content"]["html"] = looping.into(), fields.into()).await;
    let (got, at, detail) = first_error(&view);
    assert_eq!((got.as_str(), at), ("content.html", Some(2)), "{view}");
    assert!(detail.contains("endless"), "{detail}");

    let everybody = "{\"email\":\"\",\"name\":\"\"}\n{\"email\":\"nobody\",\"name\":\"\"}\n";
    let (got, _, detail) = first_error(&prepared(&app, |_| {}, everybody.into()).await);
    assert_eq!((got.as_str(), detail.as_str()), ("audience", "every recipient is excluded"));
    assert_eq!(first_error(&prepared(&app, |_| {}, String::new()).await).0, "audience");
    let id = app.client.create(&definition()).await;
    assert_eq!(first_error(&app.client.prepare(&id).await).0, "audience");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_covers_everything_that_is_approved() {
    type Alter = fn(&mut Value);
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let digest = async |alter: Alter, ndjson: String| {
        prepared(&app, alter, ndjson).await["plan"]["digest"].clone()
    };
    let base = digest(|_| {}, audience(5)).await;
    assert_eq!(base.as_str().unwrap().len(), 64);
    assert_eq!(digest(|_| {}, audience(5)).await, base, "another delivery with the same inputs");
    let changes: [Alter; 8] = [
        |d| d["content"]["subject"] = "Bye {{ name }}".into(),
        |d| d["content"]["html"] = "<p>unsubscribe".into(),
        |d| d["content"]["text"] = "unsubscribe".into(),
        |d| d["sender"]["name"] = Value::Null,
        |d| d["sender"]["envelope_from"] = "bounces@shop.example".into(),
        |d| d["settings"]["in_doubt"] = "resend".into(),
        |d| d["settings"]["validity_hours"] = 1.into(),
        |d| d["settings"]["retry_minutes"] = json!([0.02, 1]),
    ];
    for alter in changes {
        assert_ne!(digest(alter, audience(5)).await, base);
    }
    assert_ne!(digest(|_| {}, audience(6)).await, base);
    assert_ne!(digest(|_| {}, audience(5).replace("Jörg 4", "Jürgen 4")).await, base);
    assert_ne!(
        digest(|_| {}, format!("{}{{\"email\":\"nobody\"}}\n", audience(5))).await,
        base,
        "the digest covers exclusions, too"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_change_after_the_preparation_voids_it() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(3)).await;
    let path = format!("/deliveries/{id}");
    let mut digests = Vec::new();
    for change in 0..3 {
        let old = client.prepare(&id).await["plan"]["digest"].as_str().unwrap().to_owned();
        let mut changed = definition();
        changed["content"]["subject"] = format!("Changed {change}").into();
        match change {
            0 => {
                let response =
                    client.request(Method::PUT, &path).json(&changed).send().await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
            }
            1 => assert_eq!(client.upload(&id, audience(4)).await.0, StatusCode::OK),
            // Even an upload of the same audience counts.
            _ => assert_eq!(client.upload(&id, audience(4)).await.0, StatusCode::OK),
        }
        let view = client.get(&path).await;
        assert_eq!((&view["state"], &view["plan"]), (&json!("editing"), &Value::Null));
        assert_eq!(client.confirm(&id, &old).await.0, StatusCode::CONFLICT);
        digests.push(old);
    }
    let last = client.prepare(&id).await["plan"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(client.confirm(&id, &digests[0]).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(last, digests[2], "the same audience gives the same digest after another upload");
    assert_eq!(client.confirm(&id, &last).await.0, StatusCode::ACCEPTED);
    let response = client.request(Method::PUT, &path).json(&definition()).send().await.unwrap();
    problem(response, StatusCode::CONFLICT).await;
    assert_eq!(client.upload(&id, audience(1)).await.0, StatusCode::CONFLICT);
    client.wait_for(&id, &["finished"]).await;
    assert!(
        app.catcher
            .as_ref()
            .unwrap()
            .messages()
            .iter()
            .all(|m| String::from_utf8_lossy(&m.bytes).contains("Changed 0"))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_shows_its_progress_and_can_be_stopped_and_done_again() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 100").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(20_000)).await;
    let (prepare, stop) = (format!("/deliveries/{id}/prepare"), format!("/deliveries/{id}/stop"));
    let progress = async || client.get(&format!("/deliveries/{id}/progress")).await;
    for _ in 0..2 {
        assert_eq!(client.post(&prepare, &json!({})).await.0, StatusCode::ACCEPTED);
        let begun = progress().await["preparation"].clone();
        assert!(
            begun["done"].as_u64().unwrap() < 10_000 && begun["of"] == 20_000,
            "the progress is that of the earlier preparation: {begun}"
        );
        let first = eventually("progress", LIMIT, async || {
            progress().await["preparation"]["done"].as_u64().filter(|n| *n > 500)
        })
        .await;
        assert!(first < 20_000);
        assert_eq!(
            client.post(&prepare, &json!({})).await.0,
            StatusCode::CONFLICT,
            "the delivery is being prepared"
        );
        let (status, body) = client.post(&stop, &json!({})).await;
        assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!("editing")));
        eventually("the job has seen the stop", LIMIT, async || {
            let depths = app.services.journey.preparations.jobs.queue.depths().await.unwrap();
            let jobs = depths.iter().find(|depth| depth.queue == QueueName::Preparations).unwrap();
            (jobs.active + jobs.in_flight == 0).then_some(())
        })
        .await;
        let view = client.get(&format!("/deliveries/{id}")).await;
        assert_eq!(
            (&view["state"], &view["plan"], &view["preparation"]),
            (&json!("editing"), &Value::Null, &Value::Null)
        );
    }
    assert_eq!(
        redis.ask("KEYS versand:*:chunks.*").unwrap(),
        "*0\r\n",
        "a stopped preparation leaves no keys"
    );
    let ids = client.upload(&id, audience(1000)).await;
    assert_eq!(ids.0, StatusCode::OK);
    let view = client.prepare(&id).await;
    assert_eq!(
        (&view["state"], &view["plan"]["to_deliver"], &view["plan"]["chunks"]),
        (&json!("prepared"), &json!(1000), &json!(10))
    );
    let other = prepared(&app, |_| {}, audience(1000)).await;
    assert_eq!(
        other["plan"]["digest"], view["plan"]["digest"],
        "the plan equals that of a preparation that was never stopped"
    );
    app.stop().await;
}

/// A job that has not seen the stop of its preparation must not finish the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_preparation_never_finishes_the_next_one() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 1000").await;
    let client = &app.client;
    let id = client.create(&definition()).await;
    client.upload(&id, audience(5000)).await;
    let services = app.services.clone();
    let delivery = services.deliveries.delivery(&id.parse().unwrap()).await.unwrap();
    let (prepare, stop) = (format!("/deliveries/{id}/prepare"), format!("/deliveries/{id}/stop"));
    client.post(&prepare, &json!({})).await;
    eventually("the preparation has begun", LIMIT, async || {
        let now = services.deliveries.delivery(&delivery.id).await.unwrap();
        (now.document.generation >= 2).then_some(())
    })
    .await;
    let generation = services.deliveries.delivery(&delivery.id).await.unwrap().document.generation;
    client.post(&stop, &json!({})).await;
    let mut changed = definition();
    changed["content"]["subject"] = "Another one".into();
    client.request(Method::PUT, &format!("/deliveries/{id}")).json(&changed).send().await.unwrap();
    let by = Principal::new("root", vec![Role::PrepareDeliveries]);
    services.journey.preparations.request(&by, &delivery.id, None).await.unwrap();
    assert!(
        services.deliveries.delivery(&delivery.id).await.unwrap().document.generation > generation,
        "another preparation begins"
    );
    let view = client.wait_for(&id, &["prepared"]).await;
    let direct =
        prepared(&app, |d| d["content"]["subject"] = "Another one".into(), audience(5000)).await;
    assert_eq!(
        view["plan"]["digest"], direct["plan"]["digest"],
        "the digest is that of the changed content"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_or_ended_delivery_can_be_deleted_and_one_that_moves_or_is_paused_cannot() {
    let redis = RedisServer::start();
    let app = start(&redis, "[preparation]\nchunk_size = 10").await;
    let client = &app.client;
    let catcher = app.catcher.as_ref().unwrap();
    let delete = async |id: &str| {
        client.request(Method::DELETE, &format!("/deliveries/{id}")).send().await.unwrap()
    };
    let digest = |view: &Value| view["plan"]["digest"].as_str().unwrap().to_owned();
    let id = |view: &Value| view["id"].as_str().unwrap().to_owned();
    let mut gone = vec![
        client.create(&definition()).await,
        id(&prepared(&app, |_| {}, audience(20)).await),
        id(&prepared(&app, |d| d["content"]["subject"] = "".into(), audience(20)).await),
        client.send(&definition(), audience(20)).await,
    ];
    client.wait_for(&gone[3], &["finished"]).await;

    let preparing = client.create(&definition()).await;
    client.upload(&preparing, audience(30_000)).await;
    client.post(&format!("/deliveries/{preparing}/prepare"), &json!({})).await;
    problem(delete(&preparing).await, StatusCode::CONFLICT).await;
    client.post(&format!("/deliveries/{preparing}/stop"), &json!({})).await;
    gone.push(preparing);

    catcher.change_rules(|rules| rules.delay = Duration::from_millis(30));
    let view = prepared(&app, |_| {}, audience(1000)).await;
    let moving = id(&view);
    client.confirm(&moving, &digest(&view)).await;
    client.wait_for(&moving, &["in_progress"]).await;
    problem(delete(&moving).await, StatusCode::CONFLICT).await;
    client.post(&format!("/deliveries/{moving}/pause"), &json!({})).await;
    client.wait_for(&moving, &["paused"]).await;
    problem(delete(&moving).await, StatusCode::CONFLICT).await;
    client.post(&format!("/deliveries/{moving}/stop"), &json!({})).await;
    client.wait_for(&moving, &["stopped"]).await;
    gone.push(moving);

    for id in &gone {
        assert_eq!(delete(id).await.status(), StatusCode::NO_CONTENT, "{id}");
        for path in ["", "/progress", "/log", "/exclusions", "/events", "/log/export?format=csv"] {
            let response = client
                .request(Method::GET, &format!("/deliveries/{id}{path}"))
                .send()
                .await
                .unwrap();
            problem(response, StatusCode::NOT_FOUND).await;
        }
        assert_eq!(
            delete(id).await.status(),
            StatusCode::NO_CONTENT,
            "a repeated deletion finishes one that was cut short"
        );
        let audit = client.get(&format!("/deliveries/{id}/audit")).await;
        let last = audit["items"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&last["action"], &last["principal"]),
            (&json!("delete"), &json!("root")),
            "the audit log stays"
        );
    }
    assert_eq!(client.get("/deliveries").await, json!({ "items": [], "next": null }));
    eventually("only tombstone, audit log and opt-out key of each are left", LIMIT, async || {
        let left = redis.ask("KEYS versand:{*").unwrap();
        let kept = |name: &&str| {
            !name.ends_with(":delivery")
                && !name.ends_with(":audit")
                && !name.contains("{audit}")
                && !name.contains("{opt_outs:")
                && !name.contains("{tokens}")
                && !name.contains("{daemons}")
                && !name.contains(":queues:")
        };
        let names: Vec<&str> =
            left.lines().filter(|line| line.starts_with("versand:")).filter(kept).collect();
        names.is_empty().then_some(())
    })
    .await;
    app.stop().await;
}
