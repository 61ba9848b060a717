//! Errors as `application/problem+json` (RFC 9457).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{deliveries::Refusal, identity::NotAuthentic, queue::QueueError};

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
        }
    }

    /// Names the field of the request that is wrong.
    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
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
        // 503
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
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
            Refusal::StaleDigest => StatusCode::PRECONDITION_FAILED,
            // 422
            Refusal::Invalid(_) | Refusal::Line(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // 400
            Refusal::BrokenUpload(_) => StatusCode::BAD_REQUEST,
            // 404
            Refusal::Queue(QueueError::UnknownQueue | QueueError::BadId) => StatusCode::NOT_FOUND,
            // 503
            Refusal::Unavailable(_) | Refusal::Queue(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(error = %refusal, "a request could not be served");
        }
        let mut problem = Self::new(status, refusal.to_string());
        match refusal {
            Refusal::MissingRole(role) => problem.role = Some(role.word()),
            Refusal::Invalid(invalid) => problem.field = Some(invalid.field),
            Refusal::Line(error) => (problem.line, problem.field) = (Some(error.line), error.field),
            _ => {}
        }
        problem
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
