//! Questions to a manifest. Each walks from the root to one leaf.

use std::sync::Arc;

use esker_types::{ObjectKey, Offset, PageKey};

use super::page::{LeafEntry, Page, PageRef, RootPage};
use super::{Need, Pages};

/// The segment that holds `offset`. None: it lies in a declared gap, or outside.
pub fn segment_at(root: &RootPage, offset: Offset, pages: &impl Pages) -> Result<Option<LeafEntry>, Need> {
    let found = first_at_or_after(root, offset, pages)?;
    Ok(found.filter(|entry| entry.base_offset <= offset))
}

/// The segment that holds `offset`, or else the first one behind it.
pub fn first_at_or_after(root: &RootPage, offset: Offset, pages: &impl Pages) -> Result<Option<LeafEntry>, Need> {
    descend(root, pages, &|page| page.end_offset > offset, &|entry| entry.end_offset > offset)
}

/// The first segment with a record at or after `timestamp`, ms, of those that end above `log_start`.
pub fn segment_at_time(
    root: &RootPage,
    timestamp: i64,
    log_start: Offset,
    pages: &impl Pages,
) -> Result<Option<LeafEntry>, Need> {
    let late = |end: Offset, max_ts: i64| end > log_start && max_ts >= timestamp;
    descend(root, pages, &|page| late(page.end_offset, page.max_ts), &|entry| late(entry.end_offset, entry.max_ts))
}

/// Up to `limit` segments that hold offsets of [from, to), oldest first.
pub fn overlapping(
    root: &RootPage,
    from: Offset,
    to: Offset,
    limit: usize,
    pages: &impl Pages,
) -> Result<Vec<LeafEntry>, Need> {
    let mut out = Vec::new();
    let mut at = from;
    while out.len() < limit {
        match first_at_or_after(root, at, pages)? {
            Some(entry) if entry.base_offset < to => {
                at = entry.end_offset;
                out.push(entry);
            }
            _ => break,
        }
    }
    Ok(out)
}

/// Up to `limit` segments from ordinal `n` on, oldest first.
pub fn from_ordinal(root: &RootPage, n: u64, limit: usize, pages: &impl Pages) -> Result<Vec<LeafEntry>, Need> {
    let (mut out, mut next) = (Vec::new(), n);
    while out.len() < limit {
        match descend(root, pages, &|page| page.last_n >= next, &|entry| entry.n >= next)? {
            Some(entry) => {
                next = entry.n + 1;
                out.push(entry);
            }
            None => break,
        }
    }
    Ok(out)
}

/// True if the manifest holds segment `n` in object `key`.
pub fn reaches(root: &RootPage, n: u64, key: &ObjectKey, pages: &impl Pages) -> Result<bool, Need> {
    let found = descend(root, pages, &|page| page.last_n >= n, &|entry| entry.n >= n)?;
    Ok(found.is_some_and(|entry| entry.n == n && entry.place.key == *key))
}

/// The keys of all pages of the tree but the root's own. Needs the inner pages only.
pub fn tree_pages(root: &RootPage, pages: &impl Pages) -> Result<Vec<PageKey>, Need> {
    let mut keys = Vec::new();
    let mut todo: Vec<(PageRef, u8)> = root.children.iter().map(|child| (child.clone(), root.height)).collect();
    while let Some((of, height)) = todo.pop() {
        keys.push(of.key);
        if height > 0
            && let Page::Inner(inner) = &*pages.page(&of).ok_or(Need(of))?
        {
            todo.extend(inner.children.iter().map(|child| (child.clone(), height - 1)));
        }
    }
    Ok(keys)
}

/// The first entry in order for which `entry` holds, found through the first children for which `page` holds.
fn descend(
    root: &RootPage,
    pages: &impl Pages,
    page: &dyn Fn(&PageRef) -> bool,
    entry: &dyn Fn(&LeafEntry) -> bool,
) -> Result<Option<LeafEntry>, Need> {
    let mut children = &root.children;
    let mut held: Arc<Page>;
    for _ in 0..=root.height {
        let Some(child) = children.iter().find(|child| page(child)) else { return Ok(None) };
        held = pages.page(child).ok_or_else(|| Need(child.clone()))?;
        match &*held {
            Page::Leaf(leaf) => return Ok(leaf.entries.iter().find(|e| entry(e)).cloned()),
            Page::Inner(inner) => children = &inner.children,
            Page::Root(_) => return Ok(None),
        }
    }
    Ok(None)
}
