//! Small segments of several partitions in one object: the real [`gather`] says which, and each partition goes on from there
//! by itself.

use bytes::Bytes;
use esker_cache_core::object::{Identity, SegmentFacts};
use esker_cache_core::steps::{Event, Step, Waiting, gather};
use esker_metadata_core::{ObjectPlace, PartitionInfo};
use esker_types::{PartitionId, Rules, SegmentId, WallMs};

use super::bucket::Fate;
use super::format;
use super::tier::Doing;
use crate::sometimes::Case;
use crate::world::World;

/// The truth about an object with segments of several partitions.
pub(super) struct Shared {
    pub bytes: Bytes,
    pub segments: Vec<SegmentId>,
}

impl Shared {
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.segments.iter().map(|segment| segment.partition).collect()
    }
}

impl<R: Rules> World<R> {
    /// Starts the objects that are due at a gateway.
    pub(super) fn share(&mut self, g: usize) {
        let Some(sharing) = self.plan.objects.and_then(|plan| plan.sharing(self.plan.segment_bytes)) else { return };
        let idle = self.gateways[g].hosted.values().filter(|hosted| hosted.tier.is_idle());
        let waiting: Vec<Waiting> = idle.filter_map(|hosted| hosted.tier.waits).collect();
        for object in gather(WallMs(self.wall_ms()), &waiting, &sharing) {
            let mut members = Vec::new();
            for segment in object {
                // Each once more: it may be another's by now, or have better things to do.
                match self.step_of(g, segment.partition) {
                    Some((info, Step::Write(facts))) => members.push((info, facts)),
                    Some((info, step)) => self.start(g, &info, step),
                    None => {}
                }
            }
            self.write_together(g, members);
        }
    }

    fn write_together(&mut self, g: usize, members: Vec<(PartitionInfo, SegmentFacts)>) {
        let (mut infos, mut segments) = (Vec::new(), Vec::new());
        for (info, facts) in members {
            let row = info.chain.iter().find(|row| row.segment == facts.segment);
            match row.and_then(|row| self.read_segment_from(g, facts.segment, facts.last, &row.holders)) {
                Some(entries) => {
                    infos.push(info);
                    segments.push((facts, entries));
                }
                None => self.keep_doing(g, info.record.id, Doing::Over(None)),
            }
        }
        let Some((first, _)) = segments.first() else { return };
        let key = self.object_name(g, &infos[0], first.segment, segments.len() > 1);
        let identity = Identity { cluster: self.cluster_id(), key };
        let Some((object, places)) = format::encode(identity, &segments) else {
            self.oracle.fail("R12", format!("{key}: holders serve what are not its segments"));
            return;
        };
        self.claim_name(&key.to_string());
        if key.shared {
            self.cases.hit(Case::ObjectShared);
            let segments = segments.iter().map(|(facts, _)| facts.segment).collect();
            self.objects.shared.insert(key, Shared { bytes: object.clone(), segments });
        }
        let failed = self.put(key.to_string(), object) == Fate::Refused && self.objects.rng.chance(500);
        for (info, place) in infos.iter().zip(places) {
            let n = segments.iter().find(|(facts, _)| facts.segment.partition == info.record.id);
            // Not known to have failed: what is there is for the read to say.
            let written = n.filter(|_| !failed).map(|(facts, _)| Event::Written { n: facts.segment.n, place });
            self.keep_doing(g, info.record.id, Doing::Over(written));
        }
    }

    /// Whether what a reader of this place needs is there as it was written.
    pub(super) fn is_whole(&self, place: &ObjectPlace) -> bool {
        let Some(stored) = self.objects.bucket.held(&place.key.to_string()) else { return false };
        let same = |truth: &Shared| {
            let same = |at: u64, len: u64| {
                let range = at as usize..(at + len) as usize;
                stored.bytes.get(range.clone()) == truth.bytes.get(range)
            };
            same(place.position, place.len) && same(place.footer_position, place.footer_len.into())
        };
        stored.sound || self.objects.shared.get(&place.key).is_some_and(same)
    }
}
