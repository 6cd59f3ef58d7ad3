//! A running metadata node.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use esker_cache::Store;
use esker_cache::store::StoreMetrics;
use esker_cache_core::backup::BackupName;
use esker_metadata_core::State;
use esker_net::{Address, BoxFuture, Network, Pool, serve};
use openraft::SnapshotPolicy;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Birth};
use crate::backup::Backups;
use crate::config::Config;
use crate::controller::Controller;
use crate::cookie::CookieRecord;
use crate::error::StartError;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::proposer::proposer;
use crate::raft::contact::Contact;
use crate::raft::disk::{Disk, Write};
use crate::raft::elections::{Elections, Timing};
use crate::raft::log_store::LogStore;
use crate::raft::machine::{Applied, Machine};
use crate::raft::rpc::RaftDoor;
use crate::raft::snapshot::SnapshotDir;
use crate::raft::transport::Transport;
use crate::raft::{Raft, Voter};
use crate::reads::reads;
use crate::service::Door;

const LOG_FILE: &str = "raft.redb";
const SNAPSHOTS: &str = "snapshots";
/// A log of so many bytes in memory is worth a snapshot, however few entries it has.
const LOG_BYTES_MAX: usize = 64 << 20;
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// For a whole snapshot but its last piece: openraft's default is far too short for a slow network.
const SNAPSHOT_PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a node stands, for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub term: u64,
    /// Id of the leader that this node knows.
    pub leader: Option<u64>,
    pub voters: BTreeSet<u64>,
    /// Last entry applied.
    pub applied: u64,
    /// Last entry of the log, committed or not.
    pub last: u64,
    /// Last entry that the newest snapshot covers.
    pub snapshot: Option<u64>,
    /// Last entry that is gone from the log.
    pub purged: Option<u64>,
    /// How often another member's state differed. Anything but 0 is a bug.
    pub hash_mismatches: u64,
}

/// What a server is given.
pub struct Deps<'a> {
    /// Identity with role metadata. Its cluster is set here as soon as it is known; if it is set already, the data
    /// directory must belong to it.
    pub network: Network,
    pub registry: &'a mut Registry,
    /// Begins the stop, like [`Server::stop`].
    pub cancel: CancellationToken,
    /// Some: this node is the only voter of a cluster that it makes itself if it is not made yet (standalone).
    pub birth: Option<Birth>,
}

pub struct Server {
    address: Address,
    raft: Raft,
    applied: Arc<Applied>,
    leadership: Leadership,
    disk: Disk,
    tasks: TaskTracker,
    cancel: CancellationToken,
    fault: Arc<Mutex<Option<String>>>,
    metrics: Arc<Metrics>,
    backups: Arc<watch::Sender<Option<BackupName>>>,
    backup_failures: Arc<watch::Sender<u32>>,
    node: u64,
}

impl Server {
    /// Opens the data directory and the port. With `birth` it returns when the cluster is there; otherwise at once,
    /// and [`Server::ready`] tells the rest.
    ///
    /// Boxed, so that whoever starts a server need not compile all of raft again.
    pub fn start(config: Config, deps: Deps<'_>) -> BoxFuture<'_, Result<Self, StartError>> {
        Box::pin(Self::start_unboxed(config, deps))
    }

    async fn start_unboxed(config: Config, deps: Deps<'_>) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let Deps { network, registry, cancel, birth } = deps;
        let boot = network.identity().boot;
        let metrics = Arc::new(Metrics::new(registry));
        let objects = &config.objects;
        let store = match objects.url.as_str() {
            "" => None,
            url => Some(Store::open(url, objects.store.clone(), StoreMetrics::default())?),
        };
        let Opened { disk, log, machine, cookie } = open(&config, &network, &metrics).await?;
        let applied = machine.applied().clone();

        let listen: Address = config.listen.parse().map_err(|e| StartError::Config(format!("listen: {e}")))?;
        let listener = network.listen(&listen).await?;
        let bound = listener.local_address().clone();
        let address = match config.advertised.as_str() {
            "" => bound,
            text => text.parse().map_err(|e| StartError::Config(format!("advertised: {e}")))?,
        };

        let pool = Pool::new(network.clone());
        let transport = Transport::new(pool.clone(), applied.clone());
        let raft_config = Arc::new(raft_config(&config)?);
        let raft = Raft::new(cookie.node, raft_config, transport.clone(), log.clone(), machine.clone()).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;

        let contact = Arc::new(Contact::default());
        let leadership = Leadership::new(cookie.node, raft.clone(), config.leader_lease.0);
        let (proposer, propose_task) = proposer(raft.clone(), leadership.clone(), metrics.clone());
        let (reads, reads_task) = reads(raft.clone(), metrics.clone());
        let (controller, lease) = Controller::new(
            applied.clone(),
            leadership.clone(),
            proposer.clone(),
            pool.clone(),
            metrics.clone(),
            config.session_ttl.0,
            config.moves_at_once,
        );
        let voter = Voter { name: config.node_name.clone(), address: address.to_string() };
        let door = Arc::new(Door {
            raft: RaftDoor {
                me: cookie.node,
                raft: raft.clone(),
                log: log.clone(),
                machine,
                contact: contact.clone(),
                lease: config.leader_lease.0,
                incoming: tokio::sync::Mutex::default(),
            },
            admin: Admin {
                me: cookie.node,
                voter: voter.clone(),
                raft: raft.clone(),
                applied: applied.clone(),
                leadership: leadership.clone(),
                proposer,
                pool,
                changing: tokio::sync::Mutex::default(),
            },
            reads,
            lease,
            renewals: Mutex::default(),
            metrics: metrics.clone(),
            cancel: cancel.clone(),
        });

        let fault = Arc::new(Mutex::new(None));
        let tasks = TaskTracker::new();
        let timing = Timing { lease: config.leader_lease.0, slot: config.election_slot.0 };
        let elections = Elections {
            me: cookie.node,
            raft: raft.clone(),
            log: log.clone(),
            contact,
            transport,
            timing,
            metrics: metrics.clone(),
        };
        tasks.spawn(serve(listener, door.clone(), cancel.clone()));
        tasks.spawn(elections.run(cancel.clone()));
        tasks.spawn(leadership.clone().run(cancel.clone()));
        tasks.spawn(propose_task.run(cancel.clone()));
        tasks.spawn(reads_task.run(cancel.clone()));
        tasks.spawn(controller.run(cancel.clone()));
        tasks.spawn(learn_cluster(applied.clone(), network, cookie.clone(), disk.clone(), cancel.clone()));
        let backups = Arc::new(watch::Sender::new(None));
        let backup_failures = Arc::new(watch::Sender::new(0));
        if let Some(store) = store {
            let task = Backups {
                store,
                config: config.objects.clone(),
                node: cookie.node,
                boot,
                applied: applied.clone(),
                leadership: leadership.clone(),
                metrics: metrics.clone(),
                newest: backups.clone(),
                failures: backup_failures.clone(),
            };
            tasks.spawn(task.run(cancel.clone()));
        }
        let upkeep = upkeep(raft.clone(), log, leadership.clone(), applied.clone(), metrics.clone(), cancel.clone());
        tasks.spawn(upkeep);
        tasks.spawn(guard(raft.clone(), fault.clone(), cancel.clone()));
        tasks.close();

        let server = Self {
            address,
            raft,
            applied,
            leadership,
            disk,
            tasks,
            cancel,
            fault,
            metrics,
            backups,
            backup_failures,
            node: cookie.node,
        };
        if let Some(birth) = birth
            && let Err(error) = server.be_born(&door.admin, voter, birth).await
        {
            server.stop().await;
            return Err(error);
        }
        tracing::info!(node = cookie.node, address = %server.address, "metadata node is up");
        Ok(server)
    }

    async fn be_born(&self, admin: &Admin, voter: Voter, birth: Birth) -> Result<(), StartError> {
        let fail = |error: String| StartError::Raft(error);
        if !self.raft.is_initialized().await.map_err(|error| fail(error.to_string()))? {
            let alone = std::collections::BTreeMap::from([(self.node, voter)]);
            self.raft.initialize(alone).await.map_err(|error| fail(error.to_string()))?;
        }
        let born = self.cancel.run_until_cancelled(admin.give_birth(birth)).await;
        match born {
            Some(Ok(_)) => Ok(()),
            Some(Err(info)) => Err(fail(info.message)),
            None => Err(fail("stopped while it started".to_owned())),
        }
    }

    /// Where others reach this node.
    pub fn addresses(&self) -> Vec<Address> {
        vec![self.address.clone()]
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// This node's id in the quorum.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Ok if this node belongs to a cluster that has a leader.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(fault) = self.fault.lock().clone() {
            return Err(fault);
        }
        let metrics = self.raft.metrics().borrow().clone();
        if metrics.current_leader.is_none() {
            return Err("the metadata quorum has no leader".to_owned());
        }
        match self.applied.read(|state| state.cluster().is_some()) {
            true => Ok(()),
            false => Err("the cluster is not made yet: esker cluster init".to_owned()),
        }
    }

    /// True while this node leads and a quorum has confirmed it.
    pub fn leads(&self) -> bool {
        self.leadership.is_established()
    }

    /// Follows [`Server::leads`]: the term that this node leads.
    pub fn leading(&self) -> watch::Receiver<Option<u64>> {
        self.leadership.established()
    }

    /// Looks at the state as this node has applied it. Keep `look` short: apply waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.applied.read(look)
    }

    /// Follows the revision of that state.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.applied.news.revision()
    }

    /// Follows the newest copy of the state that this node has put into the bucket.
    pub fn backups(&self) -> watch::Receiver<Option<BackupName>> {
        self.backups.subscribe()
    }

    /// Follows how many copies in a row did not get there.
    pub fn backup_failures(&self) -> watch::Receiver<u32> {
        self.backup_failures.subscribe()
    }

    pub fn status(&self) -> Status {
        let now = self.raft.metrics().borrow().clone();
        Status {
            term: now.current_term,
            leader: now.current_leader,
            voters: now.membership_config.voter_ids().collect(),
            applied: now.last_applied.map_or(0, |log_id| log_id.index),
            last: now.last_log_index.unwrap_or(0),
            snapshot: now.snapshot.map(|log_id| log_id.index),
            purged: now.purged.map(|log_id| log_id.index),
            hash_mismatches: self.metrics.hash_mismatches(),
        }
    }

    /// Writes a snapshot soon, whatever the settings say. What it covers leaves the log, but for `entries-kept`.
    pub fn write_snapshot(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.raft.trigger().snapshot().await.map_err(|error| error.to_string()) })
    }

    /// Completes with the reason when this node can't go on: the process must end.
    pub fn failed(&self) -> BoxFuture<'_, String> {
        Box::pin(self.failed_unboxed())
    }

    async fn failed_unboxed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            if let Some(fault) = self.fault.lock().clone() {
                return fault;
            }
            if metrics.changed().await.is_err() {
                let fault = self.fault.lock().clone();
                if self.cancel.is_cancelled() && fault.is_none() {
                    // A stop is no failure.
                    std::future::pending::<()>().await;
                }
                return fault.unwrap_or_else(|| "raft has stopped".to_owned());
            }
        }
    }

    /// Stops taking requests, then stops raft, then closes the log. Everything promised is on disk before anyway.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stop_unboxed())
    }

    async fn stop_unboxed(&self) {
        self.cancel.cancel();
        self.tasks.wait().await;
        self.disk.raft_ends().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        self.disk.close().await;
    }
}

struct Opened {
    disk: Disk,
    log: LogStore,
    machine: Machine,
    cookie: CookieRecord,
}

async fn open(config: &Config, network: &Network, metrics: &Arc<Metrics>) -> Result<Opened, StartError> {
    let path = config.data_dir.clone();
    let io = |error: std::io::Error| StartError::DataDir { path: path.clone(), reason: error.to_string() };
    std::fs::create_dir_all(&config.data_dir).map_err(io)?;
    let (disk, mut stored) = Disk::open(&config.data_dir.join(LOG_FILE), metrics.clone())?;
    sync_dir(&config.data_dir).map_err(io)?;
    let dir = SnapshotDir::open(config.data_dir.join(SNAPSHOTS)).map_err(io)?;
    let cookie = match stored.cookie.take() {
        Some(cookie) => cookie,
        None => {
            if !dir.list().map_err(io)?.is_empty() {
                return Err(StartError::HalfEmpty { path: config.data_dir.clone() });
            }
            let cookie = CookieRecord::born(&config.node_name)?;
            disk.write(Write::Cookie(cookie.clone())).await.map_err(io)?;
            cookie
        }
    };
    let machine = Machine::open(dir, metrics.clone())?;
    let known = cookie.cluster_id().or_else(|| machine.applied().read(|state| state.cluster().map(|c| c.id)));
    match (network.cluster(), known) {
        (Some(expected), Some(found)) if expected != found => {
            return Err(StartError::WrongCluster { path: config.data_dir.clone(), found, expected });
        }
        (None, Some(found)) => network.set_cluster(found),
        _ => {}
    }
    let log = LogStore::new(disk.clone(), stored);
    Ok(Opened { disk, log, machine, cookie })
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

fn raft_config(config: &Config) -> Result<openraft::Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let lease = millis(config.leader_lease.0);
    openraft::Config {
        cluster_name: "esker".to_owned(),
        // Elections are begun by `raft::elections`; openraft uses the larger of these as the leader's lease, and the
        // smaller as the patience with a vote.
        enable_elect: false,
        election_timeout_min: lease - 1,
        election_timeout_max: lease,
        heartbeat_interval: millis(config.heartbeat.0),
        install_snapshot_timeout: millis(SNAPSHOT_PIECE_TIMEOUT),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.entries_kept,
        purge_batch_size: 1,
        // A follower that is further behind than the entries kept needs a snapshot anyway.
        replication_lag_threshold: config.entries_kept.max(1),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| StartError::Config(error.to_string()))
}

/// Once the cluster is known, writes it into the cookie and tells it to every peer from then on.
async fn learn_cluster(
    applied: Arc<Applied>,
    network: Network,
    mut cookie: CookieRecord,
    disk: Disk,
    cancel: CancellationToken,
) {
    let mut revisions = applied.news.revision();
    loop {
        revisions.borrow_and_update();
        if let Some(cluster) = applied.read(|state| state.cluster().map(|cluster| cluster.id)) {
            network.set_cluster(cluster);
            if cookie.cluster_id() != Some(cluster) {
                cookie.cluster = cluster.0.to_vec();
                if let Err(error) = disk.write(Write::Cookie(cookie)).await {
                    tracing::error!(%error, "the cluster's id was not written to the data directory");
                }
            }
            return;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            changed = revisions.changed() => if changed.is_err() { return },
        }
    }
}

/// Shows raft's numbers, and keeps the log in memory short.
async fn upkeep(
    raft: Raft,
    log: LogStore,
    leadership: Leadership,
    state: Arc<Applied>,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    while cancel.run_until_cancelled(tick.tick()).await.is_some() {
        let (term, applied) = {
            let now = raft.metrics();
            let now = now.borrow();
            (now.current_term, now.last_applied.map_or(0, |log_id| log_id.index))
        };
        metrics.raft(leadership.is_established(), term, applied, log.bytes());
        metrics.state(state.read(State::accounted_bytes));
        if log.bytes() > LOG_BYTES_MAX && raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Notices when raft can't go on.
async fn guard(raft: Raft, fault: Arc<Mutex<Option<String>>>, cancel: CancellationToken) {
    let mut metrics = raft.metrics();
    loop {
        if let Err(fatal) = &metrics.borrow_and_update().running_state {
            let reason = format!("metadata: {fatal}");
            if !cancel.is_cancelled() {
                tracing::error!(reason, "this metadata node can't go on");
                *fault.lock() = Some(reason);
            }
            return;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            changed = metrics.changed() => if changed.is_err() { return },
        }
    }
}
