//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;

use crate::{deliveries::Refusal, identity::NotAuthentic, queue::QueueError, store::may_pass};

/// A problem document. `type` is `about:blank`, so `title` is the phrase of the status (RFC 9457,
/// section 4.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: String,
    status: u16,
    detail: String,
    /// The field of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The line of the upload, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// The role that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// The seconds of `Retry-After`; none for the usual second of a 429 or 503.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem with this status. `detail` says in one line why.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            line: None,
            role: None,
            retry_after: None,
        }
    }

    /// Names the field of the request that is wrong.
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says how long the client should wait.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait.as_secs().max(1));
        self
    }

    /// The whole answer, for a connection whose request is not read.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nRetry-After: 1\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            self.status,
            self.title,
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // 500 if the number is not a valid status
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // 401
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // 429, 503
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
            headers.insert(header::RETRY_AFTER, self.retry_after.unwrap_or(1).into());
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            // 404
            Refusal::NotFound | Refusal::NoRecipient | Refusal::NoRecurrence => {
                StatusCode::NOT_FOUND
            }
            // 410
            Refusal::Cleaned(_) | Refusal::TrackingCleaned(_) => StatusCode::GONE,
            // 403
            Refusal::MissingRole(_) | Refusal::NotYours(_) => StatusCode::FORBIDDEN,
            // 409
            Refusal::Illegal(_) | Refusal::KeyReused | Refusal::Conflict(_) | Refusal::Altered => {
                StatusCode::CONFLICT
            }
            // 412
            Refusal::StaleDigest | Refusal::StaleRevision(_) => StatusCode::PRECONDITION_FAILED,
            // 428 (RFC 6585, 3)
            Refusal::RevisionNeeded => StatusCode::PRECONDITION_REQUIRED,
            // 422
            Refusal::Invalid(_) | Refusal::Line(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // 429
            Refusal::TooManyProofs { .. } => StatusCode::TOO_MANY_REQUESTS,
            // 400
            Refusal::BrokenUpload(_) => StatusCode::BAD_REQUEST,
            // 404
            Refusal::Queue(QueueError::UnknownQueue | QueueError::BadId) => StatusCode::NOT_FOUND,
            // 503
            Refusal::Unavailable(_) | Refusal::Queue(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        log_failure(&refusal);
        let mut problem = Self::new(status, refusal.to_string());
        match refusal {
            Refusal::MissingRole(role) => problem.role = Some(role.word()),
            Refusal::TooManyProofs { wait, .. } => {
                problem.retry_after = Some(wait.as_secs() + 1);
            }
            Refusal::Invalid(invalid) => problem.field = Some(invalid.field),
            Refusal::Line(error) => (problem.line, problem.field) = (Some(error.line), error.field),
            _ => {}
        }
        problem
    }
}

/// Logs a request that failed at Redis, or at a damaged or altered value in it. An error that may
/// pass is logged for debugging only: the pulse of Redis logs the outage, once for all.
fn log_failure(refusal: &Refusal) {
    let passes = match refusal {
        Refusal::Unavailable(error) => error.may_pass(),
        Refusal::Queue(QueueError::Unavailable(error)) => may_pass(error),
        _ => return,
    };
    if passes {
        tracing::debug!(error = %refusal, "a request could not be served");
    } else {
        tracing::error!(error = %refusal, "a request could not be served");
    }
}

impl From<NotAuthentic> for Problem {
    fn from(error: NotAuthentic) -> Self {
        // 401
        Self::new(StatusCode::UNAUTHORIZED, error.to_string())
    }
}

impl<E: Into<Refusal>> From<E> for RouteError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into().into()))
    }
}

/// The error of a route. Every refusal becomes a problem.
#[derive(Debug)]
pub struct RouteError(pub Box<Problem>);

impl From<Problem> for RouteError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for RouteError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}
