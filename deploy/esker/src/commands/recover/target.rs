//! Where rebuilt metadata goes: the folder of a standalone broker, or metadata nodes that run and know nothing yet.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use esker_metadata::Server;
use esker_metadata_client::admin::{AdminAsk, AdminReply, Identify, InitCluster, QUORUM_SIZES};
use esker_metadata_client::{MetadataStore, ProposeError};
use esker_metadata_core::{Answer, ClusterQuery, Query, State, restore_commands};
use esker_net::{Hub, Identity, NetConfig, Network, Pool};
use esker_types::{ClusterId, Role};
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::args::{Quorum, Recover};
use crate::commands::{parse, quorum};
use crate::roles::{self, METADATA_LINK};

/// Longest time for one piece of the state: a quorum that was made a moment ago has no leader yet.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// What the command line names.
pub enum Target<'a> {
    /// The folder of a standalone broker.
    Folder(&'a Path),
    /// Metadata nodes that run.
    Voters(Vec<String>, &'a Quorum),
}

/// A target that answered, is empty, and is kept for us as far as it can be.
pub enum Ready<'a> {
    Folder {
        data: &'a Path,
        /// No broker starts there while this lives.
        _lock: File,
    },
    Voters {
        links: Pool,
        voters: Vec<String>,
    },
}

impl<'a> Target<'a> {
    /// # Errors
    /// The folder holds metadata; the voters are not named as such.
    pub fn of(args: &'a Recover) -> Result<Self> {
        if args.voters.is_empty() {
            vacant(&args.data)?;
            return Ok(Self::Folder(&args.data));
        }
        let nodes = args.voters.iter().map(|text| parse::node(text)).collect::<Result<Vec<_>>>()?;
        if !QUORUM_SIZES.contains(&nodes.len()) {
            bail!("--voters: a quorum has 1, 3 or 5 voters, not {}", nodes.len());
        }
        Ok(Self::Voters(nodes.into_iter().map(|(_, address)| address).collect(), &args.quorum))
    }

    /// Makes and locks the folder, or asks the nodes who they are. Nothing is written to either yet.
    ///
    /// # Errors
    /// It can't be had: what was planned for it need not begin.
    pub async fn ready(&self) -> Result<Ready<'a>> {
        match self {
            &Self::Folder(data) => {
                std::fs::create_dir_all(data).with_context(|| format!("can't create {}", data.display()))?;
                let lock = roles::lock(data)?;
                // A broker may have come and gone since the first look.
                vacant(data)?;
                Ok(Ready::Folder { data, _lock: lock })
            }
            Self::Voters(voters, quorum) => {
                let links = quorum::links(quorum)?;
                blank(links.network(), voters).await?;
                Ok(Ready::Voters { links, voters: voters.clone() })
            }
        }
    }
}

impl Ready<'_> {
    pub async fn put(&self, state: &State) -> Result<()> {
        match self {
            Self::Folder { data, .. } => {
                let made = put_in_folder(data, state).await;
                if made.is_err() {
                    // It was empty under our lock: all that is there is what we wrote.
                    let _ = std::fs::remove_dir_all(data.join("metadata"));
                }
                made
            }
            Self::Voters { links, voters } => put(links.network(), voters, state).await,
        }
    }

    pub fn next_step(&self, from: &str) -> String {
        match self {
            Self::Folder { data, .. } => {
                format!("start it: esker standalone --data {} --object-store '{from}'", data.display())
            }
            Self::Voters { .. } => {
                "start bookies and gateways; metadata.objects.url and gateway.objects.url must name \
                                    this bucket"
                    .to_owned()
            }
        }
    }
}

fn vacant(data: &Path) -> Result<()> {
    let metadata = data.join("metadata");
    match metadata.read_dir() {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => bail!("{} holds metadata already: give --data an empty folder", metadata.display()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can't look into {}", metadata.display())),
    }
}

/// Each node must answer, and belong to no quorum.
async fn blank(network: &Network, voters: &[String]) -> Result<()> {
    let mut met = BTreeSet::new();
    for voter in voters {
        let asked = quorum::ask(network, slice::from_ref(voter), AdminAsk::Identify(Identify {}), true).await;
        let AdminReply::Identity(found) = asked.with_context(|| format!("{voter} can't be asked"))? else {
            bail!("{voter} answered something else than was asked")
        };
        if !found.blank {
            bail!("{voter} belongs to a quorum already: stop it, empty its data directory, and start it again");
        }
        if !met.insert(found.node) {
            bail!("--voters: {voter} is the same node as another of them");
        }
    }
    Ok(())
}

/// The same server as in a standalone broker, for as long as it takes.
async fn put_in_folder(data: &Path, state: &State) -> Result<()> {
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
    for command in restore_commands(state) {
        let deadline = Instant::now() + PATIENCE;
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
