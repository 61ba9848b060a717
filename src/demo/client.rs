//! The client of the admin API that the demo uses.

use std::io::{IsTerminal, Write, stdout};

use anyhow::{Context as _, bail};
use futures_util::StreamExt;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// A client of the admin API.
pub struct DemoClient {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl DemoClient {
    /// A client for the daemon at `url`.
    pub fn new(url: String, token: String) -> Self {
        Self { http: reqwest::Client::new(), url, token }
    }

    /// The address of the daemon.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address of the admin API.
    pub fn api(&self) -> String {
        format!("{}/api/v1", self.url)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.api())).bearer_auth(&self.token)
    }

    /// GETs a path below the API. Fails if the daemon refuses.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        good(self.request(Method::GET, path)).await
    }

    /// POSTs JSON to a path below the API. Fails if the daemon refuses.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        good(self.request(Method::POST, path).json(body)).await
    }

    /// Uploads the audience of a delivery.
    pub async fn upload(&self, id: &str, ndjson: String) -> anyhow::Result<Value> {
        let request = self.request(Method::PUT, &format!("/deliveries/{id}/audience"));
        good(request.header("content-type", "application/x-ndjson").body(ndjson)).await
    }

    /// Follows the server-sent events and shows the progress. Returns the last progress once
    /// `goes_on` says no to a state or the events end.
    pub async fn follow(&self, id: &str, goes_on: impl Fn(&str) -> bool) -> anyhow::Result<Value> {
        let response = self
            .request(Method::GET, &format!("/deliveries/{id}/events"))
            .send()
            .await?
            .error_for_status()?;
        let mut events = response.bytes_stream();
        let (mut text, mut last) = (String::new(), Value::Null);
        while let Some(piece) = events.next().await {
            text.push_str(std::str::from_utf8(&piece?).context("an event is not UTF-8")?);
            while let Some((event, rest)) = text.split_once("\n\n") {
                if let Some(json) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                    last = serde_json::from_str(json)?;
                    show(&last)?;
                }
                text = rest.to_owned();
                if !goes_on(last["state"].as_str().unwrap_or_default()) {
                    return Ok(last);
                }
            }
        }
        Ok(last)
    }
}

/// The JSON answer of a request that succeeds.
async fn good(request: RequestBuilder) -> anyhow::Result<Value> {
    let response = request.send().await?;
    let status = response.status();
    let body: Value = response.json().await?;
    if !status.is_success() {
        bail!("{status}: {}", body["detail"].as_str().unwrap_or_default());
    }
    Ok(body)
}

/// Shows one line of progress. On a terminal the line overwrites the one before.
fn show(progress: &Value) -> anyhow::Result<()> {
    const WIDTH: u64 = 30;
    let counts = &progress["counts"];
    let of = |name: &str| counts[name].as_u64().unwrap_or_default();
    let (done, all) =
        (of("sent") + of("failed"), progress["kpis"]["to_deliver"].as_u64().unwrap_or_default());
    if all == 0 {
        return Ok(());
    }
    let bar: String = (0..WIDTH).map(|i| if i * all < done * WIDTH { '#' } else { '.' }).collect();
    let line = format!(
        "   [{bar}] {done}/{all} sent {}, failed {}, deferred {}",
        of("sent"),
        of("failed"),
        of("deferred")
    );
    if stdout().is_terminal() {
        write!(stdout(), "\r{line}   ")?;
        stdout().flush()?;
    } else {
        writeln!(stdout(), "{line}")?;
    }
    Ok(())
}
