//! The gateway's standing in metadata: its session, and which partitions that session owns. One task follows the view
//! and tells the shards; when the session ends it lets everything go and opens another.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use esker_bookie_client::BookieClient;
use esker_gateway_core::partition::Settings;
use esker_metadata_client::{MetadataStore, NewsEvent, ProposeError, SessionKeeper, View};
use esker_metadata_core::{
    Change, Command, CompressionType, Delta, GatewayAddresses, NodeRef, OpenSession, RegisterGateway, Reply, State,
    TimestampType, TopicRecord, VERSION_MAX,
};
use esker_types::{BootId, ErrorCode, GatewayId, PartitionId, SessionId};
use esker_wire::batch::Compression;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::shard::{Control, PartitionNews, Shards};

/// Who we are in metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub gateway: GatewayId,
    /// None: the session has ended and there is no new one yet.
    pub session: Option<SessionId>,
}

/// The gateway could not register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("another live process uses node-name {name:?}: {reason}")]
    NameInUse { name: String, reason: String },
    #[error("metadata refused to register gateway {name:?}: {reason}")]
    Refused { name: String, reason: String },
    #[error("metadata does not answer: {0}")]
    Unavailable(String),
}

/// What the keeper task works with.
pub struct Keeper {
    pub store: Arc<dyn MetadataStore>,
    pub view: View,
    pub shards: Shards,
    pub bookies: BookieClient,
    pub boot: BootId,
    pub session_ttl: Duration,
    pub metrics: Metrics,
    pub standing: watch::Sender<Standing>,
    pub cancel: CancellationToken,
}

/// Size at which a segment is closed when the topic does not say: some seconds of a very busy partition.
const SEGMENT_BYTES: u64 = 512 << 20;
/// Age likewise; the core gives small segments six times as long.
const SEGMENT_MS: u64 = 600_000;

/// Wait between tries while metadata does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// Registers the process and opens its first session. Repeats until `patience` is over: the session of a process that
/// was killed a moment ago still lives, and metadata may be electing a leader.
pub async fn register(
    store: &dyn MetadataStore,
    request: RegisterGateway,
    patience: Duration,
) -> Result<(GatewayId, SessionId), RegisterError> {
    let (name, until) = (request.name.clone(), Instant::now() + patience);
    loop {
        let failed = match store.propose(vec![Command::RegisterGateway(request.clone())]).await {
            Ok(proposed) => match proposed.single() {
                Ok(Reply::Gateway(reply)) => return Ok((reply.gateway, reply.session)),
                Ok(_) => {
                    return Err(RegisterError::Refused { name, reason: "an answer of another kind came".to_owned() });
                }
                Err(reject) if reject.code == ErrorCode::NameInUse => {
                    RegisterError::NameInUse { name: name.clone(), reason: reject.reason }
                }
                Err(reject) => return Err(RegisterError::Refused { name, reason: reject.reason }),
            },
            // Again is safe: the same boot registers as often as it likes.
            Err(ProposeError::NotApplied(reason) | ProposeError::Unknown(reason)) => RegisterError::Unavailable(reason),
        };
        if Instant::now() >= until {
            return Err(failed);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The registration request of this process.
pub fn registration(name: &str, boot: BootId, addresses: GatewayAddresses, zone: &str) -> RegisterGateway {
    RegisterGateway { name: name.to_owned(), boot, addresses, zone: zone.to_owned(), version: VERSION_MAX }
}

impl Keeper {
    /// Runs until cancelled. `first` is the session that registration opened.
    pub async fn run(self, gateway: GatewayId, first: SessionId) {
        let cancel = self.cancel.clone();
        cancel.run_until_cancelled(self.keep(gateway, first)).await;
    }

    async fn keep(&self, gateway: GatewayId, first: SessionId) {
        let mut session = first;
        loop {
            self.standing.send_replace(Standing { gateway, session: Some(session) });
            self.shards.tell_all(|| Control::Session(Some((gateway, session)))).await;
            let keeper = SessionKeeper::start(self.store.clone(), session, self.boot, self.session_ttl);
            self.follow(session, &keeper).await;
            tracing::warn!(%session, "session lost: letting all partitions go");
            self.metrics.sessions_lost.inc();
            self.standing.send_replace(Standing { gateway, session: None });
            self.shards.tell_all(|| Control::Session(None)).await;
            drop(keeper);
            session = self.open_session(gateway).await;
        }
    }

    /// Tells the shards of all that concerns `session`. Returns when the session is lost.
    async fn follow(&self, session: SessionId, keeper: &SessionKeeper) {
        let mut news = self.view.news();
        let mut told = HashSet::new();
        self.tell_everything(session, &mut told).await;
        loop {
            // Cancel-safe: both waits are, and what follows runs to its end.
            let event = tokio::select! {
                biased;
                _ = keeper.lost() => return,
                event = news.next() => event,
            };
            match event {
                Some(NewsEvent::Reset) => self.tell_everything(session, &mut told).await,
                Some(NewsEvent::Delta(delta)) if ends(&delta, session) => return,
                Some(NewsEvent::Delta(delta)) => self.tell_delta(session, &delta, &mut told).await,
                // The view ends with the process only.
                None => std::future::pending().await,
            }
        }
    }

    async fn tell_everything(&self, session: SessionId, told: &mut HashSet<PartitionId>) {
        let mut concerned = told.clone();
        self.view.read(|state| {
            let ours = state.partitions().filter(|p| p.owner.as_ref().is_some_and(|o| o.session == session));
            concerned.extend(ours.map(|p| p.id));
            // Dialled now, so that the first segment finds its links standing and knows who is down.
            state.bookies().for_each(|bookie| self.bookies.warm(bookie.id));
        });
        for partition in concerned {
            self.tell(session, partition, told).await;
        }
    }

    async fn tell_delta(&self, session: SessionId, delta: &Delta, told: &mut HashSet<PartitionId>) {
        let mut concerned = HashSet::new();
        for change in &delta.changes {
            match change {
                Change::Partition(row) => {
                    let ours = row.owner.as_ref().is_some_and(|owner| owner.session == session);
                    concerned.extend((ours || told.contains(&row.id)).then_some(row.id));
                }
                Change::PartitionGone(key) => concerned.extend(told.get(&key.id)),
                Change::Segment(row) => concerned.extend(told.get(&row.segment.partition)),
                Change::SegmentGone(key) => concerned.extend(told.get(&key.id.partition)),
                Change::Topic(row) => concerned.extend(row.partitions.iter().filter(|id| told.contains(id))),
                Change::Bookie(row) => self.bookies.warm(row.id),
                _ => {}
            }
        }
        for partition in concerned {
            self.tell(session, partition, told).await;
        }
    }

    async fn tell(&self, session: SessionId, partition: PartitionId, told: &mut HashSet<PartitionId>) {
        let control = match self.view.read(|state| partition_news(state, partition)) {
            Some(news) => {
                match news.info.record.owner.as_ref().is_some_and(|owner| owner.session == session) {
                    true => told.insert(partition),
                    false => told.remove(&partition),
                };
                Control::Info(news)
            }
            None => {
                told.remove(&partition);
                Control::Deleted(partition)
            }
        };
        self.shards.tell(partition, control).await;
    }

    async fn open_session(&self, gateway: GatewayId) -> SessionId {
        let command = || Command::OpenSession(OpenSession { node: NodeRef::Gateway(gateway), boot: self.boot });
        loop {
            match self.store.propose(vec![command()]).await {
                Ok(proposed) => match proposed.single() {
                    Ok(Reply::Session(reply)) => return reply.session,
                    Ok(_) => tracing::error!("metadata answered OpenSession with something else"),
                    Err(reject) => tracing::warn!(reason = reject.reason, "no new session"),
                },
                Err(error) => tracing::debug!(%error, "no new session yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn ends(delta: &Delta, session: SessionId) -> bool {
    delta.changes.iter().any(|change| matches!(change, Change::SessionGone(key) if key.id == session))
}

/// None: there is no such partition (any more).
fn partition_news(state: &State, partition: PartitionId) -> Option<PartitionNews> {
    let info = state.partition_info(partition)?;
    let topic = state.topic(info.record.topic)?;
    let effective = topic.settings.effective();
    Some(PartitionNews {
        revision: state.revision(),
        info,
        settings: settings_of(topic),
        batch_bytes_max: effective.max_message_bytes,
        append_time: effective.timestamp_type == TimestampType::LogAppendTime,
        compression: compression_of(effective.compression_type),
    })
}

/// None: as producers send it.
fn compression_of(chosen: CompressionType) -> Option<Compression> {
    match chosen {
        CompressionType::Producer => None,
        CompressionType::Uncompressed => Some(Compression::None),
        CompressionType::Gzip => Some(Compression::Gzip),
        CompressionType::Snappy => Some(Compression::Snappy),
        CompressionType::Lz4 => Some(Compression::Lz4),
        CompressionType::Zstd => Some(Compression::Zstd),
    }
}

fn settings_of(topic: &TopicRecord) -> Settings {
    let effective = topic.settings.effective();
    let bounded = |value: i64| u64::try_from(value).ok();
    Settings {
        quorum: effective.quorum,
        segment_bytes: effective.segment_bytes.unwrap_or(SEGMENT_BYTES),
        segment_ms: effective.segment_ms.unwrap_or(SEGMENT_MS),
        retention_ms: bounded(effective.retention_ms),
        retention_bytes: bounded(effective.retention_bytes),
    }
}
