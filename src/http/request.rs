//! Reads requests: JSON with errors that name the field, queries, idempotency keys.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::{Answer, Problem};
use crate::{
    deliveries::{IdempotencyKey, Refusal},
    domain::{Principal, delivery::DeliveryId},
};

/// Largest `limit` of a page.
pub const LARGEST_PAGE: usize = 1000;
const FARTHEST: usize = 1 << 40;

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// A JSON body, with the bytes it was made of.
pub struct Json<T> {
    pub value: T,
    pub bytes: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Answer;

    async fn from_request(request: Request, state: &S) -> Result<Self, Answer> {
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

/// The body of a request that may have none.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Answer> {
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()).into())
}

/// The field to blame, or the `whole`: serde names the one that is missing, or there twice, in its text only.
fn blamed(path: &str, text: &str, whole: &str) -> String {
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

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Answer> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body is not UTF-8").into());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let field = blamed(&path, &inner.to_string(), "body");
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

/// The delivery that the path names.
pub struct Id(pub DeliveryId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Answer> {
        let path =
            Path::<std::collections::HashMap<String, String>>::from_request_parts(parts, state)
                .await;
        let id = path.ok().and_then(|Path(names)| names.get("id")?.parse().ok());
        id.map(Self).ok_or(Answer(Box::new(Refusal::NotFound.into())))
    }
}

/// The words of the path, in their order; what is not text or not a number names nothing.
pub struct Words<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Words<T> {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Answer> {
        let words = Path::<T>::from_request_parts(parts, state).await;
        let nothing = |_| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "there is no such thing: the path does not name one",
            )
            .into()
        };
        words.map(|Path(words)| Self(words)).map_err(nothing)
    }
}

/// The query, with errors that say what is expected.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Answer> {
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let asked = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(query));
        asked.map(Self).map_err(|error: serde_path_to_error::Error<serde_urlencoded::de::Error>| {
            let field = blamed(&error.path().to_string(), &error.inner().to_string(), "query");
            unprocessable(format!("{field}: {}", error.inner())).with_field(field).into()
        })
    }
}

/// Who calls; put there by the authentication.
pub struct Caller(pub Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Answer> {
        let missing = || Problem::from(crate::identity::NotAuthentic::Missing).into();
        parts.extensions.get::<Principal>().cloned().map(Self).ok_or_else(missing)
    }
}

/// The `Idempotency-Key`, 1 to 200 visible characters, bound to action and body.
pub fn idempotency_key(
    headers: &HeaderMap,
    by: &Principal,
    action: &str,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, Answer> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim().trim_matches('"');
    if key.is_empty() || key.len() > 200 {
        return Err(unprocessable("Idempotency-Key: must have 1 to 200 visible ASCII characters")
            .with_field("Idempotency-Key")
            .into());
    }
    Ok(Some(IdempotencyKey::new(&by.name, key, action, body)))
}

/// A body that must be empty or an empty object, for actions without parameters. Either is the same request.
pub async fn no_parameters(body: Body) -> Result<(), Answer> {
    let bytes = to_bytes(body, 1024)
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "this request has no body"))?;
    if bytes.trim_ascii().is_empty() || bytes.trim_ascii() == b"{}" {
        Ok(())
    } else {
        Err(unprocessable("this request has no parameters").into())
    }
}

/// Where a page begins. Nothing is that long: what lies beyond is cut, so that later sums do not overflow.
pub fn from(asked: u64) -> usize {
    usize::try_from(asked).unwrap_or(usize::MAX).min(FARTHEST)
}

/// A `limit` of a page.
pub fn limit(asked: Option<usize>) -> Result<usize, Answer> {
    match asked.unwrap_or(100) {
        n if (1..=LARGEST_PAGE).contains(&n) => Ok(n),
        _ => Err(unprocessable(format!("limit: must be 1 to {LARGEST_PAGE}"))
            .with_field("limit")
            .into()),
    }
}
