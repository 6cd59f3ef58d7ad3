//! What doors and services of one gateway share.

use std::sync::Arc;
use std::time::Duration;

use esker_bookie_client::BookieClient;
use esker_metadata_client::{MetadataStore, View};
use esker_metadata_core::{PartitionRecord, State};
use esker_net::Pool;
use esker_types::error::{ErrorInfo, OwnerHint};
use esker_types::{BootId, ErrorCode, PartitionId, TopicId};
use esker_wire::native::PartitionName;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::auth::{Action, Authorizer, Principal};
use crate::clock::Clock;
use crate::config::Config;
use crate::keeper::Standing;
use crate::metrics::Metrics;
use crate::offload::Bucket;
use crate::partition::{Handle, Handles};
use crate::producer_ids::ProducerIds;
use crate::shard::Shards;
use crate::tail::TailCache;
use crate::throttle::Throttle;

/// How long an answer that may come from an old copy of the metadata is held back.
const LAG_WAIT: Duration = Duration::from_secs(1);
const LAG_LOOK: Duration = Duration::from_millis(20);

pub struct Gateway {
    pub config: Config,
    pub boot: BootId,
    pub clock: Clock,
    pub view: View,
    pub store: Arc<dyn MetadataStore>,
    pub shards: Shards,
    pub handles: Arc<Handles>,
    pub tail: Arc<TailCache>,
    pub bookies: BookieClient,
    /// None: no bucket is configured.
    pub bucket: Option<Bucket>,
    /// Links to other gateways.
    pub peers: Pool,
    pub authorizer: Arc<dyn Authorizer>,
    pub metrics: Metrics,
    pub standing: watch::Receiver<Standing>,
    /// Bytes of batches under way in the whole gateway (`append.total-inflight`).
    pub room: Arc<Semaphore>,
    /// Batches that may be compressed anew at once (`append.recompressions`).
    pub recompressions: Arc<Semaphore>,
    /// Slows producers down while the bucket does not take what it should and disks fill up.
    pub throttle: Throttle,
    pub producer_ids: ProducerIds,
    /// Why this process can't go on; see [`crate::Server::failed`].
    pub fault: watch::Sender<Option<String>>,
}

impl Gateway {
    /// For `/readyz`: what is missing, if anything.
    pub fn ready(&self) -> Result<(), String> {
        let session = self.standing.borrow().session;
        let known = |session| self.view.read(|state| state.session(session).is_some());
        match session {
            Some(session) if known(session) => Ok(()),
            Some(_) => Err("the local copy of the metadata does not show this gateway's session yet".to_owned()),
            None => Err("this gateway has no session in the metadata quorum".to_owned()),
        }
    }

    /// Of the cluster: how often it was rebuilt from its bucket.
    pub fn incarnation(&self) -> u8 {
        self.view.read(|state| state.cluster().map_or(0, |cluster| cluster.incarnation))
    }

    /// May this client do that?
    pub fn allows(&self, principal: &Principal, action: Action<'_>) -> bool {
        !action.is_internal() && self.authorizer.allows(principal, action)
    }

    /// Finds the partition that a client names, and asks whether `principal` may do `action` with it. Our copy of the
    /// metadata may lag behind what the client has just done, so an unknown name is waited for, for a moment.
    pub async fn resolve(
        &self,
        principal: &Principal,
        name: Option<&PartitionName>,
        action: for<'a> fn(&'a str, PartitionId) -> Action<'a>,
    ) -> Result<Arc<PartitionRecord>, ErrorInfo> {
        let name = name.ok_or_else(|| ErrorInfo::new(ErrorCode::InvalidRequest, "the request names no partition"))?;
        let found = self.soon(|| self.view.read(|state| find(state, name))).await;
        // Whether a topic exists is nobody's business who may not touch it.
        let id = found.as_ref().map_or(PartitionId(0), |record| record.id);
        if !self.allows(principal, action(&name.topic, id)) {
            return Err(ErrorInfo::new(ErrorCode::NotAuthorized, format!("not allowed on topic {:?}", name.topic)));
        }
        found
    }

    /// The partition's handle, if it is here; otherwise where it is. Waits for a moment while it is nowhere.
    pub async fn owned(&self, partition: PartitionId) -> Result<Arc<Handle>, ErrorInfo> {
        self.soon(|| match self.handles.get(partition).filter(|handle| !handle.news().gone) {
            Some(handle) => Ok(handle),
            None if self.is_ours(partition) => {
                let message = format!("partition {partition} has just been assigned to this gateway");
                Err(ErrorInfo::new(ErrorCode::Recovering, message))
            }
            None => Err(self.not_owner(partition, ErrorCode::NotOwner)),
        })
        .await
    }

    /// Asks again whenever our copy of the metadata moves, as long as the answer is one that news may change.
    async fn soon<T>(&self, look: impl Fn() -> Result<T, ErrorInfo>) -> Result<T, ErrorInfo> {
        let until = Instant::now() + LAG_WAIT;
        loop {
            let revision = self.view.revision();
            match look() {
                Err(error) if may_be_lag(&error) => {
                    let pause = self.view.changed(revision);
                    // The shard makes a handle a little after the view has moved: look again without news too.
                    let moved = tokio::time::timeout(LAG_LOOK, pause).await;
                    if moved.is_err() && Instant::now() >= until {
                        return Err(error);
                    }
                    if Instant::now() >= until {
                        return look();
                    }
                }
                settled => return settled,
            }
        }
    }

    /// An error that says where the partition is, as far as we know.
    pub fn not_owner(&self, partition: PartitionId, code: ErrorCode) -> ErrorInfo {
        let hint = self.view.read(|state| owner_hint(state, partition));
        let message = match hint.gateway {
            0 => format!("partition {partition} has no owner at the moment"),
            gateway => format!("partition {partition} is owned by gateway {gateway}"),
        };
        ErrorInfo { owner: Some(hint), retry_after_ms: 0, ..ErrorInfo::new(code, message) }
    }

    /// True if the partition's record in our view names our session.
    pub fn is_ours(&self, partition: PartitionId) -> bool {
        let session = self.standing.borrow().session;
        let owner = |state: &State| state.partition(partition)?.owner.as_ref().map(|owner| owner.session);
        session.is_some() && self.view.read(owner) == session
    }
}

fn may_be_lag(error: &ErrorInfo) -> bool {
    match error.error_code() {
        Some(
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::UnknownTopicId | ErrorCode::Recovering,
        ) => true,
        Some(ErrorCode::NotOwner) => error.owner.as_ref().is_none_or(|owner| owner.gateway == 0),
        _ => false,
    }
}

fn find(state: &State, name: &PartitionName) -> Result<Arc<PartitionRecord>, ErrorInfo> {
    let topic = state.topic_by_name(&name.topic).ok_or_else(|| unknown_topic(&name.topic))?;
    if !name.topic_id.is_empty() && TopicId::from_slice(&name.topic_id) != Some(topic.id) {
        let message = format!("topic {:?} was deleted and made again: its id is {} now", name.topic, topic.id);
        return Err(ErrorInfo::new(ErrorCode::UnknownTopicId, message));
    }
    let id = usize::try_from(name.partition).ok().and_then(|index| topic.partitions.get(index));
    let record = id.and_then(|id| state.partition(*id)).ok_or_else(|| {
        let message = format!(
            "topic {:?} has partitions 0 to {}, not {}",
            name.topic,
            topic.partitions.len() - 1,
            name.partition
        );
        ErrorInfo::new(ErrorCode::UnknownPartition, message)
    })?;
    Ok(record.clone())
}

pub fn unknown_topic(name: &str) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::UnknownTopic, format!("there is no topic {name:?}; `esker topic create` makes one"))
}

/// Who owns a partition, with the addresses of its door.
pub fn owner_hint(state: &State, partition: PartitionId) -> OwnerHint {
    let Some(record) = state.partition(partition) else { return OwnerHint::default() };
    let live = record.owner.as_ref().filter(|_| state.has_live_owner(record));
    let gateway = live.and_then(|owner| state.gateway(owner.gateway));
    OwnerHint {
        epoch: record.epoch.0,
        gateway: gateway.map_or(0, |gateway| gateway.id.0),
        addresses: gateway.map(|gateway| addresses(&gateway.addresses.quic)).unwrap_or_default(),
    }
}

/// Metadata holds the addresses of a door in one text, in order of preference.
pub fn addresses(joined: &str) -> Vec<String> {
    joined.split(',').filter(|address| !address.is_empty()).map(str::to_owned).collect()
}
