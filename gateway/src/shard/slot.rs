use std::sync::Arc;

use esker_gateway_core::partition::{Partition, Phase, Refusal, Settings};
use esker_types::{AllRules, ErrorCode, SessionId, Time};
use tokio::sync::oneshot;

use super::mailbox::MoveReply;
use super::tickets::{Outcome, Tickets};
use crate::partition::Handle;

/// One partition that this gateway was given, with all that waits for it.
pub(super) struct Slot {
    /// Unique in this shard: answers to an earlier life of the partition are ignored.
    pub life: u64,
    pub core: Partition<AllRules>,
    pub handle: Arc<Handle>,
    pub tickets: Tickets,
    pub settings: Settings,
    /// Earliest time asked of the timers.
    pub armed: Option<Time>,
    /// Waits in the shard's list of partitions whose effects are to be carried out.
    pub dirty: bool,
    pub moving: Option<Moving>,
    /// Told when the core has drained.
    pub draining: Option<oneshot::Sender<()>>,
    /// The record's owner as last told: is the partition meant for us?
    pub assigned: bool,
}

pub(super) struct Moving {
    pub to: SessionId,
    pub since: Time,
    /// Set when the partition was let go; from then on only the new owner's readiness is missing.
    pub reply: Option<MoveReply>,
}

impl Slot {
    /// Nothing is left to do here: the partition belongs to somebody else, and everyone has been answered.
    pub fn is_over(&self) -> bool {
        !self.assigned && self.core.phase() == Phase::Idle && self.tickets.len() == 0
    }

    /// The next moment at which something must happen without any event.
    pub fn deadline(&self) -> Option<Time> {
        match (self.core.deadline(), self.tickets.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn expire(&mut self, now: Time) -> usize {
        self.tickets.expire(now, || {
            refuse(
                ErrorCode::TimedOutUnknown,
                "the append was not acknowledged in time (append.timeout); it may still be stored",
            )
        })
    }

    /// Answers all that still waits and tells every stream that the partition is not here any more.
    pub fn let_go(&mut self) {
        self.tickets
            .close(|| refuse(ErrorCode::Moved, "the partition moved to another gateway while the batch was under way"));
        self.handle.publish(|news| {
            news.gone = true;
            news.phase = Phase::Idle;
        });
    }
}

pub(super) fn refuse(code: ErrorCode, reason: &str) -> Outcome {
    Err(Refusal { code, reason: reason.to_owned() })
}
