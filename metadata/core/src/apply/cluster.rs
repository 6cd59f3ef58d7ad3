//! Birth of the cluster, its version, and the counters that ids come from.

use std::sync::Arc;

use esker_types::{ErrorCode, ID_INCARNATION_SHIFT, ProducerId};

use super::{Tx, VERSION_MAX};
use crate::command::{AllocProducerIds, FinalizeVersion, InitCluster};
use crate::records::ClusterRecord;
use crate::reply::{CommandResult, ProducerIdsReply, Reject, Reply};

const DEFAULT_PARTITIONS_MAX: u32 = 10_000;
const PRODUCER_IDS_MAX: u32 = 1_000_000;

impl Tx<'_> {
    pub(super) fn init_cluster(&mut self, c: &InitCluster) -> CommandResult {
        if let Some(cluster) = self.state.cluster() {
            // The same birth proposed again after an unknown outcome.
            return match cluster.id == c.id {
                true => Ok(Reply::DONE),
                false => Err(Reject::new(
                    ErrorCode::WrongCluster,
                    format!("this is cluster {}; it can't become {}", cluster.id, c.id),
                )),
            };
        }
        if c.id.is_nil() {
            return Err(Reject::new(ErrorCode::InvalidRequest, "a cluster needs an id"));
        }
        if !c.quorum.is_valid() {
            return Err(Reject::new(ErrorCode::InvalidConfig, "the default quorum is not 1 <= ack <= write <= 7"));
        }
        if !(1..=DEFAULT_PARTITIONS_MAX).contains(&c.default_partitions) {
            let reason = format!("{} partitions by default; 1 to {DEFAULT_PARTITIONS_MAX} fit", c.default_partitions);
            return Err(Reject::new(ErrorCode::InvalidPartitions, reason));
        }
        let born = ClusterRecord::born(c.id, VERSION_MAX, c.quorum, c.auto_create_topics, c.default_partitions);
        self.put(Arc::new(born));
        Ok(Reply::DONE)
    }

    pub(super) fn finalize_version(&mut self, c: &FinalizeVersion) -> CommandResult {
        let mut cluster = ClusterRecord::clone(&self.cluster());
        if c.version == cluster.version {
            return Ok(Reply::DONE);
        }
        if c.version < cluster.version {
            let reason = format!("the cluster is at version {}; it can't go back to {}", cluster.version, c.version);
            return Err(Reject::precondition(reason));
        }
        if c.version > VERSION_MAX {
            let reason = format!("version {} is unknown to the metadata nodes: upgrade them first", c.version);
            return Err(Reject::new(ErrorCode::NewerVersion, reason));
        }
        let gateways = self.state.gateways().filter(|g| g.session.is_some()).map(|g| (&g.name, g.version));
        let bookies = self.state.bookies().filter(|b| b.session.is_some()).map(|b| (&b.name, b.version));
        if let Some((name, version)) = gateways.chain(bookies).find(|(_, version)| *version < c.version) {
            let reason = format!("node {name} knows versions up to {version}: upgrade or stop it first");
            return Err(Reject::new(ErrorCode::NewerVersion, reason));
        }
        cluster.version = c.version;
        self.put(Arc::new(cluster));
        Ok(Reply::DONE)
    }

    pub(super) fn alloc_producer_ids(&mut self, c: &AllocProducerIds) -> CommandResult {
        if !(1..=PRODUCER_IDS_MAX).contains(&c.count) {
            let reason = format!("{} producer ids at once; 1 to {PRODUCER_IDS_MAX} fit", c.count);
            return Err(Reject::new(ErrorCode::InvalidRequest, reason));
        }
        let first = self.take_ids(|cluster| &mut cluster.next_producer, u64::from(c.count))?;
        Ok(Reply::ProducerIds(ProducerIdsReply { first: ProducerId(first), count: c.count }))
    }

    /// Hands out `count` ids that were never given out before and never will be again (I9).
    pub(super) fn take_ids(
        &mut self,
        counter: impl FnOnce(&mut ClusterRecord) -> &mut u64,
        count: u64,
    ) -> Result<u64, Reject> {
        let mut cluster = ClusterRecord::clone(&self.cluster());
        let incarnation = u64::from(cluster.incarnation);
        let next = counter(&mut cluster);
        let first = *next;
        *next += count;
        if *next >> ID_INCARNATION_SHIFT != incarnation {
            return Err(Reject::new(ErrorCode::Internal, "this incarnation of the cluster has used up its ids"));
        }
        self.put(Arc::new(cluster));
        Ok(first)
    }
}
