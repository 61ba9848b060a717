//! Weak keys, ambiguous tokens and odd JWTs.

use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use versand::{config::Config, identity::Keyring};

use crate::harness::{
    app::{App, token},
    client::Client,
    people::problem,
    redis::RedisServer,
};

/// RSA public keys of 1024 bits (SPKI), 2047 bits (PKCS #1) and 2048 bits (SPKI).
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDIpHBaDPHj1Oo7DBhNe+5Mkipb
MxRUSeJF9RaRNisF+sPPR5i6Z3RgV1maA3bcENgbcg1upEuJWgb9lB9YoohCWz+x
BivPS3YQZRIUMw4oQSa/Ag2a7AGGltKT/pB0cfTWL8tMGKTuE2OWZbnxUGupOfR/
iObnifOd1A3+FhBOJwIDAQAB
-----END PUBLIC KEY-----";
const RSA_2047: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCQKCAQBmfNIixv7eqr+8Q0C8q6fECQJUBf5BvyqwbzwWE6nvQ03YMBoQQJ7L
TTAMD+lL72o14+eE1cI6iEGqiG9jAn9ZqsCoSVo2xXSd53oMIVqAFYotuuuaRsJA
/+RgQyp4vANCiDcSZrqlOFA+fUqonfzdyfNzHjVOqhzIKVrkNQA81FKFVxX5myh3
lMWxEnOk2CWXEcaZ85nIiE2l5F5yzGcvHnOE9MFj+fHyp5AVpRrOuRqPDtcMecbZ
63GkPdcvRGMOsxC4X3Oy6RuuLOkUv8hzYbii5wzcwisaPKZ/VqtSEKTJ4ROEvzna
qJjXaH7Yi8fjgkZqS/efNWFqRB5ODMSxAgMBAAE=
-----END RSA PUBLIC KEY-----";
const RSA_2048: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAjoOlOyOdY6IgoN7L133T
s2f2MVFGAN3UQwBWOD0DQ+zlGJGiaE5wNZFZX5v484NBmEJdoHvZkOpgGYM4n2bf
PNmsyHx/gjyCdRm25xIeu0PefFWObiEmYMKo5+ehHCFEkjL/0U2H3mTWoAa5tcBb
sX0AnJP+uI5rkJBZgKgtl+YoUqbDzTy9i0qBD7WIzz3UJ318q5Mqn4CZAoFrJCkP
c7hX/+0LmuqjkaQDz5Xy37rY1MinMKVFrMIbQX7N1EBd1iHzHZ+8ilQUHWubvtn/
VaEh3TYNtqzsxCR3rgFUinC4JMGS+i4M0ak7PFYg6E3fyWT/mWOAyJO64e3Azx0P
jQIDAQAB
-----END PUBLIC KEY-----";
const SECRET: &str = "the key of the issuer crm: 32 bytes and more";

/// The setting and the reason that the start names when it refuses these settings. Both are empty
/// if it takes them.
fn refused(settings: &str) -> (String, String) {
    let refused = match Config::from_toml(settings) {
        Err(error) => error,
        Ok(config) => match Keyring::new(&config.auth) {
            Err(error) => error,
            Ok(_) => return (String::new(), String::new()),
        },
    };
    (refused.setting, refused.reason)
}

fn key(folder: &tempfile::TempDir, algorithm: &str, key: &str) -> String {
    let file = folder.path().join(algorithm);
    std::fs::write(&file, key).unwrap();
    format!(
        "[auth]\njwt_keys = [{{ issuer = \"crm\", algorithm = \"{algorithm}\", \
         key_file = {file:?}, roles = [\"monitoring\"] }}]"
    )
}

#[test]
fn weak_keys_stop_the_start_and_the_error_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    for (algorithm, text, part) in [
        ("RS256", RSA_1024, "2048 bits (RFC 7518, 3.3), and has 1024"),
        ("RS256", RSA_2047, "and has 2047"),
        ("RS256", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", ""),
        ("HS256", "0123456789abcdef0123456789abcde\n", "32 bytes (RFC 7518, 3.2)"),
        ("HS256", "   0123456789abcdef0123456789abcde      ", "32 bytes"),
        ("HS256", "", "32 bytes"),
    ] {
        let (setting, reason) = refused(&key(&folder, algorithm, text));
        assert_eq!(setting, "auth.jwt_keys[0].key_file", "{text}");
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(refused(&key(&folder, "RS256", RSA_2048)).0, "");
    assert_eq!(refused(&key(&folder, "HS256", SECRET)).0, "");
}

#[test]
fn tokens_that_could_be_mixed_up_stop_the_start() {
    let (hash, other) = ("ab".repeat(32), "cd".repeat(32));
    let two = |first: (&str, &str), second: (&str, &str)| {
        let line = |(name, hash): (&str, &str)| {
            format!("{{ name = \"{name}\", sha256 = \"{hash}\", roles = [\"monitoring\"] }}")
        };
        refused(&format!("[auth]\ntokens = [{}, {}]", line(first), line(second))).0
    };
    assert_eq!(two(("ann", &hash), ("ann", &other)), "auth.tokens[1].name");
    assert_eq!(two(("ann", &hash), (" ann ", &other)), "auth.tokens[1].name");
    assert_eq!(two(("ann", &hash), ("bob", &hash)), "auth.tokens[1].sha256");
    assert_eq!(two(("ann", &hash), ("bob", &hash.to_uppercase())), "auth.tokens[1].sha256");
    assert_eq!(two(("ann", &hash.to_uppercase()), ("bob", &other)), "", "upper case is fine");
    assert_eq!(two(("ann", &hash[1..]), ("bob", &other)), "auth.tokens[0].sha256");
    assert_eq!(two(("ann", &"xy".repeat(32)), ("bob", &other)), "auth.tokens[0].sha256");
}

fn signed(header: &Header, changes: Value) -> String {
    let now = get_current_timestamp();
    let mut claims = json!({ "iss": "crm", "sub": "ann", "aud": "versand", "iat": now, "exp": now + 600,
        "roles": ["monitoring"] });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    encode(header, &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn list(client: &Client, jwt: &str) -> reqwest::Response {
    client.with_token(jwt).request(Method::GET, "/deliveries").send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jwts_of_an_identity_provider_are_understood_and_odd_ones_refused() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let keys = key(&folder, "HS256", SECRET) + "\nfailures_per_minute = 0";
    let app = App::start(&redis, &keys).await;
    let now = get_current_timestamp() as f64;
    let plain = Header::default();
    for good in [
        json!({}),
        json!({ "aud": ["account", "versand"] }),
        json!({ "exp": now + 600.75, "iat": now - 0.5, "nbf": now - 0.25 }),
        json!({ "roles": ["offline_access", "monitoring", "default-roles-shop"] }),
    ] {
        let status = list(&app.client, &signed(&plain, good.clone())).await.status();
        assert_eq!(status, StatusCode::OK, "{good}");
    }
    for bad in [
        json!({ "sub": "" }),
        json!({ "sub": "  " }),
        json!({ "sub": "ann\nlevel=error" }),
        json!({ "aud": ["account"] }),
        json!({ "aud": [] }),
        json!({ "exp": now - 100.5, "iat": now - 200.5 }),
        json!({ "exp": now + 90_000.5 }),
        json!({ "exp": 1e300 }),
        json!({ "exp": "never" }),
        json!({ "roles": ["monitoring", "administration"] }),
    ] {
        let refused = list(&app.client, &signed(&plain, bad.clone())).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{bad}");
    }
    // A role of another system gives no right here.
    let nothing = signed(&plain, json!({ "roles": ["superuser"] }));
    problem(list(&app.client, &nothing).await, StatusCode::FORBIDDEN).await;
    for crit in [vec!["b64".to_owned()], vec!["http://crm.example/ext".to_owned()], vec![]] {
        let header = Header { crit: Some(crit), ..Header::default() };
        let refused = list(&app.client, &signed(&header, json!({}))).await;
        problem(refused, StatusCode::UNAUTHORIZED).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_bearer_token_is_refused() {
    let redis = RedisServer::start();
    let until = |name: &str, end: &str| {
        token(name, &["monitoring"]).replace(" }", &format!(", expires = \"{end}\" }}"))
    };
    let tokens = [until("old", "2020-01-01T00:00:00Z"), until("new", "2990-01-01T00:00:00Z")];
    let app = App::start(
        &redis,
        &format!("[auth]\nfailures_per_minute = 0\ntokens = [{}]", tokens.join(", ")),
    )
    .await;
    let refused = problem(list(&app.client, "old").await, StatusCode::UNAUTHORIZED).await;
    assert!(refused["detail"].as_str().unwrap().contains("expired"), "{refused}");
    assert_eq!(list(&app.client, "new").await.status(), StatusCode::OK);
    app.stop().await;
}
