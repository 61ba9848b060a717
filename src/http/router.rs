//! The admin API. One table holds every route with the role it needs; the router is made of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::timeout::RequestBodyTimeoutLayer;

use super::{listen::Peer, login_failures::LoginFailures, problem::Problem, routes::ROUTES};
use crate::{
    config::Config,
    daemon::Daemon,
    deliveries::Deliveries,
    domain::Role,
    feedback::Feedback,
    identity::{Keyring, NotAuthentic},
    metrics::{self, DeliveryRatios},
    queue::{Queue, WorkerHealth},
    report::Reports,
    send::{Journey, recover::RedisState},
    store::Stores,
};

/// What the routes need.
#[derive(Clone)]
pub struct Api {
    pub stores: Stores,
    pub deliveries: Deliveries,
    pub journey: Journey,
    pub reports: Reports,
    pub feedback: Feedback,
    pub operations: Operations,
    pub daemon: Daemon,
    pub config: Arc<Config>,
}

/// What operators ask of.
#[derive(Clone)]
pub struct Operations {
    pub queue: Queue,
    pub health: WorkerHealth,
    pub keyring: Arc<Keyring>,
    pub ratios: DeliveryRatios,
    pub redis_state: RedisState,
    pub metrics: PrometheusHandle,
    pub failures: LoginFailures,
}

/// The router of the admin listener.
pub fn router(api: Api) -> Router {
    let server = &api.config.server;
    let limit = server.body_limit_kib * 1024;
    let request_timeout = Duration::from_millis(server.request_timeout_ms);
    let stalled = RequestBodyTimeoutLayer::new(Duration::from_millis(server.stall_timeout_ms));
    let mut router = Router::new();
    for route in ROUTES {
        let handler = super::routes::handler(route);
        // an upload takes as long as it takes; that it does not stall is seen to below
        let handler = match route.path.ends_with("/audience") {
            true => handler,
            false => handler.route_layer(middleware::from_fn_with_state(request_timeout, in_time)),
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

/// Lets through who has the role, as an extension of the request.
async fn authenticate(
    State((api, role)): State<(Api, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = match bearer(request.headers())
        .and_then(|token| api.operations.keyring.bearer(token))
    {
        Ok(principal) => principal,
        Err(error) => {
            metrics::login_failure();
            let first = Duration::from_millis(api.config.auth.failure_pause_ms);
            if let Some(Peer(ip)) = request.extensions().get() {
                tokio::time::sleep(api.operations.failures.pause(*ip, first, Instant::now())).await;
            }
            return Problem::from(error).into_response();
        }
    };
    if !principal.may(role) {
        return Problem::from(crate::deliveries::Refusal::MissingRole(role)).into_response();
    }
    request.extensions_mut().insert(principal);
    next.run(request).await
}

/// Answers at last, whatever it waits for. What was begun may have been done: with an Idempotency-Key it is not done twice.
async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let late = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "it took longer than server.request_timeout_ms: ask again",
        )
    };
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

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

/// A method as a metric's label: a client may make any up.
pub fn known(method: &Method) -> &'static str {
    ["GET", "POST", "PUT", "DELETE"].into_iter().find(|known| method == known).unwrap_or("other")
}

async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let response = next.run(request).await;
    metrics::http_request(&route, method, response.status().as_u16(), began.elapsed());
    response
}
