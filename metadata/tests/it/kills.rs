//! Real processes, killed with SIGKILL: no command that was confirmed is lost, none is applied twice, and there is
//! always a new leader. Five kills; `ESKER_LONG=1` makes it two hundred.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use esker_metadata::{Config, Deps, Server};
use esker_metadata_client::admin::{self, AdminAsk, InitCluster};
use esker_metadata_client::{MetadataStore, ProposeError, RemoteConfig, RemoteStore};
use esker_metadata_core::{AllocProducerIds, Answer, ClusterQuery, Command, Query, Reply, TopicQuery};
use esker_net::{Address, Hub, Pool};
use esker_types::Role;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LONG, log, network, quick, register_bookie, topic, turn};

const CHILD: &str = "ESKER_METADATA_TEST_CHILD";
const LISTENS: &str = "LISTENS ";
const WORKERS: usize = 4;
/// Commands that must get through between two kills.
const PROGRESS: u64 = 30;

/// Not a test of its own: what the killed processes run.
#[test]
fn child() {
    let Ok(config) = std::env::var(CHILD) else { return };
    log();
    let mut words = config.split('|');
    let mut word = || words.next().expect("three words").to_owned();
    let (name, listen, data_dir) = (word(), word(), word().into());
    let mut config = Config { node_name: name.clone(), listen, data_dir, ..Config::default() };
    quick(&mut config);
    config.snapshot_entries = 500;
    config.entries_kept = 100;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let network = network(Role::Metadata, &name, &Hub::new());
        let registry = &mut Registry::default();
        let deps = Deps { network, registry, cancel: CancellationToken::new(), birth: None };
        let server = Server::start(config, deps).await.expect("started");
        println!("{LISTENS}{}", server.address());
        panic!("{}", server.failed().await);
    });
}

struct Node {
    name: String,
    listen: String,
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Node {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("temp");
        Self { name: name.to_owned(), listen: "127.0.0.1:0".to_owned(), dir, process: None }
    }

    fn start(&mut self) {
        let word = format!("{}|{}|{}", self.name, self.listen, self.dir.path().join("data").display());
        let mut process = Process::new(std::env::current_exe().expect("this test"))
            .args(["kills::child", "--exact", "--nocapture"])
            .env(CHILD, word)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("spawned");
        let out = BufReader::new(process.stdout.take().expect("piped"));
        let mut lines = out.lines();
        let listens = lines.find_map(|line| Some(line.expect("text").split_once(LISTENS)?.1.to_owned()));
        self.listen = listens.expect("the node came up");
        self.process = Some(process);
    }

    fn kill(&mut self) {
        let mut process = self.process.take().expect("running");
        process.kill().expect("killed");
        process.wait().expect("gone");
    }

    fn address(&self) -> Address {
        self.listen.parse().expect("valid")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

/// What the workers were told.
#[derive(Default)]
struct Told {
    /// Topics by name: true = confirmed, false = surely not done. Unknown ones are left out.
    topics: BTreeMap<String, bool>,
    ids: BTreeSet<u64>,
    ids_twice: u64,
    unknown_ids: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_lose_nothing() {
    let _turn = turn().await;
    let kills = if std::env::var("ESKER_LONG").is_ok_and(|value| value == "1") { 200 } else { 5 };
    let mut nodes: Vec<Node> = (1..=3).map(|n| Node::new(&format!("m{n}"))).collect();
    nodes.iter_mut().for_each(Node::start);
    let hub = Hub::new();
    let pool = Pool::new(network(Role::Admin, "operator", &hub));
    let voters = nodes.iter().map(|node| node.listen.clone()).collect();
    let init = AdminAsk::Init(InitCluster { voters, write_quorum: 1, ack_quorum: 1, ..InitCluster::default() });
    admin::ask(&pool, &nodes[0].address(), init, LONG).await.expect("born");

    let servers: Vec<Address> = nodes.iter().map(Node::address).collect();
    let client = |name: &str| {
        let config =
            RemoteConfig { call_timeout: Duration::from_secs(3), deadline: LONG, ..RemoteConfig::new(servers.clone()) };
        RemoteStore::new(network(Role::Gateway, name, &hub), config)
    };
    let observer = client("observer");
    register_bookie(&observer).await;
    let (told, confirmed, stop) =
        (Arc::new(Mutex::new(Told::default())), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let store = client(&format!("g{n}"));
            tokio::spawn(work(n, store, told.clone(), confirmed.clone(), stop.clone()))
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        progress(&confirmed, PROGRESS, kill).await;
        observer.read(Query::Cluster(ClusterQuery {})).await.expect("a leader");
        let leader = observer.leader().expect("answered");
        let victim = nodes.iter().position(|node| node.address() == leader).expect("one of ours");
        nodes[victim].kill();
        let began = Instant::now();
        // At least one answer of the new leader: what the old one had said may still be on its way.
        progress(&confirmed, WORKERS as u64 + 1, kill).await;
        slowest = slowest.max(began.elapsed());
        nodes[victim].start();
    }
    progress(&confirmed, PROGRESS, kills).await;
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.expect("worker");
    }
    let confirmed = confirmed.load(Ordering::SeqCst);
    let told = std::mem::take(&mut *told.lock());
    check(&observer, &told).await;
    println!("{kills} kills, {confirmed} commands confirmed, slowest change of leader {slowest:?}");
}

/// Waits for `n` more confirmed commands.
async fn progress(confirmed: &AtomicU64, n: u64, kill: usize) {
    let goal = confirmed.load(Ordering::SeqCst) + n;
    let wait = async {
        while confirmed.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("no progress after kill {kill}"));
}

async fn work(n: usize, store: RemoteStore, told: Arc<Mutex<Told>>, confirmed: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut i = 0;
    while !stop.load(Ordering::SeqCst) {
        let name = format!("topic-{n}-{i}");
        i += 1;
        match store.propose(vec![topic(&name)]).await {
            Ok(done) => {
                done.single().expect("a new name");
                told.lock().topics.insert(name, true);
                confirmed.fetch_add(1, Ordering::SeqCst);
            }
            Err(ProposeError::NotApplied(_)) => drop(told.lock().topics.insert(name, false)),
            Err(ProposeError::Unknown(_)) => {}
        }
        match store.propose(vec![Command::from(AllocProducerIds { count: 1 })]).await {
            Ok(done) => {
                let Ok(Reply::ProducerIds(ids)) = done.single() else { panic!("refused") };
                let mut told = told.lock();
                if !told.ids.insert(ids.first.0) {
                    told.ids_twice += 1;
                }
                confirmed.fetch_add(1, Ordering::SeqCst);
            }
            Err(ProposeError::NotApplied(_)) => {}
            Err(ProposeError::Unknown(_)) => told.lock().unknown_ids += 1,
        }
    }
}

async fn check(store: &RemoteStore, told: &Told) {
    assert_eq!(told.ids_twice, 0, "an id was given out twice");
    for (name, expected) in &told.topics {
        let query = Query::Topic(TopicQuery { name: name.clone(), id: None });
        let Answer::Topic(found) = store.read(query).await.expect("read") else { panic!("another answer") };
        assert_eq!(found.topic.is_some(), *expected, "{name}: confirmed = {expected}");
    }
    let Answer::Cluster(answer) = store.read(Query::Cluster(ClusterQuery {})).await.expect("read") else {
        panic!("another answer")
    };
    // Every id that was drawn was confirmed to somebody, or its draw had an unknown outcome.
    let drawn = answer.cluster.expect("born").next_producer - esker_types::first_id(0);
    let confirmed = told.ids.len() as u64;
    assert!(confirmed <= drawn && drawn <= confirmed + told.unknown_ids, "{drawn} drawn, {confirmed} confirmed");
}
