//! The extractors: ids, idempotency keys, and JSON and queries whose errors name the field.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::{Problem, RouteError};
use crate::{
    deliveries::{IdempotencyKey, Refusal},
    domain::{Principal, delivery::DeliveryId},
};

/// The largest `limit` of a page.
const LARGEST_PAGE: usize = 1000;
/// The `limit` of a page whose request names none.
const USUAL_PAGE: usize = 100;
/// The largest `from` of a page; no log is that long.
const FARTHEST: usize = 1 << 40;

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// A JSON body, with its bytes for the idempotency key.
pub struct Json<T> {
    pub value: T,
    pub bytes: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = RouteError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RouteError> {
        let json = media_type(request.headers()).is_some_and(|kind| kind == "application/json");
        if !json {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            )
            .into());
        }
        let bytes = body(request, state).await?;
        Ok(Self { value: parse(&bytes)?, bytes })
    }
}

/// The whole body of a request.
async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, RouteError> {
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()).into())
}

/// The field that is wrong, or `whole` if the error concerns no single field.
///
/// serde names a missing or duplicate field in its text only.
fn wrong_field(path: &str, text: &str, whole: &str) -> String {
    let named = ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix));
    match (path, named.and_then(|rest| rest.split('`').next())) {
        ("." | "", None) => whole.to_owned(),
        ("." | "", Some(named)) => named.to_owned(),
        (path, None) => path.to_owned(),
        (path, Some(named)) => format!("{path}.{named}"),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RouteError> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body is not UTF-8").into());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let field = wrong_field(&path, &inner.to_string(), "body");
            unprocessable(format!("{field}: {inner}")).with_field(field)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {inner}"))
        }
    })?;
    reader
        .end()
        .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")))?;
    Ok(value)
}

/// The media type without its parameters, in lower case.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The id of the delivery that the path names.
pub struct Id(pub DeliveryId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RouteError> {
        let path =
            Path::<std::collections::HashMap<String, String>>::from_request_parts(parts, state)
                .await;
        let id = path.ok().and_then(|Path(names)| names.get("id")?.parse().ok());
        id.map(Self).ok_or(RouteError(Box::new(Refusal::NotFound.into())))
    }
}

impl<S: Send + Sync> axum::extract::OptionalFromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Infallible> {
        let id = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await;
        Ok(id.ok())
    }
}

/// The variable parts of the path, in their order. A part of the wrong type gets 404.
pub struct PathWords<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathWords<T> {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RouteError> {
        let words = Path::<T>::from_request_parts(parts, state).await;
        let nothing = |_| {
            Problem::new(StatusCode::NOT_FOUND, "a part of the path is not of the expected form")
                .into()
        };
        words.map(|Path(words)| Self(words)).map_err(nothing)
    }
}

/// The query, with errors that say what is expected.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RouteError> {
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let parsed = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(query));
        parsed.map(Self).map_err(
            |error: serde_path_to_error::Error<serde_urlencoded::de::Error>| {
                let field =
                    wrong_field(&error.path().to_string(), &error.inner().to_string(), "query");
                unprocessable(format!("{field}: {}", error.inner())).with_field(field).into()
            },
        )
    }
}

/// The principal who calls. The authentication puts it into the request.
pub struct Caller(pub Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RouteError> {
        let missing = || Problem::from(crate::identity::NotAuthentic::Missing).into();
        parts.extensions.get::<Principal>().cloned().map(Self).ok_or_else(missing)
    }
}

/// The `Idempotency-Key` of a request, bound to the principal, the action and the body.
///
/// # Errors
/// 422 if the key has not 1 to 200 visible ASCII characters.
pub fn idempotency_key(
    headers: &HeaderMap,
    by: &Principal,
    action: &str,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, RouteError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim().trim_matches('"');
    if key.is_empty() || key.len() > 200 {
        return Err(unprocessable("Idempotency-Key: must have 1 to 200 visible ASCII characters")
            .with_field("Idempotency-Key")
            .into());
    }
    Ok(Some(IdempotencyKey::new(&by.name, key, action, body)))
}

/// Checks the body of an action without parameters. It must be empty or `{}`, and both are the same
/// request.
///
/// # Errors
/// 413 or 422 for any other body.
pub async fn no_parameters(body: Body) -> Result<(), RouteError> {
    let bytes = to_bytes(body, 1024)
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "this request takes no body"))?;
    if bytes.trim_ascii().is_empty() || bytes.trim_ascii() == b"{}" {
        Ok(())
    } else {
        Err(unprocessable("this request takes no parameters").into())
    }
}

/// Where a page begins. A number that is too large is cut, so that later sums do not overflow.
pub fn from(requested: u64) -> usize {
    usize::try_from(requested).unwrap_or(usize::MAX).min(FARTHEST)
}

/// The `limit` of a page.
///
/// # Errors
/// 422 if the limit is not 1 to 1000.
pub fn limit(requested: Option<usize>) -> Result<usize, RouteError> {
    match requested.unwrap_or(USUAL_PAGE) {
        n if (1..=LARGEST_PAGE).contains(&n) => Ok(n),
        _ => Err(unprocessable(format!("limit: must be 1 to {LARGEST_PAGE}"))
            .with_field("limit")
            .into()),
    }
}
