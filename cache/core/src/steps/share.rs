//! Which small segments go to the bucket together, in one object.
//!
//! A request costs the same for a kilobyte as for a gigabyte, and quiet partitions close a small segment each: alone, their
//! number would decide what the bucket costs. So a small one waits a little for the company of others of its gateway. It
//! is safe on bookies meanwhile, and nothing else of its partition waits with it.

use esker_types::{SegmentId, WallMs};

use crate::object::SegmentFacts;

/// Segments in one shared object at most: directory and footers of so many small ones are within the 64 KiB that are read
/// of an object's end, so that each is verified without another request for them.
pub const SHARE_SEGMENTS_MAX: usize = 256;

/// When a segment waits for others, and for how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Segments of fewer bytes share objects. 0: none.
    pub below: u64,
    /// How long after it was closed a segment waits, ms.
    pub wait_ms: i64,
    /// Bytes of the segments in one object. Not less than `below`.
    pub bytes_max: u64,
    /// Segments in one object, one or more.
    pub segments_max: usize,
}

/// A small segment that could be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub segment: SegmentId,
    pub bytes: u64,
    pub closed: WallMs,
}

impl From<&SegmentFacts> for Waiting {
    fn from(facts: &SegmentFacts) -> Self {
        Self { segment: facts.segment, bytes: facts.bytes, closed: facts.closed }
    }
}

impl Sharing {
    /// Whether a segment of so many bytes waits for others.
    pub fn is_small(&self, bytes: u64) -> bool {
        bytes < self.below
    }

    fn is_due(&self, wall: WallMs, waiting: &[Waiting]) -> bool {
        let bytes = waiting.iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes));
        let ripe = |one: &Waiting| wall.0.saturating_sub(one.closed.0) >= self.wait_ms;
        waiting.len() >= self.segments_max || bytes >= self.bytes_max || waiting.iter().any(ripe)
    }
}

/// The objects to be written now, each with its segments in order. Nothing before one of `waiting` has waited long enough
/// or all together are enough for an object: then all of them go, for those that stay would go with fewer.
pub fn gather(wall: WallMs, waiting: &[Waiting], sharing: &Sharing) -> Vec<Vec<SegmentId>> {
    if waiting.is_empty() || !sharing.is_due(wall, waiting) {
        return Vec::new();
    }
    let mut waiting = waiting.to_vec();
    waiting.sort_unstable_by_key(|one| one.segment);
    let (mut objects, mut bytes): (Vec<Vec<SegmentId>>, u64) = (Vec::new(), 0);
    for one in waiting {
        let sum = bytes.saturating_add(one.bytes);
        match objects.last_mut() {
            Some(object) if object.len() < sharing.segments_max && sum <= sharing.bytes_max => {
                object.push(one.segment);
                bytes = sum;
            }
            _ => {
                objects.push(vec![one.segment]);
                bytes = one.bytes;
            }
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARING: Sharing = Sharing { below: 50, wait_ms: 100, bytes_max: 60, segments_max: 3 };

    fn waiting(partition: u64, bytes: u64, closed: i64) -> Waiting {
        Waiting { segment: SegmentId::new(partition, 1), bytes, closed: WallMs(closed) }
    }

    fn partitions(wall: i64, waiting: &[Waiting]) -> Vec<Vec<u64>> {
        let objects = gather(WallMs(wall), waiting, &SHARING);
        objects.iter().map(|object| object.iter().map(|segment| segment.partition.0).collect()).collect()
    }

    #[test]
    fn small_segments_wait_until_one_has_waited_long_enough_and_go_together() {
        assert!(SHARING.is_small(49) && !SHARING.is_small(50) && !Sharing { below: 0, ..SHARING }.is_small(0));
        let two = [waiting(9, 10, 1_050), waiting(4, 10, 1_000)];
        assert_eq!(partitions(1_099, &two), Vec::<Vec<u64>>::new());
        assert_eq!(partitions(1_100, &two), [[4, 9]], "the younger goes along");
        assert_eq!(partitions(1_100, &two[1..]), [[4]], "nobody else came");
        assert_eq!(partitions(i64::MAX, &[]), Vec::<Vec<u64>>::new());
    }

    #[test]
    fn enough_for_an_object_does_not_wait_and_no_object_exceeds_its_bounds() {
        let small = [3, 1, 2].map(|partition| waiting(partition, 1, 1_000));
        assert_eq!(partitions(1_000, &small), [[1, 2, 3]], "by their number");
        let large = [waiting(1, 40, 1_000), waiting(2, 20, 1_000)];
        assert_eq!(partitions(1_000, &large), [[1, 2]], "by their bytes");
        let many: Vec<Waiting> = (1..=8).map(|partition| waiting(partition, 5 * partition, 1_000)).collect();
        assert_eq!(partitions(1_000, &many), [vec![1, 2, 3], vec![4, 5], vec![6], vec![7], vec![8]]);
        // A clock that went back, and sizes that no sum holds.
        let odd = [waiting(1, u64::MAX, i64::MAX), waiting(2, u64::MAX, i64::MIN)];
        assert_eq!(partitions(0, &odd), [[1], [2]]);
    }
}
