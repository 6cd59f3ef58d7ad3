//! I10 and what is promised of the bucket, held against the truth after every step that could break it.

use std::collections::{BTreeMap, BTreeSet};

use esker_cache_core::manifest::{Buried, Page};
use esker_cache_core::object::Identity;
use esker_cache_core::steps::{Candidate, parse};
use esker_metadata_core::{ClosedSegment, Command, PartitionRecord, RootPlace, Unpin};
use esker_types::{Offset, PageKey, PartitionId, Rules, SegmentId};

use super::bucket::Stored;
use super::format;
use super::pages::Miss;
use crate::sometimes::Case;
use crate::world::World;

impl<R: Rules> World<R> {
    /// A segment's record changed: its object may be new.
    pub fn note_offload(&mut self, closed: &ClosedSegment) {
        let Some(place) = closed.object.as_ref().filter(|_| self.objects.committed.insert(closed.segment)) else {
            return;
        };
        self.cases.hit(Case::OffloadCommitted);
        let name = place.key.to_string();
        if !self.is_whole(place) {
            let text = format!("{}: {name} was committed and does not hold it", closed.segment);
            return self.oracle.fail("R12", text);
        }
        // The store damages it after it was verified, and before bookies may drop their copies.
        let objects = &mut self.objects;
        if !self.healed && objects.bucket.damages(&mut objects.rng) && objects.rng.chance(200) {
            match place.key.shared {
                // What others have in it may be on no bookie any more.
                true => {
                    let part = place.position as usize..(place.position + place.len) as usize;
                    objects.bucket.rot_part(&name, part, &mut objects.rng);
                }
                false => objects.bucket.rot(&name, &mut objects.rng),
            }
            self.cases.hit(Case::ObjectRotted);
        }
    }

    /// A manifest got another root.
    pub fn note_root(&mut self, partition: PartitionId) {
        let Some(ver) = self.record(partition).map(|record| record.root_ver()) else { return };
        if ver > 1 {
            let wall = self.wall_ms();
            self.objects.replaced.entry((partition, ver - 1)).or_insert(wall);
        }
    }

    pub fn note_deleted_tail(&mut self, record: &PartitionRecord) {
        let Some(last) = record.last.as_ref().filter(|last| last.end_offset <= record.log_start) else { return };
        let (tail, wall) = (SegmentId { partition: record.id, n: last.n }, self.wall_ms());
        self.objects.deleted_tails.entry(tail).or_insert(wall);
    }

    /// I10: every record from the log start on is on bookies that may not drop it, or whole in the bucket and found.
    pub fn check_places(&mut self, partition: PartitionId) {
        if self.plan.objects.is_none() || self.oracle.violation().is_some() {
            return;
        }
        if let Err(why) = self.places(partition) {
            self.oracle.fail("I10", format!("partition {partition}: {why}"));
        }
    }

    fn places(&self, partition: PartitionId) -> Result<(), String> {
        let state = &self.metadata.state;
        let Some(record) = state.partition(partition) else { return Ok(()) };
        // By base offset: the end, and whether it is somewhere.
        let mut places: BTreeMap<Offset, (Offset, bool)> = BTreeMap::new();
        if let Some(root) = &record.root {
            let tree = self.tree(root).map_err(|key| format!("page {key} of its manifest is not there"))?;
            for entry in tree.entries {
                places.insert(entry.base_offset, (entry.end_offset, self.is_whole(&entry.place)));
            }
        }
        for row in state.chain(partition) {
            let on_bookies = row.segment.n >= record.copies_from;
            let sound = || row.object.as_ref().is_some_and(|place| self.is_whole(place));
            places.insert(row.base_offset, (row.end_offset, on_bookies || sound()));
        }
        let mut at = record.log_start;
        while at < record.next_offset {
            if let Some(lost) = record.lost.iter().find(|lost| lost.from <= at && at < lost.to) {
                at = lost.to;
                continue;
            }
            match places.range(..=at).next_back() {
                Some((_, (end, true))) if *end > at => at = *end,
                found => return Err(format!("offset {at} is on no verified place: {found:?}")),
            }
        }
        let wall = self.wall_ms();
        for pin in record.pins.iter().filter(|pin| pin.expires.0 > wall) {
            let tree = self.tree(&pin.root).map_err(|key| format!("page {key} of a pinned version is not there"))?;
            let gone = tree.entries.iter().find(|entry| {
                let name = entry.place.key.to_string();
                self.objects.bucket.held(&name).is_none()
            });
            if let Some(entry) = gone {
                return Err(format!("segment {} of a pinned version is not there", entry.n));
            }
        }
        Ok(())
    }

    /// A client asked for a page that the store does not have. Nobody who knows the current version may meet that, nor
    /// one that was current until less than a grace ago, nor a pinned one.
    pub(super) fn page_missed(&mut self, root: Option<&RootPlace>, miss: &Miss) {
        let (Some(root), Miss::NotFound(key)) = (root, miss) else { return };
        self.reader_missed(key.partition, root, &format!("page {key}"));
    }

    pub(super) fn reader_missed(&mut self, partition: PartitionId, root: &RootPlace, what: &str) {
        let (Some(plan), Some(record)) = (self.plan.objects, self.record(partition)) else { return };
        let wall = self.wall_ms();
        let replaced = self.objects.replaced.get(&(partition, root.ver)).copied();
        let fresh = replaced.is_none_or(|at| wall - at < plan.grace_ms());
        let pinned = record.pins.iter().any(|pin| pin.root == *root && pin.expires.0 > wall);
        if fresh || pinned {
            let text = format!("partition {partition}: a reader at version {} met a deleted object: {what}", root.ver);
            self.oracle.fail("R16", text);
        }
        self.cases.hit(Case::ReaderTooLate);
    }

    // --- the end of a run

    /// Whether everything that should be in the bucket is.
    pub fn tier_is_settled(&self) -> bool {
        self.plan.objects.is_none() || self.partitions.iter().all(|partition| self.backlog(*partition) == 0)
    }

    pub fn backlog(&self, partition: PartitionId) -> usize {
        let state = &self.metadata.state;
        let Some(record) = state.partition(partition) else { return 0 };
        state.chain(partition).filter(|row| row.object.is_none() && row.end_offset > record.log_start).count()
    }

    /// Long after: the sweep has been, and what is left is reached or waits in a graveyard.
    pub fn check_leaks(&mut self) {
        if self.plan.objects.is_none() || self.oracle.violation().is_some() {
            return;
        }
        // Any command moves the clock of metadata on, by which pins expire.
        let unpin = |partition: &PartitionId| Command::Unpin(Unpin { partition: *partition, id: 0 });
        let unpins: Vec<Command> = self.partitions.iter().map(unpin).collect();
        self.apply_now(&unpins);
        self.sweep_now();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        // Segments of which something lies in a grave: other attempts at them are judged when it is gone.
        let mut waiting: Vec<(PartitionId, u64, u64)> = Vec::new();
        for partition in self.partitions.clone() {
            let state = &self.metadata.state;
            let Some(record) = state.partition(partition) else { continue };
            let rows = state.chain(partition).filter_map(|row| row.object.as_ref());
            wanted.extend(rows.map(|place| place.key.to_string()));
            let held = record.pins.iter().filter(|pin| pin.expires > state.wall()).map(|pin| &pin.root);
            for root in record.root.iter().chain(held) {
                let Ok(tree) = self.tree(root) else { continue };
                wanted.extend(tree.pages.iter().map(PageKey::to_string));
                wanted.extend(tree.entries.iter().map(|entry| entry.place.key.to_string()));
                let Page::Root(page) = &*tree.root else { continue };
                page.graveyard.iter().for_each(|grave| self.buried(&grave.what, &mut wanted));
                waiting.extend(page.graveyard.iter().filter_map(|grave| match &grave.what {
                    Buried::Tree(tree) => Some((partition, tree.page.first_n, tree.page.last_n)),
                    _ => None,
                }));
            }
        }
        let waits = |of: &SegmentId| {
            waiting.iter().any(|(p, first, last)| *p == of.partition && (*first..=*last).contains(&of.n))
        };
        let stays = |name: &str, stored: &Stored| match parse(name) {
            Some(Candidate::Object(key)) => match self.objects.shared.get(&key) {
                // Nobody knows whose one is that came damaged.
                Some(shared) => {
                    let identity = Identity { cluster: self.cluster_id(), key };
                    shared.segments.iter().any(waits) || format::directory(identity, &stored.bytes).is_none()
                }
                None => waits(&SegmentId { partition: key.partition, n: key.n }),
            },
            _ => false,
        };
        let mut stored = self.objects.bucket.names();
        let leak = stored.find(|(name, stored)| !wanted.contains(*name) && !stays(name, stored));
        let leak = leak.map(|(name, _)| name.clone());
        if let Some(name) = leak {
            self.oracle.fail("leak", format!("{name} is reached by nothing, and no sweep takes it"));
        }
    }

    fn buried(&self, what: &Buried, names: &mut BTreeSet<String>) {
        match what {
            Buried::Page(page) => drop(names.insert(page.key.to_string())),
            Buried::Object(object) => drop(names.insert(object.key.to_string())),
            Buried::Tree(tree) => {
                let mut todo = vec![tree.page.key];
                while let Some(key) = todo.pop() {
                    names.insert(key.to_string());
                    match self.objects.pages.get(&key).map(|page| &**page) {
                        Some(Page::Leaf(leaf)) => {
                            names.extend(leaf.entries.iter().map(|entry| entry.place.key.to_string()));
                        }
                        Some(Page::Inner(inner)) => todo.extend(inner.children.iter().map(|child| child.key)),
                        _ => {}
                    }
                }
            }
        }
    }
}
