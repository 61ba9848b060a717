//! Checks the head of a request beyond what the HTTP library does (RFC 9112).

use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header, request::Parts};

use crate::http::problem::{Problem, RouteError};

/// Refuses a head that a proxy in front might read in another way.
///
/// # Errors
/// 400 if a request of HTTP/1.1 has no `Host` (RFC 9112, 3.2), or a request of any version has
/// several of them or a bad one.
pub fn check_head(version: Version, headers: &HeaderMap) -> Result<(), RouteError> {
    let refuse = |why| Err(Problem::new(StatusCode::BAD_REQUEST, why).with_field("Host").into());
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => refuse("Host: the request has several of them (RFC 9112, 3.2)"),
        (None, None) if version >= Version::HTTP_11 => {
            refuse("Host: the request has none (RFC 9112, 3.2)")
        }
        (Some(host), None) if !is_host(host) => refuse("Host: is malformed (RFC 9112, 3.2)"),
        (None | Some(_), None) => Ok(()),
    }
}

/// A `Host` is empty, a host, or a host with a port. It has no user name.
fn is_host(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.is_empty() || (!text.contains('@') && text.parse::<axum::http::uri::Authority>().is_ok())
}

/// Whether the connection must close after this request.
///
/// A request with `Transfer-Encoding` may have had a `Content-Length`, too. The HTTP library goes
/// by `Transfer-Encoding` and drops `Content-Length`. A proxy in front may do otherwise, and take
/// the rest for another client's request (RFC 9112, 6.1).
pub fn must_close(parts: &Parts) -> bool {
    parts.headers.contains_key(header::TRANSFER_ENCODING)
}
