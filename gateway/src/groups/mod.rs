//! Consumer groups at this gateway: one host per partition of the internal topic that it owns, each driving a pure
//! coordinator.
//!
//! ```text
//!   door ── call(request) ──> Host: Coordinator ── append, wait for the ack ──> shard ──> bookies
//!                               ▲   timers            │
//!                               └── load (replay) ────┘  on becoming owner, and after an append that failed
//! ```
//! A host lives as long as the partition's handle. While it reads the log, every request is answered with
//! `CoordinatorLoading`: what a group has committed is known or not told, never guessed (R17).

mod config;
mod host;
mod load;
mod metrics;
mod topic;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use esker_gateway_core::groups::{Listed, Request, Response};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, GatewayId, PartitionId};
use esker_wire::native::coordinating_partition;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::GroupsConfig;
use self::host::Host;
pub use self::metrics::GroupMetrics;
use crate::gateway::Gateway;
use crate::partition::Handle;

/// Requests that wait for one host; what they weigh is bounded by `groups.queue-bytes`.
const MAILBOX: usize = 4096;
/// How often new partitions are looked for when no news came. Requests look for themselves.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// News of metadata come in bursts.
const NEWS_PAUSE: Duration = Duration::from_millis(20);

/// The way to the coordinators. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub gateway: Arc<Gateway>,
    pub metrics: GroupMetrics,
    hosts: Mutex<HashMap<PartitionId, HostLink>>,
    /// Bytes of requests that wait for a host.
    queue: Arc<Semaphore>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// A host as others see it.
#[derive(Clone)]
struct HostLink {
    handle: Arc<Handle>,
    jobs: mpsc::Sender<Job>,
    standing: Arc<Standing>,
}

/// A request on its way.
pub(crate) struct Job {
    pub request: Request,
    /// Dropped without an answer: the host lost its partition, or reads it anew.
    pub reply: oneshot::Sender<Response>,
    /// Given back when the coordinator has the request.
    pub _room: OwnedSemaphorePermit,
}

/// Whether a host serves.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicU8);

impl Standing {
    const LOADING: u8 = 0;
    const SERVING: u8 = 1;
    const BROKEN: u8 = 2;

    pub fn loading(&self) {
        self.0.store(Self::LOADING, Ordering::Release);
    }

    pub fn serving(&self) {
        self.0.store(Self::SERVING, Ordering::Release);
    }

    /// The log can't be read by this build.
    pub fn broken(&self) {
        self.0.store(Self::BROKEN, Ordering::Release);
    }

    /// Why it does not serve.
    fn refusal(&self) -> Option<ErrorCode> {
        match self.0.load(Ordering::Acquire) {
            Self::SERVING => None,
            Self::LOADING => Some(ErrorCode::CoordinatorLoading),
            _ => Some(ErrorCode::CoordinatorUnavailable),
        }
    }
}

impl Groups {
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        metrics: GroupMetrics,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let room = gateway.config.groups.queue_bytes.as_usize().min(Semaphore::MAX_PERMITS);
        let queue = Arc::new(Semaphore::new(room));
        let shared = Shared { gateway, metrics, hosts: Mutex::default(), queue, tasks, cancel };
        Self { shared: Arc::new(shared) }
    }

    /// Keeps a host for every partition that is ours, until cancelled.
    pub(crate) async fn run(self) {
        let shared = &self.shared;
        let mut seen = 0;
        loop {
            let partitions = topic::partitions(&shared.gateway);
            partitions.iter().for_each(|id| _ = self.host(*id));
            shared.hosts.lock().retain(|_, host| !host.jobs.is_closed());
            let pause = async {
                let news = shared.gateway.view.changed(seen);
                let revision = tokio::time::timeout(LOOK_INTERVAL, news).await;
                tokio::time::sleep(NEWS_PAUSE).await;
                revision.unwrap_or(seen)
            };
            match shared.cancel.run_until_cancelled(pause).await {
                Some(revision) => seen = revision,
                None => return,
            }
        }
    }

    /// Who coordinates the group. Makes the internal topic if there is none yet.
    pub async fn coordinator_of(&self, group: &str) -> Result<GatewayId, ErrorCode> {
        let gateway = &self.shared.gateway;
        if topic::partitions(gateway).is_empty() {
            topic::create(gateway).await?;
        }
        let partition = self.partition(group)?;
        let owner = gateway.view.read(|state| {
            let record = state.partition(partition).filter(|record| state.has_live_owner(record))?;
            record.owner.as_ref().map(|owner| owner.gateway)
        });
        owner.ok_or(ErrorCode::CoordinatorUnavailable)
    }

    /// Asks the group's coordinator, if it is here.
    pub async fn call(&self, request: Request) -> Response {
        self.shared.metrics.requests.inc();
        let partition = match request.group().map(|group| self.partition(group)) {
            Some(Ok(partition)) => partition,
            Some(Err(code)) => return self.refuse(&request, code),
            None => return self.refuse(&request, ErrorCode::InvalidRequest),
        };
        match self.send(partition, request).await {
            Ok(response) => response,
            Err((request, code)) => self.refuse(&request, code),
        }
    }

    /// The groups of one coordinator, by its partition's index, in the order of names.
    pub async fn list_one(&self, index: u32) -> Result<Vec<Listed>, ErrorCode> {
        let partitions = topic::partitions(&self.shared.gateway);
        let partition = usize::try_from(index).ok().and_then(|index| partitions.get(index).copied());
        let partition = partition.ok_or(ErrorCode::UnknownPartition)?;
        match self.send(partition, Request::List(Default::default())).await {
            Ok(Response::List(listed)) => Ok(listed),
            Ok(_) => Err(ErrorCode::Internal),
            Err((_, code)) => Err(code),
        }
    }

    /// Which partition of the internal topic a group belongs to. None: the topic is not there yet, nor is any group.
    pub fn index_of(&self, group: &str) -> Option<u32> {
        let count = u32::try_from(topic::partitions(&self.shared.gateway).len()).ok().filter(|count| *count > 0)?;
        Some(coordinating_partition(group, count))
    }

    /// An error for whoever asked the wrong gateway: it says where the coordinator is.
    pub fn not_here(&self, index: u32) -> ErrorInfo {
        let partitions = topic::partitions(&self.shared.gateway);
        match usize::try_from(index).ok().and_then(|index| partitions.get(index)) {
            Some(partition) => self.shared.gateway.not_owner(*partition, ErrorCode::NotOwner),
            None => ErrorInfo::new(ErrorCode::CoordinatorUnavailable, "there is no coordinator of groups yet"),
        }
    }

    /// The groups of all coordinators here that pass the filter.
    pub async fn list(&self, filter: &esker_gateway_core::groups::List) -> Result<Vec<Listed>, ErrorCode> {
        let mut found = Vec::new();
        for partition in topic::partitions(&self.shared.gateway) {
            match self.send(partition, Request::List(filter.clone())).await {
                Ok(Response::List(listed)) => found.extend(listed),
                // It has just become ours, and nothing of it is here yet.
                Err((_, ErrorCode::NotCoordinator)) if self.shared.gateway.is_ours(partition) => {
                    return Err(ErrorCode::CoordinatorLoading);
                }
                Ok(_) | Err((_, ErrorCode::NotCoordinator)) => {}
                // A list with a hole in it would look like groups that are gone.
                Err((_, code)) => return Err(code),
            }
        }
        Ok(found)
    }

    async fn send(&self, partition: PartitionId, request: Request) -> Result<Response, (Request, ErrorCode)> {
        let Some(host) = self.host(partition) else {
            return Err((request, ErrorCode::NotCoordinator));
        };
        if let Some(code) = host.standing.refusal() {
            return Err((request, code));
        }
        let weight = u32::try_from(request.weight()).unwrap_or(u32::MAX);
        let most = u32::try_from(self.shared.gateway.config.groups.queue_bytes.0).unwrap_or(u32::MAX);
        // Waiting here stops the reading of this client's connection, and of no other.
        let Ok(room) = self.shared.queue.clone().acquire_many_owned(weight.min(most)).await else {
            return Err((request, ErrorCode::NotCoordinator));
        };
        let (reply, answer) = oneshot::channel();
        let echo = request.clone();
        if host.jobs.send(Job { request, reply, _room: room }).await.is_err() {
            return Err((echo, ErrorCode::NotCoordinator));
        }
        match answer.await {
            Ok(response) => Ok(response),
            Err(_) if host.jobs.is_closed() => Err((echo, ErrorCode::NotCoordinator)),
            Err(_) => Err((echo, ErrorCode::CoordinatorLoading)),
        }
    }

    fn refuse(&self, request: &Request, code: ErrorCode) -> Response {
        self.shared.metrics.refusals.inc();
        request.refuse(code)
    }

    fn partition(&self, group: &str) -> Result<PartitionId, ErrorCode> {
        let partitions = topic::partitions(&self.shared.gateway);
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        match count {
            0 => Err(ErrorCode::CoordinatorUnavailable),
            count => Ok(partitions[coordinating_partition(group, count) as usize]),
        }
    }

    /// The host of a partition, started if the partition has just come to us. None: it is not ours.
    fn host(&self, partition: PartitionId) -> Option<HostLink> {
        let handle = self.shared.gateway.handles.get(partition).filter(|handle| !handle.news().gone)?;
        let mut hosts = self.shared.hosts.lock();
        if let Some(host) = hosts.get(&partition).filter(|host| Arc::ptr_eq(&host.handle, &handle)) {
            return Some(host.clone());
        }
        let (jobs, inbox) = mpsc::channel(MAILBOX);
        let link = HostLink { handle: handle.clone(), jobs, standing: Arc::default() };
        let host = Host::new(self.shared.clone(), handle, inbox, link.standing.clone());
        let cancel = self.shared.cancel.clone();
        self.shared.tasks.spawn(async move {
            cancel.run_until_cancelled(host.run()).await;
        });
        hosts.insert(partition, link.clone());
        Some(link)
    }
}
