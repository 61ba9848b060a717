//! Floods of the listeners: streams, wrong tokens, idle connections, slow heads and bodies.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;

use super::floods::{
    FLOOD, allow_many_files, ask_from, flood, honest_client, listening, status_line,
};
use crate::harness::{
    LIMIT,
    client::definition,
    daemon::{Daemon, TOKEN},
    eventually,
    redis::RedisServer,
};

/// The first address of every flood, and one that is in no flood.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A daemon under attack, with a health listener.
struct Attacked {
    daemon: Daemon,
    admin: SocketAddr,
    public: SocketAddr,
    health: SocketAddr,
    _redis: RedisServer,
}

async fn start(settings: &str) -> Attacked {
    allow_many_files();
    let redis = RedisServer::start();
    let head_limit =
        if settings.contains("head_timeout_ms") { "" } else { "head_timeout_ms = 60000" };
    let daemon = Daemon::start(&format!(
        "[redis]\nurl = \"{}\"\n[server]\nhealth_listen = \"127.0.0.1:0\"\n{head_limit}\n{settings}",
        redis.url()
    ))
    .await;
    Attacked {
        admin: listening(&daemon, "the admin API listens"),
        public: listening(&daemon, "the public listener listens"),
        health: listening(&daemon, "the health listener listens"),
        daemon,
        _redis: redis,
    }
}

impl Attacked {
    /// Honest clients at the address of the flood and elsewhere get all that they ask for.
    async fn serves_others(&self, what: &str) {
        let health = ["/healthz", "/readyz", "/metrics"];
        let own = health.map(|path| (self.health, path));
        honest_client(&format!("{what}, health listener"), NEIGHBOUR, &own, TOKEN).await;
        let mut shared = health.map(|path| (self.admin, path)).to_vec();
        shared.push((self.admin, "/api/v1/deliveries"));
        honest_client(&format!("{what}, admin listener"), NEIGHBOUR, &shared, TOKEN).await;
        honest_client(&format!("{what}, same address"), ATTACKER, &shared, TOKEN).await;
        let pixel = [(self.public, "/o/forged")];
        honest_client(&format!("{what}, public listener"), NEIGHBOUR, &pixel, TOKEN).await;
    }

    async fn turned_away(&self, limit: &str) -> f64 {
        let series = format!("versand_http_turned_away_total{{limit=\"{limit}\"}}");
        self.daemon.metric(&series).await
    }
}

fn bearer(token: &str) -> String {
    format!("Host: x\r\nAuthorization: Bearer {token}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_principal_leave_all_others_room() {
    let attacked = start("").await;
    let id = attacked.daemon.client.create(&definition()).await;
    let watch = format!("GET /api/v1/deliveries/{id}/events HTTP/1.1\r\n{}\r\n", bearer(TOKEN));
    for addresses in [1, 200] {
        let mut open = flood(attacked.admin, FLOOD, addresses, &watch).await;
        attacked.serves_others(&format!("{FLOOD} streams from {addresses} addresses")).await;
        let (mut served, mut refused) = (0, 0);
        for stream in &mut open {
            match status_line(stream).await.as_str() {
                "HTTP/1.1 200 OK" => served += 1,
                "HTTP/1.1 429 Too Many Requests" => refused += 1,
                // An answered connection gave way before its answer was read here.
                "" => {}
                other => panic!("{other}"),
            }
        }
        assert_eq!(served, 50, "server.streams_per_principal; {refused} got 429");
        drop(open);
        eventually("the streams end with their clients", LIMIT, async || {
            let text = ask_from(NEIGHBOUR, attacked.admin, &watch_once(&id)).await;
            text.starts_with("HTTP/1.1 404").then_some(())
        })
        .await;
    }
    assert!(attacked.turned_away("streams_per_principal").await >= 100.0);
}

/// A request for a delivery that does not exist: it takes no stream.
fn watch_once(id: &str) -> String {
    let other = id.chars().rev().collect::<String>();
    format!(
        "GET /api/v1/deliveries/{other}/events HTTP/1.1\r\n{}Connection: close\r\n\r\n",
        bearer(TOKEN)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn all_principals_together_have_a_limit_of_streams() {
    let attacked = start("streams = 2").await;
    let id = attacked.daemon.client.create(&definition()).await;
    let watch = format!("GET /api/v1/deliveries/{id}/events HTTP/1.1\r\n{}\r\n", bearer(TOKEN));
    let mut open = flood(attacked.admin, 2, 1, &watch).await;
    for stream in &mut open {
        assert_eq!(status_line(stream).await, "HTTP/1.1 200 OK");
    }
    let closing = watch.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    let answer = ask_from(NEIGHBOUR, attacked.admin, &closing).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("server.streams") && answer.contains("retry-after: 1"), "{answer}");
    drop(open);
    eventually("an ended stream is free again", LIMIT, async || {
        let mut next = flood(attacked.admin, 1, 1, &watch).await;
        (status_line(&mut next[0]).await == "HTTP/1.1 200 OK").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_hold_nothing_and_get_few_log_lines() {
    let attacked = start("").await;
    let guess = |token: &str| format!("GET /api/v1/deliveries HTTP/1.1\r\n{}\r\n", bearer(token));
    for addresses in [1, 200] {
        let mut open = flood(attacked.admin, FLOOD, addresses, &guess("my-secret-guess")).await;
        attacked.serves_others(&format!("{FLOOD} wrong tokens from {addresses} addresses")).await;
        let mut refused = [0, 0];
        for stream in &mut open {
            match status_line(stream).await.as_str() {
                "HTTP/1.1 401 Unauthorized" => refused[0] += 1,
                "HTTP/1.1 429 Too Many Requests" => refused[1] += 1,
                "" => {}
                other => panic!("{other}"),
            }
        }
        assert!(refused.iter().sum::<usize>() > 100, "{refused:?}");
    }
    let closing = guess("another").replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    let answer = ask_from(ATTACKER, attacked.admin, &closing).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("auth.failures_per_minute") && answer.contains("retry-after: "));
    // A JWT names somebody, and nobody has checked the name. A line break in it ends no log line.
    let claims = json!({ "iss": "crm", "sub": "ann\nWARN forged" }).to_string();
    let payload = data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes());
    let jwt = guess(&format!("eyJhbGciOiJIUzI1NiJ9.{payload}.c2lnbmF0dXJl"));
    let closing = jwt.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    let answer = ask_from(Ipv4Addr::new(127, 0, 3, 1), attacked.admin, &closing).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");

    let log = attacked.daemon.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a log-in failed")).collect();
    assert!((5..=90).contains(&lines.len()), "{} lines for 2200 failures", lines.len());
    assert!(lines[0].contains("address=127.0.1.1") && lines[0].contains("reason="), "{}", lines[0]);
    assert!(!log.contains("my-secret-guess") && !log.contains(&payload), "a token is in the log");
    assert!(!log.lines().any(|line| line.starts_with("WARN forged")));
    let failures = attacked.daemon.metric("versand_login_failures_total").await;
    // A few connections gave way before their requests were read.
    assert!(failures >= 1.5 * FLOOD as f64, "{failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_log_in_has_a_line_with_address_and_name() {
    let attacked = start("").await;
    let claims = json!({ "iss": "crm", "sub": "ann\nWARN forged" }).to_string();
    let payload = data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes());
    let token = format!("eyJhbGciOiJIUzI1NiJ9.{payload}.c2lnbmF0dXJl");
    let request =
        format!("GET /api/v1/deliveries HTTP/1.1\r\n{}Connection: close\r\n\r\n", bearer(&token));
    let answer = ask_from(NEIGHBOUR, attacked.admin, &request).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let log = attacked.daemon.log();
    let line = log.lines().find(|line| line.contains("a log-in failed")).expect("a line");
    assert!(line.contains("address=127.0.0.9"), "{line}");
    assert!(line.contains("crm/ann") && line.contains("WARN forged"), "one line: {line}");
    assert!(!log.contains(&payload), "the token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_slow_heads_give_way() {
    let attacked = start("").await;
    for (what, text) in [
        ("idle connections", ""),
        ("half heads", "GET /healthz HTTP/1.1\r\nHost: x\r\n"),
        ("answered connections", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        for addresses in [1, 200] {
            let (_admin, _public) = (
                flood(attacked.admin, FLOOD, addresses, text).await,
                flood(attacked.public, FLOOD, addresses, text).await,
            );
            attacked.serves_others(&format!("{FLOOD} {what} from {addresses} addresses")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_never_end_hold_the_requests_of_their_principal_only() {
    let attacked = start("requests_per_principal = 40\nstall_timeout_ms = 600000").await;
    let id = attacked.daemon.client.create(&definition()).await;
    let half = |head: &str, token: &str| {
        format!(
            "{head} HTTP/1.1\r\n{}Content-Type: application/x-ndjson\r\n\
             Content-Length: 1000\r\n\r\n{{\"email\":",
            bearer(token)
        )
    };
    // With a wrong token, on both listeners.
    let path = format!("PUT /api/v1/deliveries/{id}/audience");
    for addresses in [1, 200] {
        let (_admin, _public) = (
            flood(attacked.admin, FLOOD, addresses, &half(&path, "nobody")).await,
            flood(attacked.public, FLOOD, addresses, &half("POST /u/forged", "nobody")).await,
        );
        let what = format!("{FLOOD} strangers' half bodies from {addresses} addresses");
        attacked.serves_others(&what).await;
    }
    // With a good token: the principal holds 40 requests, and its further requests are refused.
    let mut open = flood(attacked.admin, FLOOD, 7, &half(&path, TOKEN)).await;
    let paths = ["/healthz", "/readyz", "/metrics"];
    let targets = paths.map(|path| (attacked.admin, path));
    let what = format!("{FLOOD} half bodies of one principal");
    honest_client(&what, NEIGHBOUR, &targets, TOKEN).await;
    let last = open.last_mut().unwrap();
    assert_eq!(status_line(last).await, "HTTP/1.1 429 Too Many Requests");
    assert!(attacked.turned_away("requests_per_principal").await >= 1000.0);
    drop(open);
    eventually("the principal is served again", LIMIT, async || {
        let request = format!(
            "GET /api/v1/deliveries HTTP/1.1\r\n{}Connection: close\r\n\r\n",
            bearer(TOKEN)
        );
        let answer = ask_from(NEIGHBOUR, attacked.admin, &request).await;
        answer.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_no_slot() {
    let attacked = start("connections = 60\nstall_timeout_ms = 600000").await;
    // Many requests on one connection fill its buffers, and the client reads nothing.
    let greedy = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    let _open = flood(attacked.admin, 120, 60, &greedy[..8000]).await;
    attacked.serves_others("120 clients that do not read").await;
}
