use std::sync::Arc;
use std::time::Duration;

use esker_gateway_core::partition::{Partition, Phase, Refusal, Settings};
use esker_types::{AllRules, ErrorCode, PartitionId, SessionId, Time};
use tokio::sync::oneshot;

use super::mailbox::MoveReply;
use super::tickets::{Outcome, Tickets};
use crate::partition::Handle;

/// Bookies may be away for so long before producers hear of it: a restart is shorter.
const PATIENCE: Duration = Duration::from_secs(1);

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
    pub starved: Option<Starved>,
}

/// No ack quorum of bookies takes entries of the partition.
pub(super) struct Starved {
    pub since: Time,
    pub reason: String,
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

    /// Bookies were looked for and too few were found.
    pub fn starve(&mut self, now: Time, id: PartitionId, reason: String) {
        if self.starved.as_ref().is_none_or(|starved| starved.reason != reason) {
            tracing::warn!(partition = %id, reason, "no place for a segment");
        }
        let since = self.starved.as_ref().map_or(now, |starved| starved.since);
        self.starved = Some(Starved { since, reason });
    }

    /// What producers are told when bookies have been missing for so long that waiting in silence helps nobody.
    pub fn starving(&self, now: Time) -> Option<Outcome> {
        let starved = self.starved.as_ref().filter(|starved| now >= starved.since + PATIENCE)?;
        Some(refuse(ErrorCode::NotEnoughBookies, &starved.reason))
    }

    /// Answers who waits for bookies that do not come. What the core holds is stored if they do.
    pub fn answer_starving(&mut self, now: Time) {
        if let Some(outcome) = self.starving(now) {
            self.tickets.expire(Time(u64::MAX), || outcome.clone());
        }
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
