//! Sessions and the controller: who owns what when gateways come, go, die and drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use esker_metadata_client::{MetadataStore, RemoteStore, SessionKeeper, View};
use esker_metadata_core::{CreateTopic, DrainGateway, GatewayAddresses, Handover, RegisterGateway, Reply, State};
use esker_net::{Address, BoxFuture, ConnectionCtx, Network, Service, serve, unknown_opcode};
use esker_types::moves::{MoveAnswer, MoveRequest};
use esker_types::units::Interval;
use esker_types::{BootId, Frame, GatewayId, Role, SessionId, TopicId, opcode};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Cluster, LONG, network};

/// A gateway that owns partitions without data: it hands them over when asked.
struct Gateway {
    id: GatewayId,
    session: SessionId,
    keeper: SessionKeeper,
    store: RemoteStore,
    door: JoinHandle<()>,
    stop: CancellationToken,
    moves: Arc<Hands>,
}

struct Hands {
    store: RemoteStore,
    done: AtomicUsize,
}

impl Service for Hands {
    fn handle<'a>(&'a self, _ctx: &'a ConnectionCtx, frame: Frame) -> BoxFuture<'a, Option<Frame>> {
        Box::pin(async move {
            if frame.opcode != opcode::gateway::MOVE {
                return unknown_opcode(&frame);
            }
            let request: MoveRequest = frame.decode_control().expect("a move");
            let epoch = self.epoch(request.partition).await;
            let command = Handover {
                partition: request.partition.into(),
                epoch,
                close: None,
                to_session: request.to_session.into(),
                next: None,
            };
            // Counted before it can be seen.
            self.done.fetch_add(1, Ordering::SeqCst);
            let done = self.store.propose(vec![command.into()]).await.expect("proposed").single();
            let Ok(Reply::Epoch(reply)) = done else { panic!("{done:?}") };
            Some(frame.answer(&MoveAnswer { epoch: reply.epoch.0, pause_us: 0 }))
        })
    }
}

impl Hands {
    async fn epoch(&self, partition: u64) -> esker_types::Epoch {
        let query = esker_metadata_core::PartitionQuery { partition: partition.into() };
        match self.store.read(query.into()).await.expect("read") {
            esker_metadata_core::Answer::Partition(answer) => answer.info.expect("known").record.epoch,
            other => panic!("{other:?}"),
        }
    }
}

impl Gateway {
    async fn join(cluster: &Cluster, name: &str) -> Self {
        let network = network(Role::Gateway, name, &cluster.hub);
        let store = cluster.client(name);
        let address: Address = format!("inproc:{name}").parse().expect("valid");
        let listener = network.listen(&address).await.expect("port");
        let stop = CancellationToken::new();
        let moves = Arc::new(Hands { store: store.clone(), done: AtomicUsize::new(0) });
        let door = tokio::spawn(serve(listener, moves.clone(), stop.clone()));
        let (id, session) = register(&store, &network, &address).await;
        let keeper =
            SessionKeeper::start(Arc::new(store.clone()), session, network.identity().boot, Duration::from_millis(500));
        Self { id, session, keeper, store, door, stop, moves }
    }

    /// The process is gone: port and connections close, nothing is said.
    async fn die(self) {
        self.keeper.stop().await;
        self.stop.cancel();
        self.door.await.expect("ended");
        drop((self.store, self.moves));
    }
}

async fn register(store: &RemoteStore, network: &Network, address: &Address) -> (GatewayId, SessionId) {
    let command = RegisterGateway {
        name: network.identity().name.clone(),
        boot: network.identity().boot,
        addresses: GatewayAddresses {
            quic: String::new(),
            kafka: String::new(),
            http: String::new(),
            internal: address.to_string(),
        },
        zone: String::new(),
        version: 1,
    };
    match store.propose(vec![command.into()]).await.expect("proposed").single() {
        Ok(Reply::Gateway(reply)) => (reply.gateway, reply.session),
        other => panic!("{other:?}"),
    }
}

/// A view that has not heard of a session yet does not show it either.
fn was_there(state: &State, gateway: &str) -> bool {
    state.gateway_by_name(gateway).is_some()
}

async fn create(store: &RemoteStore, name: &str, partitions: u32) {
    let command = CreateTopic {
        id: TopicId::from_random([name.len() as u8; 16]),
        name: name.to_owned(),
        partitions,
        replication: None,
        settings: Vec::new(),
        internal: false,
        validate_only: false,
    };
    store.propose(vec![command.into()]).await.expect("proposed").single().expect("created");
}

/// Partitions that a live session of the gateway owns.
fn owned(state: &State, gateway: GatewayId) -> usize {
    let by = |p: &&Arc<esker_metadata_core::PartitionRecord>| {
        state.has_live_owner(p) && p.owner.as_ref().is_some_and(|owner| owner.gateway == gateway)
    };
    state.partitions().filter(by).count()
}

/// Waits until the state is as wanted.
async fn until(view: &View, what: &str, wanted: impl Fn(&State) -> bool) {
    let wait = async {
        loop {
            let revision = view.revision();
            if view.read(&wanted) {
                return;
            }
            view.changed(revision).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A view and the store that feeds it.
struct Watcher {
    view: View,
    _store: RemoteStore,
}

impl std::ops::Deref for Watcher {
    type Target = View;
    fn deref(&self) -> &View {
        &self.view
    }
}

async fn world(ttl: Interval) -> (Cluster, Watcher, CancellationToken) {
    let mut cluster = Cluster::blank(3, false).await;
    for node in &mut cluster.nodes {
        node.stop().await;
        node.config.session_ttl = ttl;
    }
    for i in 0..3 {
        cluster.start(i).await;
    }
    cluster.init().await;
    let cancel = CancellationToken::new();
    let store = cluster.client("watcher");
    let view = View::follow(&store, cancel.clone());
    view.ready().await;
    (cluster, Watcher { view, _store: store }, cancel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_go_to_those_who_live() {
    // So long that no session ends by it: what ends, ends by a probe.
    let (mut cluster, view, cancel) = world(Interval::secs(600)).await;
    let (a, b, c) =
        (Gateway::join(&cluster, "ga").await, Gateway::join(&cluster, "gb").await, Gateway::join(&cluster, "gc").await);
    create(&a.store, "orders", 12).await;
    until(&view, "shared out evenly", |s| [a.id, b.id, c.id].iter().all(|id| owned(s, *id) == 4)).await;
    let (dead, session) = (b.id, b.session);
    b.die().await;
    until(&view, "the dead one's partitions are with the others", |s| {
        s.session(session).is_none() && owned(s, a.id) == 6 && owned(s, c.id) == 6
    })
    .await;
    // It comes back under its name: the same id, and its share by handovers.
    let again = Gateway::join(&cluster, "gb").await;
    assert_eq!(again.id, dead);
    until(&view, "levelled again", |s| [a.id, again.id, c.id].iter().all(|id| owned(s, *id) == 4)).await;
    assert!(a.moves.done.load(Ordering::SeqCst) + c.moves.done.load(Ordering::SeqCst) >= 4);
    // Drained, it keeps nothing.
    let drain = DrainGateway { gateway: a.id, draining: true };
    c.store.propose(vec![drain.into()]).await.expect("proposed").single().expect("draining");
    until(&view, "drained", |s| owned(s, a.id) == 0 && owned(s, again.id) == 6 && owned(s, c.id) == 6).await;
    assert!(!a.keeper.is_lost() && !c.keeper.is_lost());
    cancel.cancel();
    cluster.stop().await;
}

/// A connection that closes is a hint to look, not a death: the process answers on its port. A real death right after
/// is still believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_connection_alone_kills_nobody() {
    let (mut cluster, view, cancel) = world(Interval::secs(600)).await;
    let (a, b, c) =
        (Gateway::join(&cluster, "ga").await, Gateway::join(&cluster, "gb").await, Gateway::join(&cluster, "gc").await);
    create(&a.store, "orders", 6).await;
    until(&view, "shared out", |s| [a.id, b.id, c.id].iter().all(|id| owned(s, *id) == 2)).await;
    for gateway in ["ga", "gc"] {
        // Known to the leader as links of the living processes, for they carry their boot ids.
        let second = cluster.client(gateway);
        second.read(esker_metadata_core::SummaryQuery {}.into()).await.expect("linked to the leader");
        drop(second);
    }
    let session = b.session;
    b.die().await;
    until(&view, "the dead one is found dead", |s| s.session(session).is_none()).await;
    until(&view, "its share is with the others", |s| owned(s, a.id) == 3 && owned(s, c.id) == 3).await;
    assert!(view.read(|s| s.session(a.session).is_some() && s.session(c.session).is_some()));
    assert!(!a.keeper.is_lost() && !c.keeper.is_lost());
    cancel.cancel();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_ends_nobodys_session() {
    let (mut cluster, view, cancel) = world(Interval::secs(600)).await;
    let (a, b) = (Gateway::join(&cluster, "ga").await, Gateway::join(&cluster, "gb").await);
    create(&a.store, "orders", 6).await;
    until(&view, "shared out", |s| owned(s, a.id) == 3 && owned(s, b.id) == 3).await;
    for round in 0..2 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].stop().await;
        create(&a.store, &"x".repeat(round + 1), 2).await;
        until(&view, "assigned by the new leader", |s| {
            s.partitions().all(|p| s.has_live_owner(p)) && s.partitions().count() == 8 + 2 * round
        })
        .await;
        cluster.start(leader).await;
    }
    assert!(view.read(|s| s.session(a.session).is_some() && s.session(b.session).is_some()));
    cancel.cancel();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_session_after_its_time() {
    let (mut cluster, view, cancel) = world(Interval::millis(2_000)).await;
    let a = Gateway::join(&cluster, "ga").await;
    // Registered, reachable, and never heard of again: as a process that hangs.
    let hub = cluster.hub.clone();
    let hung = network(Role::Gateway, "gb", &hub);
    let address: Address = "inproc:gb".parse().expect("valid");
    let _port = hung.listen(&address).await.expect("port");
    let (_, session) = register(&a.store, &hung, &address).await;
    until(&view, "ended", |s| was_there(s, "gb") && s.session(session).is_none()).await;
    // Its owner learns it when it asks.
    let renewed = a.store.renew(session, BootId(hung.identity().boot.0)).await;
    assert_eq!(renewed, Err(esker_metadata_client::RenewError::Lost));
    cancel.cancel();
    cluster.stop().await;
}
