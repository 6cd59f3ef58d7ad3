//! The pure function that turns commands into changes. Each command checks everything first and changes after, so that
//! a refused one leaves no trace.

mod close;
mod cluster;
mod copies;
mod group;
mod node;
mod objects;
mod ownership;
mod restore;
mod topic;

use std::sync::Arc;

pub(crate) use close::merged_all;
use esker_types::{Epoch, ErrorCode, PartitionId, Rules, WallMs};

use crate::change::{Change, Delta};
use crate::command::Command;
use crate::records::{ClusterRecord, PartitionRecord};
use crate::reply::{CommandResult, Reject};
use crate::state::State;

/// Partitions that one topic may have.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 100_000;
/// Kafka's bound on the length of a topic name; node names keep to it too.
pub const TOPIC_NAME_MAX: usize = 249;
/// Newest `cluster.version` that this build can write.
pub const VERSION_MAX: u32 = 1;

/// What one batch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub revision: u64,
    /// One for each command, in order.
    pub results: Vec<CommandResult>,
    pub delta: Delta,
}

impl State {
    /// Applies one raft entry: all commands, in order, each seeing what those before it did. `leader_wall_ms` is the
    /// clock of the leader that took them; a clock that went back counts as standing still.
    pub fn apply<R: Rules>(&mut self, leader_wall_ms: i64, commands: &[Command]) -> Applied {
        self.advance(self.revision() + 1, WallMs(leader_wall_ms));
        let mut tx = Tx { state: self, changes: Vec::new() };
        let results = commands.iter().map(|command| tx.command::<R>(command)).collect();
        let changes = tx.changes;
        let delta = Delta { revision: self.revision(), wall: self.wall(), changes };
        Applied { revision: delta.revision, results, delta }
    }
}

/// One batch under way.
struct Tx<'a> {
    state: &'a mut State,
    changes: Vec<Change>,
}

impl Tx<'_> {
    fn command<R: Rules>(&mut self, command: &Command) -> CommandResult {
        if self.state.cluster().is_none() && !matches!(command, Command::InitCluster(_) | Command::Restore(_)) {
            return Err(Reject::precondition("the cluster was not initialised: run `esker cluster init`"));
        }
        match command {
            Command::InitCluster(c) => self.init_cluster(c),
            Command::FinalizeVersion(c) => self.finalize_version(c),
            Command::AllocProducerIds(c) => self.alloc_producer_ids(c),
            Command::CreateTopic(c) => self.create_topic(c),
            Command::AlterTopic(c) => self.alter_topic(c),
            Command::AddPartitions(c) => self.add_partitions(c),
            Command::DeleteTopic(c) => self.delete_topic(c),
            Command::AlterGroup(c) => self.alter_group(c),
            Command::RegisterGateway(c) => self.register_gateway(c),
            Command::RegisterBookie(c) => self.register_bookie(c),
            Command::ReportBookie(c) => self.report_bookie(c),
            Command::OpenSession(c) => self.open_session(c),
            Command::ExpireSession(c) => self.expire_session(c),
            Command::DrainGateway(c) => self.drain_gateway(c),
            Command::DrainBookie(c) => self.drain_bookie(c),
            Command::LoseBookie(c) => self.lose_bookie(c),
            Command::Assign(c) => self.assign(c),
            Command::Open(c) => self.open::<R>(c),
            Command::Roll(c) => self.roll::<R>(c),
            Command::Handover(c) => self.handover::<R>(c),
            Command::ForceClose(c) => self.force_close(c),
            Command::DataLoss(c) => self.data_loss(c),
            Command::Release(c) => self.release(c),
            Command::PutIntent(c) => self.put_intent(c),
            Command::ReplaceMember(c) => self.replace_member(c),
            Command::DropBookieCopies(c) => self.drop_bookie_copies(c),
            Command::DeleteBegin(c) => self.delete_begin(c),
            Command::DeleteDone(c) => self.delete_done(c),
            Command::OffloadCommit(c) => self.offload_commit(c),
            Command::SetRoot(c) => self.set_root(c),
            Command::Pin(c) => self.pin(c),
            Command::Unpin(c) => self.unpin(c),
            Command::Restore(c) => self.restore(c),
        }
    }

    fn put(&mut self, change: impl Into<Change>) {
        let change = change.into();
        self.state.put(&change);
        self.changes.push(change);
    }

    fn cluster(&self) -> Arc<ClusterRecord> {
        self.state.cluster().expect("checked before every command").clone()
    }

    fn partition(&self, id: PartitionId) -> Result<PartitionRecord, Reject> {
        match self.state.partition(id) {
            Some(record) => Ok(PartitionRecord::clone(record)),
            None if self.state.deleted(id).is_some() => {
                Err(Reject::new(ErrorCode::TopicDeleted, format!("partition {id} was deleted with its topic")))
            }
            None => Err(Reject::new(ErrorCode::UnknownPartition, format!("there is no partition {id}"))),
        }
    }

    /// The partition, if `epoch` is still the one that may act on it.
    fn partition_at(&self, id: PartitionId, epoch: Epoch) -> Result<PartitionRecord, Reject> {
        let record = self.partition(id)?;
        let code = match epoch.cmp(&record.epoch) {
            std::cmp::Ordering::Equal => return Ok(record),
            std::cmp::Ordering::Less => ErrorCode::FencedEpoch,
            std::cmp::Ordering::Greater => ErrorCode::UnknownEpoch,
        };
        Err(Reject::new(code, format!("partition {id} is at epoch {}, the command at {epoch}", record.epoch)))
    }
}
