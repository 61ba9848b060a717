//! The client of the admin API that the commands use.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;

use crate::report::Page;

/// The options that say which daemon to talk to.
#[derive(Debug, Args)]
pub struct ClientOptions {
    /// The address of the admin API
    #[arg(long, default_value = "http://127.0.0.1:8025")]
    url: Url,
    /// A file with a token of the role administration
    #[arg(long)]
    token_file: PathBuf,
}

/// A client of the admin API.
pub struct AdminClient {
    http: reqwest::Client,
    url: Url,
    token: String,
}

impl AdminClient {
    /// Reads the token from its file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(connection: ClientOptions) -> anyhow::Result<Self> {
        let file = &connection.token_file;
        let token =
            fs::read_to_string(file).with_context(|| format!("--token-file {}", file.display()))?;
        Ok(Self {
            http: reqwest::Client::new(),
            url: connection.url,
            token: token.trim().to_owned(),
        })
    }

    /// Sends a request. `path` holds the segments of the path, which may contain any characters.
    ///
    /// # Errors
    /// The daemon cannot be reached.
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &str,
    ) -> anyhow::Result<Response> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("--url {} cannot have a path", self.url))?
            .pop_if_empty()
            .extend(path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        let request = self.http.request(method, url.clone()).bearer_auth(&self.token);
        request.send().await.with_context(|| url.to_string())
    }

    /// Reads all pages of a route.
    ///
    /// # Errors
    /// The daemon cannot be reached, or it refuses.
    pub async fn all<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<Vec<T>> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let response = self.send(Method::GET, path, &format!("from={from}&limit=1000")).await?;
            let page: Page<T> = response.error_for_status()?.json().await?;
            all.extend(page.items);
            match page.next {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }
}
