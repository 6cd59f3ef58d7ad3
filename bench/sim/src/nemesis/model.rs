//! The books of destroyed copies: what still fits the fault model, and when a run has left it.

use esker_types::{InstanceId, PartitionId, Rules, SegmentId};

use crate::plan::Mode;
use crate::world::World;

impl<R: Rules> World<R> {
    /// True for a copy that counts for nothing, whether it was destroyed or never made.
    pub(super) fn is_lost(&self, segment: SegmentId, instance: InstanceId) -> bool {
        let damaged = self.nemesis.damaged.get(&segment).is_some_and(|set| set.contains(&instance));
        damaged || self.nemesis.dead.contains(&instance)
    }

    /// Segments may be opened on copies that are lost already: the command was decided before the news came. Where
    /// too few are left nobody can be blamed for standing still.
    pub fn note_lost_copies(&mut self, partition: PartitionId) {
        for (segment, members, ack) in self.member_sets(partition) {
            let lost = members.iter().filter(|member| self.is_lost(segment, **member)).count();
            self.oracle.beyond_model |= lost >= ack;
        }
        self.oracle.may_stall |= !self.can_recover(partition, None);
    }

    /// An open segment needs an ack quorum of whole copies; where members fail, other bookies must be able to take
    /// their place. `without`: as if this bookie failed too.
    fn can_recover(&self, partition: PartitionId, without: Option<usize>) -> bool {
        let Some(record) = self.metadata.state.partition(partition) else { return true };
        let (Some(segment), Some(open)) = (record.open_id(), &record.open) else { return true };
        let usable = |b: usize| !self.bookies[b].gone && Some(b) != without;
        let (mut whole, mut spare) = (0, 0);
        for (b, bookie) in self.bookies.iter().enumerate().filter(|(b, _)| usable(*b)) {
            match open.members.iter().find(|member| member.bookie == bookie.id) {
                Some(member) => whole += usize::from(!self.is_lost(segment, member.instance)),
                None => spare += usize::from(!self.nemesis.harmed.contains(&b)),
            }
        }
        whole + spare >= usize::from(open.quorum.ack)
    }

    /// A bookie came back and knows of these segments only that it may have held more.
    pub fn note_limbo(&mut self, instance: InstanceId, named: &[SegmentId]) {
        for segment in named {
            self.nemesis.damaged.entry(*segment).or_default().insert(instance);
            self.note_lost_copies(segment.partition);
        }
    }

    pub fn is_dead(&self, instance: InstanceId) -> bool {
        self.nemesis.dead.contains(&instance)
    }

    /// Books the destruction of what a bookie holds. False if that would be one copy too many of some segment; in
    /// safety mode it is done all the same, and the run knows.
    pub fn may_lose(&mut self, b: usize) -> bool {
        let instance = self.bookies[b].instance;
        let mut held = Vec::new();
        for partition in &self.partitions {
            for (segment, members, ack) in self.member_sets(*partition) {
                if members.contains(&instance) {
                    let lost = |other: &&InstanceId| **other != instance && self.is_lost(segment, **other);
                    held.push((segment, ack, members.iter().filter(lost).count()));
                }
            }
        }
        let fits = held.iter().all(|(_, ack, lost)| lost + 1 < *ack)
            && self.partitions.iter().all(|partition| self.can_recover(*partition, Some(b)));
        if !fits && self.plan.mode == Mode::Liveness {
            return false;
        }
        self.oracle.beyond_model |= !fits;
        self.nemesis.harmed.insert(b);
        for (segment, ..) in held {
            self.nemesis.damaged.entry(segment).or_default().insert(instance);
        }
        self.oracle.data_lost(instance);
        true
    }
}
