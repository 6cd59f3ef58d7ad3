//! A gateway as a whole: what is started, in which order, and how it is stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use esker_bookie_client::{BookieClient, ClientConfig};
use esker_gateway_core::partition;
use esker_metadata_client::{MetadataStore, View};
use esker_metadata_core::GatewayAddresses;
use esker_net::{Address, ListenError, Network, Pool, serve};
use esker_types::{GatewayId, SessionId};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts;
use crate::auth::{AllowAll, Authorizer};
use crate::clock::Clock;
use crate::config::Config;
use crate::door::{self, Door, EndpointError};
use crate::gateway::Gateway;
use crate::groups::{GroupMetrics, Groups};
use crate::internal::Internal;
use crate::kafka::{self, KafkaDoor};
use crate::keeper::{self, Keeper, RegisterError, Standing};
use crate::metrics::Metrics;
use crate::offload::{self, Bucket};
use crate::partition::Handles;
use crate::producer_ids::ProducerIds;
use crate::proposer::{self, Proposer};
use crate::reborn;
use crate::shard::{self, Services, Shards};
use crate::tail::TailCache;
use crate::throttle::Throttle;
use crate::transfers::Transfers;

/// What a gateway is given.
pub struct Deps<'a> {
    /// Identity and links to other nodes. Its boot id is the process's.
    pub network: Network,
    pub store: Arc<dyn MetadataStore>,
    /// Fed by `store`.
    pub view: View,
    pub registry: &'a mut Registry,
    /// Stops everything at once; [`Server::stop`] is the graceful way.
    pub cancel: CancellationToken,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("gateway config: {0}")]
    Config(String),
    #[error("no metadata within {seconds} s: is the metadata quorum up, and reachable at the configured addresses?")]
    NoMetadata { seconds: u64 },
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("objects.url: {0}")]
    Objects(#[from] esker_cache::Error),
    #[error(transparent)]
    Kafka(#[from] kafka::ListenerError),
    #[error("internal.listen: {0}")]
    Listen(#[from] ListenError),
    #[error("internal.listen is not an address: {0}")]
    Address(#[from] esker_net::BadAddress),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Where the gateway is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub quic: SocketAddr,
    /// None: there is no door for Kafka clients.
    pub kafka: Option<SocketAddr>,
    pub internal: Address,
}

/// A running gateway. Dropping it stops it hard; other gateways take over.
pub struct Server {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) identity: (GatewayId, SessionId),
    addresses: Addresses,
    /// Doors and streams; cancelled first.
    pub(crate) doors: CancellationToken,
    /// The session's keeper; cancelled before the session is ended on purpose.
    pub(crate) keeping: CancellationToken,
    /// Everything else.
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
    _stop: tokio_util::sync::DropGuard,
}

/// How long a start waits for a first copy of the metadata, and for the session of a former process to end.
const METADATA_WAIT: Duration = Duration::from_secs(30);
const REGISTER_WAIT: Duration = Duration::from_secs(20);

impl Server {
    /// Opens the doors and registers. At return the gateway is in metadata and will be given partitions.
    pub async fn start(config: Config, deps: Deps<'_>) -> Result<Self, StartError> {
        Self::start_with(config, deps, Arc::new(AllowAll)).await
    }

    /// The same with an authorizer.
    pub async fn start_with(
        config: Config,
        deps: Deps<'_>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let Deps { network, store, view, registry, cancel } = deps;
        let cancel = cancel.child_token();
        let stop = cancel.clone().drop_guard();
        let cluster_known = async {
            let mut seen = 0;
            // The revision is taken before the look: news that come in between are not slept through.
            while view.read(|state| state.cluster().is_none()) {
                seen = view.changed(seen).await;
            }
        };
        let waited = tokio::time::timeout(METADATA_WAIT, cluster_known).await;
        waited.map_err(|_| StartError::NoMetadata { seconds: METADATA_WAIT.as_secs() })?;
        let cluster = view.read(|state| state.cluster().map(|cluster| cluster.id)).unwrap_or_default();
        network.set_cluster(cluster);
        let bucket = Bucket::open(&config.objects, cluster, registry).await?;
        let endpoint = door::open(&config.quic)?;
        let kafka = match config.kafka.is_on() {
            true => Some(kafka::open(&config.kafka).await?),
            false => None,
        };
        let listener = network.listen(&config.internal.listen.parse()?).await?;
        let quic = endpoint.local_addr().map_err(|source| {
            StartError::Endpoint(EndpointError::Bind { address: config.quic.listen.clone(), source })
        })?;
        let addresses = Addresses {
            quic,
            kafka: kafka.as_ref().map(|kafka| kafka.address),
            internal: listener.local_address().clone(),
        };
        let group_metrics = GroupMetrics::register(registry);
        let parts = Parts::assemble(config, &network, store, view, bucket, registry, &cancel, authorizer);
        accounts::register(&parts.gateway, registry);
        let request = keeper::registration(
            &parts.gateway.config.node_name,
            parts.gateway.boot,
            advertised(&parts.gateway.config, &addresses),
            &parts.gateway.config.zone,
        );
        let identity = keeper::register(&*parts.gateway.store, request, REGISTER_WAIT).await?;
        let (doors, keeping) = (cancel.child_token(), parts.keeping.clone());
        let server = Self {
            gateway: parts.gateway.clone(),
            endpoint,
            identity,
            addresses,
            doors,
            keeping,
            cancel,
            tasks: parts.tasks.clone(),
            _stop: stop,
        };
        let internal = Arc::new(Internal { gateway: server.gateway.clone() });
        server.tasks.spawn(serve(listener, internal, server.cancel.child_token()));
        parts.run(identity);
        let groups =
            Groups::new(server.gateway.clone(), group_metrics, server.tasks.clone(), server.cancel.child_token());
        server.tasks.spawn(groups.clone().run());
        let door = Door::new(
            server.gateway.clone(),
            groups.clone(),
            server.endpoint.clone(),
            server.tasks.clone(),
            server.doors.clone(),
        );
        server.tasks.spawn(door::accept(Arc::new(door)));
        if let Some(kafka) = kafka {
            let door =
                KafkaDoor::new(server.gateway.clone(), groups, kafka, server.tasks.clone(), server.doors.clone());
            server.tasks.spawn(kafka::accept(Arc::new(door)));
        }
        tracing::info!(gateway = %identity.0, session = %identity.1, quic = %server.addresses.quic, internal = %server.addresses.internal, "gateway started");
        Ok(server)
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// For `/readyz`: what is missing, if anything.
    pub fn ready(&self) -> Result<(), String> {
        self.gateway.ready()
    }

    /// [`Server::ready`] for whoever outlives the server's owner, such as an HTTP door.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let gateway = self.gateway.clone();
        move || gateway.ready()
    }

    /// Resolves if the gateway can't go on, with the reason: the process should end, so that others take over.
    pub async fn failed(&self) -> String {
        let mut fault = self.gateway.fault.subscribe();
        match fault.wait_for(Option::is_some).await.map(|fault| fault.clone()) {
            Ok(Some(reason)) => reason,
            // The sender lives as long as the gateway does.
            _ => std::future::pending().await,
        }
    }

    /// Partitions that this gateway has now.
    pub fn partitions(&self) -> usize {
        self.gateway.handles.count()
    }
}

/// Everything that runs, wired up but not started.
struct Parts {
    gateway: Arc<Gateway>,
    services: Arc<Services>,
    inboxes: Vec<shard::Inbox>,
    proposals: proposer::ProposerInbox,
    standing: watch::Sender<Standing>,
    tasks: TaskTracker,
    keeping: CancellationToken,
    cancel: CancellationToken,
}

impl Parts {
    #[expect(clippy::too_many_arguments, reason = "wiring, called in one place")]
    fn assemble(
        config: Config,
        network: &Network,
        store: Arc<dyn MetadataStore>,
        view: View,
        bucket: Option<Bucket>,
        registry: &mut Registry,
        cancel: &CancellationToken,
        authorizer: Arc<dyn Authorizer>,
    ) -> Self {
        let (clock, tasks, metrics) = (Clock::default(), TaskTracker::new(), Metrics::register(registry));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.shards == 0 { cores } else { config.shards as usize };
        let (shards, inboxes) = Shards::new(count);
        let bookies = BookieClient::new(
            network.clone(),
            Arc::new(view.clone()),
            Arc::new(shards.clone()),
            ClientConfig {
                read_timeout: config.read.timeout.0,
                read_concurrency: config.read.concurrency as usize,
                ..ClientConfig::default()
            },
            cancel.clone(),
        );
        let peers = Pool::new(network.clone());
        let handles = Arc::new(Handles::default());
        let tail = Arc::new(TailCache::new(config.tail_cache.as_usize(), count));
        let (proposer, proposals) = Proposer::new();
        let room = config.append.total_inflight.as_usize().min(Semaphore::MAX_PERMITS);
        let (standing, standing_rx) = watch::channel(Standing { gateway: GatewayId(0), session: None });
        let inflight = config.append.partition_inflight.0;
        let services = Arc::new(Services {
            clock,
            view: view.clone(),
            store: store.clone(),
            bookies: bookies.clone(),
            bucket: bucket.clone(),
            proposer,
            transfers: Transfers::new(peers.clone(), view.clone(), clock, tasks.clone(), cancel.clone()),
            shards: shards.clone(),
            handles: handles.clone(),
            tail: tail.clone(),
            metrics: metrics.clone(),
            // Twice the room that producers have: the core never needs to refuse what was let in.
            core: partition::Config {
                partition_bytes: 2 * inflight,
                in_flight_bytes: inflight,
                ..partition::Config::default()
            },
            append_timeout: config.append.timeout.0,
            partition_room: config.append.partition_inflight.as_usize(),
            tasks: tasks.clone(),
            cancel: cancel.clone(),
        });
        let gateway = Arc::new(Gateway {
            boot: network.identity().boot,
            clock,
            view,
            store,
            shards,
            handles,
            tail,
            bookies,
            bucket,
            peers,
            authorizer,
            metrics,
            standing: standing_rx,
            room: Arc::new(Semaphore::new(room)),
            recompressions: Arc::new(Semaphore::new(config.append.recompressions as usize)),
            throttle: Throttle::default(),
            producer_ids: ProducerIds::default(),
            fault: watch::Sender::new(None),
            config,
        });
        Self {
            gateway,
            services,
            inboxes,
            proposals,
            standing,
            tasks,
            keeping: cancel.child_token(),
            cancel: cancel.clone(),
        }
    }

    fn run(self, (id, session): (GatewayId, SessionId)) {
        let Self { gateway, services, inboxes, proposals, standing, tasks, keeping, cancel } = self;
        shard::start(&services, inboxes, &gateway.fault);
        let proposing =
            proposer::run(proposals, gateway.store.clone(), gateway.shards.clone(), tasks.clone(), cancel.clone());
        tasks.spawn(proposing);
        let keeper = Keeper {
            store: gateway.store.clone(),
            view: gateway.view.clone(),
            shards: gateway.shards.clone(),
            bookies: gateway.bookies.clone(),
            boot: gateway.boot,
            session_ttl: gateway.config.session_ttl.0,
            metrics: gateway.metrics.clone(),
            standing,
            cancel: keeping,
        };
        tasks.spawn(keeper.run(id, session));
        tasks.spawn(reborn::watch(gateway.clone(), cancel.clone()));
        if let Some(bucket) = gateway.bucket.clone() {
            tasks.spawn(offload::run(gateway, bucket, tasks.clone(), cancel));
        }
    }
}

fn advertised(config: &Config, bound: &Addresses) -> GatewayAddresses {
    let quic = match config.quic.advertised.is_empty() {
        true => bound.quic.to_string(),
        false => config.quic.advertised.join(","),
    };
    let internal = match config.internal.advertised.is_empty() {
        true => bound.internal.to_string(),
        false => config.internal.advertised.clone(),
    };
    let kafka = match (bound.kafka, config.kafka.advertised.is_empty()) {
        (None, _) => String::new(),
        (Some(bound), true) => bound.to_string(),
        (Some(_), false) => config.kafka.advertised.clone(),
    };
    GatewayAddresses { quic, kafka, http: String::new(), internal }
}
