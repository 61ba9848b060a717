//! The visitor of a hit: address, user agent, and signs of a machine.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, Method, header, request::Parts};
use ipnet::IpNet;

use crate::{domain::tracking::signs, feedback::Visit};

/// Headers with which a client says that it prefetches: no person has opened anything yet.
static PURPOSES: [HeaderName; 4] = [
    HeaderName::from_static("sec-purpose"),
    HeaderName::from_static("purpose"),
    HeaderName::from_static("x-purpose"),
    HeaderName::from_static("x-moz"),
];
static FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

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
        let from = forwarded(peer.to_canonical(), &parts.headers, trusted);
        Self { from, agent: agent.filter(|agent| !agent.trim().is_empty()), signs }
    }
}

fn is_prefetch(headers: &HeaderMap, name: &HeaderName) -> bool {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else { return false };
    let value = value.to_ascii_lowercase();
    ["prefetch", "preview", "prerender"].iter().any(|purpose| value.contains(purpose))
}

/// The address of the visitor: the nearest hop that is not a trusted proxy.
///
/// The hops are `peer`, then the entries of `X-Forwarded-For` from last to first. An entry that is
/// no address ends them. If all hops are trusted, the last of them is the answer.
///
/// Each proxy adds the address of its own client at the end. An entry counts only if the hop
/// after it is trusted.
fn forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let values: Vec<&str> =
        headers.get_all(&FORWARDED).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut ip = peer;
    for hop in values.iter().flat_map(|value| value.split(',')).rev() {
        let hop = hop.trim();
        // Some proxies write the port, too.
        let client = hop.parse().or_else(|_| hop.parse().map(|from: SocketAddr| from.ip()));
        match client {
            Ok(client) if is_trusted(ip) => ip = client.to_canonical(),
            _ => break,
        }
    }
    ip
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "::1/128"].iter().map(|net| net.parse().expect("a network")).collect();
        let from = |peer: &str, values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", HeaderValue::from_static(value));
            }
            forwarded(peer.parse().expect("an address"), &headers, &trusted).to_string()
        };
        assert_eq!(from("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(from("10.1.1.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.1.1.1", &["203.0.113.9, 198.51.100.7, 10.2.2.2"]), "198.51.100.7");
        assert_eq!(from("10.1.1.1", &["203.0.113.9", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("::1", &["2001:db8::7"]), "2001:db8::7");
        assert_eq!(from("10.1.1.1", &["198.51.100.7:40112, ::ffff:10.2.2.2"]), "198.51.100.7");
        assert_eq!(from("10.1.1.1", &["198.51.100.7, nonsense"]), "10.1.1.1");
        assert_eq!(from("10.1.1.1", &[]), "10.1.1.1");
    }
}
