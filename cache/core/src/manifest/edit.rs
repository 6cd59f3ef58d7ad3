//! The next version of a manifest: segments folded in at the end, retired ones dropped at the start, graves emptied.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use esker_metadata_core::RootPlace;
use esker_types::{ClusterId, Epoch, ObjectKey, Offset, PageKey, PartitionId, WallMs, checksum};

use super::page::{
    Buried, BuriedObject, BuriedPage, BuriedTree, Grave, Inner, Leaf, LeafEntry, Page, PageRef, RootPage, encode_page,
};
use super::{GRAVES_MAX, INNER_MAX, LEAF_MAX, Need, Pages, ROOT_MAX, TRIM_MIN, root_page};

/// Gives out names of pages, each once.
#[derive(Clone, Copy, Debug)]
pub struct PageNames {
    pub cluster: ClusterId,
    pub incarnation: u8,
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// The next one; the caller keeps what is left after an edit, also of one that failed.
    pub next_seq: u64,
}

/// What to change.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Segments behind the last one of the manifest, in order of n.
    pub append: Vec<LeafEntry>,
    /// All segments with n up to this are in the manifest afterwards, or below the log start.
    pub folded_to: u64,
    /// Objects of segments that were never folded and lie below the log start.
    pub retired: Vec<ObjectKey>,
    /// Segments that end at or below it are dropped.
    pub log_start: Offset,
    /// Graves that were emptied since.
    pub emptied: Vec<Grave>,
    /// The clock of the metadata, for new graves.
    pub now: WallMs,
}

/// The pages to be written, and the pointer to be committed after all of them are.
#[derive(Clone, Debug)]
pub struct Edited {
    /// Children before parents, the root last.
    pub pages: Vec<(PageKey, Bytes, Arc<Page>)>,
    pub root: RootPlace,
}

struct Draft<'a, P> {
    names: &'a mut PageNames,
    pages: &'a P,
    written: Vec<(PageKey, Bytes, Arc<Page>)>,
    graves: Vec<Grave>,
    now: WallMs,
    ver: u64,
}

/// Makes the next version of the manifest at `old`; none of it is written yet.
pub fn edit(old: Option<&RootPlace>, change: &Edit, names: &mut PageNames, pages: &impl Pages) -> Result<Edited, Need> {
    let held = old.map(|place| root_page(place, pages)).transpose()?;
    let empty = RootPage { ver: 0, folded_to: 0, height: 0, children: Vec::new(), graveyard: Vec::new() };
    let mut root = match held.as_deref() {
        Some(Page::Root(root)) => root.clone(),
        _ => empty,
    };
    root.ver += 1;
    let emptied: BTreeSet<(u64, String)> = change.emptied.iter().map(grave_id).collect();
    root.graveyard.retain(|grave| !emptied.contains(&grave_id(grave)));
    let mut draft = Draft { names, pages, written: Vec::new(), graves: Vec::new(), now: change.now, ver: root.ver };
    draft.retire(&mut root, change.log_start)?;
    draft.append(&mut root, &change.append)?;
    for key in &change.retired {
        draft.bury(Buried::Object(BuriedObject { key: *key }));
    }
    if let Some(old) = old {
        draft.bury(Buried::Page(BuriedPage { key: old.key }));
    }
    let Draft { names, mut written, graves, .. } = draft;
    // What finds no grave any more is left to the sweep.
    let room = GRAVES_MAX.saturating_sub(root.graveyard.len());
    root.graveyard.extend(graves.into_iter().take(room));
    root.folded_to = root.folded_to.max(change.folded_to);
    let key = names.next();
    let page = Page::Root(root);
    let bytes = encode_page(names.cluster, &key, &page);
    let Page::Root(root) = &page else { unreachable!("made above") };
    let place = RootPlace {
        key,
        ver: root.ver,
        len: bytes.len() as u32,
        crc: checksum::crc32c(&bytes),
        folded_to: root.folded_to,
        segments: root.children.iter().map(|child| child.segments).sum(),
        bytes: root.children.iter().map(|child| child.bytes).sum(),
        base_offset: root.children.first().map_or(0, |child| child.base_offset),
        end_offset: root.children.last().map_or(0, |child| child.end_offset),
    };
    written.push((key, bytes, Arc::new(page)));
    Ok(Edited { pages: written, root: place })
}

/// Whether a first leaf, or a manifest, of `all` segments is written anew without its `dead` ones: until then their objects
/// stay in the bucket.
pub fn worth_trimming(dead: usize, all: usize) -> bool {
    dead >= TRIM_MIN || (dead > 0 && dead >= all / 2)
}

fn grave_id(grave: &Grave) -> (u64, String) {
    let name = match &grave.what {
        Buried::Page(page) => page.key.to_string(),
        Buried::Object(object) => object.key.to_string(),
        Buried::Tree(tree) => format!("{} {}", tree.page.key, tree.height),
    };
    (grave.ver, name)
}

impl PageNames {
    fn next(&mut self) -> PageKey {
        let seq = self.next_seq;
        self.next_seq += 1;
        PageKey { incarnation: self.incarnation, partition: self.partition, epoch: self.epoch, seq }
    }
}

impl<P: Pages> Draft<'_, P> {
    fn page(&self, of: &PageRef) -> Result<Arc<Page>, Need> {
        self.pages.page(of).ok_or_else(|| Need(of.clone()))
    }

    fn bury(&mut self, what: Buried) {
        self.graves.push(Grave { what, since: self.now, ver: self.ver });
    }

    fn write(&mut self, page: Page) -> PageRef {
        let key = self.names.next();
        let bytes = encode_page(self.names.cluster, &key, &page);
        let mut of = match &page {
            Page::Leaf(leaf) => leaf_ref(key, &leaf.entries),
            Page::Inner(inner) => inner_ref(key, &inner.children),
            Page::Root(_) => unreachable!("the root is written by the caller"),
        };
        (of.len, of.crc) = (bytes.len() as u32, checksum::crc32c(&bytes));
        self.written.push((key, bytes, Arc::new(page)));
        of
    }

    /// Whole subtrees first; then along the left edge; of the first leaf that is left only if enough of it is dead.
    fn retire(&mut self, root: &mut RootPage, log_start: Offset) -> Result<(), Need> {
        let height = root.height;
        self.drop_dead(&mut root.children, height, log_start);
        if let Some(first) = root.children.first().filter(|first| first.base_offset < log_start).cloned() {
            match self.trimmed(&first, height, log_start)? {
                Some(new) => root.children[0] = new,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn drop_dead(&mut self, children: &mut Vec<PageRef>, height: u8, log_start: Offset) {
        let dead = children.iter().take_while(|child| child.end_offset <= log_start).count();
        for page in children.drain(..dead) {
            self.bury(Buried::Tree(BuriedTree { page, height }));
        }
    }

    /// The page without what is dead in it, or none if it is not worth it.
    fn trimmed(&mut self, of: &PageRef, height: u8, log_start: Offset) -> Result<Option<PageRef>, Need> {
        let page = self.page(of)?;
        let new = match &*page {
            Page::Leaf(leaf) => {
                let dead = leaf.entries.iter().take_while(|entry| entry.end_offset <= log_start).count();
                if !worth_trimming(dead, leaf.entries.len()) {
                    return Ok(None);
                }
                for entry in &leaf.entries[..dead] {
                    self.bury(Buried::Object(BuriedObject { key: entry.place.key }));
                }
                Page::Leaf(Leaf { entries: leaf.entries[dead..].to_vec() })
            }
            Page::Inner(inner) => {
                let mut children = inner.children.clone();
                self.drop_dead(&mut children, height.saturating_sub(1), log_start);
                let mut changed = children.len() < inner.children.len();
                if let Some(first) = children.first().filter(|first| first.base_offset < log_start).cloned()
                    && let Some(new) = self.trimmed(&first, height.saturating_sub(1), log_start)?
                {
                    children[0] = new;
                    changed = true;
                }
                if !changed {
                    return Ok(None);
                }
                Page::Inner(Inner { height: inner.height, children })
            }
            Page::Root(_) => return Ok(None),
        };
        self.bury(Buried::Page(BuriedPage { key: of.key }));
        Ok(Some(self.write(new)))
    }

    /// Along the right edge: the last leaf is filled up, new ones follow, and their parents list them.
    fn append(&mut self, root: &mut RootPage, entries: &[LeafEntry]) -> Result<(), Need> {
        if entries.is_empty() {
            return Ok(());
        }
        root.children = self.extended(std::mem::take(&mut root.children), root.height, entries)?;
        while root.children.len() > ROOT_MAX {
            let height = root.height;
            let old = std::mem::take(&mut root.children);
            for children in old.chunks(INNER_MAX) {
                let page = self.write(Page::Inner(Inner { height, children: children.to_vec() }));
                root.children.push(page);
            }
            root.height += 1;
        }
        Ok(())
    }

    /// `children` of a node, which have `height` levels below them, with `entries` behind.
    fn extended(
        &mut self,
        mut children: Vec<PageRef>,
        height: u8,
        entries: &[LeafEntry],
    ) -> Result<Vec<PageRef>, Need> {
        let last = children.last().cloned();
        let held = last.as_ref().map(|last| self.reopened(last)).transpose()?.flatten();
        if let Some(last) = last.filter(|_| held.is_some()) {
            children.pop();
            self.forget(&last);
        }
        match (height, held) {
            (0, held) => {
                let mut all = match held.as_deref() {
                    Some(Page::Leaf(leaf)) => leaf.entries.clone(),
                    _ => Vec::new(),
                };
                all.extend_from_slice(entries);
                for chunk in all.chunks(LEAF_MAX) {
                    children.push(self.write(Page::Leaf(Leaf { entries: chunk.to_vec() })));
                }
            }
            (height, held) => {
                let below = match held.as_deref() {
                    Some(Page::Inner(inner)) => inner.children.clone(),
                    _ => Vec::new(),
                };
                let below = self.extended(below, height - 1, entries)?;
                for chunk in below.chunks(INNER_MAX) {
                    children.push(self.write(Page::Inner(Inner { height: height - 1, children: chunk.to_vec() })));
                }
            }
        }
        Ok(children)
    }

    /// A page on the right edge, if it takes more.
    fn reopened(&self, of: &PageRef) -> Result<Option<Arc<Page>>, Need> {
        let at_hand = self.written.iter().find(|(key, ..)| *key == of.key).map(|(_, _, page)| page.clone());
        let page = match at_hand {
            Some(page) => page,
            None => self.page(of)?,
        };
        let full = match &*page {
            Page::Leaf(leaf) => leaf.entries.len() >= LEAF_MAX,
            // Full, and nothing below it takes more either.
            Page::Inner(inner) => {
                inner.children.len() >= INNER_MAX && self.reopened(&inner.children[INNER_MAX - 1])?.is_none()
            }
            Page::Root(_) => true,
        };
        Ok((!full).then_some(page))
    }

    /// A page that was replaced: buried, or never written if it was made by this very edit.
    fn forget(&mut self, of: &PageRef) {
        let before = self.written.len();
        self.written.retain(|(key, ..)| *key != of.key);
        if self.written.len() == before {
            self.bury(Buried::Page(BuriedPage { key: of.key }));
        }
    }
}

fn leaf_ref(key: PageKey, entries: &[LeafEntry]) -> PageRef {
    let (first, last) = (&entries[0], &entries[entries.len() - 1]);
    PageRef {
        key,
        len: 0,
        crc: 0,
        segments: entries.len() as u64,
        bytes: entries.iter().map(|entry| entry.bytes).sum(),
        first_n: first.n,
        last_n: last.n,
        base_offset: first.base_offset,
        end_offset: last.end_offset,
        max_ts: entries.iter().map(|entry| entry.max_ts).fold(i64::MIN, i64::max),
        closed: last.closed,
    }
}

fn inner_ref(key: PageKey, children: &[PageRef]) -> PageRef {
    let (first, last) = (&children[0], &children[children.len() - 1]);
    PageRef {
        key,
        len: 0,
        crc: 0,
        segments: children.iter().map(|child| child.segments).sum(),
        bytes: children.iter().map(|child| child.bytes).sum(),
        first_n: first.first_n,
        last_n: last.last_n,
        base_offset: first.base_offset,
        end_offset: last.end_offset,
        max_ts: children.iter().map(|child| child.max_ts).fold(i64::MIN, i64::max),
        closed: last.closed,
    }
}
