//! Tokens at every route that needs a role: missing, forged, expired, foreign, or with one role.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use versand::{domain::Role, http::ROUTES, identity::CONFIRM_SEND};

use crate::harness::{
    LIMIT,
    app::App,
    client::definition,
    daemon::Daemon,
    eventually,
    people::{method, path, principal, problem},
    redis::RedisServer,
};

const ROLES: [&str; 4] = ["prepare_deliveries", "start_deliveries", "administration", "monitoring"];
const CRM: &str = "the key of the issuer crm: 32 bytes and more";
const SHOP: &str = "the key of the issuer shop: 32 bytes and more";

/// Two issuers: `crm` may give each of [`ROLES`], `shop` only `monitoring`.
fn issuers(folder: &TempDir) -> String {
    let issuer = |name: &str, key: &str, roles: &[&str]| {
        let file = folder.path().join(name);
        std::fs::write(&file, key).unwrap();
        format!(
            "{{ issuer = \"{name}\", algorithm = \"HS256\", key_file = {file:?}, roles = {roles:?} }}"
        )
    };
    format!(
        "jwt_keys = [{}, {}]\n",
        issuer("crm", CRM, &ROLES),
        issuer("shop", SHOP, &["monitoring"])
    )
}

/// A token signed with `key`. Its claims name `crm` and all [`ROLES`], except for the `changes`.
fn signed(key: &str, changes: Value) -> String {
    let now = get_current_timestamp();
    let mut claims = json!({ "iss": "crm", "sub": "ann", "aud": "versand", "iat": now, "exp": now + 600, "roles": ROLES });
    let members = claims.as_object_mut().unwrap();
    changes
        .as_object()
        .unwrap()
        .iter()
        .for_each(|(name, value)| drop(members.insert(name.clone(), value.clone())));
    encode(&Header::default(), &claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

/// Bad tokens, and the message for each.
fn bad_tokens() -> Vec<(&'static str, String, &'static str)> {
    let now = get_current_timestamp();
    let good = signed(CRM, json!({}));
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let tampered = String::from_utf8(BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap())
        .unwrap()
        .replace("ann", "bob");
    let tampered = BASE64URL_NOPAD.encode(tampered.as_bytes());
    let unsigned = BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
    vec![
        ("made up", "a-token-that-nobody-has".into(), "unknown"),
        ("changed after it was signed", format!("{head}.{tampered}.{signature}"), "unknown"),
        ("not signed", format!("{unsigned}.{claims}."), "malformed"),
        ("signed with another issuer's key", signed(SHOP, json!({})), "unknown"),
        ("of an issuer that is not configured", signed(CRM, json!({ "iss": "bank" })), "unknown"),
        ("expired", signed(CRM, json!({ "iat": now - 700, "exp": now - 100 })), "expired"),
        ("not valid yet", signed(CRM, json!({ "nbf": now + 300 })), "not valid yet"),
        ("issued in the future", signed(CRM, json!({ "iat": now + 300 })), "in the future"),
        ("for another daemon", signed(CRM, json!({ "aud": "postal" })), "aud"),
        ("good for too long", signed(CRM, json!({ "exp": now + 25 * 3600 })), "lives longer"),
        (
            "with a role that its issuer may not give",
            signed(SHOP, json!({ "iss": "shop" })),
            "role",
        ),
        (
            "made for a job",
            signed(CRM, json!({ "action": CONFIRM_SEND, "jti": "1" })),
            "that of a job",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_bad_tokens_and_insufficient_roles() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let app =
        App::start(&redis, &format!("[auth]\nfailures_per_minute = 0\n{}", issuers(&folder))).await;
    let http = reqwest::Client::new();
    for route in ROUTES.iter().filter(|route| route.role.is_some()) {
        let request = || {
            let request = http.request(method(route), format!("{}{}", app.client.url, path(route)));
            request.header(header::CONTENT_TYPE, "application/json").body("{}")
        };
        problem(request().send().await.unwrap(), StatusCode::UNAUTHORIZED).await;
        problem(
            request().basic_auth("ann", Some("secret")).send().await.unwrap(),
            StatusCode::UNAUTHORIZED,
        )
        .await;
        for (what, token, detail) in bad_tokens() {
            let body = problem(
                request().bearer_auth(&token).send().await.unwrap(),
                StatusCode::UNAUTHORIZED,
            )
            .await;
            assert!(
                body["detail"].as_str().unwrap().contains(detail),
                "a token {what} at {route:?}: {body}"
            );
        }
        for role in ROLES {
            let answer = request()
                .bearer_auth(signed(CRM, json!({ "roles": [role] })))
                .send()
                .await
                .unwrap();
            let refused = answer.status() == StatusCode::FORBIDDEN;
            assert_eq!(
                refused,
                !principal(&[role]).may(route.role.unwrap()),
                "{role} at {route:?}: {}",
                answer.status()
            );
            assert_ne!(answer.status(), StatusCode::UNAUTHORIZED, "{role} at {route:?}");
        }
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_acts_for_its_own_principal_only() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let app = App::start(&redis, &format!("[auth]\n{}", issuers(&folder))).await;
    let as_principal = |name: &str| app.client.with_token(&signed(CRM, json!({ "sub": name })));
    let (ann, bob) = (as_principal("ann"), as_principal("bob"));
    // Each principal has idempotency keys of its own. The same key from another principal reveals
    // nothing of the first request.
    let create =
        |request: RequestBuilder| request.header("idempotency-key", "k").json(&definition()).send();
    let id = async |client: &crate::harness::client::Client| {
        let answer = create(client.request(Method::POST, "/deliveries")).await.unwrap();
        answer.json::<Value>().await.unwrap()["id"].clone()
    };
    let (first, again, other) = (id(&ann).await, id(&ann).await, id(&bob).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    let view = ann.get(&format!("/deliveries/{}", first.as_str().unwrap())).await;
    assert_eq!(view["created_by"], "crm/ann");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_counted_and_limited_and_a_good_token_is_always_taken() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(&format!(
        "[redis]\nurl = \"{}\"\n[auth]\nfailures_per_minute = 3\n",
        redis.url()
    ))
    .await;
    let nobody = daemon.client.with_token("nobody");
    let fail = async || nobody.request(Method::GET, "/deliveries").send().await.unwrap();
    for _ in 0..3 {
        problem(fail().await, StatusCode::UNAUTHORIZED).await;
    }
    let refused = fail().await;
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let body = problem(refused, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(body["detail"].as_str().unwrap().contains("auth.failures_per_minute"), "{body}");
    daemon.client.get("/deliveries").await;
    assert_eq!(daemon.metric("versand_login_failures_total").await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_password_is_ever_logged() {
    const PASSWORD: &str = "open-sesame-of-redis";
    let (redis, folder) =
        (RedisServer::start_with(&["--requirepass", PASSWORD]), tempfile::tempdir().unwrap());
    let file = folder.path().join("redis-password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let settings = format!(
        "[redis]\nurl = \"{}\"\npassword_file = {file:?}\n[log]\nlevel = \"trace\"\n[auth]\nfailures_per_minute = 0\n{}",
        redis.url_of_default_user(),
        issuers(&folder)
    );
    let mut daemon = Daemon::start(&settings).await;
    let tokens: Vec<String> = bad_tokens()
        .into_iter()
        .map(|(_, token, _)| token)
        .chain([signed(CRM, json!({}))])
        .collect();
    for token in &tokens {
        let _ = daemon
            .client
            .with_token(token)
            .request(Method::GET, "/deliveries")
            .send()
            .await
            .unwrap();
        let in_the_query =
            daemon.client.request(Method::GET, &format!("/deliveries?token={token}"));
        assert_eq!(in_the_query.send().await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    let counted =
        async || (daemon.metric("versand_login_failures_total").await == 12.0).then_some(());
    eventually("the failures are counted", LIMIT, counted).await;
    assert!(daemon.terminate().await.success());
    let log = daemon.log();
    assert!(log.contains("DEBUG") && log.contains("ended"));
    for secret in tokens.iter().map(String::as_str).chain([
        PASSWORD,
        CRM,
        SHOP,
        crate::harness::daemon::TOKEN,
    ]) {
        assert!(!log.contains(secret), "{secret} is in the log");
        if let Some((_, signature)) =
            secret.rsplit_once('.').filter(|(_, signature)| !signature.is_empty())
        {
            assert!(!log.contains(signature), "{signature} is in the log");
        }
    }
    // Debug formats print bytes as numbers.
    let as_bytes = |text: &str| text.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(", ");
    assert!(!log.contains(&as_bytes(PASSWORD)) && !log.contains(&as_bytes(CRM)));
}

#[test]
fn each_role_includes_what_the_reference_says() {
    let may = |role: &str, other| principal(&[role]).may(other);
    assert!(
        may("start_deliveries", Role::PrepareDeliveries)
            && !may("prepare_deliveries", Role::StartDeliveries)
    );
    assert!(ROLES.iter().all(|role| may(role, Role::Monitoring)));
    assert!(
        !may("administration", Role::PrepareDeliveries)
            && !may("start_deliveries", Role::Administration)
    );
}
