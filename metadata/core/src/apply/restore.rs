//! What was rebuilt from a backup comes in.

use crate::change::Change;
use crate::command::Restore;
use crate::reply::{CommandResult, Reject, Reply};

use super::Tx;

impl Tx<'_> {
    pub(super) fn restore(&mut self, c: &Restore) -> CommandResult {
        if self.state.rows_hash() == c.after {
            // Proposed again after an unknown outcome.
            return Ok(Reply::DONE);
        }
        if self.state.cluster().is_some() {
            return Err(Reject::precondition("this metadata quorum has a cluster already: restore into an empty one"));
        }
        if self.state.rows_hash() != c.before {
            return Err(Reject::precondition(
                "this metadata quorum holds a part of another restore: empty its data directories and begin again",
            ));
        }
        if c.rows.iter().any(removes) {
            return Err(Reject::precondition("a restore puts rows and removes none"));
        }
        c.rows.iter().for_each(|row| self.put(row.clone()));
        Ok(Reply::DONE)
    }
}

fn removes(change: &Change) -> bool {
    match change {
        Change::Cluster(_)
        | Change::Topic(_)
        | Change::Partition(_)
        | Change::Segment(_)
        | Change::Gateway(_)
        | Change::Bookie(_)
        | Change::Session(_)
        | Change::Intent(_)
        | Change::Group(_)
        | Change::Deleted(_) => false,
        Change::TopicGone(_)
        | Change::PartitionGone(_)
        | Change::SegmentGone(_)
        | Change::GatewayGone(_)
        | Change::BookieGone(_)
        | Change::SessionGone(_)
        | Change::GroupGone(_)
        | Change::IntentGone(_) => true,
    }
}
