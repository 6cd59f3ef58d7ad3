use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::KafkaConfig;
use super::connection;
use crate::auth::Principal;
use crate::gateway::Gateway;
use crate::groups::Groups;

/// After a failure to accept, which comes from the system having no more to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error("can't listen for Kafka clients on {address} (kafka.listen): {source}")]
    Bind { address: String, source: std::io::Error },
    #[error("kafka.{key} {path}: {reason}")]
    Pem { key: &'static str, path: PathBuf, reason: String },
    #[error("TLS for Kafka clients: {0}")]
    Tls(String),
}

/// The port, bound and with its certificate read.
pub struct KafkaListener {
    listener: TcpListener,
    pub address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

/// The Kafka door.
pub struct KafkaDoor {
    pub gateway: Arc<Gateway>,
    /// Coordinators of consumer groups.
    pub groups: Groups,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
    pub listener: KafkaListener,
    /// `kafka.total-inflight`.
    pub requests: Arc<Semaphore>,
    /// `kafka.fetch-total`.
    pub fetches: Arc<Semaphore>,
    /// `kafka.replays`.
    pub replays: Arc<Semaphore>,
    open: Arc<Open>,
}

impl KafkaDoor {
    pub fn new(
        gateway: Arc<Gateway>,
        groups: Groups,
        listener: KafkaListener,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let config = &gateway.config.kafka;
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self {
            requests: room(config.total_inflight.as_usize()),
            fetches: room(config.fetch_total.as_usize()),
            replays: room(config.replays as usize),
            open: Arc::default(),
            gateway,
            groups,
            tasks,
            cancel,
            listener,
        }
    }
}

pub async fn open(config: &KafkaConfig) -> Result<KafkaListener, ListenerError> {
    let bind = |source| ListenerError::Bind { address: config.listen.clone(), source };
    let listener = TcpListener::bind(&config.listen).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let tls = match config.cert.as_os_str().is_empty() {
        true => None,
        false => Some(TlsAcceptor::from(Arc::new(tls_config(&config.cert, &config.key)?))),
    };
    Ok(KafkaListener { listener, address, tls })
}

fn tls_config(cert: &Path, key: &Path) -> Result<rustls::ServerConfig, ListenerError> {
    let pem =
        |key: &'static str, path: &Path, reason: String| ListenerError::Pem { key, path: path.to_owned(), reason };
    let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|e| pem("cert", cert, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| pem("key", key, e.to_string()))?;
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| ListenerError::Tls(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| ListenerError::Tls(e.to_string()))
}

/// Takes connections until cancelled.
pub async fn accept(door: Arc<KafkaDoor>) {
    loop {
        let Some(accepted) = door.cancel.run_until_cancelled(door.listener.listener.accept()).await else { return };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't take a Kafka client's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let config = &door.gateway.config.kafka;
        let limits = (config.connections_max as usize, config.connections_per_address as usize);
        let Some(place) = door.open.enter(from.ip(), limits) else {
            door.gateway.metrics.kafka_connections_refused.inc();
            tracing::debug!(%from, "too many Kafka connections");
            continue;
        };
        let (running, cancel) = (door.clone(), door.cancel.clone());
        door.tasks.spawn(async move {
            running.gateway.metrics.kafka_connections.inc();
            cancel.run_until_cancelled(serve(&running, stream, from)).await;
            running.gateway.metrics.kafka_connections.dec();
            drop(place);
        });
    }
}

async fn serve(door: &Arc<KafkaDoor>, stream: TcpStream, from: SocketAddr) {
    // Answers are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let principal = Principal { name: Arc::from("anonymous"), from };
    match &door.listener.tls {
        None => {
            let (read, write) = stream.into_split();
            connection::serve(door, principal, read, write).await;
        }
        Some(tls) => {
            let limit = door.gateway.config.kafka.first_request_timeout.0;
            match tokio::time::timeout(limit, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let (read, write) = tokio::io::split(stream);
                    connection::serve(door, principal, read, write).await;
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "TLS handshake of a Kafka client failed"),
                Err(_) => tracing::debug!(%from, "TLS handshake of a Kafka client took too long"),
            }
        }
    }
}

/// Connections by address.
#[derive(Default)]
struct Open {
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; gives it back when dropped.
struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Open {
    fn enter(self: &Arc<Self>, address: IpAddr, (max, per_address): (usize, usize)) -> Option<Place> {
        let mut by_address = self.by_address.lock();
        let all: usize = by_address.values().sum();
        let here = by_address.get(&address).copied().unwrap_or(0);
        if all >= max || here >= per_address {
            return None;
        }
        by_address.insert(address, here + 1);
        Some(Place { open: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.open.by_address.lock();
        match by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_address_and_given_back() {
        let open = Arc::new(Open::default());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = open.enter(a, (3, 2)).expect("room");
        let _second = open.enter(a, (3, 2)).expect("room");
        assert!(open.enter(a, (3, 2)).is_none(), "two of one address");
        let _third = open.enter(b, (3, 2)).expect("room for another");
        assert!(open.enter(b, (3, 2)).is_none(), "three in all");
        drop(first);
        assert!(open.enter(a, (3, 2)).is_some());
    }
}
