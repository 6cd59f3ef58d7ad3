//! The leak sweep: deletes what no manifest reaches.
//!
//! The order is the proof. List first; keep what is old enough ([`candidate`]): its writer gave up or died long ago. Only
//! THEN read the partition's record linearizably, and judge ([`verdict`]). A name that is reached later than that would
//! have to be committed by a writer that holds the epoch and waited longer than the age between its PUT and its commit.

use esker_metadata_core::{PartitionRecord, RootPlace, State};
use esker_types::{ObjectKey, PageKey, PartitionId, Rules, SegmentId, WallMs};

use crate::manifest::{Buried, Need, Page, Pages, RootPage, reaches, root_ref, tree_pages};
use crate::object::Directory;

/// What to do with a listed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Nothing reaches it, and nothing will.
    Delete,
    /// The first segment of this shared object is reached by nothing: its directory says which others are in it. Ask
    /// again with it; without it the object stays.
    NeedsDirectory,
}

/// A name that the sweep may judge, if it is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidate {
    Object(ObjectKey),
    Page(PageKey),
}

impl Candidate {
    /// Whose it is; of a shared object, whose first segment.
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Object(key) => key.partition,
            Self::Page(key) => key.partition,
        }
    }

    fn incarnation(&self) -> u8 {
        match self {
            Self::Object(key) => key.incarnation,
            Self::Page(key) => key.incarnation,
        }
    }
}

/// The object or page that a listed name stands for, if it is one.
pub fn parse(name: &str) -> Option<Candidate> {
    name.parse().ok().map(Candidate::Object).or_else(|| name.parse().ok().map(Candidate::Page))
}

/// A listed name that is at least `age_min_ms` old. Names that are none of this incarnation's are left alone.
pub fn candidate(name: &str, incarnation: u8, age_ms: u64, age_min_ms: u64) -> Option<Candidate> {
    if age_ms < age_min_ms {
        return None;
    }
    parse(name).filter(|found| found.incarnation() == incarnation)
}

/// True if the candidate's partition was deleted with its topic at least `grace_ms` ago: no writer can commit anything to
/// it any more and no reader is let in, so its age does not matter.
pub fn doomed(candidate: &Candidate, state: &State, grace_ms: i64) -> bool {
    // Other partitions may have a part in a shared object.
    let shared = matches!(candidate, Candidate::Object(key) if key.shared);
    let row = state.deleted(candidate.partition()).filter(|_| !shared);
    row.is_some_and(|row| state.wall().0.saturating_sub(row.deleted.0) >= grace_ms)
}

/// Judges one candidate by a state that was read, linearizably, after it was listed. `directory` is a shared object's
/// own: only the segments in it can refer to it. Most that are in use are kept for their first segment, without it.
pub fn verdict<R: Rules>(
    candidate: &Candidate,
    state: &State,
    directory: Option<&Directory>,
    pages: &impl Pages,
) -> Result<Verdict, Need> {
    let key = match candidate {
        Candidate::Page(key) => return Ok(judged(page_reached(key, state, pages)?)),
        Candidate::Object(key) => key,
    };
    let first = SegmentId { partition: key.partition, n: key.n };
    let reached = object_reached::<R>(key, first, state, pages)?;
    if reached || !key.shared || !R::SWEEP_ASKS_ALL_SEGMENTS {
        return Ok(judged(reached));
    }
    let Some(directory) = directory else { return Ok(Verdict::NeedsDirectory) };
    for part in directory.parts.iter().filter(|part| part.segment != first) {
        if object_reached::<R>(key, part.segment, state, pages)? {
            return Ok(Verdict::Keep);
        }
    }
    Ok(Verdict::Delete)
}

fn judged(reached: bool) -> Verdict {
    if reached { Verdict::Keep } else { Verdict::Delete }
}

/// The versions that somebody may still read: the current one, and those that are held. What a void pin held may be gone
/// already, and proves nothing.
fn roots(partition: &PartitionRecord, wall: WallMs) -> impl Iterator<Item = &RootPlace> {
    let held = partition.pins.iter().filter(move |pin| pin.expires > wall);
    partition.root.iter().chain(held.map(|pin| &pin.root))
}

fn object_reached<R: Rules>(
    key: &ObjectKey,
    segment: SegmentId,
    state: &State,
    pages: &impl Pages,
) -> Result<bool, Need> {
    let Some(partition) = state.partition(segment.partition) else {
        // Deleted with its topic, or of another life of the metadata: the second is never deleted.
        return Ok(state.deleted(segment.partition).is_none());
    };
    let row = state.segment(segment);
    if row.and_then(|row| row.object.as_ref()).is_some_and(|place| place.key == *key) {
        return Ok(true);
    }
    if !R::SWEEP_BY_REACHABILITY {
        return Ok(row.is_some());
    }
    for place in roots(partition, state.wall()) {
        let of = root_ref(place);
        let page = pages.page(&of).ok_or(Need(of))?;
        // A root that is no root can't prove that nothing is reached.
        let Page::Root(root) = &*page else { return Ok(true) };
        if reaches(root, segment.n, key, pages)? || object_buried(root, key, segment.n) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What lies in a grave is deleted by its own partition, which knows the grace; or not at all, if it is shared: then the
/// grave says that the grace of this partition's segment `n` in it is not over.
fn object_buried(root: &RootPage, key: &ObjectKey, n: u64) -> bool {
    root.graveyard.iter().any(|grave| match &grave.what {
        Buried::Object(object) => object.key == *key,
        Buried::Tree(tree) => (tree.page.first_n..=tree.page.last_n).contains(&n),
        Buried::Page(_) => false,
    })
}

fn page_buried(root: &RootPage, key: &PageKey) -> bool {
    root.graveyard.iter().any(|grave| match &grave.what {
        Buried::Page(page) => page.key == *key,
        // The pages below are not known without reading them.
        Buried::Tree(tree) => tree.height > 0 || tree.page.key == *key,
        Buried::Object(_) => false,
    })
}

fn page_reached(key: &PageKey, state: &State, pages: &impl Pages) -> Result<bool, Need> {
    let Some(partition) = state.partition(key.partition) else {
        return Ok(state.deleted(key.partition).is_none());
    };
    for place in roots(partition, state.wall()) {
        let of = root_ref(place);
        let page = pages.page(&of).ok_or(Need(of))?;
        let Page::Root(root) = &*page else { return Ok(true) };
        if place.key == *key || page_buried(root, key) || tree_pages(root, pages)?.contains(key) {
            return Ok(true);
        }
    }
    Ok(false)
}
