use esker_types::{Epoch, Rules, SegmentId};

use super::{Action, BookieState, Ticket};
use crate::journal::Record;
use crate::wire::{FenceRequest, FenceResponse, FenceResult, FenceVerdict};

/// A FENCE request whose records are not durable yet.
#[derive(Clone, Debug)]
pub(super) struct PendingFence {
    ticket: Ticket,
    /// The answer is true once this record is durable.
    seq: u64,
    items: Vec<PendingItem>,
}

#[derive(Clone, Copy, Debug)]
enum PendingItem {
    /// Decided on arrival.
    Decided(FenceResult),
    /// Answered with what is held when the fence is durable.
    Waiting { segment: SegmentId, epoch: Epoch },
}

impl<R: Rules> BookieState<R> {
    /// R4. From the moment of the call no ADD of a lower epoch is taken; the answer waits until the fence is durable
    /// behind every ADD that was taken before it.
    pub fn on_fence(&mut self, ticket: Ticket, request: FenceRequest) {
        let instance = self.ids.instance;
        let mut items = Vec::with_capacity(request.items.len());
        let mut fenced = false;
        for item in request.items {
            let decided = |verdict| {
                let result = FenceResult { instance, segment: item.segment, req_epoch: item.epoch, verdict };
                PendingItem::Decided(result)
            };
            let partition = item.segment.partition;
            let max_epoch = self.max_epoch(partition);
            if R::INSTANCE_IDENTITY && item.instance != instance {
                items.push(decided(FenceVerdict::WrongInstance));
            } else if item.epoch < max_epoch {
                items.push(decided(FenceVerdict::Fenced { max_epoch }));
            } else {
                // A segment that is not known here is fenced like any other: it may come.
                self.max_epoch.insert(partition, item.epoch);
                fenced = true;
                if R::FENCE_DURABLE {
                    self.enqueue(Record::Fence { partition, epoch: item.epoch });
                }
                items.push(match R::FENCE_BEHIND_ADDS {
                    true => PendingItem::Waiting { segment: item.segment, epoch: item.epoch },
                    false => decided(self.held(item.segment)),
                });
            }
        }
        // Refusals alone say nothing about what is held: they need not wait.
        let seq = if fenced { self.next_seq - 1 } else { 0 };
        self.fences.push_back(PendingFence { ticket, seq, items });
        self.answer_fences();
    }

    /// Answers the requests whose records are durable. A poisoned journal makes nothing durable, so it answers none.
    pub(super) fn answer_fences(&mut self) {
        if self.poisoned {
            return;
        }
        while let Some(fence) = self.fences.pop_front_if(|fence| fence.seq <= self.durable_seq) {
            let result = |item: &PendingItem| match *item {
                PendingItem::Decided(result) => result,
                PendingItem::Waiting { segment, epoch } => {
                    FenceResult { instance: self.instance(), segment, req_epoch: epoch, verdict: self.held(segment) }
                }
            };
            let response = FenceResponse { results: fence.items.iter().map(result).collect() };
            self.actions.push_back(Action::Fenced { ticket: fence.ticket, response });
        }
    }

    fn held(&self, segment: SegmentId) -> FenceVerdict {
        let (durable, lac, limbo) =
            self.segments.get(&segment).map_or((0, 0, false), |state| (state.durable, state.lac, state.limbo));
        FenceVerdict::Ok { durable, lac, limbo }
    }
}
