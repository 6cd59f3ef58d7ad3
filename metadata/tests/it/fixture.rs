//! Clusters of metadata nodes, and a client of them.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_metadata::{Birth, Config, Deps, Server, StartError};
use esker_metadata_client::admin::{self, AdminAsk, AdminReply, InitCluster};
use esker_metadata_client::{MetadataStore, ProposeError, RemoteConfig, RemoteStore};
use esker_metadata_core::{Command, CreateTopic, Query, RegisterBookie, Reply, SummaryQuery};
use esker_net::{Address, Hub, Identity, NetConfig, Network, Pool};
use esker_types::units::Interval;
use esker_types::{BootId, InstanceId, Quorum, Role, TopicId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long; it only keeps a broken one from hanging for ever.
pub const LONG: Duration = Duration::from_secs(60);

pub const BIRTH: Birth =
    Birth { cluster: None, quorum: Quorum { write: 1, ack: 1 }, auto_create_topics: true, default_partitions: 1 };

pub struct Node {
    pub config: Config,
    pub server: Option<Server>,
    _dir: TempDir,
    birth: Option<Birth>,
}

pub struct Cluster {
    pub hub: Hub,
    pub nodes: Vec<Node>,
    tcp: bool,
    _turn: SemaphorePermit<'static>,
    /// Links of processes that live as long as the cluster.
    kept: Mutex<Vec<RemoteStore>>,
}

/// With `ESKER_LOG` set to a level, the nodes say what they do.
pub fn log() {
    let level = std::env::var("ESKER_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(tracing::Level::ERROR);
    // Only the first of a process succeeds.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).try_init();
}

/// As in production: the machine that runs the tests may be busy, and elections must not hang on that.
pub fn quick(config: &mut Config) {
    config.heartbeat = Interval::millis(200);
    config.leader_lease = Interval::millis(1_000);
    config.election_slot = Interval::millis(300);
}

static TURN: Semaphore = Semaphore::const_new(1);

/// One cluster at a time: elections of many at once would only wait for each other's CPU time.
pub async fn turn() -> SemaphorePermit<'static> {
    TURN.acquire().await.expect("never closed")
}

pub fn network(role: Role, name: &str, hub: &Hub) -> Network {
    let mut boot = [role as u8 + 1; 16];
    boot[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
    Network::with_hub(Identity::new(role, name, BootId(boot)), NetConfig::default(), hub.clone())
}

impl Node {
    pub fn new(name: &str, tcp: bool) -> Self {
        log();
        let dir = tempfile::tempdir().expect("temp");
        let listen = if tcp { "127.0.0.1:0".to_owned() } else { format!("inproc:{name}") };
        let data_dir = dir.path().join("data");
        let mut config = Config { node_name: name.to_owned(), listen, data_dir, ..Config::default() };
        quick(&mut config);
        Self { config, server: None, _dir: dir, birth: None }
    }

    pub async fn try_start(&mut self, hub: &Hub) -> Result<(), StartError> {
        assert!(self.server.is_none(), "already running");
        let network = network(Role::Metadata, &self.config.node_name, hub);
        let deps =
            Deps { network, registry: &mut Registry::default(), cancel: CancellationToken::new(), birth: self.birth };
        let server = Server::start(self.config.clone(), deps).await?;
        // The same port after a restart.
        self.config.listen = server.address().to_string();
        self.server = Some(server);
        Ok(())
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("running")
    }

    pub async fn stop(&mut self) {
        self.server.take().expect("running").stop().await;
    }

    pub fn address(&self) -> Address {
        self.config.listen.parse().expect("an address")
    }
}

impl Cluster {
    /// A lone voter that makes its cluster itself.
    pub async fn single() -> Self {
        let mut cluster = Self::blank(1, false).await;
        cluster.nodes[0].stop().await;
        cluster.nodes[0].birth = Some(BIRTH);
        cluster.start(0).await;
        let bookie = cluster.client("b1");
        register_bookie(&bookie).await;
        cluster.kept.lock().push(bookie);
        cluster
    }

    /// Voters that know nothing of each other yet.
    pub async fn blank(n: usize, tcp: bool) -> Self {
        let mut cluster = Self { hub: Hub::new(), nodes: Vec::new(), tcp, _turn: turn().await, kept: Mutex::default() };
        for _ in 0..n {
            cluster.grow().await;
        }
        cluster
    }

    pub async fn born(n: usize, tcp: bool) -> Self {
        let cluster = Self::blank(n, tcp).await;
        cluster.init().await;
        cluster
    }

    /// One more node, blank.
    pub async fn grow(&mut self) -> usize {
        let node = Node::new(&format!("meta-{}", self.nodes.len() + 1), self.tcp);
        self.nodes.push(node);
        let i = self.nodes.len() - 1;
        self.start(i).await;
        i
    }

    pub async fn start(&mut self, i: usize) {
        let hub = self.hub.clone();
        self.nodes[i].try_start(&hub).await.expect("started");
    }

    pub async fn init(&self) {
        let voters = self.nodes.iter().map(|node| node.config.listen.clone()).collect();
        let init = InitCluster { voters, write_quorum: 1, ack_quorum: 1, default_partitions: 1, ..Default::default() };
        let reply = self.admin(AdminAsk::Init(init)).await.expect("born");
        assert!(matches!(reply, AdminReply::Born(_)), "{reply:?}");
        let bookie = self.client("b1");
        register_bookie(&bookie).await;
        self.kept.lock().push(bookie);
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.nodes.iter().filter(|node| node.server.is_some()).map(Node::address).collect()
    }

    pub async fn admin(&self, ask: AdminAsk) -> Result<AdminReply, esker_net::RpcError> {
        let pool = Pool::new(network(Role::Admin, "operator", &self.hub));
        admin::ask_any(&pool, &self.addresses(), ask, LONG).await
    }

    /// A client that knows all nodes, also those that are down.
    pub fn client(&self, name: &str) -> RemoteStore {
        let servers = self.nodes.iter().map(Node::address).collect();
        let config = RemoteConfig { deadline: LONG, ..RemoteConfig::new(servers) };
        RemoteStore::new(network(Role::Gateway, name, &self.hub), config)
    }

    /// Waits until one node leads, by its own word confirmed by a quorum.
    pub async fn leader(&self) -> usize {
        let waits = self.nodes.iter().enumerate().filter_map(|(i, node)| {
            let mut leading = node.server.as_ref()?.leading();
            Some(Box::pin(async move {
                leading.wait_for(Option::is_some).await.expect("running");
                i
            }))
        });
        let first = futures_util::future::select_all(waits.collect::<Vec<_>>());
        tokio::time::timeout(LONG, first).await.expect("a leader in time").0
    }

    /// Waits until every running node shows `revision`, and that they agree.
    pub async fn agree(&self, revision: u64) {
        let mut hashes = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.server.is_some()) {
            let mut at = node.server().revision();
            let there = tokio::time::timeout(LONG, at.wait_for(|at| *at >= revision)).await;
            there.expect("in time").expect("running");
            let (revision, hash) = node.server().read(|state| (state.revision(), state.state_hash()));
            let known = hashes.entry(revision).or_insert(hash);
            assert_eq!(*known, hash, "{} differs at revision {revision}", node.config.node_name);
            assert_eq!(node.server().status().hash_mismatches, 0);
        }
    }

    pub async fn stop(&mut self) {
        for node in &mut self.nodes {
            if node.server.is_some() {
                node.stop().await;
            }
        }
    }
}

/// Topics need a bookie to be stored on. Nobody stands behind this one.
pub async fn register_bookie(store: &dyn MetadataStore) {
    let command = RegisterBookie {
        name: "b1".to_owned(),
        instance: InstanceId([0xb1; 16]),
        boot: BootId([0xb1; 16]),
        expect_boot_no: 0,
        durable_lsn: 0,
        address: "inproc:b1".to_owned(),
        zone: String::new(),
        version: 1,
        replaces: None,
    };
    let done = store.propose(vec![command.into()]).await.expect("proposed").single();
    assert!(matches!(done, Ok(Reply::Bookie(_))), "{done:?}");
}

pub fn topic(name: &str) -> Command {
    let mut id = [0; 16];
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    id[..8].copy_from_slice(&hash.to_le_bytes());
    let create = CreateTopic {
        id: TopicId::from_random(id),
        name: name.to_owned(),
        partitions: 1,
        replication: None,
        settings: Vec::new(),
        internal: false,
        validate_only: false,
    };
    create.into()
}

/// Creates a topic; returns the revision that shows it. An unknown outcome is settled by proposing the same again.
pub async fn create(store: &dyn MetadataStore, name: &str) -> u64 {
    loop {
        match store.propose(vec![topic(name)]).await {
            Ok(done) => {
                assert!(matches!(done.results[0], Ok(Reply::Topic(_))), "{:?}", done.results);
                return done.revision;
            }
            Err(ProposeError::Unknown(_)) => {}
            Err(ProposeError::NotApplied(reason)) => panic!("{reason}"),
        }
    }
}

pub async fn topics(store: &dyn MetadataStore) -> u64 {
    match store.read(Query::Summary(SummaryQuery {})).await.expect("read") {
        esker_metadata_core::Answer::Summary(summary) => summary.topics,
        other => panic!("{other:?}"),
    }
}
