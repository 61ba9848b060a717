//! Health and metrics on a listener of their own, in a thread of their own.
//!
//! A flood on the other listeners leaves the slots and the thread of this listener free.

use std::{io, net, sync::Arc, thread};

use axum::{Router, http::StatusCode, middleware, routing::get};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    api::Api,
    listen::{ListenerOptions, serve},
    operation_routes,
    problem::Problem,
    router::observe,
};

/// Serves `/healthz`, `/readyz` and `/metrics` in a new thread until `end` is cancelled. `tasks`
/// waits for the thread, too.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn serve_health(
    listener: net::TcpListener,
    api: Api,
    end: CancellationToken,
    tasks: TaskTracker,
) -> io::Result<()> {
    let options = ListenerOptions {
        server: api.config.now().server.clone(),
        trusted_proxies: Vec::new(),
        tls: None,
    };
    let router = health_router(api);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let alive = tasks.token();
    thread::Builder::new().name("health".to_owned()).spawn(move || {
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let own = TaskTracker::new();
                    serve(listener, router, options, end, own.clone()).await;
                    own.close();
                    own.wait().await;
                }
                Err(error) => tracing::error!(%error, "server.health_listen cannot be served"),
            }
        });
        drop(alive);
    })?;
    Ok(())
}

fn health_router(api: Api) -> Router {
    Router::new()
        .route("/healthz", get(operation_routes::healthz))
        .route("/readyz", get(operation_routes::readyz))
        .route("/metrics", get(operation_routes::metrics))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route has no such method")
        })
        .layer(middleware::from_fn(observe))
        .with_state(Arc::new(api))
}
