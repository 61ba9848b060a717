//! The limits of the listener: heads, bodies, connections and time.
//!
//! The tests use raw connections, because no client library behaves as badly as these tests need.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{
    LIMIT,
    app::App,
    client::{audience, definition},
    eventually,
    redis::RedisServer,
};

/// Long enough for a request without a pause, and short enough for a test.
const SHORT: &str = "head_timeout_ms = 1500\nstall_timeout_ms = 1500\n";

async fn start(redis: &RedisServer, more: &str) -> App {
    App::start(redis, &format!("[server]\n{SHORT}{more}")).await
}

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(app.client.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Writes, and reads until the daemon closes.
async fn ask(app: &App, text: &str) -> String {
    let mut stream = connect(app).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that was reset was closed, too.
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("the daemon closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_slow_heads_are_refused_and_idle_connections_closed() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let large =
        format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Much: {}\r\n\r\n", "a".repeat(20_000));
    let many: String = (0..200).map(|i| format!("X-{i}: 1\r\n")).collect();
    for head in [large, format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n")] {
        let answer = ask(&app, &head).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let answer = ask(&app, "GET /healthz HTTP/1.1\r\nHost: x\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(ask(&app, "").await, "", "a connection without a request is closed");
    let answer = ask(&app, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
        "the request is answered, and the idle connection closed: {answer}"
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_or_is_too_large_is_refused_and_changes_nothing() {
    let redis = RedisServer::start();
    let app = start(&redis, "body_limit_kib = 64\n").await;
    let id = app.client.create(&definition()).await;
    app.client.upload(&id, audience(3)).await;
    let token = format!("Authorization: Bearer {}", app.client.token);
    let put = format!(
        "PUT /api/v1/deliveries/{id}/audience HTTP/1.1\r\nHost: x\r\n{token}\r\nContent-Type: application/x-ndjson\r\n"
    );
    let answer =
        ask(&app, &format!("{put}Content-Length: 1000\r\n\r\n{{\"email\":\"ann@example.org\"}}\n"))
            .await;
    assert!(
        answer.starts_with("HTTP/1.1 4") && answer.contains("application/problem+json"),
        "{answer}"
    );
    let post = format!(
        "POST /api/v1/deliveries HTTP/1.1\r\nHost: x\r\n{token}\r\nContent-Type: application/json\r\n"
    );
    let answer = ask(&app, &format!("{post}Content-Length: 1000\r\n\r\n{{")).await;
    assert!(
        answer.starts_with("HTTP/1.1 4") && answer.contains("application/problem+json"),
        "{answer}"
    );
    let mut large = definition();
    large["name"] = json!("a".repeat(70_000));
    let request = app.client.request(Method::POST, "/deliveries").json(&large);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(app.client.get(&format!("/deliveries/{id}")).await["audience"]["recipients"], 3);
    // The client is slow but never stalls: it may take as long as it needs.
    let line = "{\"email\":\"ann@example.org\"}\n";
    let mut stream = connect(&app).await;
    stream
        .write_all(
            format!("{put}Connection: close\r\nContent-Length: {}\r\n\r\n", 6 * line.len())
                .as_bytes(),
        )
        .await
        .unwrap();
    for _ in 0..6 {
        // The six pauses together are longer than the limit for one pause.
        sleep(Duration::from_millis(300)).await;
        stream.write_all(line.as_bytes()).await.unwrap();
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_limit_takes_the_slot_of_an_idle_one() {
    let redis = RedisServer::start();
    let app = App::start(&redis, "[server]\nconnections = 2\nhead_timeout_ms = 60000\n").await;
    let (mut first, mut second) = (connect(&app).await, connect(&app).await);
    let ask = |close: &str| format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{close}\r\n");
    second.write_all(ask("").as_bytes()).await.unwrap();
    let mut byte = [0];
    second.read_exact(&mut byte).await.unwrap();
    let answer = self::ask(&app, &ask("Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(rest(&mut first).await, "", "the first connection was idle for the longest time");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_answered_with_the_limit_if_requests_hold_all_slots() {
    let redis = RedisServer::start();
    for (settings, status, limit) in [
        ("connections = 2\nconnections_per_address = 9", "503", "server.connections:"),
        ("connections_per_address = 2", "429", "server.connections_per_address:"),
    ] {
        let app = App::start(&redis, &format!("[server]\n{settings}\n")).await;
        let id = app.client.create(&definition()).await;
        let half = format!(
            "PUT /api/v1/deliveries/{id}/audience HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/x-ndjson\r\nContent-Length: 100\r\n\
             Expect: 100-continue\r\n\r\n",
            app.client.token
        );
        let mut uploads = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(&app).await;
            stream.write_all(half.as_bytes()).await.unwrap();
            let mut byte = [0];
            // The daemon asks for the body, so the request holds its connection.
            timeout(LIMIT, stream.read_exact(&mut byte)).await.unwrap().unwrap();
            uploads.push(stream);
        }
        let answer = ask(&app, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{settings}: {answer}");
        assert!(answer.contains(limit) && answer.contains("Retry-After: 1"), "{answer}");
        drop(uploads);
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_disconnected() {
    let redis = RedisServer::start();
    let app = start(&redis, "connections = 1\n").await;
    let id = app.client.create(&definition()).await;
    // This is more than the buffers of a socket hold.
    app.client.upload(&id, "{\"email\":\"nobody\"}\n".repeat(200_000) + &audience(1)).await;
    app.client.prepare(&id).await;
    let get = format!("/api/v1/deliveries/{id}/exclusions/export?format=ndjson");
    let request = format!(
        "GET {get} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        app.client.token
    );
    let mut greedy = eventually("a connection is free", LIMIT, async || {
        let mut stream = connect(&app).await;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut byte = [0];
        timeout(Duration::from_secs(2), stream.read_exact(&mut byte)).await.ok()?.ok()?;
        Some(stream)
    })
    .await;
    // The only connection is in use until the daemon gives up.
    eventually("the connection is free again", LIMIT, async || {
        let request = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        ask(&app, request).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    assert!(rest(&mut greedy).await.len() < 10_000_000, "the answer was cut off");
    app.stop().await;
}
