//! Who counts as one client: an IPv4 address, or an IPv6 network of 64 bits.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

static FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The network that counts as one client: an IPv4 address, or the first 64 bits of an IPv6
/// address. One customer of a provider usually gets at least such a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The network of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(ip) => Self(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
            ip => Self(ip),
        }
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

/// The address of the client: the nearest hop that is not a trusted proxy.
///
/// The hops are `peer`, then the entries of `X-Forwarded-For` from last to first. An entry that is
/// no address ends them. If all hops are trusted, the last of them is the answer.
///
/// Each proxy adds the address of its own client at the end. An entry counts only if the proxy that
/// added it is trusted.
pub fn forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let mut ip = peer.to_canonical();
    if !is_trusted(ip) {
        return ip;
    }
    let values: Vec<&str> =
        headers.get_all(&FORWARDED).iter().filter_map(|value| value.to_str().ok()).collect();
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

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        let of = |ip: &str| ClientNetwork::of(ip.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::7"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::7"), of("2001:db8:1:3::7"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::7").to_string(), "2001:db8:1:2::/64");
    }
}
