//! The headers of answers: they forbid storage, type guessing, framing and referrers.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::Response,
};

/// No proxy and no browser may store an answer, and no browser may guess its type.
const EVERYWHERE: [(HeaderName, HeaderValue); 3] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];
/// The policy of an answer that has none of its own: a page loads nothing, sends no form and stands
/// in no frame.
const NOTHING: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Adds the headers of every answer.
pub fn add_answer_headers(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in EVERYWHERE {
        headers.insert(name, value);
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(NOTHING);
}

/// The `Content-Disposition` of an answer that is a file. The name must be plain ASCII.
pub fn attachment(file: &str) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""));
    (header::CONTENT_DISPOSITION, value.unwrap_or(HeaderValue::from_static("attachment")))
}
