//! Bearer tokens: list them, and revoke one.

use std::sync::Arc;

use axum::{
    Json as Reply,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    api::Api,
    problem::{Problem, RouteError},
    request::{Caller, PathWords},
};
use crate::{
    domain::{Role, instant},
    identity::BearerToken,
    store::Revocation,
};

/// A bearer token as the API shows it.
#[derive(Serialize)]
struct TokenLine {
    name: String,
    roles: Vec<Role>,
    unit: Option<String>,
    expires: Option<Timestamp>,
    /// When a daemon last let the token in, exact to a minute.
    last_used: Option<Timestamp>,
    revoked: Option<Revocation>,
}

/// Serves `GET /api/v1/tokens`.
pub async fn list(State(api): State<Arc<Api>>) -> Result<Response, RouteError> {
    let keyring = api.operations.keyring.now();
    let tokens = keyring.tokens();
    let hashes: Vec<String> = tokens.iter().map(BearerToken::sha256).collect();
    let standings = api.operations.tokens.standings(&hashes).await?;
    let line = |(token, (used, revoked)): (&BearerToken, (Option<u32>, Option<Revocation>))| {
        let principal = token.principal.clone();
        TokenLine {
            name: principal.name,
            roles: principal.roles,
            unit: principal.unit,
            expires: token.expires,
            last_used: used.map(instant),
            revoked,
        }
    };
    let items: Vec<TokenLine> = tokens.iter().zip(standings).map(line).collect();
    Ok(Reply(serde_json::json!({ "items": items })).into_response())
}

/// Serves `DELETE /api/v1/tokens/{name}`.
pub async fn revoke(
    State(api): State<Arc<Api>>,
    Caller(by): Caller,
    PathWords(name): PathWords<String>,
) -> Result<StatusCode, RouteError> {
    let keyring = api.operations.keyring.now();
    let known = keyring.tokens().iter().find(|token| token.principal.name == name);
    let Some(known) = known else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no such bearer token").into());
    };
    let revocation = Revocation { at: Timestamp::now(), by: by.name.clone() };
    api.operations.tokens.revoke(&known.sha256(), &revocation).await?;
    tracing::warn!(token = name, by = by.name, "a bearer token was revoked");
    Ok(StatusCode::NO_CONTENT)
}
