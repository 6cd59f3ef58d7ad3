//! What every process does around its role: HTTP beside it, signals, an orderly end.

use std::future::Future;

use anyhow::{Result, bail};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::http::{self, Readiness};

/// Serves HTTP until the process is told to stop or a role fails; an error if one failed.
///
/// The HTTP door outlives this call: `/metrics` answers also while roles stop. Cancel `closed` at the very end.
pub async fn until_stopped(failed: impl Future<Output = String>) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        reason = failed => bail!("{reason}"),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}

pub fn serve_http(
    listener: TcpListener,
    registry: Registry,
    ready: Vec<(&'static str, Readiness)>,
    closed: &CancellationToken,
) {
    let stop = closed.clone().cancelled_owned();
    tokio::spawn(async move {
        if let Err(error) = http::serve(listener, registry, ready, stop).await {
            tracing::error!(error = format!("{error:#}"), "the HTTP door failed");
        }
    });
}
