//! The visitor of a hit: address, user agent, and signs of a machine.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, Method, header, request::Parts};
use ipnet::IpNet;

use crate::{domain::tracking::signs, feedback::Visit, http::listen::forwarded};

/// Headers with which a client says that it prefetches: no person has opened anything yet.
static PURPOSES: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];

impl Visit {
    /// Reads the visitor from a request.
    ///
    /// `X-Forwarded-For` counts only if the request comes from one of the `trusted` proxies.
    pub(super) fn of(peer: IpAddr, parts: &Parts, trusted: &[IpNet]) -> Self {
        let mut signs = 0;
        if parts.method == Method::HEAD {
            signs |= signs::HEAD;
        }
        if PURPOSES.iter().any(|name| is_prefetch(&parts.headers, name)) {
            signs |= signs::PREFETCH;
        }
        let agent = parts
            .headers
            .get(header::USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let from = forwarded(peer, &parts.headers, trusted);
        Self { from, agent: agent.filter(|agent| !agent.trim().is_empty()), signs }
    }
}

fn is_prefetch(headers: &HeaderMap, name: &HeaderName) -> bool {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { return false };
    let value = value.to_ascii_lowercase();
    ["prefetch", "preview", "prerender"].iter().any(|purpose| value.contains(purpose))
}
