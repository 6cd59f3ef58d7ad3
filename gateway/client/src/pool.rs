//! Connections to gateways, a few to each, opened when first needed and again when lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_types::BootId;
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::Mutex as AsyncMutex;

use crate::config::ClientConfig;
use crate::connection::Connection;
use crate::error::Error;

/// After a failed connect, others asking for the same server are told of it for so long instead of waiting again.
const FAILURE_REMEMBERED: Duration = Duration::from_millis(100);
/// Servers remembered; more only come from a cluster that changes its addresses all the time.
const SERVERS_MAX: usize = 4096;

pub(crate) struct Pool {
    pub(crate) config: ClientConfig,
    tls: Arc<QuicClientConfig>,
    boot: BootId,
    servers: Mutex<HashMap<String, Arc<[Slot]>>>,
}

/// Room for one connection. The lock is held while connecting, so that waiting callers share the result.
#[derive(Debug, Default)]
struct Slot {
    current: AsyncMutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    connection: Option<Arc<Connection>>,
    failed: Option<(Instant, Error)>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(config: ClientConfig, tls: Arc<QuicClientConfig>, boot: BootId) -> Self {
        Self { config, tls, boot, servers: Mutex::new(HashMap::new()) }
    }

    /// A live connection to `server`. Equal `lane`s share one, different lanes are spread over several.
    pub(crate) async fn connection(&self, server: &str, lane: u64) -> Result<Arc<Connection>, Error> {
        let slots = self.slots(server);
        let slot = &slots[(lane % slots.len() as u64) as usize];
        let mut current = slot.current.lock().await;
        if let Some(connection) = current.connection.as_ref().filter(|c| !c.is_closed()) {
            return Ok(connection.clone());
        }
        current.connection = None;
        if let Some((_, error)) = current.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_REMEMBERED) {
            return Err(error.clone());
        }
        match Connection::open(server, &self.config, self.tls.clone(), self.boot).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *current = Current { connection: Some(connection.clone()), failed: None };
                Ok(connection)
            }
            Err(error) => {
                current.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// True if a live connection to `server` is at hand.
    pub(crate) fn is_connected(&self, server: &str) -> bool {
        let slots = self.servers.lock().get(server).cloned();
        slots.is_some_and(|slots| slots.iter().any(Slot::is_live))
    }

    /// Closes `connection`, which does not answer. Its other users notice at once and connect anew.
    pub(crate) fn give_up(&self, connection: &Connection) {
        connection.close();
    }

    /// Closes all connections and waits until the peers know.
    pub(crate) async fn close(&self) {
        let all: Vec<Arc<[Slot]>> = self.servers.lock().drain().map(|(_, slots)| slots).collect();
        for slot in all.iter().flat_map(|slots| slots.iter()) {
            let connection = slot.current.lock().await.connection.take();
            if let Some(connection) = connection {
                connection.close();
                connection.closed().await;
            }
        }
    }

    fn slots(&self, server: &str) -> Arc<[Slot]> {
        let mut servers = self.servers.lock();
        if !servers.contains_key(server) && servers.len() >= SERVERS_MAX {
            servers.retain(|_, slots| slots.iter().any(Slot::is_live));
        }
        let fresh = || (0..self.config.connections_per_gateway).map(|_| Slot::default()).collect();
        servers.entry(server.to_owned()).or_insert_with(fresh).clone()
    }
}

impl Slot {
    fn is_live(&self) -> bool {
        self.current.try_lock().is_ok_and(|current| current.connection.as_ref().is_some_and(|c| !c.is_closed()))
    }
}
