//! All roles in one process: the same servers as in a cluster, joined by links inside the process.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use esker_bookie::Server as Bookie;
use esker_gateway::Server as Gateway;
use esker_metadata::{Birth, Server as Metadata};
use esker_metadata_client::{RemoteStore, View};
use esker_net::{Hub, Identity, NetConfig, Network};
use esker_types::{BootId, Quorum, Role};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::files::StandaloneFile;
use super::metadata_client::{boot_id, metadata_store};
use super::process::{serve_http, until_stopped};
use crate::args::Standalone;
use crate::config::{Layers, load};
use crate::http::{self, Readiness};
use crate::logging;
use crate::tls::Authority;

pub const METADATA_LINK: &str = "inproc:metadata";
const GATEWAY_LINK: &str = "inproc:gateway";
/// What Kafka's own test suites expect of a broker that creates topics by itself.
const AUTO_CREATED_PARTITIONS: u32 = 4;
/// Given instead of an address: no door for Kafka clients.
const OFF: &str = "off";

pub async fn standalone(args: Standalone) -> Result<()> {
    let config: StandaloneFile = load(&Layers::new(None, args.sets.clone()))?;
    logging::start("warn");
    std::fs::create_dir_all(&args.data).with_context(|| format!("can't create {}", args.data.display()))?;
    let _lock = lock(&args.data)?;
    certificates(&args.data, &args.quic)?;
    let http = http::bind(&args.http).await?;
    let config = with_bucket(config, &args)?;
    let roles = Roles::start(&args, config).await?;
    eprintln!(
        "esker is ready: clients at {}, health and metrics at http://{}",
        roles.gateway.addresses().quic,
        args.http
    );
    if let Some(kafka) = roles.gateway.addresses().kafka {
        eprintln!("Kafka clients: bootstrap.servers={kafka}");
    }
    eprintln!("data and certificates are in {}; stop with Ctrl-C", args.data.display());
    roles.run(http).await
}

/// One process per data folder. The lock goes with the process, however it ends.
pub fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another process; choose another folder with --data", data.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {}", path.display())),
    }
}

/// An authority of its own, made at the first start, and a certificate for whatever name it is reached by.
fn certificates(data: &Path, quic: &str) -> Result<()> {
    let folder = data.join("tls");
    let authority = if folder.join("ca.key").exists() {
        Authority::open(&folder)?
    } else {
        Authority::create(&folder, "standalone")?
    };
    if folder.join("gateway.pem").exists() {
        return Ok(());
    }
    let host = quic.rsplit_once(':').map_or(quic, |(host, _)| host.trim_matches(['[', ']']));
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    authority.issue("gateway", "gateway", &names, &folder)?;
    Ok(())
}

struct Roles {
    metadata: Arc<Metadata>,
    bookies: Vec<Arc<Bookie>>,
    gateway: Gateway,
    registry: Registry,
    cancel: CancellationToken,
}

/// What the links of all roles have in common.
struct Inside {
    hub: Hub,
    boot: BootId,
}

impl Inside {
    fn network(&self, role: Role, name: &str) -> Network {
        Network::with_hub(Identity::new(role, name, self.boot), NetConfig::default(), self.hub.clone())
    }

    fn store(&self, network: &Network) -> Result<Arc<RemoteStore>> {
        Ok(Arc::new(metadata_store(network, &[METADATA_LINK.to_owned()])?))
    }
}

impl Roles {
    /// Metadata first, then what needs it. What runs already is stopped again if a later one can't start: its threads
    /// and tasks may not talk over the one line that says why.
    async fn start(args: &Standalone, config: StandaloneFile) -> Result<Self> {
        let inside = Inside { hub: Hub::new(), boot: boot_id()? };
        let (mut registry, cancel) = (Registry::default(), CancellationToken::new());
        let metadata = start_metadata(args, config.metadata.clone(), &inside, &mut registry, &cancel).await?;
        let mut bookies = Vec::new();
        match start_rest(args, config, &inside, &mut registry, &cancel, &mut bookies).await {
            Ok(gateway) => Ok(Self { metadata, bookies, gateway, registry, cancel }),
            Err(error) => {
                stop_stores(&bookies, &metadata, &cancel).await;
                Err(error)
            }
        }
    }

    /// Until a signal or a failure; then stops in reverse order.
    async fn run(self, http: TcpListener) -> Result<()> {
        let Self { metadata, bookies, gateway, registry, cancel } = self;
        let mut ready: Vec<(&'static str, Readiness)> = vec![("gateway", Box::new(gateway.readiness()))];
        for bookie in bookies.clone() {
            ready.push(("bookie", Box::new(move || bookie.ready())));
        }
        let server = metadata.clone();
        ready.push(("metadata", Box::new(move || server.ready())));
        serve_http(http, registry, ready, &cancel);
        let bookie_failed = futures_util::future::select_all(bookies.iter().map(|bookie| Box::pin(bookie.failed())));
        let ended = tokio::select! {
            ended = until_stopped(metadata.failed()) => ended,
            (reason, ..) = bookie_failed => Err(anyhow::anyhow!(reason)),
        };
        gateway.stop().await;
        stop_stores(&bookies, &metadata, &cancel).await;
        ended
    }
}

/// Bookies before the metadata that they report to.
async fn stop_stores(bookies: &[Arc<Bookie>], metadata: &Metadata, cancel: &CancellationToken) {
    for bookie in bookies.iter().rev() {
        bookie.stop().await;
    }
    metadata.stop().await;
    cancel.cancel();
}

async fn start_rest(
    args: &Standalone,
    config: StandaloneFile,
    inside: &Inside,
    registry: &mut Registry,
    cancel: &CancellationToken,
    bookies: &mut Vec<Arc<Bookie>>,
) -> Result<Gateway> {
    for number in 1..=args.bookies {
        bookies.push(start_bookie(args, &config.bookie, number, inside, registry, cancel).await?);
    }
    start_gateway(args, config.gateway, inside, registry, cancel).await
}

async fn start_metadata(
    args: &Standalone,
    mut config: esker_metadata::Config,
    inside: &Inside,
    registry: &mut Registry,
    cancel: &CancellationToken,
) -> Result<Arc<Metadata>> {
    (config.listen, config.advertised) = (METADATA_LINK.to_owned(), String::new());
    config.data_dir = args.data.join("metadata");
    let quorum = match args.bookies {
        0..=2 => Quorum { write: args.bookies.max(1), ack: args.bookies.max(1) },
        _ => Quorum { write: 3, ack: 2 },
    };
    let default_partitions = if args.auto_create_topics { AUTO_CREATED_PARTITIONS } else { 1 };
    let birth = Birth { cluster: None, quorum, auto_create_topics: args.auto_create_topics, default_partitions };
    let deps = esker_metadata::Deps {
        network: inside.network(Role::Metadata, &config.node_name),
        registry,
        cancel: cancel.child_token(),
        birth: Some(birth),
    };
    Ok(Arc::new(Metadata::start(config, deps).await?))
}

async fn start_bookie(
    args: &Standalone,
    config: &esker_bookie::Config,
    number: u8,
    inside: &Inside,
    registry: &mut Registry,
    cancel: &CancellationToken,
) -> Result<Arc<Bookie>> {
    let name = format!("bookie-{number}");
    let mut config = config.clone();
    config.data_dir = args.data.join(&name);
    (config.listen, config.advertised) = (format!("inproc:{name}"), String::new());
    let network = inside.network(Role::Bookie, &name);
    let store = inside.store(&network)?;
    config.node_name = name.clone();
    let labels = [("bookie".into(), name.into())].into_iter();
    let registry = if args.bookies > 1 { registry.sub_registry_with_labels(labels) } else { registry };
    let deps = esker_bookie::Deps { network, store, registry, cancel: cancel.child_token(), hooks: None };
    Ok(Arc::new(Bookie::start(config, deps).await?))
}

async fn start_gateway(
    args: &Standalone,
    mut config: esker_gateway::Config,
    inside: &Inside,
    registry: &mut Registry,
    cancel: &CancellationToken,
) -> Result<Gateway> {
    let tls = args.data.join("tls");
    (config.quic.listen, config.quic.cert, config.quic.key) =
        (args.quic.clone(), tls.join("gateway.pem"), tls.join("gateway.key"));
    config.kafka.listen = if args.kafka == OFF { String::new() } else { args.kafka.clone() };
    (config.internal.listen, config.internal.advertised) = (GATEWAY_LINK.to_owned(), String::new());
    let network = inside.network(Role::Gateway, &config.node_name);
    let store = inside.store(&network)?;
    let view = View::follow(store.as_ref(), cancel.child_token());
    let deps = esker_gateway::Deps { network, store, view, registry, cancel: cancel.child_token() };
    Ok(Gateway::start(config, deps).await?)
}

/// One bucket for old segments and for copies of the metadata.
fn with_bucket(mut config: StandaloneFile, args: &Standalone) -> Result<StandaloneFile> {
    let set = &mut config.gateway.objects.url;
    match args.object_store.as_deref() {
        Some("none") => set.clear(),
        Some(url) => url.clone_into(set),
        None if set.is_empty() => *set = own_folder(&args.data)?,
        None => {}
    }
    config.metadata.objects.url.clone_from(set);
    Ok(config)
}

/// `DATA/objects` as a URL.
fn own_folder(data: &Path) -> Result<String> {
    let folder = data.join("objects");
    std::fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    let folder = folder.canonicalize().with_context(|| format!("can't find {}", folder.display()))?;
    Ok(format!("file://{}", folder.display()))
}
