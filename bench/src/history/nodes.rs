//! The processes of a small cluster: what they hold by their own metrics, and what a read through the gateway takes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use esker_client::{Client, ClientConfig, ReaderConfig, Start, Trust};
use esker_metadata_client::{RemoteConfig, RemoteStore, View};
use esker_types::{ByteCount, Role};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::commands::{Commands, OWNER, TOPIC};
use super::lookups::{Places, RECORDS, percentile};
use crate::cluster::{Cluster, Spec, metrics};
use crate::cpu;

/// Budget of each of the gateway's caches: so small that a long history overflows them.
const CACHE: ByteCount = ByteCount::mib(1);
/// A metadata node counts its rows once a second.
const LOOKS: usize = 50;
const PAUSE: Duration = Duration::from_millis(200);
/// A batch of a thousand commands may take its time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Nodes {
    cluster: Cluster,
    client: Client,
    /// The gateway's address for clients.
    gateway: String,
}

/// By their metrics, in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Footprint {
    pub metadata: MetadataNode,
    pub gateway: GatewayNode,
}

#[derive(Clone, Debug, Serialize)]
pub struct MetadataNode {
    pub state_bytes: u64,
    /// Raft's log in memory: bounded, and cut by snapshots.
    pub log_bytes: u64,
    pub resident_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct GatewayNode {
    pub parts: BTreeMap<String, u64>,
    pub resident_bytes: u64,
}

impl GatewayNode {
    /// Without caches: those grow to their budgets, and stay there.
    pub fn live(&self) -> u64 {
        self.parts.iter().filter(|(part, _)| !part.ends_with("cache")).map(|(_, bytes)| bytes).sum()
    }

    /// # Errors
    /// A cache that holds more than it may.
    pub fn within_budgets(&self) -> Result<()> {
        // Blocks have two pools.
        for (part, budget) in [("page-cache", CACHE.0), ("block-cache", 2 * CACHE.0)] {
            let held = self.parts.get(part).copied().unwrap_or(u64::MAX);
            ensure!(held <= budget, "the gateway's {part} holds {held} bytes of {budget}");
        }
        Ok(())
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let MetadataNode { state_bytes, log_bytes, resident_bytes } = &self.metadata;
        writeln!(
            f,
            "  metadata node: rows {state_bytes} bytes, raft log {:.1} MB, resident {:.0} MB",
            mb(*log_bytes),
            mb(*resident_bytes)
        )?;
        let parts: Vec<String> = self.gateway.parts.iter().map(|(part, bytes)| format!("{part} {bytes}")).collect();
        let (parts, resident) = (parts.join(", "), mb(self.gateway.resident_bytes));
        write!(f, "  gateway: {} bytes and caches ({parts}), resident {resident:.0} MB", self.gateway.live())
    }
}

/// Reads of one record each at any place, from the request to the record.
#[derive(Clone, Debug, Serialize)]
pub struct Through {
    pub p50_us: f64,
    pub p99_us: f64,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.0} us, p99 {:.0} us", self.p50_us, self.p99_us)
    }
}

impl Nodes {
    /// A metadata node, a bookie that holds nothing, and a gateway that reads; beside them we are a second gateway.
    pub async fn start(esker: PathBuf, data: PathBuf, url: &str) -> Result<(Self, Commands)> {
        let cache = |key: &str| format!("gateway.objects.cache.{key}={CACHE}");
        let settings = vec![
            format!("gateway.objects.url={url}"),
            cache("index-memory"),
            cache("tail.memory"),
            cache("scan.memory"),
            "metadata.session-ttl=30s".to_owned(),
        ];
        let cluster = Cluster::start(Spec { metadata: 1, bookies: 1, gateways: 1, data, esker, settings }).await?;
        let network = cluster.network(Role::Gateway, OWNER).await?;
        let address = |role: &str, door: &str| {
            let roles = cluster.describe().roles;
            let found = roles.iter().find(|one| one.role == role).and_then(|one| one.addresses.get(door).cloned());
            found.with_context(|| format!("{role} has no address {door}"))
        };
        let mut config = RemoteConfig::new(vec![address("metadata", "internal")?.parse()?]);
        (config.call_timeout, config.deadline) = (PATIENCE, PATIENCE);
        let store = RemoteStore::new(network.clone(), config);
        let stop = CancellationToken::new();
        let view = View::follow(&store, stop.clone());
        view.ready().await;
        network.set_cluster(view.read(|state| state.cluster().map(|cluster| cluster.id)).unwrap_or_default());
        let commands = Commands::begin(Arc::new(store), view, stop).await?;
        let gateway = address("gateway", "quic")?;
        let client = Client::connect(ClientConfig::new(vec![gateway.clone()], Trust::CaFile(cluster.ca()))).await?;
        Ok((Self { cluster, client, gateway }, commands))
    }

    /// Reads `count` records at places all over the log.
    pub async fn read(&self, segments: u64, count: usize) -> Result<Through> {
        let mut places = Places::new(segments * RECORDS.unsigned_abs());
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let at = places.next();
            let began = Instant::now();
            let mut config = ReaderConfig::new(Start::Offset(at));
            // It owns nothing of this; what is closed any gateway serves.
            (config.end, config.near) = (Some(at + 1), Some(self.gateway.clone()));
            let mut reader = self.client.reader_with(TOPIC, 0, config);
            let fetched = reader.next().await.with_context(|| format!("nothing at {at}"))??;
            took.push(began.elapsed());
            let record = fetched.records()?.next().with_context(|| format!("no record at {at}"))??;
            let whole = record.offset == at && record.value.as_deref() == Some(&at.to_be_bytes()[..]);
            ensure!(whole, "the record at {at} is another one");
        }
        Ok(Through { p50_us: percentile(&mut took, 50), p99_us: percentile(&mut took, 99) })
    }

    /// At a moment at which the metadata node has counted its rows.
    pub async fn footprint(&self, rows: impl Fn() -> u64) -> Result<Footprint> {
        const ROWS: &str = "esker_metadata_state_accounted_bytes";
        let mut text = String::new();
        for _ in 0..LOOKS {
            text = self.scrape("metadata-1").await?;
            if metrics::sum(&text, ROWS) == Some(rows() as f64) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let gauge = |name: &str| metrics::sum(&text, name).map(|value| value as u64).with_context(|| name.to_owned());
        let metadata = MetadataNode {
            state_bytes: gauge(ROWS)?,
            log_bytes: gauge("esker_metadata_log_bytes")?,
            resident_bytes: self.resident("metadata-1"),
        };
        let text = self.scrape("gateway-1").await?;
        let parts = metrics::by_label(&text, "esker_gateway_accounted_bytes", "part");
        let parts: BTreeMap<String, u64> = parts.into_iter().map(|(part, bytes)| (part, bytes as u64)).collect();
        ensure!(!parts.is_empty(), "the gateway does not say what it holds");
        Ok(Footprint { metadata, gateway: GatewayNode { parts, resident_bytes: self.resident("gateway-1") } })
    }

    async fn scrape(&self, id: &str) -> Result<String> {
        let roles = self.cluster.describe().roles;
        let http = roles.iter().find(|role| role.id == id).and_then(|role| role.addresses.get("http"));
        metrics::scrape(http.with_context(|| format!("{id} has no HTTP door"))?).await
    }

    fn resident(&self, id: &str) -> u64 {
        let roles = self.cluster.describe().roles;
        roles.iter().find(|role| role.id == id).and_then(|role| cpu::resident_bytes(role.pid)).unwrap_or(0)
    }

    pub async fn stop(&mut self) -> Result<()> {
        self.client.close().await;
        self.cluster.stop_all().await
    }
}
