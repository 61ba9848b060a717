//! The router of the admin API, made from the table of routes: roles, time limits, metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{
        DefaultBodyLimit, MatchedPath, RawPathParams, Request, State,
        rejection::RawPathParamsRejection,
    },
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tower_http::timeout::RequestBodyTimeoutLayer;

use super::{
    answer_headers::add_answer_headers,
    api::{Api, Operations},
    held_body::held_body,
    listen::{BusyMark, ClientNetwork, Peer, forwarded, method_label},
    login_failures::WINDOW,
    problem::{Problem, RouteError},
    recorded::act_of,
    request::Id,
    routes::{ROUTES, handler},
    unit_scope::UnitScope,
};
use crate::{
    clock::unix_now,
    deliveries::Refusal,
    domain::{
        Principal, Role,
        delivery::{AuditAct, ExpectedRevisions},
    },
    identity::{NotAuthentic, claimed_name},
    metrics,
    store::StoreError,
};

/// The router of the admin listener.
pub fn router(api: Api) -> Router {
    let server = &api.config.now().server;
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
            Some(role) => handler.route_layer(middleware::from_fn_with_state(
                (api.clone(), role, route.unit_scope(), route.recorded_action()),
                authenticate,
            )),
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

/// Lets a caller with the role through, and adds the principal to the request. Outside of its unit
/// a caller finds nothing. A request of a recorded route is recorded before it is carried out.
async fn authenticate(
    State((api, role, scope, recorded)): State<(Api, Role, UnitScope, Option<&'static str>)>,
    id: Option<Id>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let log_in = match log_in(&api, request.headers()).await {
        Ok(log_in) => log_in,
        Err(unavailable) => return Problem::from(Refusal::from(unavailable)).into_response(),
    };
    let mut principal = match log_in {
        Ok(principal) => principal,
        Err(error) => return failed_login(&api, &request, error).into_response(),
    };
    // a request that only reads is open to auditors, too
    let may = match request.method().is_safe() {
        true => principal.may_read(role),
        false => principal.may(role),
    };
    if !may {
        return Problem::from(Refusal::MissingRole(role)).into_response();
    }
    let permit = match api.operations.limits.principals.request(&principal.name) {
        Ok(permit) => permit,
        Err(problem) => return problem.into_response(),
    };
    principal.expects = match expected_revisions(request.headers()) {
        Ok(expected) => expected,
        Err(problem) => return problem.into_response(),
    };
    if let Err(refusal) = check_unit(&api, &principal, scope, id).await {
        return Problem::from(refusal).into_response();
    }
    // a path that cannot be read is refused by the handler
    if let (Some(action), Ok(params)) = (recorded, &params)
        && let Err(problem) = record(&api, act_of(&principal, action, params, &request)).await
    {
        return problem.into_response();
    }
    request.extensions_mut().insert(principal);
    let busy = request.extensions_mut().remove::<BusyMark>();
    next.run(request).await.map(|body| held_body(body, busy, permit))
}

/// Counts a failed log-in. If it gets a log line, the line has address and name, but never the
/// token.
///
/// The name is the one that a JWT claims; nothing proves it.
fn failed_login(api: &Api, request: &Request, error: NotAuthentic) -> Problem {
    metrics::login_failure();
    let Some(Peer(peer)) = request.extensions().get() else { return error.into() };
    let address = forwarded(*peer, request.headers(), &api.config.now().server.trusted_proxies);
    let failures = &api.operations.limits.failures;
    let most = api.config.now().auth.failures_per_minute;
    let verdict = failures.count(ClientNetwork::of(address), most, Instant::now());
    if verdict.logged {
        let name = bearer(request.headers()).ok().and_then(claimed_name);
        tracing::warn!(%address, name, reason = %error, "a log-in failed");
        if verdict.recorded {
            let details = json!({ "name": name, "reason": error.to_string() });
            record_failure(api, address.to_string(), details);
        }
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

/// Records a request in the log of operations. One that cannot be recorded in time is not done.
async fn record(api: &Api, act: AuditAct) -> Result<(), Problem> {
    let limit = Duration::from_millis(api.config.now().server.request_timeout_ms);
    match tokio::time::timeout(limit, api.operations.log.record(act)).await {
        Ok(recorded) => recorded.map_err(|error| Problem::from(Refusal::from(error))),
        Err(_) => Err(late()),
    }
}

/// Records a failed log-in in the log of operations.
fn record_failure(api: &Api, address: String, details: Value) {
    let principal = "unknown".to_owned();
    let act = AuditAct { subject: address, principal, action: "login_failed", details };
    let log = api.operations.log.clone();
    api.daemon.tracker.spawn(async move {
        if let Err(error) = log.record(act).await {
            tracing::warn!(%error, "a failed log-in is not recorded");
        }
    });
}

/// The principal who calls. A revoked bearer token is refused.
///
/// # Errors
/// If Redis does not say whether the token is revoked.
async fn log_in(
    api: &Api,
    headers: &HeaderMap,
) -> Result<Result<Principal, NotAuthentic>, StoreError> {
    let Operations { keyring, tokens, .. } = &api.operations;
    let keyring = keyring.now();
    let (token, principal) = match bearer(headers).and_then(|t| Ok((t, keyring.bearer(t)?))) {
        Ok(known) => known,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(known) = keyring.token(token) {
        let sha256 = known.sha256();
        if tokens.is_revoked(&sha256).await? {
            return Ok(Err(NotAuthentic::Revoked));
        }
        if let Err(error) = tokens.note_use(&sha256, unix_now()).await {
            tracing::warn!(%error, "the use of a bearer token is not noted");
        }
    }
    Ok(Ok(principal))
}

/// Refuses what lies outside of the principal's unit. `id` is the delivery that the path names.
async fn check_unit(
    api: &Api,
    principal: &Principal,
    scope: UnitScope,
    id: Option<Id>,
) -> Result<(), Refusal> {
    if principal.unit.is_none() {
        return Ok(());
    }
    match (scope, id) {
        (UnitScope::Filtered, _) => Ok(()),
        (UnitScope::WholeInstallation, _) => {
            Err(Refusal::NotYours("this is for principals without a unit"))
        }
        (UnitScope::OneDelivery, None) => Err(Refusal::NotFound),
        (UnitScope::OneDelivery, Some(Id(id))) => {
            let units = api.stores.deliveries.units(&[id]).await?;
            let unit = units.into_iter().next().flatten().ok_or(Refusal::NotFound)?;
            if principal.sees_unit(unit.as_deref()) { Ok(()) } else { Err(Refusal::NotFound) }
        }
    }
}

/// The precondition of a request (RFC 9110, 13.1.1).
fn expected_revisions(headers: &HeaderMap) -> Result<Option<ExpectedRevisions>, RouteError> {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    // several lines are one list (RFC 9110, 5.2)
    let lines: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
    let expected = lines.and_then(|lines| ExpectedRevisions::parse(&lines.join(", ")));
    expected.map(Some).ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "If-Match: must be * or entity tags in double quotes, such as \"7\"",
        )
        .with_field("If-Match")
        .into()
    })
}

/// Answers 503 when a request takes too long.
///
/// The action may have been done all the same. With an `Idempotency-Key` a new try does not do it
/// twice.
async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

fn late() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the request took longer than server.request_timeout_ms: ask again",
    )
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
