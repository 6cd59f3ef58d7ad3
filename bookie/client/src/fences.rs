//! FENCE requests to one bookie, batched: the first goes at once, those that come meanwhile go together.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_bookie_core::owner::{FenceAnswer, FenceAnswerKind};
use esker_bookie_core::wire::{FENCE_ITEMS_MAX, FenceItem, FenceRequest, FenceResponse, FenceResult, FenceVerdict};
use esker_types::{BookieId, Epoch, InstanceId, Member, Role, SegmentId, opcode};
use parking_lot::Mutex;

use crate::client::{BookieEvent, Inner};

/// Fences that may wait for one bookie: more partitions than one gateway should own. Beyond it they are dropped,
/// and recovery asks again.
const WAITING_MAX: usize = 1 << 18;

pub(crate) struct FenceQueue {
    bookie: BookieId,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// One per segment, the highest epoch: repeated requests of a patient recovery don't pile up.
    waiting: BTreeMap<(InstanceId, SegmentId), Epoch>,
    running: bool,
}

impl FenceQueue {
    pub fn new(bookie: BookieId) -> Self {
        Self { bookie, state: Arc::default() }
    }

    pub fn push(&self, client: &Arc<Inner>, member: Member, segment: SegmentId, epoch: Epoch) {
        let mut state = self.state.lock();
        if state.waiting.len() >= WAITING_MAX {
            return;
        }
        let held = state.waiting.entry((member.instance, segment)).or_insert(epoch);
        *held = epoch.max(*held);
        if !std::mem::replace(&mut state.running, true) {
            let (client, bookie, state) = (client.clone(), self.bookie, self.state.clone());
            client.tasks.clone().spawn(async move {
                let cancel = client.cancel.clone();
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => {}
                    () = run(&client, bookie, &state) => {}
                }
            });
        }
    }
}

/// Sends until nothing waits any more.
async fn run(client: &Arc<Inner>, bookie: BookieId, state: &Mutex<State>) {
    while let Some(request) = next_batch(state) {
        match call(client, bookie, &request).await {
            Ok(response) => {
                for result in &response.results {
                    client.sink.deliver(BookieEvent::Fence(answer(result))).await;
                }
            }
            Err(reason) => tracing::debug!(%bookie, reason, fences = request.items.len(), "fence got no answer"),
        }
    }
}

fn next_batch(state: &Mutex<State>) -> Option<FenceRequest> {
    let mut state = state.lock();
    let mut items = Vec::with_capacity(state.waiting.len().min(FENCE_ITEMS_MAX));
    while items.len() < FENCE_ITEMS_MAX {
        let Some(((instance, segment), epoch)) = state.waiting.pop_first() else { break };
        items.push(FenceItem { instance, segment, epoch });
    }
    state.running = !items.is_empty();
    state.running.then_some(FenceRequest { items })
}

async fn call(client: &Inner, bookie: BookieId, request: &FenceRequest) -> Result<FenceResponse, String> {
    let address = client.directory.address(bookie).ok_or("metadata knows no address of it")?;
    let timeout = client.config.fence_timeout;
    let answer = client
        .calls
        .call(&address, Role::Bookie, opcode::bookie::FENCE, &request.to_message(), Vec::new(), timeout)
        .await
        .map_err(|e| e.to_string())?;
    FenceResponse::from_frame(&answer).map_err(|e| e.to_string())
}

fn answer(result: &FenceResult) -> FenceAnswer {
    let kind = match result.verdict {
        FenceVerdict::Ok { durable, lac, limbo } => FenceAnswerKind::Ok { durable, lac, limbo },
        FenceVerdict::Fenced { max_epoch } => FenceAnswerKind::Fenced { max_epoch },
        FenceVerdict::WrongInstance => FenceAnswerKind::WrongInstance,
    };
    FenceAnswer { segment: result.segment, instance: result.instance, req_epoch: result.req_epoch, kind }
}
