//! `esker cluster` and `esker metadata`: the birth of a cluster, its state, and the members of its quorum.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use esker_metadata_client::MetadataStore;
use esker_metadata_client::admin::{
    self, AddMember, AdminAsk, AdminReply, InitCluster, ListMembers, Members, RemoveMember,
};
use esker_metadata_core::{Command, FinalizeVersion};
use esker_net::{Address, Network, Pool, RpcError};
use esker_types::{ClusterId, Role};
use serde_json::json;
use tokio::time::Instant;

use super::{connect, parse, table};
use crate::args::{Cluster, MetadataAdmin, Quorum};
use crate::roles::{self, NodeConfig, TlsPaths};

/// Nodes that were started a moment ago may still be opening their ports.
const PATIENCE: Duration = Duration::from_secs(20);
/// A new member is answered only when it has caught up.
const CALL_TIMEOUT: Duration = Duration::from_secs(330);
const PAUSE: Duration = Duration::from_millis(100);

pub async fn cluster(command: Cluster) -> Result<()> {
    match command {
        Cluster::Init { voters, auto_create_topics, default_partitions, quorum, output } => {
            let nodes = voters.iter().map(|text| parse::node(text)).collect::<Result<Vec<_>>>()?;
            let voters: Vec<String> = nodes.into_iter().map(|(_, address)| address).collect();
            let ask = AdminAsk::Init(InitCluster {
                voters: voters.clone(),
                auto_create_topics,
                default_partitions,
                ..InitCluster::default()
            });
            let AdminReply::Born(born) = asked(&quorum, &voters[..1], ask, true).await? else {
                bail!("the node answered something else than was asked")
            };
            let id = ClusterId::from_slice(&born.cluster).context("the node answered no cluster id")?;
            if output.json {
                println!("{}", json!({ "cluster_id": id.to_string() }));
            } else {
                eprintln!("cluster {id} is born with {} voters", voters.len());
            }
        }
        Cluster::Status { connect, output } => status(&connect, output.json).await?,
        Cluster::Finalize { quorum } => {
            let links = links(&quorum)?;
            let store = roles::metadata_store(links.network(), &quorum.metadata)?;
            let version = esker_metadata_core::COMMAND_VERSION;
            let proposed = store.propose(vec![Command::from(FinalizeVersion { version })]).await?;
            proposed.single().map_err(|reject| anyhow!("{}", reject.reason))?;
            eprintln!("the cluster writes version {version} from now on");
        }
    }
    Ok(())
}

pub async fn metadata(command: MetadataAdmin) -> Result<()> {
    match command {
        MetadataAdmin::Add { node, quorum } => {
            let (name, address) = parse::node(&node)?;
            asked(&quorum, &quorum.metadata, AdminAsk::Add(AddMember { address }), false).await?;
            eprintln!("{name} is a member of the metadata quorum");
        }
        MetadataAdmin::Remove { name, quorum } => {
            asked(&quorum, &quorum.metadata, AdminAsk::Remove(RemoveMember { member: name.clone() }), false).await?;
            eprintln!("{name} is no member of the metadata quorum any more; stop its process");
        }
        MetadataAdmin::List { quorum, output } => {
            let mut rows = Vec::new();
            for m in members(&quorum).await?.members {
                let role = if m.leader {
                    "leader"
                } else if m.voter {
                    "voter"
                } else {
                    "learner"
                };
                if output.json {
                    println!(
                        "{}",
                        json!({ "node": m.node.to_string(), "name": m.name, "address": m.address, "role": role,
                        "behind": m.behind })
                    );
                }
                rows.push(vec![m.name, m.address, role.to_owned(), m.behind.map_or("-".to_owned(), |n| n.to_string())]);
            }
            if !output.json {
                table::print(&["NAME", "ADDRESS", "ROLE", "BEHIND"], &rows);
            }
        }
    }
    Ok(())
}

async fn members(quorum: &Quorum) -> Result<Members> {
    match asked(quorum, &quorum.metadata, AdminAsk::Members(ListMembers {}), false).await? {
        AdminReply::Members(members) => Ok(members),
        _ => bail!("the node answered something else than was asked"),
    }
}

pub fn links(quorum: &Quorum) -> Result<Pool> {
    let tls = match (&quorum.tls_ca, &quorum.tls_cert, &quorum.tls_key) {
        (Some(ca), Some(cert), Some(key)) => Some(TlsPaths { ca: ca.clone(), cert: cert.clone(), key: key.clone() }),
        (None, None, None) => None,
        _ => bail!("--tls-ca, --tls-cert and --tls-key go together"),
    };
    let node = NodeConfig { tls, ..NodeConfig::default() };
    Ok(Pool::new(roles::links(Role::Admin, "admin", &node)?))
}

/// The first node of `servers` that answers; with `patient` also one that is still starting.
async fn asked(quorum: &Quorum, servers: &[String], ask_what: AdminAsk, patient: bool) -> Result<AdminReply> {
    ask(links(quorum)?.network(), servers, ask_what, patient).await
}

/// [`asked`] over links that stand already.
pub async fn ask(network: &Network, servers: &[String], ask: AdminAsk, patient: bool) -> Result<AdminReply> {
    let pool = Pool::new(network.clone());
    let parse = |text: &String| text.parse::<Address>().with_context(|| format!("metadata address {text:?}"));
    let servers = servers.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let deadline = Instant::now() + if patient { PATIENCE } else { Duration::ZERO };
    loop {
        match admin::ask_any(&pool, &servers, ask.clone(), CALL_TIMEOUT).await {
            Ok(reply) => return Ok(reply),
            // Nobody listened, so nothing was done.
            Err(RpcError::NotSent(_)) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(anyhow!(error)),
        }
    }
}

async fn status(connect: &crate::args::Connect, json: bool) -> Result<()> {
    let status = connect::connect(connect).await?.admin().cluster_status().await?;
    let id = ClusterId::from_slice(&status.cluster_id).map(|id| id.to_string()).unwrap_or_default();
    if json {
        let metadata: Vec<_> = status
            .metadata
            .iter()
            .map(|m| {
                json!({ "name": m.name, "address": m.address,
            "leader": m.leader, "voter": m.voter, "live": m.live })
            })
            .collect();
        let bookies: Vec<_> = status
            .bookies
            .iter()
            .map(|b| {
                json!({ "id": b.id, "name": b.name, "address": b.address,
            "zone": b.zone, "state": b.state, "segments": b.segments })
            })
            .collect();
        let gateways: Vec<_> = status
            .gateways
            .iter()
            .map(|g| {
                json!({ "id": g.id, "name": g.name,
            "addresses": g.addresses, "kafka": g.kafka, "zone": g.zone, "live": g.live, "draining": g.draining,
            "partitions": g.partitions })
            })
            .collect();
        println!(
            "{}",
            json!({ "cluster_id": id, "version": status.version, "revision": status.revision,
            "metadata": metadata, "bookies": bookies, "gateways": gateways, "topics": status.topics,
            "partitions": status.partitions, "ownerless": status.ownerless,
            "bytes": { "bookies": status.bookie_bytes, "objects": status.object_bytes },
            "degraded_segments": status.degraded_segments, "warnings": status.warnings })
        );
        return Ok(());
    }
    println!("cluster {id}, version {}, revision {}", status.version, status.revision);
    println!("{} topics, {} partitions ({} without owner)", status.topics, status.partitions, status.ownerless);
    println!("{} on bookies, {} in objects", table::bytes(status.bookie_bytes), table::bytes(status.object_bytes));
    let mut rows = Vec::new();
    for m in &status.metadata {
        let state = if m.leader {
            "leader"
        } else if m.live {
            "live"
        } else {
            "unknown"
        };
        rows.push(vec!["metadata".to_owned(), m.name.clone(), state.to_owned(), m.address.clone(), String::new()]);
    }
    for b in &status.bookies {
        rows.push(vec![
            "bookie".to_owned(),
            b.name.clone(),
            b.state.clone(),
            b.address.clone(),
            format!("{} segments", b.segments),
        ]);
    }
    for g in &status.gateways {
        let state = if !g.live {
            "down"
        } else if g.draining {
            "draining"
        } else {
            "live"
        };
        rows.push(vec![
            "gateway".to_owned(),
            g.name.clone(),
            state.to_owned(),
            match g.kafka.is_empty() {
                true => g.addresses.join(" "),
                false => format!("{}, Kafka {}", g.addresses.join(" "), g.kafka),
            },
            format!("{} partitions", g.partitions),
        ]);
    }
    table::print(&["ROLE", "NAME", "STATE", "ADDRESS", "HAS"], &rows);
    for warning in &status.warnings {
        println!("warning: {warning}");
    }
    Ok(())
}
