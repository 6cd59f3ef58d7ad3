//! Who may write a partition, and into which segment: Assign, Open, Roll, Handover (R1, R2).

use std::collections::BTreeSet;
use std::sync::Arc;

use esker_types::{Epoch, ErrorCode, Rules, SessionId};

use super::Tx;
use crate::command::{Assign, Handover, NextSegment, Open, Release, Roll};
use crate::records::{BookieState, NodeRef, OpenSegment, Owner, PartitionRecord};
use crate::reply::{CommandResult, EpochReply, Reject, Reply};

impl Tx<'_> {
    pub(super) fn assign(&mut self, c: &Assign) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.expect_epoch)?;
        let owner = self.target(c.session)?;
        let epoch = next_epoch(&partition)?;
        partition.epoch = epoch;
        partition.owner = Some(owner);
        self.put(Arc::new(partition));
        Ok(Reply::Epoch(EpochReply { epoch }))
    }

    pub(super) fn release(&mut self, c: &Release) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.epoch)?;
        match &partition.owner {
            Some(owner) if owner.session == c.session => {}
            // Proposed again: nobody can have taken it since, that would have raised the epoch.
            None if partition.epoch != Epoch::first(self.cluster().incarnation) => return Ok(Reply::DONE),
            _ => {
                let reason = format!("session {} does not own partition {}", c.session, c.partition);
                return Err(Reject::precondition(reason));
            }
        }
        partition.owner = None;
        self.put(Arc::new(partition));
        Ok(Reply::DONE)
    }

    pub(super) fn open<R: Rules>(&mut self, c: &Open) -> CommandResult {
        let mut partition = self.partition_at(c.partition, c.epoch)?;
        if R::ONE_OPEN_SEGMENT {
            if let Some(open) = &partition.open {
                let reason = format!("segment {}/{} is open", partition.id, open.n);
                return Err(Reject::precondition(reason));
            }
            if partition.tail_n() != c.prev {
                let reason =
                    format!("the tail of partition {} is {:?}, not {:?}", partition.id, partition.tail_n(), c.prev);
                return Err(Reject::precondition(reason));
            }
        }
        let next = self.next_segment::<R>(&partition, &c.next)?;
        install(&mut partition, next);
        self.put(Arc::new(partition));
        Ok(Reply::DONE)
    }

    pub(super) fn roll<R: Rules>(&mut self, c: &Roll) -> CommandResult {
        let partition = self.partition_at(c.partition, c.epoch)?;
        let (mut partition, segment) = self.closed::<R>(partition, &c.close)?;
        let next = c.next.as_ref().map(|next| self.next_segment::<R>(&partition, next)).transpose()?;
        if let Some(next) = next {
            install(&mut partition, next);
        }
        self.put_closed(partition, segment, &c.close);
        Ok(Reply::DONE)
    }

    pub(super) fn handover<R: Rules>(&mut self, c: &Handover) -> CommandResult {
        let partition = self.partition_at(c.partition, c.epoch)?;
        let owner = self.target(c.to_session)?;
        let epoch = next_epoch(&partition)?;
        let (mut partition, segment) = match &c.close {
            Some(close) => self.closed::<R>(partition, close)?,
            None => match &partition.open {
                Some(open) => {
                    let reason = format!("segment {}/{} is open: a handover must close it", partition.id, open.n);
                    return Err(Reject::precondition(reason));
                }
                None => (partition, None),
            },
        };
        // From here on the next owner's words count: its epoch is in the segment, its session may start it.
        partition.epoch = epoch;
        partition.owner = Some(owner);
        let next = c.next.as_ref().map(|next| self.next_segment::<R>(&partition, next)).transpose()?;
        if let Some(next) = next {
            install(&mut partition, next);
        }
        match &c.close {
            Some(close) => self.put_closed(partition, segment, close),
            None => self.put(Arc::new(partition)),
        }
        Ok(Reply::Epoch(EpochReply { epoch }))
    }

    /// The owner that a live session of a gateway makes. A draining gateway gets nothing.
    fn target(&self, session: SessionId) -> Result<Owner, Reject> {
        let node = self.state.session(session).map(|record| record.node);
        let gone = || Reject::new(ErrorCode::NoSuchSession, format!("session {session} has ended"));
        let Some(NodeRef::Gateway(id)) = node else { return Err(gone()) };
        let gateway = self.state.gateway(id).filter(|g| g.session == Some(session)).ok_or_else(gone)?;
        if gateway.draining {
            return Err(Reject::precondition(format!("gateway {:?} is draining", gateway.name)));
        }
        Ok(Owner { gateway: id, session })
    }

    /// Checks a segment that is to be opened for `partition` as it will be then.
    fn next_segment<R: Rules>(&self, partition: &PartitionRecord, next: &NextSegment) -> Result<OpenSegment, Reject> {
        let Some(owner) = &partition.owner else {
            return Err(Reject::precondition(format!("partition {} has no owner", partition.id)));
        };
        if R::ONE_OPEN_SEGMENT && next.n != partition.next_n {
            let reason =
                format!("the next segment of partition {} is {}, not {}", partition.id, partition.next_n, next.n);
            return Err(Reject::precondition(reason));
        }
        if !next.quorum.is_valid() || next.members.len() != usize::from(next.quorum.write) {
            let reason = format!("{} members for quorum {:?}", next.members.len(), next.quorum);
            return Err(Reject::precondition(reason));
        }
        let mut seen = BTreeSet::new();
        for member in &next.members {
            let usable = self.state.member(*member).filter(|b| b.state != BookieState::Draining);
            if usable.is_none() || !seen.insert(member.bookie) {
                let reason = format!(
                    "bookie {} (instance {}) can't be a member: unknown, lost, draining or named twice",
                    member.bookie, member.instance
                );
                return Err(Reject::precondition(reason));
            }
        }
        Ok(OpenSegment {
            n: next.n,
            seg_epoch: partition.epoch,
            session: owner.session,
            quorum: next.quorum,
            members: next.members.clone(),
            base_offset: partition.next_offset,
            opened: self.state.wall(),
        })
    }
}

fn install(partition: &mut PartitionRecord, next: OpenSegment) {
    partition.next_n = partition.next_n.max(next.n + 1);
    partition.open = Some(next);
}

fn next_epoch(partition: &PartitionRecord) -> Result<Epoch, Reject> {
    partition.epoch.next().ok_or_else(|| {
        Reject::new(
            ErrorCode::Internal,
            format!("partition {} has used up the epochs of this incarnation", partition.id),
        )
    })
}
