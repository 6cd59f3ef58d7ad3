use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use esker_metadata_client::{MetadataStore, SessionKeeper, View};
use esker_metadata_core::*;
use esker_types::{BootId, ClusterId, Epoch, Member, PartitionId, Quorum, SessionId, TopicId};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Name of the topic, and of the gateway that we are to the metadata.
pub(super) const TOPIC: &str = "history";
pub(super) const OWNER: &str = "history-maker";
pub(super) const QUORUM: Quorum = Quorum { write: 1, ack: 1 };

/// A partition that we own, and where its owner's commands go.
pub(super) struct Commands {
    pub cluster: ClusterId,
    pub incarnation: u8,
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// The one bookie that is said to hold all segments.
    pub member: Member,
    /// A copy of the metadata that shows what was applied.
    pub view: View,
    store: Arc<dyn MetadataStore>,
    keeper: Option<SessionKeeper>,
    _following: DropGuard,
}

impl Commands {
    /// Registers as a gateway, makes the topic and takes its partition over.
    pub async fn begin(store: Arc<dyn MetadataStore>, view: View, stop: CancellationToken) -> Result<Self> {
        let _following = stop.drop_guard();
        let boot = boot();
        let (quic, kafka, http, internal) = Default::default();
        let gateway = RegisterGateway {
            name: OWNER.to_owned(),
            boot,
            addresses: GatewayAddresses { quic, kafka, http, internal },
            zone: String::new(),
            version: VERSION_MAX,
        };
        let topic = CreateTopic {
            id: TopicId(boot.0),
            name: TOPIC.to_owned(),
            partitions: 1,
            replication: Some(1),
            settings: Vec::new(),
            internal: false,
            validate_only: false,
        };
        let session = match propose(&*store, &view, vec![gateway.into()]).await?.remove(0) {
            Ok(Reply::Gateway(registered)) => registered.session,
            other => bail!("metadata did not register a gateway: {other:?}"),
        };
        let keeper = SessionKeeper::start(store.clone(), session, boot, Duration::from_secs(2));
        propose(&*store, &view, vec![topic.into()])
            .await?
            .remove(0)
            .map_err(|reject| anyhow::anyhow!(reject.reason))?;
        let (cluster, incarnation, partition, member) = view.read(|state| {
            let cluster = state.cluster().context("a cluster")?;
            let partition = state.partition_of(TOPIC, 0).context("a partition")?.id;
            let bookie = state.bookies().next().context("a bookie")?;
            let member = Member { bookie: bookie.id, instance: bookie.instance };
            Ok::<_, anyhow::Error>((cluster.id, cluster.incarnation, partition, member))
        })?;
        let epoch = take_over(&*store, &view, partition, session).await?;
        let keeper = Some(keeper);
        Ok(Self { cluster, incarnation, partition, epoch, member, view, store, keeper, _following })
    }

    /// The same state machine in this process, with nothing durable.
    #[cfg(test)]
    pub async fn in_memory() -> Result<Self> {
        let store = esker_metadata_client::MemoryStore::new();
        let bookie = RegisterBookie {
            name: "bookie-1".to_owned(),
            instance: esker_types::InstanceId([7; 16]),
            boot: boot(),
            expect_boot_no: 0,
            durable_lsn: 0,
            address: "127.0.0.1:1".to_owned(),
            zone: String::new(),
            version: VERSION_MAX,
            replaces: None,
        };
        let id = ClusterId([0xb1; 16]);
        let init = InitCluster { id, quorum: QUORUM, auto_create_topics: false, default_partitions: 1 };
        store.apply(vec![init.into(), bookie.into()]);
        let stop = CancellationToken::new();
        let view = View::follow(&store, stop.clone());
        view.ready().await;
        Self::begin(Arc::new(store), view, stop).await
    }

    /// All of them, as one entry of the log. A refusal of one is an error.
    pub async fn apply(&self, commands: Vec<Command>) -> Result<()> {
        let names: Vec<&'static str> = commands.iter().map(Command::name).collect();
        for (result, name) in propose(&*self.store, &self.view, commands).await?.into_iter().zip(names) {
            result.map_err(|reject| anyhow::anyhow!("{name}: {}", reject.reason))?;
        }
        Ok(())
    }

    /// Lets the session go.
    pub async fn stop(mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
    }
}

/// At return the copy shows what was applied.
async fn propose(store: &dyn MetadataStore, view: &View, commands: Vec<Command>) -> Result<Vec<CommandResult>> {
    let proposed = store.propose(commands).await?;
    view.reached(proposed.revision).await;
    Ok(proposed.results)
}

/// Whoever the partition was given to when it was made, it is ours then.
async fn take_over(
    store: &dyn MetadataStore,
    view: &View,
    partition: PartitionId,
    session: SessionId,
) -> Result<Epoch> {
    loop {
        let record = view.read(|state| state.partition(partition).cloned()).context("the partition was deleted")?;
        if record.owner.as_ref().is_some_and(|owner| owner.session == session) {
            return Ok(record.epoch);
        }
        // Refused: somebody was faster, and the record says who.
        propose(store, view, vec![Assign { partition, expect_epoch: record.epoch, session }.into()]).await?;
    }
}

/// Another one each time.
fn boot() -> BootId {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    BootId::from_random((now.as_nanos() ^ u128::from(std::process::id()) << 96).to_le_bytes())
}
