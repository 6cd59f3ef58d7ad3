use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};

use esker_gateway_core::partition::Phase;
use esker_types::{Epoch, Offset, PartitionId, TopicId};
use esker_wire::batch::Compression;

/// One partition at this gateway, from the moment it is assigned until it is let go. A partition that comes back
/// gets a new handle: streams that hold an old one end.
pub struct Handle {
    pub id: PartitionId,
    pub topic: TopicId,
    pub limits: Limits,
    /// Bytes that may still be appended before something is answered. Producers wait here, and so does their stream.
    pub room: Arc<Semaphore>,
    /// Another gateway owns the partition: only closed segments can be read here, and the news never change.
    pub closed_only: bool,
    news: watch::Sender<News>,
    /// Of the partition's core, as of its last step.
    state_bytes: AtomicUsize,
}

/// What readers and producers wait for. Moves forward only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    pub phase: Phase,
    pub epoch: Epoch,
    /// Offsets below this may be read. Exclusive. Means nothing before the partition was ready once.
    pub high_watermark: Offset,
    /// Inclusive.
    pub log_start: Offset,
    /// The partition is no longer ours; the handle will never change again.
    pub gone: bool,
}

/// What the topic's settings say to doors. Changes while streams are open.
#[derive(Debug, Default)]
pub struct Limits {
    batch_bytes_max: AtomicU32,
    append_time: AtomicBool,
    /// 0 = as sent, else one more than the place in [`Compression::ALL`].
    compression: AtomicU8,
}

impl Limits {
    pub fn set(&self, batch_bytes_max: u32, append_time: bool, compression: Option<Compression>) {
        self.batch_bytes_max.store(batch_bytes_max, Ordering::Relaxed);
        self.append_time.store(append_time, Ordering::Relaxed);
        self.compression.store(compression.map_or(0, |compression| compression as u8 + 1), Ordering::Relaxed);
    }

    pub fn batch_bytes_max(&self) -> u32 {
        self.batch_bytes_max.load(Ordering::Relaxed)
    }

    /// How batches are compressed (`compression.type`). None: as they are sent.
    pub fn compression(&self) -> Option<Compression> {
        let place = usize::from(self.compression.load(Ordering::Relaxed)).checked_sub(1)?;
        Compression::ALL.get(place).copied()
    }

    /// The gateway dates records (`message.timestamp.type=LogAppendTime`).
    pub fn append_time(&self) -> bool {
        self.append_time.load(Ordering::Relaxed)
    }
}

impl Handle {
    pub fn new(id: PartitionId, topic: TopicId, room: usize) -> Self {
        let news = News { phase: Phase::Idle, epoch: Epoch(0), high_watermark: 0, log_start: 0, gone: false };
        Self {
            id,
            topic,
            limits: Limits::default(),
            room: Arc::new(Semaphore::new(room)),
            closed_only: false,
            news: watch::Sender::new(news),
            state_bytes: AtomicUsize::new(0),
        }
    }

    /// For reading the closed segments of a partition that another gateway owns, [`log_start`, `end`).
    pub fn closed(id: PartitionId, topic: TopicId, epoch: Epoch, log_start: Offset, end: Offset) -> Self {
        let phase = Phase::Ready { epoch };
        let news = News { phase, epoch, high_watermark: end, log_start, gone: false };
        Self { closed_only: true, news: watch::Sender::new(news), ..Self::new(id, topic, 0) }
    }

    pub fn news(&self) -> News {
        *self.news.borrow()
    }

    /// Follows the news. The first `changed` resolves for what comes after this call.
    pub fn follow(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Memory that the partition takes here, without what is on its way.
    pub fn state_bytes(&self) -> usize {
        size_of::<Self>() + self.state_bytes.load(Ordering::Relaxed)
    }

    /// Called by the owning shard only.
    pub fn account(&self, state_bytes: usize) {
        self.state_bytes.store(state_bytes, Ordering::Relaxed);
    }

    /// Called by the owning shard only.
    pub fn publish(&self, change: impl FnOnce(&mut News)) {
        self.news.send_if_modified(|news| {
            let before = *news;
            change(news);
            assert!(news.high_watermark >= before.high_watermark, "the high watermark of an owner never moves back");
            *news != before
        });
    }
}

impl News {
    pub fn is_ready(&self) -> bool {
        !self.gone && matches!(self.phase, Phase::Ready { .. })
    }
}

/// All partitions that this gateway has, for doors. Looked up when a stream opens, not per batch.
#[derive(Default)]
pub struct Handles {
    by_id: RwLock<HashMap<PartitionId, Arc<Handle>>>,
}

impl Handles {
    pub fn get(&self, id: PartitionId) -> Option<Arc<Handle>> {
        self.by_id.read().get(&id).cloned()
    }

    pub fn put(&self, handle: Arc<Handle>) {
        let mut handles = self.by_id.write();
        handles.insert(handle.id, handle);
    }

    /// Removes exactly this handle: a newer one under the same id stays.
    pub fn remove(&self, handle: &Arc<Handle>) {
        let mut handles = self.by_id.write();
        if handles.get(&handle.id).is_some_and(|held| Arc::ptr_eq(held, handle)) {
            handles.remove(&handle.id);
        }
    }

    pub fn all(&self) -> Vec<Arc<Handle>> {
        self.by_id.read().values().cloned().collect()
    }

    pub fn count(&self) -> usize {
        self.by_id.read().len()
    }
}
