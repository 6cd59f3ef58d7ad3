//! The client's picture of the cluster: which gateways there are and who owns which partition. Old news is allowed:
//! whoever is asked wrongly says who is right, and the higher epoch wins.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use esker_types::error::OwnerHint;
use esker_types::{ErrorCode, opcode};
use esker_wire::native::{GatewayInfo, GetMetadata, Metadata, PartitionInfo, TopicInfo};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::backoff::Backoff;
use crate::call::{self, Call};
use crate::connection::Connection;
use crate::error::{Error, RemoteError};
use crate::pool::Pool;

/// Time for one try to learn the map: others may answer quicker.
const MAP_TRY: Duration = Duration::from_secs(2);
/// Partitions whose owner is remembered.
const OWNERS_MAX: usize = 1 << 20;

/// Who serves a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) epoch: u32,
    /// In order of preference, not empty.
    pub(crate) addresses: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) pool: Pool,
    map: Mutex<Map>,
    /// One refresh per topic at a time; the value is when the last one ended.
    refreshes: Mutex<HashMap<String, Arc<AsyncMutex<Option<Instant>>>>>,
    /// Spreads first tries over servers.
    turn: AtomicUsize,
    /// Highest metadata revision heard of: what was seen through one gateway is not unseen through another.
    revision: AtomicU64,
}

#[derive(Debug, Default)]
struct Map {
    gateways: BTreeMap<u64, GatewayInfo>,
    owners: HashMap<(String, u32), Owner>,
}

impl Cluster {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            map: Mutex::default(),
            refreshes: Mutex::default(),
            turn: AtomicUsize::new(0),
            revision: AtomicU64::new(0),
        }
    }

    /// Servers to ask what any gateway can answer, best first: connected ones, then those known to live, then those
    /// named in the configuration. `avoid` comes last.
    pub(crate) fn servers(&self, avoid: Option<&str>) -> Vec<String> {
        let known = self.map.lock().gateways.values().filter(|g| g.live).filter_map(first_address).collect::<Vec<_>>();
        let mut servers: Vec<String> = Vec::new();
        for server in known.into_iter().chain(self.pool.config.servers.iter().cloned()) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        servers.rotate_left(turn);
        servers.sort_by_key(|server| (avoid == Some(server.as_str()), !self.pool.is_connected(server)));
        servers
    }

    /// The topic as a gateway sees it now, with all its partitions. Their owners are remembered.
    pub(crate) async fn topic(&self, name: &str, avoid: Option<&str>) -> Result<TopicInfo, Error> {
        let request = GetMetadata { topics: vec![name.to_owned()], internal: true, ..GetMetadata::default() };
        let mut topics = self.metadata(request, avoid).await?.topics;
        let topic = topics.pop().filter(|topic| topic.name == name && topics.is_empty());
        let topic = topic.ok_or_else(|| Error::Protocol {
            server: "a gateway".to_owned(),
            reason: format!("asked about topic {name:?}, it did not answer about that alone"),
        })?;
        match topic.error {
            0 => Ok(topic),
            code => Err(Error::Refused(topic_error(name, code))),
        }
    }

    /// The first word with the cluster: each server is asked once.
    pub(crate) async fn first_contact(&self) -> Result<(), Error> {
        // One name that can't exist brings the gateways without the whole list of topics.
        let request = GetMetadata { topics: vec!["__".to_owned()], ..GetMetadata::default() };
        let call = Call::new("connect", opcode::client::CALL_METADATA, &request).one_round();
        let answer: Metadata = call::any(self, call, None).await?;
        self.learn(&answer);
        Ok(())
    }

    /// True if the topic with that id certainly is no more, whether or not another one has its name now.
    pub(crate) async fn is_gone(&self, name: &str, id: &[u8]) -> bool {
        match self.topic(name, None).await {
            Ok(topic) => topic.id != id,
            Err(error) => error.code() == Some(ErrorCode::UnknownTopic),
        }
    }

    /// Asks for the map, all parts of it, and remembers owners and gateways.
    pub(crate) async fn metadata(&self, mut request: GetMetadata, avoid: Option<&str>) -> Result<Metadata, Error> {
        let mut whole: Option<Metadata> = None;
        loop {
            let answer = self.metadata_part(&request, avoid).await?;
            self.learn(&answer);
            let next = answer.next.clone();
            match &mut whole {
                None => whole = Some(answer),
                Some(whole) => append(whole, answer),
            }
            match next {
                Some(from) => request.from = Some(from),
                None => return Ok(whole.unwrap_or_default()),
            }
        }
    }

    async fn metadata_part(&self, request: &GetMetadata, avoid: Option<&str>) -> Result<Metadata, Error> {
        let revision_min = self.revision.load(Ordering::Relaxed);
        let request = &GetMetadata { revision_min, ..request.clone() };
        let call = Call::new("metadata", opcode::client::CALL_METADATA, request).with_try(MAP_TRY);
        call::any(self, call, avoid).await
    }

    /// Later questions wait until the gateway asked has seen this revision.
    pub(crate) fn seen(&self, revision: u64) {
        self.revision.fetch_max(revision, Ordering::Relaxed);
    }

    fn learn(&self, answer: &Metadata) {
        self.seen(answer.revision);
        let mut map = self.map.lock();
        map.gateways = answer.gateways.iter().map(|g| (g.id, g.clone())).collect();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                if let Some(owner) = map.owner_of(partition) {
                    map.learn_owner(&topic.name, partition.index, owner);
                }
            }
        }
    }

    /// What a gateway said about the owner while refusing. False: nothing new.
    pub(crate) fn learn_hint(&self, topic: &str, partition: u32, hint: Option<&OwnerHint>) -> bool {
        let Some(hint) = hint.filter(|hint| hint.gateway != 0 && !hint.addresses.is_empty()) else { return false };
        let owner = Owner { epoch: hint.epoch, addresses: hint.addresses.clone() };
        self.map.lock().learn_owner(topic, partition, owner)
    }

    /// The owner as far as known, without asking.
    pub(crate) fn known_owner(&self, topic: &str, partition: u32) -> Option<Owner> {
        self.map.lock().owners.get(&(topic.to_owned(), partition)).cloned()
    }

    /// The remembered owner was wrong and nobody knows better: the next one to ask asks the cluster.
    pub(crate) fn forget_owner(&self, topic: &str, partition: u32, epoch: u32) {
        let mut map = self.map.lock();
        let key = (topic.to_owned(), partition);
        if map.owners.get(&key).is_some_and(|owner| owner.epoch <= epoch) {
            map.owners.remove(&key);
        }
    }

    /// The owner, asked for if not known. None: nobody owns it at the moment.
    pub(crate) async fn owner(&self, topic: &str, partition: u32) -> Result<Option<Owner>, Error> {
        match self.known_owner(topic, partition) {
            Some(owner) => Ok(Some(owner)),
            None => self.refresh(topic, partition, None).await,
        }
    }

    /// The owner as a gateway other than `avoid` sees it, if there is one to ask. Callers about the same topic share
    /// one question.
    pub(crate) async fn refresh(
        &self,
        topic: &str,
        partition: u32,
        avoid: Option<&str>,
    ) -> Result<Option<Owner>, Error> {
        let asked = Instant::now();
        let refresh = self.refreshes.lock().entry(topic.to_owned()).or_default().clone();
        let mut done = refresh.lock().await;
        if done.is_none_or(|at| at < asked) {
            let info = self.topic(topic, avoid).await;
            *done = Some(Instant::now());
            let info = info?;
            if partition >= info.partition_count {
                return Err(Error::Refused(no_partition(topic, partition, info.partition_count)));
            }
        }
        Ok(self.known_owner(topic, partition))
    }

    /// Asks the owner of a partition, whoever that is by the time it answers.
    pub(crate) async fn call_owner<M: prost::Message + Default>(
        &self,
        topic: &str,
        partition: u32,
        call: Call,
    ) -> Result<M, Error> {
        let deadline = Instant::now() + self.pool.config.call_timeout;
        let mut backoff = Backoff::new(u64::from(partition));
        loop {
            let last = match self.owner(topic, partition).await {
                Ok(None) => Error::Refused(no_owner(topic, partition)),
                Err(error) => error,
                Ok(Some(owner)) => match call::one(self, &owner.addresses[0], &call, deadline).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        if let Error::Refused(remote) = &error
                            && self.learn_hint(topic, partition, remote.owner.as_ref())
                        {
                            continue;
                        }
                        self.forget_owner(topic, partition, owner.epoch);
                        error
                    }
                },
            };
            if !call.may_repeat(&last) || Instant::now() + backoff.peek() >= deadline {
                return Err(last);
            }
            backoff.wait().await;
        }
    }

    /// Closes a connection that heard nothing since `heard` datagrams: its gateway is gone or stopped.
    pub(crate) fn give_up_if_silent(&self, connection: &Connection, heard: u64) {
        if connection.heard() == heard {
            self.pool.give_up(connection);
        }
    }
}

impl Map {
    fn owner_of(&self, partition: &PartitionInfo) -> Option<Owner> {
        let addresses = self.gateways.get(&partition.owner)?.addresses.clone();
        (!addresses.is_empty()).then_some(Owner { epoch: partition.epoch, addresses })
    }

    /// The higher epoch wins. True if this is news.
    fn learn_owner(&mut self, topic: &str, partition: u32, owner: Owner) -> bool {
        let key = (topic.to_owned(), partition);
        match self.owners.get(&key) {
            Some(known) if known.epoch > owner.epoch || *known == owner => return false,
            // Addresses of the same owner may change.
            Some(_) => {}
            None if self.owners.len() >= OWNERS_MAX => self.owners.clear(),
            None => {}
        }
        self.owners.insert(key, owner);
        true
    }
}

fn first_address(gateway: &GatewayInfo) -> Option<String> {
    gateway.addresses.first().cloned()
}

/// Adds a later part of an answer; a topic may be split over two parts.
fn append(whole: &mut Metadata, part: Metadata) {
    for topic in part.topics {
        match whole.topics.last_mut() {
            Some(last) if last.name == topic.name => last.partitions.extend(topic.partitions),
            _ => whole.topics.push(topic),
        }
    }
    whole.next = None;
}

fn remote(code: ErrorCode, message: String) -> RemoteError {
    RemoteError::from(esker_types::error::ErrorInfo::new(code, message))
}

fn topic_error(name: &str, code: u32) -> RemoteError {
    let code = u16::try_from(code).ok().and_then(ErrorCode::from_u16).unwrap_or(ErrorCode::UnknownTopic);
    let what = match code {
        ErrorCode::UnknownTopic => "does not exist: create it with `esker topic create`",
        ErrorCode::InvalidTopicName => "is no valid topic name: use 1 to 249 letters, digits, '.', '_' and '-'",
        ErrorCode::NotAuthorized => "may not be used by this client",
        _ => "can't be used",
    };
    remote(code, format!("topic {name:?} {what}"))
}

pub(crate) fn no_partition(topic: &str, partition: u32, count: u32) -> RemoteError {
    let message = match count {
        1 => format!("topic {topic:?} has no partition {partition}: its only one is 0"),
        _ => format!("topic {topic:?} has no partition {partition}: they are 0 to {}", count.saturating_sub(1)),
    };
    remote(ErrorCode::UnknownPartition, message)
}

fn no_owner(topic: &str, partition: u32) -> RemoteError {
    remote(ErrorCode::NotOwner, format!("no gateway owns {topic}/{partition} at the moment"))
}
