//! The body of an answer to a principal, which holds the connection and a permit until its end.

use axum::body::Body;
use http_body_util::BodyExt;

use super::{listen::BusyMark, principal_limits::PrincipalPermit};

/// Wraps a body so that it holds the connection and the permit of its request until it was sent or
/// dropped.
pub fn held_body(body: Body, busy: Option<BusyMark>, permit: PrincipalPermit) -> Body {
    let held = (busy, permit);
    Body::new(body.map_err(move |error| {
        // The closure lives as long as the body, and what it holds lives with it.
        let _ = &held;
        error
    }))
}
