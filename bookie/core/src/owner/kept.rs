//! The entries that a writer keeps because some member may still need them, with their bytes counted.

use std::collections::VecDeque;

use esker_types::{Entry, EntryId};

struct Item {
    entry: Entry,
    first_ts: i64,
    /// Bytes of this and all earlier entries of the segment.
    bytes_through: u64,
}

/// Entries `from..end`, without holes.
#[derive(Default)]
pub(super) struct Kept {
    items: VecDeque<Item>,
    from: EntryId,
    /// Bytes of entries `0..from`.
    bytes_before: u64,
}

impl Kept {
    pub fn from(&self) -> EntryId {
        self.from
    }

    /// One behind the last.
    pub fn end(&self) -> EntryId {
        self.from + self.items.len() as u64
    }

    pub fn push(&mut self, entry: Entry, first_ts: i64) {
        assert_eq!(entry.header.entry, self.end(), "entries are appended in order");
        let bytes_through = self.bytes_through(self.end()) + entry.bytes.len() as u64;
        self.items.push_back(Item { entry, first_ts, bytes_through });
    }

    /// Entry with its first timestamp; None outside `from..end`.
    pub fn entry(&self, entry: EntryId) -> Option<(&Entry, i64)> {
        let index = usize::try_from(entry.checked_sub(self.from)?).ok()?;
        self.items.get(index).map(|item| (&item.entry, item.first_ts))
    }

    /// Bytes of entries `0..count`; a count below `from` is answered as `from`.
    pub fn bytes_through(&self, count: u64) -> u64 {
        match count.saturating_sub(self.from) {
            0 => self.bytes_before,
            held => self.items.get(held as usize - 1).map_or(u64::MAX, |item| item.bytes_through),
        }
    }

    /// Forgets entries below `count`.
    pub fn drop_below(&mut self, count: u64) {
        while self.from < count
            && let Some(item) = self.items.pop_front()
        {
            self.from += 1;
            self.bytes_before = item.bytes_through;
        }
    }
}
