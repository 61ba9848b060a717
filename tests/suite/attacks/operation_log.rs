//! Somebody who reads personal data, or changes what is no delivery, leaves an entry.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::{domain::audience::AddressKey, http::ROUTES};

use crate::harness::{
    LIMIT,
    app::token,
    client::{Client, audience, definition},
    daemon::Daemon,
    eventually,
    people::{method, start},
    redis::RedisServer,
};

async fn entries(client: &Client) -> Vec<Value> {
    client.get("/audit/operations?limit=1000").await["items"].as_array().unwrap().clone()
}

/// Principal, action and subject of an entry.
fn act(entry: &Value) -> (String, String, String) {
    let field = |name: &str| entry[name].as_str().unwrap().to_owned();
    (field("principal"), field("action"), field("subject"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_route_leaves_an_entry_and_no_address() {
    let redis = RedisServer::start();
    let app = start(&redis, "").await;
    let id = app.client.send(&definition(), audience(3)).await;
    let key = data_encoding::HEXLOWER
        .encode(&AddressKey::of(versand::domain::audience::digest_of("user1@example.com")).bytes());
    let recorded: Vec<_> =
        ROUTES.iter().filter(|route| route.recorded_action().is_some()).collect();
    assert!(recorded.len() >= 20);
    for route in recorded {
        let action = route.recorded_action().unwrap();
        let before = entries(&app.client).await.len();
        let name = if route.path.contains("/queues/") { "job" } else { &id };
        let path = route
            .path
            .strip_prefix("/api/v1")
            .unwrap()
            .replace("{id}", name)
            .replace("{email}", "User1@example.com")
            .replace("{name}", "nobody")
            .replace("{number}", "0")
            .replace("{queue}", "steps");
        let query = if route.path.ends_with("/export") { "?format=csv" } else { "" };
        let request = app.client.request(method(route), &format!("{path}{query}"));
        let request = match route.method {
            "post" => request.json(&json!({ "since": "2020-01-01T00:00:00Z" })),
            _ => request,
        };
        request.send().await.unwrap();
        let after = entries(&app.client).await;
        assert_eq!(after.len(), before + 1, "{action}");
        let entry = &after[before];
        assert_eq!(entry["genuine"], true);
        let subject = match route.path {
            path if path.contains("{email}") => key.as_str(),
            path if path.contains("{queue}") => "steps",
            path if path.contains("{name}") => "nobody",
            path if path.contains("/store/") => "store",
            _ => id.as_str(),
        };
        assert_eq!(act(entry), ("root".into(), action.into(), subject.into()));
        if !query.is_empty() {
            assert_eq!(entry["details"]["query"], "format=csv");
        }
    }
    let all = entries(&app.client).await;
    assert!(!json!(all).to_string().contains("example.com"), "an address is in the log");
    // a request that is refused for lack of a role leaves no entry
    let refused = app.client.with_token("monitor");
    let answer = refused.request(Method::GET, "/profiles/a@example.com/messages").send().await;
    assert_eq!(answer.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(entries(&app.client).await.len(), all.len());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_the_chain_does_not_take_is_in_the_log_of_the_daemon() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(&format!("[redis]\nurl = \"{}\"\n", redis.url())).await;
    redis.ask("RPUSH versand:{audit}:operations nonsense").unwrap();
    let put = daemon.client.request(Method::PUT, "/denylist/ann@example.com").send().await;
    assert_eq!(put.unwrap().status(), StatusCode::CREATED);
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("lacks this operation")).expect("a line");
    assert!(line.contains("ERROR") && line.contains("deny"), "{line}");
    assert!(!log.contains("ann@"), "the address is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_log_ins_and_reloads_leave_entries() {
    let redis = RedisServer::start();
    let settings = |level: &str| {
        format!(
            "[redis]\nurl = \"{}\"\n[log]\nlevel = \"{level}\"\n[auth]\ntokens = [{}]\n",
            redis.url(),
            token("ann", &["administration"])
        )
    };
    let mut daemon = Daemon::start(&settings("info")).await;
    let ann = daemon.client.with_token("ann");
    let wrong = daemon.client.with_token("wrong").request(Method::GET, "/deliveries");
    assert_eq!(wrong.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    daemon.reload(&settings("debug")).await;
    daemon.reload_text("nonsense").await;
    let expected = ["login_failed", "reload", "reload_refused"];
    let found = eventually("all entries", LIMIT, async || {
        let found = entries(&ann).await;
        (found.len() == expected.len()).then_some(found)
    })
    .await;
    let actions: Vec<&str> = found.iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, expected);
    assert_eq!(act(&found[0]), ("unknown".into(), "login_failed".into(), "127.0.0.1".into()));
    assert!(!found[0].to_string().contains("wrong"), "the token is in the log");
    assert_eq!(found[1]["details"]["changed"], json!(["log.level"]));
    assert!(found[2]["details"]["reason"].as_str().unwrap().len() > 5);
}
