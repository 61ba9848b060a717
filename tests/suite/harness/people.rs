//! Principals for tests of the admin API: tokens with one role each, and `root` with two.

use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use versand::{
    domain::{Principal, Role},
    http::Route,
};

use crate::harness::{app::App, client::Client, redis::RedisServer};

/// For each principal: the token, which is also the name, and the roles.
pub const PEOPLE: [(&str, &[&str]); 6] = [
    ("root", &["start_deliveries", "administration"]),
    ("preparer", &["prepare_deliveries"]),
    ("starter", &["start_deliveries"]),
    ("second", &["start_deliveries"]),
    ("administrator", &["administration"]),
    ("monitor", &["monitoring"]),
];

/// The settings with all these tokens.
pub fn tokens() -> String {
    let token = |(name, roles): &(&str, &[&str])| {
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(name));
        format!("\n[[auth.tokens]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nroles = {roles:?}\n")
    };
    PEOPLE.iter().map(token).collect()
}

/// A daemon with these principals. Its client uses the token of `root`.
pub async fn start(redis: &RedisServer, settings: &str) -> App {
    let mut app = App::start(redis, &format!("{settings}\n{}", tokens())).await;
    app.client = app.client.with_token("root");
    app
}

/// Checks that the answer is a problem of this status (RFC 9457), and returns its members.
pub async fn problem(response: Response, status: StatusCode) -> Value {
    let kind =
        response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    let (got, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(got, status, "{text}");
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&body["type"], &body["status"]),
        (&"about:blank".into(), &status.as_u16().into()),
        "{body}"
    );
    assert!(
        body["title"].is_string() && body["detail"].as_str().is_some_and(|detail| detail.len() > 5),
        "{body}"
    );
    body
}

/// Sends a body of some type. The answer must be a problem of this status.
pub async fn refused(
    client: &Client,
    (method, path): (Method, &str),
    kind: &str,
    body: impl Into<reqwest::Body>,
    status: StatusCode,
) -> Value {
    let request = client.request(method, path).header(header::CONTENT_TYPE, kind).body(body);
    problem(request.send().await.unwrap(), status).await
}

/// A path of the route for things that do not exist. Only the queue exists.
pub fn path(route: &Route) -> String {
    route
        .path
        .replace("{id}", "0000000000000000")
        .replace("{number}", "0")
        .replace("{chunk}", "0")
        .replace("{queue}", "steps")
}

pub fn method(route: &Route) -> Method {
    Method::from_bytes(route.method.to_uppercase().as_bytes()).unwrap()
}

pub fn principal(roles: &[&str]) -> Principal {
    let all =
        [Role::PrepareDeliveries, Role::StartDeliveries, Role::Administration, Role::Monitoring];
    let roles = all.into_iter().filter(|role| roles.contains(&role.word())).collect();
    Principal::new("", roles)
}
