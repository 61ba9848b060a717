//! Requests, uploads, addresses and job ids that two programs could read in two ways.

use std::net::{Ipv4Addr, SocketAddr};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use versand::queue::{JobState, QueueName};

use super::floods::{ask_from, connect_from, listening};
use crate::harness::{
    LIMIT,
    client::definition,
    daemon::{Daemon, TOKEN},
    eventually,
    people::{problem, start},
    queue::{Redis, SOON, reaches},
    redis::RedisServer,
};

const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

async fn ask(to: SocketAddr, text: &str) -> String {
    ask_from(SOMEWHERE, to, text).await
}

fn get(head: &str) -> String {
    format!("GET {head}Connection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_a_proxy_might_read_in_another_way_are_refused() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
    let admin = listening(&daemon, "the admin API listens");
    let public = listening(&daemon, "the public listener listens");
    for (to, path) in [(admin, "/healthz"), (public, "/o/forged")] {
        let good = format!("{path} HTTP/1.1\r\nHost: mail.example.com:8443\r\n");
        assert!(ask(to, &get(&good)).await.starts_with("HTTP/1.1 200"));
        let old = format!("{path} HTTP/1.0\r\n");
        assert!(ask(to, &get(&old)).await.starts_with("HTTP/1.0 200"), "HTTP/1.0 has no Host");
        for head in [
            "Host: a.example\r\nHost: b.example\r\n",
            "Host: a.example\r\nHost: a.example\r\n",
            "",
            "Host: a.example, b.example\r\n",
            "Host: ann@a.example\r\n",
            "Host: a.example/x\r\n",
            "Host: a b\r\n",
            "Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            "Host: x\r\nContent-Length: +1\r\n",
            "Host: x\r\nTransfer-Encoding: gzip\r\n",
            "Host : x\r\n",
            " Host: x\r\n",
            "Host: x\r\nX: a\r b\r\n",
            "Host: x\r\nX: a\0b\r\n",
        ] {
            let answer = ask(to, &get(&format!("{path} HTTP/1.1\r\n{head}"))).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{path} {head:?}: {answer:?}");
        }
        let several = get(&format!("{path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n"));
        let answer = ask(to, &several).await;
        assert!(answer.contains("\"field\":\"Host\""), "{answer}");
        let long = format!("{path}/{} HTTP/1.1\r\nHost: x\r\n", "a".repeat(70_000));
        let answer = ask(to, &get(&long)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        // The absolute form names the same route, and its host is not believed.
        let absolute = format!("http://evil.example{path} HTTP/1.1\r\nHost: x\r\n");
        assert!(ask(to, &get(&absolute)).await.starts_with("HTTP/1.1 200"));
        let tunnel = "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n";
        assert!(ask(to, tunnel).await.starts_with("HTTP/1.1 40"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_cannot_hide_in_the_body_of_the_first() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
    let hidden = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for to in [
        listening(&daemon, "the admin API listens"),
        listening(&daemon, "the public listener listens"),
    ] {
        for lengths in [
            "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n",
            "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            let text =
                format!("POST /healthz HTTP/1.1\r\nHost: x\r\n{lengths}\r\n0\r\n\r\n{hidden}");
            let mut stream = connect_from(SOMEWHERE, to).await;
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
                .await
                .expect("the daemon closes");
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lengths:?}: {answer}");
            assert!(!answer.contains("versand_"), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_queries_have_one_meaning() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
    let admin = listening(&daemon, "the admin API listens");
    let with = async |target: &str| {
        let head = format!("{target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n");
        ask(admin, &get(&head)).await
    };
    for path in [
        "/api/v1/deliveries/..%2f..%2fmetrics",
        "/api/v1/deliveries/%2e%2e",
        "/api/v1/deliveries/../../../metrics",
        "/api/v1/../../metrics",
        "//metrics",
        "/metrics/",
        "/api/v1/deliveries/%00",
        "/api/v1/deliveries/a%0d%0ab",
        "/api/v1/jobs/%0A/outcome",
        "/api/v1/queues/steps%2Fdead/dead",
    ] {
        let answer = with(path).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
        assert!(!answer.contains("versand_build_info"), "{path}: {answer}");
    }
    for query in ["limit=1&limit=2", "limit=1&limit=1", "offset=0&offset=0"] {
        let answer = with(&format!("/api/v1/deliveries?{query}")).await;
        assert!(answer.starts_with("HTTP/1.1 422"), "{query}: {answer}");
        assert!(answer.contains("\"field\":"), "{query}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_two_meanings_is_refused_with_its_field() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let create = async |body: String| {
        let request = app.client.request(Method::POST, "/deliveries");
        request.header("content-type", "application/json").body(body).send().await.unwrap()
    };
    let good = definition().to_string();
    for (twice, field) in [
        (good.replacen('{', "{\"name\":\"Other\",", 1), "name"),
        (good.replacen("\"subject\"", "\"subject\":\"x\",\"subject\"", 1), "content.subject"),
        (good.replacen("\"email\"", "\"email\":\"a@b.example\",\"email\"", 1), "sender.email"),
    ] {
        let body = problem(create(twice).await, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(body["field"], field, "{body}");
    }
    problem(create(format!("\u{feff}{good}")).await, StatusCode::BAD_REQUEST).await;

    let id = app.client.create(&definition()).await;
    for (line, field) in [
        (r#"{"email":"ann@example.org","email":"bob@example.org"}"#, "email"),
        (r#"{"email":"ann@example.org","\u0065mail":"bob@example.org"}"#, "email"),
        (r#"{"email":"ann@example.org","a":{"b":[{"c":1,"c":2}]}}"#, "a.b.c"),
    ] {
        let upload = format!("{{\"email\":\"cid@example.org\"}}\n{line}\n");
        let (status, body) = app.client.upload(&id, upload).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!((&body["line"], &body["field"]), (&json!(2), &json!(field)), "{body}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_mislead_people_are_refused_with_their_field() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    for text in ["a\u{202e}gpj", "a\u{2066}b", "a\u{2028}b", "a\nb", "a\0b", "a\u{85}b"] {
        let mut named = definition();
        named["name"] = json!(text);
        let request = app.client.request(Method::POST, "/deliveries").json(&named);
        let body = problem(request.send().await.unwrap(), StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(body["field"], "name", "{text:?}: {body}");
        let mut sender = definition();
        sender["sender"]["name"] = json!(text);
        let id = app.client.create(&sender).await;
        app.client.upload(&id, "{\"email\":\"ann@example.org\"}\n").await;
        let prepared = app.client.prepare(&id).await;
        assert_eq!(prepared["state"], "preparation_failed", "{text:?}");
        assert!(prepared["checks"].to_string().contains("sender.name"), "{}", prepared["checks"]);
    }
    let mut right_to_left = definition();
    right_to_left["name"] = json!("\u{200f}עברית 👩\u{200d}💻");
    app.client.create(&right_to_left).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_around_a_local_part_hide_nobody_from_the_denylist() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let denied = app.client.request(Method::PUT, "/denylist/ann@example.org");
    assert!(denied.send().await.unwrap().status().is_success());
    let mut wanted = definition();
    wanted["settings"]["denylist"] = json!(true);
    let id = app.client.create(&wanted).await;
    let lines: String = [
        r#""ann"@example.org"#,
        r#""a\nn"@Example.ORG"#,
        r#""ann smith"@example.org"#,
        r#""ann@home"@example.org"#,
        "bob@example.org",
    ]
    .map(|email| format!("{}\n", json!({ "email": email, "name": "x" })))
    .concat();
    app.client.upload(&id, lines).await;
    let prepared = app.client.prepare(&id).await;
    assert_eq!(prepared["state"], "prepared", "{}", prepared["checks"]);
    let exclusions = app.client.get(&format!("/deliveries/{id}/exclusions")).await;
    let causes: Vec<&str> = exclusions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["cause"].as_str().unwrap())
        .collect();
    assert_eq!(causes.len(), 4, "only bob is left: {exclusions}");
    let expected = ["denylisted", "duplicate", "invalid_address", "invalid_address"];
    assert_eq!(causes, expected, "{exclusions}");
    app.stop().await;
}

#[tokio::test]
async fn a_job_id_with_a_line_break_is_dead_with_its_own_reason() {
    let redis = Redis::start();
    let queue = redis.queue("").await;
    let ran = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = ran.clone();
    let daemon = crate::harness::queue::Daemon::start(&queue, QueueName::Steps, 1, move |job| {
        seen.lock().unwrap().push(job.id);
        async { Ok(()) }
    });
    // A foreign producer: the script that docs/queue.md shows, without our check.
    let script = include_str!("../../../src/queue/enqueue.lua");
    let bad = ["a\nWARN forged", "a\r\nb", "a b", "a\u{202e}b", "a\u{1b}[31m", "../x"];
    for id in bad.into_iter().chain(["good"]) {
        let name = |part: &str| format!("{}:{part}", QueueName::Steps.redis_name());
        let _: i64 = redis::Script::new(script)
            .key(name("data"))
            .key(name(&format!("meta:{id}")))
            .key(name("active"))
            .arg(id)
            .arg("{}")
            .invoke_async(&mut redis.connect().await)
            .await
            .unwrap();
    }
    reaches(&queue, QueueName::Steps, "good", JobState::Done).await;
    let page = eventually("the bad ids are dead", LIMIT, async || {
        let page = queue.dead(QueueName::Steps, 0, 100).await.ok()?;
        (page.jobs.len() == bad.len()).then_some(page)
    })
    .await;
    for job in page.jobs {
        assert!(job.result.contains("the id is not"), "{:?}: {}", job.id, job.result);
    }
    assert_eq!(*ran.lock().unwrap(), ["good"]);
    daemon.stop(SOON).await;
}
