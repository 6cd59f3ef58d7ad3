use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use esker_client::{Client, ClientConfig, Producer, ProducerConfig, Record, Start, Trust};
use esker_gateway::{Config, Deps, Server};
use esker_metadata_client::{MemoryStore, View};
use esker_metadata_core::{Command, InitCluster, RegisterBookie, plan};
use esker_net::{Hub, Identity, NetConfig, Network};
use esker_types::units::ByteCount;
use esker_types::{BookieId, BootId, ClusterId, InstanceId, Member, Quorum, Role, SessionId};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::bookie::{Bookie, Disk};

/// A cluster in this process: metadata in memory, bookies in memory, real gateways on real sockets, a controller that
/// assigns what nobody owns.
pub struct World {
    pub store: MemoryStore,
    pub gateways: BTreeMap<String, Running>,
    pub disks: Vec<Disk>,
    pub bookies: BTreeMap<u64, Bookie>,
    hub: Hub,
    folder: tempfile::TempDir,
    ca: Vec<u8>,
    boots: u8,
    _controller: tokio_util::sync::DropGuard,
}

pub struct Running {
    pub server: Server,
    pub cancel: CancellationToken,
    /// Cancelled: the gateway hears nothing new of metadata, and does not know it.
    pub news: CancellationToken,
}

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);

impl World {
    pub async fn new(bookies: u64, quorum: Quorum) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])
            .expect("a certificate");
        let ca = key.cert.pem().into_bytes();
        std::fs::write(folder.path().join("cert.pem"), &ca).expect("writable");
        std::fs::write(folder.path().join("key.pem"), key.signing_key.serialize_pem()).expect("writable");
        let store = MemoryStore::new();
        let init = InitCluster { id: CLUSTER, quorum, auto_create_topics: false, default_partitions: 1 };
        store.apply(vec![Command::InitCluster(init)]);
        let cancel = CancellationToken::new();
        tokio::spawn(control(store.clone(), cancel.clone()));
        let mut world = Self {
            store,
            gateways: BTreeMap::new(),
            disks: Vec::new(),
            bookies: BTreeMap::new(),
            hub: Hub::new(),
            folder,
            ca,
            boots: 0,
            _controller: cancel.drop_guard(),
        };
        for id in 1..=bookies {
            world.disks.push(Disk::new(Member { bookie: BookieId(id), instance: InstanceId([id as u8; 16]) }));
            world.start_bookie(id).await;
        }
        world
    }

    pub async fn start_bookie(&mut self, id: u64) {
        let (name, boot) = (format!("bookie-{id}"), self.boot());
        let disk = self.disks[id as usize - 1].clone();
        let expect_boot_no = self.store.inspect(|state| state.bookie(BookieId(id)).map_or(0, |bookie| bookie.boot_no));
        let register = RegisterBookie {
            name: name.clone(),
            instance: disk.member.instance,
            boot,
            expect_boot_no,
            durable_lsn: 0,
            address: format!("inproc:{name}"),
            zone: String::new(),
            version: esker_metadata_core::VERSION_MAX,
            replaces: None,
        };
        let registered = self.store.apply(vec![Command::RegisterBookie(register)]).single();
        registered.expect("registers");
        let bookie = disk.start(self.network(Role::Bookie, &name, boot)).await;
        self.bookies.insert(id, bookie);
    }

    pub async fn start_gateway(&mut self, name: &str) -> &Server {
        self.start_gateway_with(name, |_| {}).await
    }

    pub async fn start_gateway_with(&mut self, name: &str, change: impl FnOnce(&mut Config)) -> &Server {
        let boot = self.boot();
        let cancel = CancellationToken::new();
        let news = cancel.child_token();
        let mut config = Config { node_name: name.to_owned(), tail_cache: ByteCount::mib(4), ..Config::default() };
        config.quic.listen = "127.0.0.1:0".to_owned();
        config.quic.cert = self.path("cert.pem");
        config.quic.key = self.path("key.pem");
        config.internal.listen = format!("inproc:{name}");
        change(&mut config);
        let deps = Deps {
            network: self.network(Role::Gateway, name, boot),
            store: Arc::new(self.store.clone()),
            view: View::follow(&self.store, news.clone()),
            registry: &mut Registry::default(),
            cancel: cancel.clone(),
        };
        let server = Server::start(config, deps).await.expect("starts");
        self.gateways.insert(name.to_owned(), Running { server, cancel, news });
        &self.gateways[name].server
    }

    /// The process is gone at once; metadata notices.
    pub async fn kill_gateway(&mut self, name: &str) {
        let running = self.gateways.remove(name).expect("it runs");
        let session = self.session(name);
        running.cancel.cancel();
        drop(running);
        self.expire(session);
    }

    pub fn session(&self, name: &str) -> SessionId {
        self.store
            .inspect(|state| state.gateway_by_name(name).and_then(|gateway| gateway.session))
            .expect("it has a session")
    }

    pub fn expire(&self, session: SessionId) {
        let commands = self.store.inspect(|state| plan::expire_and_assign(state, &[session]));
        self.store.apply(commands);
    }

    pub fn address(&self, name: &str) -> String {
        self.gateways[name].server.addresses().quic.to_string()
    }

    pub fn client_config(&self, gateways: &[&str]) -> ClientConfig {
        ClientConfig::new(gateways.iter().map(|name| self.address(name)), Trust::CaPem(self.ca.clone()))
    }

    pub async fn client(&self, gateways: &[&str]) -> Client {
        Client::connect(self.client_config(gateways)).await.expect("connects")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// Name of the gateway that owns a partition, as metadata has it.
    pub fn owner(&self, topic: &str, partition: u32) -> Option<String> {
        self.store.inspect(|state| {
            let record = state.partition_of(topic, partition)?;
            let owner = record.owner.as_ref().filter(|_| state.has_live_owner(record))?;
            state.gateway(owner.gateway).map(|gateway| gateway.name.clone())
        })
    }

    fn network(&self, role: Role, name: &str, boot: BootId) -> Network {
        let network = Network::with_hub(Identity::new(role, name, boot), NetConfig::default(), self.hub.clone());
        network.set_cluster(CLUSTER);
        network
    }

    fn boot(&mut self) -> BootId {
        self.boots += 1;
        BootId([self.boots; 16])
    }
}

/// Assigns ownerless partitions whenever something changed.
async fn control(store: MemoryStore, cancel: CancellationToken) {
    let view = View::follow(&store, cancel.clone());
    let mut revision = 0;
    loop {
        let Some(changed) = cancel.run_until_cancelled(view.changed(revision)).await else { return };
        revision = changed;
        let commands = store.inspect(|state| plan::expire_and_assign(state, &[]));
        if !commands.is_empty() {
            store.apply(commands);
        }
    }
}

pub fn producer(client: &Client) -> Producer {
    client.producer(ProducerConfig::default()).expect("valid")
}

/// Sends numbered records and waits for all of them.
pub async fn send(producer: &Producer, topic: &str, partition: u32, numbers: std::ops::Range<u32>) {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::value(format!("record {number}"));
        deliveries.push(producer.send(topic, Some(partition), record).await.expect("room"));
    }
    for delivery in deliveries {
        delivery.await.expect("stored");
    }
}

/// The values in a partition, from the beginning to what is there now.
pub async fn read_all(client: &Client, topic: &str, partition: u32) -> Vec<String> {
    let mut reader = client.reader(topic, partition, Start::Earliest);
    reader.open().await.expect("opens");
    reader.set_end(Some(reader.high_watermark()));
    let mut values = Vec::new();
    while let Some(fetched) = within(reader.next()).await {
        for record in fetched.expect("readable").records().expect("decodes") {
            let value = record.expect("decodes").value.expect("a value");
            values.push(String::from_utf8(value.to_vec()).expect("text"));
        }
    }
    values
}

pub fn numbered(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("record {number}")).collect()
}

/// Far longer than anything takes: a hang is a failure, not a hang.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("done in time")
}
