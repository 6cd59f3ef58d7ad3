//! Where one segment's entries are: exact for files without a footer, a range per file for those with one.

use std::collections::BTreeMap;

use esker_types::EntryId;

use crate::journal::files::Run;

/// A segment's entries in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FilePlace {
    /// Disjoint, sorted, [from, to).
    ranges: Vec<(EntryId, EntryId)>,
    /// Entry bytes, for the decision which file to free.
    pub bytes: u64,
    /// Sorted by first entry. None: the file's footer knows.
    runs: Option<Vec<Run>>,
}

/// All places of a segment by file seq.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    files: BTreeMap<u64, FilePlace>,
}

/// Answer to "where is this entry?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Run(Run),
    /// Ask the footer of this file.
    Footer(u64),
}

impl FilePlace {
    fn add(&mut self, run: Run, exact: bool) {
        self.bytes += u64::from(run.bytes);
        add_range(&mut self.ranges, run.first, run.end());
        if exact {
            let runs = self.runs.get_or_insert_default();
            let at = runs.partition_point(|held| held.first <= run.first);
            runs.insert(at, run);
        }
    }

    fn range_of(&self, entry: EntryId) -> Option<(EntryId, EntryId)> {
        let at = self.ranges.partition_point(|(from, _)| *from <= entry);
        at.checked_sub(1).map(|at| self.ranges[at]).filter(|(_, to)| entry < *to)
    }

    /// First entry behind `entry` that a range begins with.
    fn next_from(&self, entry: EntryId) -> EntryId {
        let at = self.ranges.partition_point(|(from, _)| *from <= entry);
        self.ranges.get(at).map_or(EntryId::MAX, |(from, _)| *from)
    }

    fn find(&self, file: u64, entry: EntryId) -> Option<(Place, EntryId)> {
        let (_, to) = self.range_of(entry)?;
        let Some(runs) = &self.runs else { return Some((Place::Footer(file), to)) };
        // Entries that were copied within a file can overlap: the nearest run that begins before is not always it.
        let at = runs.partition_point(|run| run.first <= entry);
        runs[..at].iter().rev().find(|run| run.contains(entry)).map(|run| (Place::Run(*run), run.end()))
    }
}

impl Index {
    /// `exact`: the file has no footer, so the run itself must be remembered.
    pub fn add(&mut self, run: Run, exact: bool) {
        self.files.entry(run.file).or_default().add(run, exact);
    }

    /// The newest place of an entry, and where the entries behind it must be asked for again (exclusive): a repaired
    /// or copied entry lies in a newer file than its neighbours.
    pub fn find(&self, entry: EntryId) -> Option<(Place, EntryId)> {
        let mut bound = EntryId::MAX;
        for (file, place) in self.files.iter().rev() {
            if let Some((found, to)) = place.find(*file, entry) {
                return Some((found, to.min(bound)));
            }
            bound = bound.min(place.next_from(entry));
        }
        None
    }

    /// First entry from `from` on that is not held.
    pub fn contiguous_from(&self, mut from: EntryId) -> EntryId {
        while let Some((_, to)) = self.files.values().find_map(|place| place.range_of(from)) {
            from = to;
        }
        from
    }

    /// Behind the last entry held, 0 if there is none.
    pub fn end(&self) -> EntryId {
        self.files.values().filter_map(|place| place.ranges.last()).map(|(_, to)| *to).max().unwrap_or(0)
    }

    pub fn holds_in(&self, file: u64) -> Option<u64> {
        self.files.get(&file).map(|place| place.bytes)
    }

    /// (first, end) ranges in a file.
    pub fn ranges_in(&self, file: u64) -> &[(EntryId, EntryId)] {
        self.files.get(&file).map(|place| place.ranges.as_slice()).unwrap_or_default()
    }

    pub fn files(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.files.iter().map(|(file, place)| (*file, place.bytes))
    }

    pub fn runs_in(&self, file: u64) -> &[Run] {
        self.files.get(&file).and_then(|place| place.runs.as_deref()).unwrap_or_default()
    }

    /// Memory that this takes, roughly.
    pub fn bytes(&self) -> usize {
        let place = |place: &FilePlace| {
            let runs = place.runs.as_ref().map_or(0, Vec::len);
            96 + place.ranges.len() * size_of::<(EntryId, EntryId)>() + runs * size_of::<Run>()
        };
        self.files.values().map(place).sum()
    }

    /// The file has a footer now: the exact runs are forgotten.
    pub fn footered(&mut self, file: u64) {
        if let Some(place) = self.files.get_mut(&file) {
            place.runs = None;
        }
    }

    /// The entries in the file do not count any more: they are held in another one, or dropped.
    pub fn forget(&mut self, file: u64) {
        self.files.remove(&file);
    }
}

fn add_range(ranges: &mut Vec<(EntryId, EntryId)>, from: EntryId, to: EntryId) {
    if let Some(last) = ranges.last_mut()
        && last.0 <= from
        && from <= last.1
    {
        last.1 = last.1.max(to);
        return;
    }
    ranges.push((from, to));
    ranges.sort_unstable();
    let mut merged: Vec<(EntryId, EntryId)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    *ranges = merged;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u32, file: u64) -> Run {
        Run { first, count, file, offset: first * 4096, block_len: 4096, bytes: count * 10 }
    }

    #[test]
    fn finds_entries_and_the_end_of_the_prefix() {
        let mut index = Index::default();
        index.add(run(0, 5, 1), false);
        index.add(run(5, 2, 2), true);
        index.add(run(9, 1, 2), true);
        assert_eq!(index.find(4), Some((Place::Footer(1), 5)));
        assert_eq!(index.find(6), Some((Place::Run(run(5, 2, 2)), 7)));
        assert_eq!((index.find(7), index.contiguous_from(0), index.end()), (None, 7, 10));
        index.add(run(7, 2, 3), true);
        assert_eq!(index.contiguous_from(0), 10);
        index.add(run(3, 1, 3), true);
        assert_eq!(index.find(1), Some((Place::Footer(1), 3)), "entry 3 has a newer place");
        index.add(run(0, 5, 3), true);
        assert_eq!(index.find(4), Some((Place::Run(run(0, 5, 3)), 5)), "the newest place wins");
        index.forget(1);
        assert_eq!(index.contiguous_from(0), 10);
    }

    #[test]
    fn runs_that_overlap_are_all_found() {
        let mut index = Index::default();
        index.add(run(0, 10, 1), true);
        index.add(run(3, 1, 1), true);
        for entry in 0..10 {
            assert!(matches!(index.find(entry), Some((Place::Run(run), _)) if run.contains(entry)), "{entry}");
        }
    }
}
