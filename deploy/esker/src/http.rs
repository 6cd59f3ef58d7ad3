//! The HTTP door of a process: `/healthz`, `/readyz` and `/metrics` for whatever roles run in it.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// Answers `Ok` when a role can do its work, else one line that says what it waits for.
pub type Readiness = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Shared {
    registry: Registry,
    ready: Vec<(&'static str, Readiness)>,
}

/// Binds early, so that a port in use is known before a role takes up work.
pub async fn bind(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "can't listen on {address} for HTTP; choose another with --http or the key `http`, or stop what uses it"
        )
    })
}

pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    ready: Vec<(&'static str, Readiness)>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Shared { registry, ready }));
    axum::serve(listener, app).with_graceful_shutdown(stop).await.context("the HTTP door failed")
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let waiting: Vec<String> =
        shared.ready.iter().filter_map(|(role, ready)| Some(format!("{role}: {}\n", ready().err()?))).collect();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, waiting.concat()).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    if encode(&mut text, &shared.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
