//! `esker recover`: a lost cluster's metadata, made anew from its bucket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use esker_cache::recover::{Options, Outcome, Plan};
use esker_cache::store::StoreMetrics;
use esker_cache::{Class, Kind, Store, StoreConfig, config};
use esker_cache_core::backup::BackupName;
use esker_cache_core::claim::Claim;
use esker_metadata::Server;
use esker_metadata_client::admin::{AdminAsk, AdminReply, InitCluster};
use esker_metadata_client::{MetadataStore, ProposeError};
use esker_metadata_core::{Answer, ClusterQuery, LostRange, Query, State, restore_commands};
use esker_net::{Hub, Identity, NetConfig, Network};
use esker_types::{BootId, ClusterId, Interval, Quorum, Role};
use prometheus_client::registry::Registry;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{parse, quorum, table};
use crate::args::Recover;
use crate::roles::{self, METADATA_LINK};

/// A quorum that was made a moment ago has no leader yet.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const INCARNATION_MAX: u8 = u8::MAX;

pub async fn run(args: Recover) -> Result<()> {
    let config = StoreConfig { deadline: Interval::secs(30), ..config::Config::default().store };
    let store = Store::open(&args.from, config, StoreMetrics::default())?;
    store.probe().await?;
    let into = Into::of(&args)?;
    let backup = args.backup.as_deref().map(str::parse::<BackupName>).transpose()?;
    let incarnation = next_incarnation(&store).await?;
    eprintln!("reading {}", store.location().describe());
    let mut options = Options { backup, incarnation, quorum: args.quorum_of_topics };
    let mut plan = store.plan_recovery(&options).await?;
    if args.dry_run {
        return print(&plan, args.output.json);
    }
    // From here on what is left of the former cluster neither writes nor deletes there.
    let by = roles::boot_id()?;
    while !claim(&store, &plan.state, by).await? {
        options.incarnation = above(options.incarnation)?;
        plan = store.plan_recovery(&options).await?;
    }
    into.put(&plan.state).await?;
    print(&plan, args.output.json)?;
    eprintln!("{}", into.next_step(&args.from));
    Ok(())
}

fn above(incarnation: u8) -> Result<u8> {
    if incarnation == INCARNATION_MAX {
        bail!("this bucket was recovered {INCARNATION_MAX} times: no number is left for one more life");
    }
    Ok(incarnation + 1)
}

async fn next_incarnation(store: &Store) -> Result<u8> {
    let claimed = store.newest_claim().await?.map(|claim| claim.incarnation);
    let backed_up = store.backups().await?.first().map(|name| name.incarnation);
    above(claimed.max(backed_up).unwrap_or(0))
}

/// False: somebody else was first with this incarnation.
async fn claim(store: &Store, state: &State, by: BootId) -> Result<bool> {
    let cluster = state.cluster().context("the backup holds no cluster")?;
    let mine = Claim { cluster: cluster.id, incarnation: cluster.incarnation, by };
    match store.create(&mine.key(), mine.to_string().into(), Class::Foreground).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Exists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Where the metadata goes.
enum Into<'a> {
    /// The folder of a standalone broker.
    Folder(&'a Path),
    /// Blank metadata nodes that run.
    Voters(Vec<String>, &'a crate::args::Quorum),
}

impl<'a> Into<'a> {
    fn of(args: &'a Recover) -> Result<Self> {
        if args.voters.is_empty() {
            let metadata = args.data.join("metadata");
            if metadata.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                bail!("{} holds metadata already: give --data an empty folder", metadata.display());
            }
            return Ok(Self::Folder(&args.data));
        }
        let nodes = args.voters.iter().map(|text| parse::node(text)).collect::<Result<Vec<_>>>()?;
        Ok(Self::Voters(nodes.into_iter().map(|(_, address)| address).collect(), &args.quorum))
    }

    async fn put(&self, state: &State) -> Result<()> {
        match self {
            Self::Folder(data) => {
                let made = put_in_folder(data, state).await;
                if made.is_err() {
                    // It was empty before.
                    let _ = std::fs::remove_dir_all(data.join("metadata"));
                }
                made
            }
            Self::Voters(voters, quorum) => put(quorum::links(quorum)?.network(), voters, state).await,
        }
    }

    fn next_step(&self, from: &str) -> String {
        match self {
            Self::Folder(data) => {
                format!("start it: esker standalone --data {} --object-store '{from}'", data.display())
            }
            Self::Voters(..) => "start bookies and gateways; metadata.objects.url and gateway.objects.url must name \
                                 this bucket"
                .to_owned(),
        }
    }
}

/// The same server as in a standalone broker, for as long as it takes.
async fn put_in_folder(data: &Path, state: &State) -> Result<()> {
    std::fs::create_dir_all(data).with_context(|| format!("can't create {}", data.display()))?;
    let _lock = roles::lock(data)?;
    let (hub, boot) = (Hub::new(), roles::boot_id()?);
    let network =
        |role, name: &str| Network::with_hub(Identity::new(role, name, boot), NetConfig::default(), hub.clone());
    let config = esker_metadata::Config {
        listen: METADATA_LINK.to_owned(),
        data_dir: data.join("metadata"),
        ..esker_metadata::Config::default()
    };
    let links = network(Role::Metadata, &config.node_name);
    let (mut registry, cancel) = (Registry::default(), CancellationToken::new());
    let deps = esker_metadata::Deps { network: links, registry: &mut registry, cancel, birth: None };
    let server = Server::start(config, deps).await?;
    let done = put(&network(Role::Admin, "recover"), &[METADATA_LINK.to_owned()], state).await;
    server.stop().await;
    done
}

/// Makes a quorum of blank nodes and gives it the state, a piece at a time.
async fn put(network: &Network, voters: &[String], state: &State) -> Result<()> {
    let init = InitCluster { voters: voters.to_vec(), restore: true, ..InitCluster::default() };
    let AdminReply::Born(_) = quorum::ask(network, &voters[..1], AdminAsk::Init(init), true).await? else {
        bail!("the node answered something else than was asked")
    };
    let store = roles::metadata_store(network, voters)?;
    let expected = state.cluster().map(|cluster| (cluster.id, cluster.incarnation));
    let deadline = Instant::now() + PATIENCE;
    for command in restore_commands(state) {
        loop {
            match store.propose(vec![command.clone()]).await {
                Ok(done) => match done.single() {
                    Ok(_) => break,
                    // The last piece proposed again after an unknown outcome, when the cluster had begun to work.
                    Err(reject) if born(&store).await? != expected => bail!("{}", reject.reason),
                    Err(_) => break,
                },
                // The same again is harmless.
                Err(ProposeError::NotApplied(reason) | ProposeError::Unknown(reason)) => {
                    if Instant::now() > deadline {
                        bail!("{reason}; empty the data directories of the metadata nodes and run this again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    match born(&store).await? == expected {
        true => Ok(()),
        false => bail!("the metadata quorum holds another cluster than was put into it"),
    }
}

async fn born(store: &impl MetadataStore) -> Result<Option<(ClusterId, u8)>> {
    match store.read(Query::Cluster(ClusterQuery {})).await.map_err(|error| anyhow!(error))? {
        Answer::Cluster(answer) => Ok(answer.cluster.map(|cluster| (cluster.id, cluster.incarnation))),
        _ => bail!("the node answered something else than was asked"),
    }
}

fn print(plan: &Plan, json: bool) -> Result<()> {
    let cluster = plan.state.cluster().context("the backup holds no cluster")?;
    let taken = moment(plan.taken.0);
    if json {
        let ranges = |ranges: &[LostRange]| ranges.iter().map(|r| json!([r.from, r.to])).collect::<Vec<_>>();
        let partitions: Vec<_> = plan
            .partitions
            .iter()
            .map(|Outcome { topic, index, partition, report }| {
                json!({ "topic": topic.name, "partition": index, "id": partition.0, "log_start": report.log_start,
                    "in_bucket_to": report.in_bucket_to, "known_to": report.known_to, "open_from": report.open_from,
                    "missing": ranges(&report.missing), "goes_on_at": report.goes_on_at,
                    "segments": report.segments, "newer_segments": report.newer })
            })
            .collect();
        let strange: Vec<_> = plan.strange.iter().map(|(id, n)| json!({ "id": id.0, "objects": n })).collect();
        println!(
            "{}",
            json!({ "cluster_id": cluster.id.to_string(), "incarnation": plan.incarnation,
            "backup": plan.backup.to_string(), "taken_ms": plan.taken.0, "partitions": partitions,
            "unknown_partitions": strange, "notes": plan.notes })
        );
        return Ok(());
    }
    println!("cluster {}, life {}, from backup {} of {taken}", cluster.id, plan.incarnation, plan.backup);
    let rows: Vec<Vec<String>> = plan
        .partitions
        .iter()
        .map(|Outcome { topic, index, report, .. }| {
            let missing: Vec<String> = report.missing.iter().map(|r| format!("{}..{}", r.from, r.to)).collect();
            vec![
                format!("{}/{index}", topic.name),
                format!("{}..{}", report.log_start, report.in_bucket_to),
                if missing.is_empty() { "-".to_owned() } else { missing.join(" ") },
                report.open_from.map_or("-".to_owned(), |from| from.max(report.in_bucket_to).to_string()),
                report.goes_on_at.to_string(),
            ]
        })
        .collect();
    table::print(&["PARTITION", "IN BUCKET", "KNOWN AND NOT THERE", "UNKNOWN FROM", "GOES ON AT"], &rows);
    for (id, objects) in &plan.strange {
        println!(
            "partition {id}: {objects} objects of a topic that was made after the backup; they stay in the bucket"
        );
    }
    plan.notes.iter().for_each(|note| println!("note: {note}"));
    println!(
        "what was written after {taken} and is in no object is lost, behind UNKNOWN FROM if a segment was being written"
    );
    Ok(())
}

/// `W/A`: copies, and how many must be on disk before the ack.
pub fn quorum_of_topics(text: &str) -> Result<Quorum> {
    let wrong = || anyhow!("{text}: write copies and acks, for example 3/2 or 1/1");
    let (write, ack) = text.split_once('/').ok_or_else(wrong)?;
    let quorum = Quorum { write: write.parse().map_err(|_| wrong())?, ack: ack.parse().map_err(|_| wrong())? };
    if quorum.is_valid() { Ok(quorum) } else { Err(wrong()) }
}

fn moment(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms} ms"))
}
