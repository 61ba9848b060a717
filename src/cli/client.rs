//! The client of the admin API that the commands use.

use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use axum::body::Body;
use clap::Args;
use http_body_util::BodyExt;
use hyper::header;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::report::Page;

/// Deliveries that are listed in one request.
const LIST_PAGE: usize = 1000;

/// The options that say which daemon to talk to.
#[derive(Debug, Args)]
pub struct ClientOptions {
    /// The address of the admin API
    #[arg(long, default_value = "http://127.0.0.1:8025")]
    url: Url,
    /// A file with a token of the role administration
    #[arg(long)]
    token_file: PathBuf,
    /// A PEM file with the trusted roots for an https address; those of the system if it is missing
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

/// A client of the admin API.
pub struct AdminClient {
    http: Client<HttpsConnector<HttpConnector>, Body>,
    url: Url,
    token: String,
}

impl AdminClient {
    /// Reads the token from its file.
    ///
    /// # Errors
    /// A file cannot be read, or `--ca-file` holds no usable certificate.
    pub fn new(connection: ClientOptions) -> anyhow::Result<Self> {
        if is_plaintext_beyond_loopback(&connection.url) {
            let warning = "warning: the token crosses the network in clear text: use https";
            writeln!(std::io::stderr(), "{warning}")?;
        }
        let file = &connection.token_file;
        let token =
            fs::read_to_string(file).with_context(|| format!("--token-file {}", file.display()))?;
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build(connector(connection.ca_file)?),
            url: connection.url,
            token: token.trim().to_owned(),
        })
    }

    /// Sends a request. `path` holds the segments of the path, which may contain any characters.
    ///
    /// # Errors
    /// The daemon cannot be reached, or `--url` cannot have a path.
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
        let request = hyper::Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Body::empty())?;
        let response = self.http.request(request).await.with_context(|| url.to_string())?;
        let body =
            |body: hyper::body::Incoming| reqwest::Body::wrap_stream(body.into_data_stream());
        Ok(response.map(body).into())
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

impl AdminClient {
    /// The ids of all deliveries, the newest first.
    ///
    /// # Errors
    /// The daemon cannot be reached, or it refuses.
    pub async fn delivery_ids(&self) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        loop {
            let query = format!("offset={}&limit={LIST_PAGE}", ids.len());
            let response = self.send(Method::GET, &["api", "v1", "deliveries"], &query).await?;
            let page: Value = response.error_for_status()?.json().await?;
            let items = page["items"].as_array().into_iter().flatten();
            ids.extend(items.filter_map(|item| item["id"].as_str().map(str::to_owned)));
            if page["next"].is_null() {
                return Ok(ids);
            }
        }
    }
}

/// Whether a request to this address would show the token to a network.
fn is_plaintext_beyond_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost",
    };
    url.scheme() == "http" && !is_loopback
}

/// Connects to http and https addresses.
fn connector(ca_file: Option<PathBuf>) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let provider = ring::default_provider().into();
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_file.as_deref())?)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        // Some certificates of a machine may not parse. The others are used.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let name = || format!("--ca-file {}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).with_context(name)? {
        roots.add(certificate.with_context(name)?).with_context(name)?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", name());
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_another_machine_shows_the_token() {
        let shows = |url: &str| is_plaintext_beyond_loopback(&url.parse().expect("a URL"));
        for url in
            ["http://127.0.0.1:8025", "http://[::1]:1", "http://localhost", "https://a.example"]
        {
            assert!(!shows(url), "{url}");
        }
        for url in ["http://192.0.2.1:8025", "http://a.example", "http://[2001:db8::1]"] {
            assert!(shows(url), "{url}");
        }
    }
}
