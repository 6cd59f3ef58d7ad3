use std::path::Path;

use esker_bookie_core::journal::Lsn;
use esker_bookie_core::wire::{
    Add, AddStatus, AddStatusKind, FenceItem, FenceRequest, FenceResponse, FenceVerdict, Read, ReadResponse,
    ReadStatus, StatusRequestMessage, StatusResponseMessage,
};
use esker_metadata_client::MemoryStore;
use esker_metadata_core::{
    Assign, Close, Command, CreateTopic, DeleteTopic, GatewayAddresses, InitCluster, NextSegment, Open,
    RegisterGateway, Reply, Roll,
};
use esker_net::{Hub, Identity, Link, NetConfig, Rpc};
use esker_types::opcode::bookie as opcode;
use esker_types::units::Interval;
use esker_types::{
    BootId, ByteCount, ClusterId, Entry, Epoch, Frame, Member, PartitionId, Quorum, Role, SegmentId, SessionId, TopicId,
};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::disk::JournalFiles;
use crate::testing::{FailingDisk, add_of, chained};

const TIMEOUT: Duration = Duration::from_secs(20);
const CLUSTER: ClusterId = ClusterId([1; 16]);

/// A cluster's metadata, a way to reach each other, and nothing else.
struct World {
    store: MemoryStore,
    hub: Hub,
    session: SessionId,
    partition: PartitionId,
    topic: TopicId,
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::new();
        let topic = TopicId([5; 16]);
        let quorum = Quorum { write: 2, ack: 1 };
        let results = store.apply(vec![
            InitCluster { id: CLUSTER, quorum, auto_create_topics: false, default_partitions: 1 }.into(),
            RegisterGateway {
                name: "g".to_owned(),
                boot: BootId([9; 16]),
                addresses: GatewayAddresses {
                    quic: "127.0.0.1:1".to_owned(),
                    kafka: String::new(),
                    http: String::new(),
                    internal: "127.0.0.1:2".to_owned(),
                },
                zone: String::new(),
                version: 1,
            }
            .into(),
        ]);
        let Ok(Reply::Gateway(gateway)) = results.results[1].clone() else { panic!("{results:?}") };
        let partition = PartitionId(0);
        Self { store, hub: Hub::default(), session: gateway.session, partition, topic }
    }

    fn network(&self, role: Role, name: &str) -> Network {
        let identity = Identity::new(role, name, BootId(random_bytes()));
        Network::with_hub(identity, NetConfig::default(), self.hub.clone())
    }

    async fn start(&self, config: Config) -> Result<Server, StartError> {
        self.start_on(config, FailingDisk::sound()).await
    }

    async fn start_on(&self, config: Config, hooks: Arc<dyn DiskHooks>) -> Result<Server, StartError> {
        let deps = Deps {
            network: self.network(Role::Bookie, &config.node_name),
            store: Arc::new(self.store.clone()),
            registry: &mut Registry::default(),
            cancel: CancellationToken::new(),
            hooks: Some(hooks),
        };
        Server::start(config, deps).await
    }

    fn apply(&self, command: impl Into<Command>) -> Reply {
        self.store.apply(vec![command.into()]).single().unwrap()
    }

    /// A topic whose only partition is owned by the gateway and has its first segment open on `members`.
    fn open_segment(&mut self, members: &[&Server]) -> SegmentId {
        let Reply::Topic(topic) = self.apply(CreateTopic {
            id: self.topic,
            name: "t".to_owned(),
            partitions: 1,
            replication: Some(members.len() as u32),
            settings: Vec::new(),
            internal: false,
            validate_only: false,
        }) else {
            panic!("no topic")
        };
        self.partition = topic.partitions[0];
        self.apply(Assign { partition: self.partition, expect_epoch: Epoch(0), session: self.session });
        let members = members.iter().map(|server| member(server)).collect::<Vec<_>>();
        let quorum = Quorum { write: members.len() as u8, ack: 1 };
        let next = NextSegment { n: 1, quorum, members };
        self.apply(Open { partition: self.partition, epoch: Epoch(1), prev: None, next });
        SegmentId { partition: self.partition, n: 1 }
    }

    fn close_segment(&self, entries: &[Entry], holders: &[&Server]) {
        let last = entries.last().unwrap().header;
        let close = Close {
            n: 1,
            last: Some(last.entry),
            end_offset: last.end_offset(),
            digest: last.chain,
            bytes: entries.iter().map(|entry| entry.bytes.len() as u64).sum(),
            first_ts: 0,
            max_ts: 0,
            holders: holders.iter().map(|server| member(server)).collect(),
        };
        self.apply(Roll { partition: self.partition, epoch: Epoch(1), close, next: None });
    }

    async fn gateway(&self, server: &Server) -> Gateway {
        let network = self.network(Role::Gateway, "g");
        network.set_cluster(CLUSTER);
        let link = network.connect(server.address(), Role::Bookie).await.unwrap();
        Gateway::new(link, server.instance())
    }
}

fn random_bytes() -> [u8; 16] {
    crate::random::bytes().unwrap()
}

fn member(server: &Server) -> Member {
    Member { bookie: server.bookie(), instance: server.instance() }
}

/// One connection of a gateway.
struct Gateway {
    rpc: Rpc,
    pushes: mpsc::Receiver<Frame>,
    instance: InstanceId,
}

impl Gateway {
    fn new(link: Link, instance: InstanceId) -> Self {
        let (tx, pushes) = mpsc::channel(1024);
        Self { rpc: Rpc::new(link, tx), pushes, instance }
    }

    async fn add(&self, add: &Add) {
        self.rpc.send(add.to_frame(0)).await.unwrap();
    }

    async fn add_all(&self, entries: &[Entry]) {
        for entry in entries {
            self.add(&add_of(self.instance, entry, 1)).await;
        }
    }

    async fn status(&mut self) -> AddStatus {
        let frame = tokio::time::timeout(TIMEOUT, self.pushes.recv()).await.unwrap().unwrap();
        AddStatus::from_frame(&frame).unwrap()
    }

    async fn acked(&mut self, count: u64) {
        loop {
            let status = self.status().await;
            assert_eq!(status.kind, AddStatusKind::Ok, "{status:?}");
            if status.next >= count {
                return;
            }
        }
    }

    async fn read(&self, segment: SegmentId, from: u64) -> ReadResponse {
        let read = Read { instance: self.instance, segment, from, to: u64::MAX, max_bytes: 1 << 20 };
        let frame = self.rpc.call_frame(read.to_frame(0), TIMEOUT).await.unwrap();
        ReadResponse::from_frame(&frame).unwrap()
    }

    async fn fence(&self, segment: SegmentId, epoch: u32) -> FenceVerdict {
        let item = FenceItem { instance: self.instance, segment, epoch: Epoch(epoch) };
        let frame = FenceRequest { items: vec![item] }.to_frame(0);
        let frame = self.rpc.call_frame(frame, TIMEOUT).await.unwrap();
        FenceResponse::from_frame(&frame).unwrap().results[0].verdict
    }
}

fn config(dir: &TempDir, name: &str) -> Config {
    let mut config = Config {
        node_name: name.to_owned(),
        listen: format!("inproc:{name}"),
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.journal.file_bytes = ByteCount::mib(1);
    config.journal.group_bytes = ByteCount::kib(256);
    config.journal.queue_bytes = ByteCount::mib(1);
    config.journal.prepare_bytes = ByteCount::mib(1);
    config.disk.reserve = ByteCount(0);
    for interval in [
        &mut config.upkeep.gc_interval,
        &mut config.upkeep.report_interval,
        &mut config.upkeep.repair_interval,
        &mut config.upkeep.scrub_interval,
    ] {
        *interval = Interval(Duration::from_millis(5));
    }
    config
}

/// Polls until `check` holds. The tests' only clock, and it only bounds how long a failure takes.
async fn until(mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.expect("never came true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_go_in_and_come_back_over_a_link() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    assert_eq!(server.ready(), Ok(()));
    let mut gateway = world.gateway(&server).await;
    let segment = SegmentId::new(77, 1);
    let entries = chained(segment, 30, 2000);
    gateway.add_all(&entries).await;
    gateway.acked(30).await;
    let read = gateway.read(segment, 3).await;
    assert_eq!((read.status, read.next, &read.entries[0]), (ReadStatus::Data, 30, &entries[3].bytes));
    assert_eq!(gateway.fence(segment, 4).await, FenceVerdict::Ok { durable: 30, lac: 28, limbo: false });
    gateway.add(&add_of(server.instance(), &entries[29], 3)).await;
    assert_eq!(gateway.status().await.kind, AddStatusKind::Fenced);
    gateway.add(&add_of(InstanceId([3; 16]), &entries[0], 9)).await;
    assert_eq!(gateway.status().await.kind, AddStatusKind::WrongInstance);
    let status: StatusResponseMessage =
        gateway.rpc.ask(opcode::STATUS, &StatusRequestMessage {}, TIMEOUT).await.unwrap();
    assert_eq!((status.segments, status.limbo_segments), (1, 0));
    server.stop().await;
    drop(server);

    // The same directory again: the same instance, everything there, the fence in force.
    let server = world.start(config(&dir, "a")).await.unwrap();
    let mut gateway = world.gateway(&server).await;
    assert_eq!(gateway.read(segment, 29).await.entries, [entries[29].bytes.clone()]);
    gateway.add(&add_of(server.instance(), &entries[0], 3)).await;
    assert_eq!(gateway.status().await.kind, AddStatusKind::Fenced);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_gateways_write() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    let network = world.network(Role::Bookie, "b");
    network.set_cluster(CLUSTER);
    let link = network.connect(server.address(), Role::Bookie).await.unwrap();
    let other = Gateway::new(link, server.instance());
    let segment = SegmentId::new(1, 1);
    let frame = add_of(server.instance(), &chained(segment, 1, 10)[0], 1).to_frame(0);
    assert!(other.rpc.call_frame(frame, TIMEOUT).await.is_err());
    let item = FenceItem { instance: server.instance(), segment, epoch: Epoch(1) };
    let fence = FenceRequest { items: vec![item] }.to_frame(0);
    assert!(other.rpc.call_frame(fence, TIMEOUT).await.is_err());
    assert_eq!(other.read(segment, 0).await.status, ReadStatus::NoSuchEntry);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_may_not_speak_for_the_bookie_are_refused() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    let first = server.instance();
    let in_use = world.start(config(&dir, "a")).await.err().unwrap();
    assert!(matches!(in_use, StartError::InUse(_)), "{in_use}");
    server.stop().await;
    drop(server);

    // Wiped, then taken from another bookie, then from another cluster.
    let wiped = TempDir::new().unwrap();
    let error = world.start(config(&wiped, "a")).await.err().unwrap();
    assert!(matches!(error, StartError::Identity(IdentityError::Wiped { .. })), "{error}");
    let other_dir = TempDir::new().unwrap();
    let other = world.start(config(&other_dir, "b")).await.unwrap();
    other.stop().await;
    drop(other);
    let error = world.start(config(&other_dir, "a")).await.err().unwrap();
    assert!(matches!(error, StartError::Identity(IdentityError::OtherInstance { .. })), "{error}");
    let elsewhere = World::new();
    let init = InitCluster {
        id: ClusterId([2; 16]),
        quorum: Quorum { write: 1, ack: 1 },
        auto_create_topics: false,
        default_partitions: 1,
    };
    let store = MemoryStore::new();
    store.apply(vec![init.into()]);
    let elsewhere = World { store, ..elsewhere };
    let error = elsewhere.start(config(&dir, "a")).await.err().unwrap();
    assert!(matches!(error, StartError::Identity(IdentityError::OtherCluster { .. })), "{error}");

    // The operator gives the data up: a new instance, and the old disk may not come back.
    let server = world.start(Config { new_instance: true, ..config(&wiped, "a") }).await.unwrap();
    assert_ne!(server.instance(), first);
    server.stop().await;
    drop(server);
    let error = world.start(config(&dir, "a")).await.err().unwrap();
    assert!(matches!(error, StartError::Identity(IdentityError::Lost(lost)) if lost == first), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_stays_shut_while_metadata_is_out_of_reach() {
    let (world, dir) = (Arc::new(World::new()), TempDir::new().unwrap());
    world.store.set_unavailable(true);
    let starting = tokio::spawn({
        let (world, config) = (world.clone(), config(&dir, "a"));
        async move { world.start(config).await }
    });
    until(|| dir.path().join("lock").exists()).await;
    let network = world.network(Role::Gateway, "g");
    assert!(network.connect(&"inproc:a".parse().unwrap(), Role::Bookie).await.is_err());
    assert!(!starting.is_finished());
    world.store.set_unavailable(false);
    let server = starting.await.unwrap().unwrap();
    assert_eq!(world.gateway(&server).await.read(SegmentId::new(1, 1), 0).await.status, ReadStatus::NoSuchEntry);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_of_open_segments_are_known_before_the_port_opens() {
    let (mut world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    let segment = world.open_segment(&[&server]);
    server.stop().await;
    drop(server);
    // The epoch moves while the bookie is away.
    world.apply(Assign { partition: segment.partition, expect_epoch: Epoch(1), session: world.session });
    let server = world.start(config(&dir, "a")).await.unwrap();
    let mut gateway = world.gateway(&server).await;
    gateway.add_all(&chained(segment, 1, 10)).await;
    let status = gateway.status().await;
    assert_eq!((status.kind, status.max_epoch), (AddStatusKind::Fenced, Epoch(2)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_durable_position_is_reported() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    let mut gateway = world.gateway(&server).await;
    gateway.add_all(&chained(SegmentId::new(1, 1), 5, 100)).await;
    gateway.acked(5).await;
    let durable = server.journal.look(|state| state.durable_lsn());
    assert!(durable > Lsn(0));
    let bookie = server.bookie();
    until(|| world.store.inspect(|state| state.bookie(bookie).unwrap().durable_lsn >= durable.0)).await;
    // Another process takes the instance over: this one must stop.
    let again = world.network(Role::Bookie, "a");
    let directory = Directory::new(Arc::new(world.store.clone()), CancellationToken::new());
    let registration = register::Registration {
        name: "a".to_owned(),
        instance: server.instance(),
        boot: again.identity().boot,
        durable_lsn: durable.0,
        address: "inproc:clone".to_owned(),
        zone: String::new(),
        replaces: None,
    };
    directory.register(&registration, 1).await.unwrap();
    gateway.add_all(&chained(SegmentId::new(1, 2), 1, 100)).await;
    let reason = tokio::time::timeout(TIMEOUT, server.failed()).await.unwrap();
    assert!(!reason.is_empty() && server.ready().is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_comes_back_when_metadata_does_not_need_the_copies() {
    let (mut world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    let segment = world.open_segment(&[&server]);
    let mut gateway = world.gateway(&server).await;
    let entries = chained(segment, 100, 60_000);
    gateway.add_all(&entries).await;
    gateway.acked(100).await;
    let files = || JournalFiles::list(dir.path()).unwrap().files.len();
    assert!(files() >= 6, "{} files", files());
    world.apply(DeleteTopic { topic: world.topic });
    until(|| server.journal.look(|state| state.segment_ids().count()) == 0 && files() <= 3).await;
    assert_eq!(gateway.read(segment, 0).await.status, ReadStatus::NoSuchEntry);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nearly_empty_files_are_copied_forward() {
    let (mut world, dir) = (World::new(), TempDir::new().unwrap());
    let server = world.start(config(&dir, "a")).await.unwrap();
    let kept = world.open_segment(&[&server]);
    let keep = chained(kept, 20, 1000);
    let mut gateway = world.gateway(&server).await;
    // A little of the segment that stays in every file, beside much of one that goes.
    let goes = SegmentId { partition: kept.partition, n: 7 };
    for (round, part) in chained(goes, 200, 60_000).chunks(10).enumerate() {
        gateway.add_all(&keep[round..=round]).await;
        gateway.add_all(part).await;
    }
    let mut acked = 0;
    while acked < 200 {
        acked = gateway.status().await.next.max(acked);
    }
    let files = || JournalFiles::list(dir.path()).unwrap().files.len();
    let before = files();
    server.journal.change(|state| state.drop_segment(goes)).unwrap();
    // Down to the file in use, the next one, and at most two with little in them.
    until(|| files() <= 4).await;
    assert!(before > 6, "{before} files");
    let read = gateway.read(kept, 0).await;
    assert!(read.entries.iter().eq(keep.iter().map(|entry| &entry.bytes)), "{} of 20", read.entries.len());
    server.kill().await;
    drop(server);
    let server = world.start(config(&dir, "a")).await.unwrap();
    let gateway = world.gateway(&server).await;
    assert_eq!(gateway.read(kept, 0).await.entries.len(), 20);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_entries_and_still_fences() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let mut small = config(&dir, "a");
    small.disk.budget = ByteCount::mib(8);
    let server = world.start(small).await.unwrap();
    let mut gateway = world.gateway(&server).await;
    let segment = SegmentId::new(5, 1);
    let entries = chained(segment, 400, 60_000);
    let mut acked = 0;
    let refused = 'fill: {
        for entry in &entries {
            gateway.add_all(std::slice::from_ref(entry)).await;
            let status = gateway.status().await;
            if status.kind != AddStatusKind::Ok {
                break 'fill status.kind;
            }
            acked = status.next;
            // The room is measured a few times a second; a real disk does not fill up in between.
            let usage = server.journal.look(|state| state.file_uses().len());
            if usage >= 4 {
                until(|| server.journal.look(|state| state.file_uses().len()) < usage || blocked(&server)).await;
            }
        }
        panic!("the budget was never noticed");
    };
    assert_eq!(refused, AddStatusKind::ReadOnly);
    assert_eq!(gateway.fence(segment, 2).await, FenceVerdict::Ok { durable: acked, lac: acked - 2, limbo: false });
    assert_eq!(gateway.read(segment, acked - 1).await.status, ReadStatus::Data);
    server.stop().await;
}

fn blocked(server: &Server) -> bool {
    use esker_bookie_core::journal::space::SpaceLevel;
    server.room.usage().level > SpaceLevel::All
}

/// Changes one byte in the middle of every copy of `entry` in the journal files of `dir`.
fn damage(dir: &Path, entry: &Entry) -> usize {
    use std::os::unix::fs::FileExt;
    let mut found = 0;
    for (file, _) in JournalFiles::list(dir).unwrap().files {
        let path = dir.join(file.to_string());
        let bytes = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let needle = &entry.bytes[..64];
        for at in (0..bytes.len() - 64).step_by(4).filter(|i| &bytes[*i..*i + 64] == needle) {
            let at = at + entry.bytes.len() / 2;
            file.write_all_at(&[bytes[at] ^ 0x40], at as u64).unwrap();
            found += 1;
        }
        file.sync_all().unwrap();
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_repaired_from_the_other_copy() {
    let (mut world, dir_a, dir_b) = (World::new(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let a = world.start(config(&dir_a, "a")).await.unwrap();
    let b = world.start(config(&dir_b, "b")).await.unwrap();
    let segment = world.open_segment(&[&a, &b]);
    let entries = chained(segment, 12, 4000);
    for server in [&a, &b] {
        let mut gateway = world.gateway(server).await;
        gateway.add_all(&entries).await;
        gateway.acked(12).await;
    }
    a.stop().await;
    drop(a);
    assert!(damage(dir_a.path(), &entries[5]) > 0);
    // Acknowledged data is gone, and the restart knows it: nothing is denied, nothing is taken.
    let a = world.start(config(&dir_a, "a")).await.unwrap();
    let gateway = world.gateway(&a).await;
    assert_eq!(gateway.read(segment, 5).await.status, ReadStatus::Damaged);
    assert_eq!(gateway.read(segment, 12).await.status, ReadStatus::Limbo);
    let FenceVerdict::Ok { limbo: true, .. } = gateway.fence(segment, 1).await else { panic!("not in limbo") };
    // Closed by its owner, it can be made whole again.
    world.close_segment(&entries, &[&b]);
    until(|| a.journal.look(|state| state.limbo_segments().count()) == 0).await;
    let read = gateway.read(segment, 0).await;
    assert!(read.entries.iter().eq(entries.iter().map(|entry| &entry.bytes)));
    a.stop().await;
    drop(a);
    let a = world.start(config(&dir_a, "a")).await.unwrap();
    let gateway = world.gateway(&a).await;
    assert_eq!(gateway.fence(segment, 1).await, FenceVerdict::Ok { durable: 12, lac: 0, limbo: false });
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_finds_what_nobody_reads() {
    let (mut world, dir_a, dir_b) = (World::new(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let a = world.start(config(&dir_a, "a")).await.unwrap();
    let b = world.start(config(&dir_b, "b")).await.unwrap();
    let segment = world.open_segment(&[&a, &b]);
    let entries = chained(segment, 40, 60_000);
    for server in [&a, &b] {
        let mut gateway = world.gateway(server).await;
        gateway.add_all(&entries).await;
        gateway.acked(40).await;
    }
    world.close_segment(&entries, &[&a, &b]);
    assert!(damage(dir_a.path(), &entries[2]) > 0);
    until(|| a.journal.look(|state| state.seqs().0) > 40).await;
    until(|| a.journal.look(|state| state.limbo_segments().count()) == 0).await;
    let gateway = world.gateway(&a).await;
    assert_eq!(gateway.read(segment, 2).await.entries[0], entries[2].bytes);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_ends_the_server() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let disk = FailingDisk::sound();
    let server = world.start_on(config(&dir, "a"), disk.clone()).await.unwrap();
    let gateway = world.gateway(&server).await;
    disk.fail();
    gateway.add_all(&chained(SegmentId::new(1, 1), 1, 100)).await;
    let reason = tokio::time::timeout(TIMEOUT, server.failed()).await.unwrap();
    assert!(reason.contains("injected"), "{reason}");
    assert!(server.ready().is_err());
    server.stop().await;
}
