//! The server around the journal: start, connections, upkeep.

mod boot;
mod disk_room;
mod identity;
mod register;
mod service;
mod upkeep;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use esker_metadata_client::MetadataStore;
use esker_net::{Address, BadAddress, ListenError, Listener, Network, serve};
use esker_types::{BookieId, InstanceId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use identity::IdentityError;
pub use register::RegisterError;

use crate::config::Config;
use crate::cookie::CookieError;
use crate::disk::{DiskHooks, RealDisk, dir};
use crate::journal::{Journal, JournalFailed};
use crate::metrics::Metrics;
use disk_room::DiskRoom;
use register::Directory;
use service::BookieService;
use upkeep::Upkeep;

/// What a bookie needs from the process that it lives in.
pub struct Deps<'a> {
    /// Links to others, under this node's name and certificates.
    pub network: Network,
    pub store: Arc<dyn MetadataStore>,
    pub registry: &'a mut Registry,
    /// Ends the server. [`Server::stop`] does the same and waits.
    pub cancel: CancellationToken,
    /// None: the real disk, and the end of the process when it fails.
    pub hooks: Option<Arc<dyn DiskHooks>>,
}

/// Why the bookie does not start. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("config: {0}")]
    Config(String),
    #[error("config: listen: {0}")]
    Address(#[from] BadAddress),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: another process uses this data directory", .0.display())]
    InUse(PathBuf),
    #[error(transparent)]
    Cookie(#[from] CookieError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Register(RegisterError),
    #[error(transparent)]
    Journal(#[from] JournalFailed),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the journal has files of format {0}, which is newer than this program knows: start the newer version")]
    NewerFormat(u32),
    #[error("stopped while starting")]
    Cancelled,
}

impl StartError {
    fn io(config: &Config, source: io::Error) -> Self {
        Self::Io { path: config.data_dir.clone(), source }
    }
}

impl From<RegisterError> for StartError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Cancelled => Self::Cancelled,
            other => Self::Register(other),
        }
    }
}

/// A running bookie.
pub struct Server {
    address: Address,
    bookie: BookieId,
    instance: InstanceId,
    journal: Journal,
    #[cfg(test)]
    room: Arc<DiskRoom>,
    cancel: CancellationToken,
    serving: Mutex<Option<JoinHandle<()>>>,
    tasks: TaskTracker,
    /// Why the process must end, once that is so.
    fault: watch::Receiver<Option<String>>,
    _lock: dir::Lock,
}

impl Server {
    /// Starts a bookie: reads its journal, registers it, and opens its port. Returns when it serves; while metadata is
    /// out of reach, or the cluster is not born, it waits, and the port stays shut. Cancelled by `deps.cancel`.
    ///
    /// # Errors
    /// One line that says what to do. The instance may be registered by then; nothing else has changed.
    pub async fn start(config: Config, deps: Deps<'_>) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let listen: Address = config.listen.parse()?;
        let Deps { network, store, registry, cancel, hooks } = deps;
        let cancel = cancel.child_token();
        let hooks = hooks.unwrap_or_else(|| Arc::new(RealDisk));
        let metrics = Metrics::new(registry);
        let lock = boot::take_directory(&config.data_dir)?;
        let directory = Directory::new(store.clone(), cancel.clone());

        let mut identified = boot::identify(&config, &directory).await?;
        network.set_cluster(identified.cookie.cluster);
        let evidence = boot::evidence(&config, &identified)?;
        let ids = boot::ids(&identified.cookie);
        let scan_config = config.clone();
        let restored = tokio::task::spawn_blocking(move || boot::load(&scan_config, ids, &evidence)).await;
        let restored = restored.map_err(|_| StartError::Cancelled)??;

        // A free port is only known once it is bound; nothing is read from it before the journal is open.
        let early = match &listen {
            Address::Tcp { port: 0, .. } => Some(network.listen(&listen).await?),
            _ => None,
        };
        let bound = early.as_ref().map_or(&listen, Listener::local_address).clone();
        let address = if config.advertised.is_empty() { bound.to_string() } else { config.advertised.clone() };
        let boot = network.identity().boot;
        let config = Arc::new(config);
        let whoami = boot::Registry { config: &config, directory: &directory, boot, address };
        let registered = whoami.register(&mut identified, restored.next_lsn).await?;
        let facts = whoami.facts(ids.instance, restored.needs_names()).await?;
        let (bookie, journal_metrics) = (registered.bookie, metrics.clone());
        let journal = boot::open_journal(&config, &identified, bookie, restored, facts, hooks, journal_metrics).await?;

        let room = Arc::new(DiskRoom::new(&config));
        #[cfg(test)]
        let room_seen = room.clone();
        let listener = match early {
            Some(listener) => listener,
            None => match network.listen(&listen).await {
                Ok(listener) => listener,
                Err(error) => {
                    journal.stop().await;
                    return Err(error.into());
                }
            },
        };
        let address = listener.local_address().clone();
        let read_bytes_max = u32::try_from(config.read.max_bytes.0).unwrap_or(u32::MAX);
        let service = BookieService { journal: journal.clone(), room: room.clone(), read_bytes_max };
        let (fault_tx, fault) = watch::channel(None);
        let upkeep = Arc::new(Upkeep {
            config,
            journal: journal.clone(),
            room,
            network,
            store,
            metrics,
            fault: fault_tx,
            cancel: cancel.clone(),
            boot,
            registered,
            ids,
            incarnation: identified.incarnation,
            news: Notify::new(),
        });
        let tasks = TaskTracker::new();
        upkeep.spawn(&tasks);
        tasks.close();
        let serving = tokio::spawn(serve(listener, Arc::new(service), cancel.clone()));
        tracing::info!(%address, bookie = bookie.0, instance = %ids.instance, "bookie serves");
        Ok(Self {
            address,
            bookie,
            instance: ids.instance,
            journal,
            #[cfg(test)]
            room: room_seen,
            cancel,
            serving: Mutex::new(Some(serving)),
            tasks,
            fault,
            _lock: lock,
        })
    }

    /// Where the internal port is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn bookie(&self) -> BookieId {
        self.bookie
    }

    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// For `/readyz`.
    ///
    /// # Errors
    /// Why this bookie should not be relied on now.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(fault) = self.fault.borrow().as_ref() {
            return Err(fault.clone());
        }
        if self.cancel.is_cancelled() {
            return Err("stopping".to_owned());
        }
        match self.journal.look(|state| state.is_poisoned()) {
            true => Err("the journal failed".to_owned()),
            false => Ok(()),
        }
    }

    /// Waits for a fault after which the process must end; for ever if there is none. Cancel-safe.
    pub async fn failed(&self) -> String {
        let mut fault = self.fault.clone();
        let told = async {
            match fault.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                // The upkeep has ended without a fault: the server was stopped.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            failed = self.journal.failed() => failed.to_string(),
            reason = told => reason,
        }
    }

    /// Takes nothing more, writes what was taken, and returns when all is on disk.
    pub async fn stop(&self) {
        self.cancel.cancel();
        let serving = self.serving.lock().take();
        if let Some(serving) = serving {
            // A panic in there has been reported by the panic hook.
            let _ = serving.await;
        }
        self.tasks.wait().await;
        self.journal.stop().await;
    }

    /// Ends as a crash would. For tests.
    pub async fn kill(&self) {
        self.journal.kill().await;
        self.stop().await;
    }
}

impl Drop for Server {
    /// Without [`Server::stop`] nobody waits, but the tasks end and the journal's thread writes what it has.
    fn drop(&mut self) {
        self.cancel.cancel();
        self.journal.close();
    }
}
