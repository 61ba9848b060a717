//! A client of the admin API, as an upstream system would write it.

use std::sync::Mutex;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{LIMIT, eventually};

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub url: String,
    pub token: String,
}

impl Client {
    pub fn new(url: String, token: String) -> Self {
        Self { http: reqwest::Client::new(), url, token }
    }

    /// A client of the same daemon with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A request with the token. `path` begins after `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends a GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        good(self.request(Method::GET, path).send().await.unwrap()).await
    }

    /// Sends a GET that answers text or bytes.
    pub async fn bytes(&self, path: &str) -> Vec<u8> {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.bytes().await.unwrap().to_vec()
    }

    /// Sends a POST of JSON and returns any answer.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body).send().await.unwrap()).await
    }

    /// Creates a delivery, which must succeed, and returns its id.
    pub async fn create(&self, definition: &Value) -> String {
        let (status, view) = self.post("/deliveries", definition).await;
        assert_eq!(status, StatusCode::CREATED, "{view}");
        view["id"].as_str().unwrap().to_owned()
    }

    /// Uploads an NDJSON audience and returns any answer.
    pub async fn upload(&self, id: &str, ndjson: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let request = self.request(Method::PUT, &format!("/deliveries/{id}/audience"));
        answer(
            request
                .header("content-type", "application/x-ndjson")
                .body(ndjson)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// Prepares, waits for the end, and returns the delivery.
    pub async fn prepare(&self, id: &str) -> Value {
        let (status, view) = self.post(&format!("/deliveries/{id}/prepare"), &json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{view}");
        self.wait_for(id, &["prepared", "preparation_failed"]).await
    }

    /// Asks for a preparation of the revision that the caller looked at. Returns the status.
    pub async fn prepare_revision(&self, id: &str, revision: &Value) -> StatusCode {
        let request = self.request(Method::POST, &format!("/deliveries/{id}/prepare"));
        let named = request.header("if-match", format!("\"{revision}\""));
        named.json(&json!({})).send().await.unwrap().status()
    }

    pub async fn confirm(&self, id: &str, digest: &str) -> (StatusCode, Value) {
        self.post(&format!("/deliveries/{id}/confirm"), &json!({ "digest": digest })).await
    }

    /// Waits until the delivery is in one of these states, and returns it.
    pub async fn wait_for(&self, id: &str, states: &[&str]) -> Value {
        let (last, what) = (Mutex::new(Value::Null), format!("{states:?}"));
        let reached = eventually(&what, LIMIT * 2, async || {
            let response =
                self.request(Method::GET, &format!("/deliveries/{id}")).send().await.ok()?;
            let view: Value = response.json().await.ok()?;
            *last.lock().unwrap() = view.clone();
            states.contains(&view["state"].as_str()?).then_some(view)
        });
        match tokio::time::timeout(LIMIT, reached).await {
            Ok(view) => view,
            Err(_) => panic!(
                "none of {states:?} within {LIMIT:?}: the delivery is {}",
                last.lock().unwrap()
            ),
        }
    }

    /// Creates a delivery, uploads its audience, prepares it and confirms it. Returns its id.
    pub async fn send(&self, definition: &Value, ndjson: String) -> String {
        let id = self.create(definition).await;
        let (status, answer) = self.upload(&id, ndjson).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let prepared = self.prepare(&id).await;
        assert_eq!(prepared["state"], "prepared", "{}", prepared["checks"]);
        let (status, answer) =
            self.confirm(&id, prepared["plan"]["digest"].as_str().unwrap()).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        id
    }

    /// The whole sending log.
    pub async fn log(&self, id: &str) -> Vec<Value> {
        let text = String::from_utf8(
            self.bytes(&format!("/deliveries/{id}/log/export?format=ndjson")).await,
        )
        .unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Status and JSON body; the body is null if it is empty.
pub async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    (status, body)
}

async fn good(response: Response) -> Value {
    let (status, body) = answer(response).await;
    assert!(status.is_success(), "{status}: {body}");
    body
}

/// A small delivery without errors.
pub fn definition() -> Value {
    json!({
        "name": "Autumn",
        "sender": { "name": "The Shop", "email": "news@shop.example" },
        "content": {
            "subject": "Hello {{ name }}",
            "html": "<p>Dear {{ name }},</p><p>see <a href=\"https://shop.example/unsubscribe\">unsubscribe</a>.</p>",
        },
        "settings": { "retry_minutes": [0.02] },
    })
}

/// An audience of `n` addresses `user<i>@example.com` with the field `name`.
pub fn audience(n: usize) -> String {
    (0..n)
        .map(|i| format!("{{\"email\":\"user{i}@example.com\",\"name\":\"Jörg {i}\"}}\n"))
        .collect()
}
