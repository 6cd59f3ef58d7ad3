use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use esker_bookie_core::owner::{Add, AddAnswer, FenceAnswer};
use esker_net::{BoxFuture, Network, Pool};
use esker_types::{BookieId, Epoch, InstanceId, Member, SegmentId};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::AddConnection;
use crate::directory::Directory;
use crate::fences::FenceQueue;

/// What bookies say, for the partition that it concerns (`Add`, `Fence`), or for all of them (`Link`).
#[derive(Clone, Debug)]
pub enum BookieEvent {
    Add(AddAnswer),
    Fence(FenceAnswer),
    /// The ADD connection broke (`up = false`: all that was not answered may be lost), or there is a fresh one
    /// (`up = true`: send again what is not answered).
    Link {
        bookie: BookieId,
        instance: InstanceId,
        up: bool,
    },
}

/// Takes events. May wait when the receiver is busy: then that bookie's connection is not read, which is safe as
/// long as the receiver never waits for [`BookieClient::add`], and that never blocks.
pub trait Sink: Send + Sync + 'static {
    fn deliver(&self, event: BookieEvent) -> BoxFuture<'_, ()>;
}

/// Bounds and deadlines towards bookies.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Bytes of ADDs that may wait for one bookie, beyond the link's own queue. A member that lags so much has been
    /// abandoned by its segments, so the bytes would be wasted.
    pub queue_bytes: usize,
    /// A FENCE that has no answer by then is given up; recovery sends it again.
    pub fence_timeout: Duration,
    pub read_timeout: Duration,
    /// Reads under way at once.
    pub read_concurrency: usize,
    /// Wait after a failed dial; doubles up to `redial_max`.
    pub redial_min: Duration,
    pub redial_max: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            queue_bytes: 32 << 20,
            fence_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(5),
            read_concurrency: 64,
            redial_min: Duration::from_millis(20),
            redial_max: Duration::from_millis(500),
        }
    }
}

/// A gateway's way to all bookies. Clones share the connections.
#[derive(Clone)]
pub struct BookieClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub network: Network,
    pub directory: Arc<dyn Directory>,
    pub sink: Arc<dyn Sink>,
    pub config: ClientConfig,
    pub cancel: CancellationToken,
    pub tasks: TaskTracker,
    /// Carries FENCE and READ.
    pub calls: Pool,
    pub reads: Semaphore,
    bookies: RwLock<HashMap<BookieId, Arc<Bookie>>>,
}

pub(crate) struct Bookie {
    pub adds: AddConnection,
    pub fences: FenceQueue,
}

impl BookieClient {
    /// Nothing is dialled before it is needed. Ends with `cancel`; [`BookieClient::stopped`] waits for that.
    pub fn new(
        network: Network,
        directory: Arc<dyn Directory>,
        sink: Arc<dyn Sink>,
        config: ClientConfig,
        cancel: CancellationToken,
    ) -> Self {
        let (calls, reads) = (Pool::new(network.clone()), Semaphore::new(config.read_concurrency.max(1)));
        let tasks = TaskTracker::new();
        let bookies = RwLock::default();
        Self { inner: Arc::new(Inner { network, directory, sink, config, cancel, tasks, calls, reads, bookies }) }
    }

    /// Sends one ADD. Never blocks and never fails: a lost one is told by [`BookieEvent::Link`] with `up = true`.
    pub fn add(&self, add: &Add) {
        self.bookie(add.member.bookie).adds.push(add);
    }

    /// Asks for a fence; items for one bookie that come while an earlier request is under way travel together.
    /// The answer comes to the sink, or never.
    pub fn fence(&self, member: Member, segment: SegmentId, epoch: Epoch) {
        let bookie = self.bookie(member.bookie);
        bookie.fences.push(&self.inner, member, segment, epoch);
    }

    /// Dials the bookie if there is no connection yet, so that the first entry finds one.
    pub fn warm(&self, bookie: BookieId) {
        self.bookie(bookie);
    }

    /// True if the ADD connection stands.
    pub fn is_connected(&self, bookie: BookieId) -> bool {
        self.inner.bookies.read().get(&bookie).is_some_and(|b| b.adds.is_up())
    }

    /// True if the bookie could not be reached when last tried: a bad place for a new segment.
    pub fn is_down(&self, bookie: BookieId) -> bool {
        self.inner.bookies.read().get(&bookie).is_some_and(|b| b.adds.is_down())
    }

    /// Waits until all tasks have ended; call it after the token was cancelled.
    pub async fn stopped(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn bookie(&self, id: BookieId) -> Arc<Bookie> {
        if let Some(bookie) = self.inner.bookies.read().get(&id) {
            return bookie.clone();
        }
        let mut bookies = self.inner.bookies.write();
        let make = || {
            let adds = AddConnection::new(id, self.inner.config.queue_bytes);
            adds.start(&self.inner);
            Arc::new(Bookie { adds, fences: FenceQueue::new(id) })
        };
        bookies.entry(id).or_insert_with(make).clone()
    }
}
