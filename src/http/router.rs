//! The router of the admin API, made from the table of routes: roles, time limits, metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tower_http::timeout::RequestBodyTimeoutLayer;

use super::{
    answer_headers::add_answer_headers,
    api::Api,
    held_body::held_body,
    listen::{BusyMark, ClientNetwork, Peer, forwarded, method_label},
    login_failures::WINDOW,
    problem::Problem,
    routes::{ROUTES, handler},
};
use crate::{
    deliveries::Refusal,
    domain::Role,
    identity::{NotAuthentic, claimed_name},
    metrics,
};

/// The router of the admin listener.
pub fn router(api: Api) -> Router {
    let server = &api.config.server;
    let limit = server.body_limit_kib * 1024;
    let request_timeout = Duration::from_millis(server.request_timeout_ms);
    let stalled = RequestBodyTimeoutLayer::new(Duration::from_millis(server.stall_timeout_ms));
    let mut router = Router::new();
    for route in ROUTES {
        let handler = handler(route);
        // An upload may take any time. The layer `stalled` ends one that makes no progress.
        let handler = match route.path.ends_with("/audience") {
            true => handler,
            false => {
                handler.route_layer(middleware::from_fn_with_state(request_timeout, limit_time))
            }
        };
        let handler = match route.role {
            Some(role) => handler
                .route_layer(middleware::from_fn_with_state((api.clone(), role), authenticate)),
            None => handler,
        };
        router = router.route(route.path, handler);
    }
    router
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route has no such method")
        })
        .layer(DefaultBodyLimit::max(limit))
        .layer(stalled)
        .layer(middleware::from_fn(observe))
        .with_state(Arc::new(api))
}

/// Lets a caller with the role through, and adds the principal to the request.
async fn authenticate(
    State((api, role)): State<(Api, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = bearer(request.headers());
    let principal = match token.and_then(|token| api.operations.keyring.bearer(token)) {
        Ok(principal) => principal,
        Err(error) => return failed_login(&api, &request, error).into_response(),
    };
    if !principal.may(role) {
        return Problem::from(Refusal::MissingRole(role)).into_response();
    }
    let permit = match api.operations.limits.principals.request(&principal.name) {
        Ok(permit) => permit,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(principal);
    let busy = request.extensions_mut().remove::<BusyMark>();
    next.run(request).await.map(|body| held_body(body, busy, permit))
}

/// Counts a failed log-in and logs it with address and name, but never with the token.
///
/// The name is the one that a JWT claims; nothing proves it.
fn failed_login(api: &Api, request: &Request, error: NotAuthentic) -> Problem {
    metrics::login_failure();
    let Some(Peer(peer)) = request.extensions().get() else { return error.into() };
    let address = forwarded(*peer, request.headers(), &api.config.server.trusted_proxies);
    let failures = &api.operations.limits.failures;
    let most = api.config.auth.failures_per_minute;
    let verdict = failures.count(ClientNetwork::of(address), most, Instant::now());
    if verdict.logged {
        let name = bearer(request.headers()).ok().and_then(claimed_name);
        tracing::warn!(%address, name, reason = %error, "a log-in failed");
    }
    if verdict.first_unlogged {
        let (failures, shutdown) = (failures.clone(), api.daemon.shutdown.clone());
        api.daemon.tracker.spawn(async move {
            shutdown.run_until_cancelled(tokio::time::sleep(WINDOW)).await;
            let count = failures.take_unlogged();
            tracing::warn!(count, "further log-ins failed within a minute");
        });
    }
    match verdict.wait {
        None => error.into(),
        Some(wait) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("auth.failures_per_minute: too many log-ins from this address failed: {error}"),
        )
        .with_retry_after(wait),
    }
}

/// Answers 503 when a request takes too long.
///
/// The action may have been done all the same. With an `Idempotency-Key` a new try does not do it
/// twice.
async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let late = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the request took longer than server.request_timeout_ms: ask again",
        )
    };
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

/// The bearer token of a request (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, NotAuthentic> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .ok_or(NotAuthentic::Missing)?;
    let (scheme, token) = value.split_once(' ').ok_or(NotAuthentic::Missing)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(token.trim())
    } else {
        Err(NotAuthentic::Missing)
    }
}

/// Counts a request and its duration, and adds the headers of every answer.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let mut response = next.run(request).await;
    add_answer_headers(&mut response);
    metrics::http_request(&route, method, response.status().as_u16(), began.elapsed());
    response
}
