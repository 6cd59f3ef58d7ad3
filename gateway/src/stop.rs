//! The graceful end of a gateway: every partition goes to another gateway, then nothing is left to lose.

use std::sync::Arc;
use std::time::Duration;

use esker_metadata_core::{Command, DrainGateway, ExpireSession};
use esker_types::{ErrorCode, PartitionId, SessionId};
use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::call::move_here;
use crate::gateway::Gateway;
use crate::server::Server;
use crate::shard::Control;

/// Moves under way at once.
const PARALLEL: usize = 64;
/// A stop does not wait longer for metadata than this: without it there is nothing to hand over.
const METADATA_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for segments to be closed; an open one costs the next owner a recovery and nothing else.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// What is under way when the doors close may still be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

impl Server {
    /// Hands all partitions over, answers what is under way, closes the doors, ends the session and waits for all
    /// tasks. Bounded by `drain-timeout` and a few seconds.
    pub async fn stop(self) {
        let deadline = Instant::now() + self.gateway.config.drain_timeout.0;
        // From here on metadata gives us nothing more, and refuses a handover back to us. Ends with this boot.
        let drain = Command::DrainGateway(DrainGateway { gateway: self.identity.0, draining: true });
        self.tell_metadata(drain).await;
        let left = tokio::time::timeout_at(deadline, self.hand_over_all()).await;
        if left.is_err() {
            tracing::warn!(
                partitions = self.gateway.handles.count(),
                "stopping with partitions that could not be handed over in time"
            );
        }
        self.close_segments().await;
        self.answer_all().await;
        self.doors.cancel();
        self.endpoint.close((ErrorCode::ShuttingDown as u32).into(), b"the gateway is stopping");
        let session = self.gateway.standing.borrow().session;
        self.keeping.cancel();
        if let Some(session) = session {
            // The name is free at once, and nobody waits for a time-out.
            self.tell_metadata(Command::ExpireSession(ExpireSession { session })).await;
        }
        self.cancel.cancel();
        self.gateway.bookies.stopped().await;
        self.tasks.close();
        self.tasks.wait().await;
        // Peers hear of the close; one that is silent is not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.endpoint.wait_idle()).await;
    }

    async fn hand_over_all(&self) {
        let mut round = 0u64;
        loop {
            let ids: Vec<PartitionId> = self.gateway.handles.all().iter().map(|handle| handle.id).collect();
            let targets = self.targets();
            if ids.is_empty() || targets.is_empty() {
                return;
            }
            let moves = ids.into_iter().map(|id| {
                let to = targets[((id.0 + round) % targets.len() as u64) as usize];
                hand_over(self.gateway.clone(), id, to)
            });
            stream::iter(moves).buffer_unordered(PARALLEL).collect::<Vec<()>>().await;
            round += 1;
        }
    }

    /// What nobody takes is left in order: its segments closed, so that the next owner has nothing to recover.
    async fn close_segments(&self) {
        let drains = self.gateway.handles.all().into_iter().map(|handle| async move {
            let (done, drained) = oneshot::channel();
            self.gateway.shards.tell(handle.id, Control::Drain { partition: handle.id, done }).await;
            let _ = drained.await;
        });
        let all = stream::iter(drains).buffer_unordered(PARALLEL).collect::<Vec<()>>();
        if tokio::time::timeout(CLOSE_WAIT, all).await.is_err() {
            tracing::warn!("stopping with segments that could not be closed in time");
        }
    }

    /// Sessions of the other gateways that live and take partitions.
    fn targets(&self) -> Vec<SessionId> {
        self.gateway.view.read(|state| {
            let others = state.gateways().filter(|gateway| gateway.id != self.identity.0 && !gateway.draining);
            others.filter_map(|gateway| gateway.session).filter(|session| state.session(*session).is_some()).collect()
        })
    }

    /// Waits until no append is under way, which the closing doors could leave unanswered.
    async fn answer_all(&self) {
        let all = u32::try_from(self.gateway.config.append.total_inflight.0).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(LAST_ANSWERS, self.gateway.room.acquire_many(all)).await;
    }

    async fn tell_metadata(&self, command: Command) {
        let name = command.name();
        match tokio::time::timeout(METADATA_WAIT, self.gateway.store.propose(vec![command])).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, command = name, "metadata was not told of the stop"),
            Err(_) => tracing::warn!(command = name, "metadata was not told of the stop in time"),
        }
    }
}

async fn hand_over(gateway: Arc<Gateway>, partition: PartitionId, to: SessionId) {
    if let Err(error) = move_here(&gateway, partition, None, to).await {
        tracing::debug!(%partition, reason = error.message, "not handed over yet");
        // It may be recovering, or on its way already.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
