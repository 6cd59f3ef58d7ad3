//! Pages of manifests, as clients fetch them and as they truly are.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_cache_core::manifest::{LeafEntry, tree_pages};
use esker_cache_core::manifest::{Need, Page, PageRef, Pages, decode_page, overlapping, root_page};
use esker_metadata_core::RootPlace;
use esker_types::{Offset, PageKey, Rules};

use super::bucket::Got;
use crate::world::World;

/// Pages that were fetched for one question.
#[derive(Default)]
pub(super) struct AtHand(BTreeMap<PageKey, Arc<Page>>);

impl Pages for AtHand {
    fn page(&self, of: &PageRef) -> Option<Arc<Page>> {
        self.0.get(&of.key).cloned()
    }
}

/// Why a question to a manifest got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The store says that there is no such page.
    NotFound(PageKey),
    Failed,
}

/// What a root reaches.
pub(super) struct Tree {
    pub entries: Vec<LeafEntry>,
    /// All pages, the root's own included.
    pub pages: Vec<PageKey>,
    pub root: Arc<Page>,
}

impl<R: Rules> World<R> {
    /// Puts a question to a manifest, fetching each page that it turns out to need.
    pub(super) fn ask_pages<T>(&mut self, mut question: impl FnMut(&AtHand) -> Result<T, Need>) -> Result<T, Miss> {
        let mut at_hand = AtHand::default();
        loop {
            match question(&at_hand) {
                Ok(answer) => return Ok(answer),
                Err(Need(of)) => {
                    let page = self.fetch_page(&of)?;
                    at_hand.0.insert(of.key, page);
                }
            }
        }
    }

    pub(super) fn fetch_page(&mut self, of: &PageRef) -> Result<Arc<Page>, Miss> {
        let now = self.queue.now();
        let objects = &mut self.objects;
        match objects.bucket.get(now, &of.key.to_string(), &mut objects.rng) {
            Got::NotFound => Err(Miss::NotFound(of.key)),
            Got::Failed => Err(Miss::Failed),
            Got::Bytes(bytes) => decode_page(self.cluster_id(), of, &bytes).map(Arc::new).map_err(|_| Miss::Failed),
        }
    }

    /// The tree of a root as it truly stands in the bucket; else the page that is missing or damaged.
    pub(super) fn tree(&self, root: &RootPlace) -> Result<Tree, PageKey> {
        let page = |of: &PageRef| {
            let there = self.objects.bucket.is_sound(&of.key.to_string());
            self.objects.pages.get(&of.key).filter(|_| there).cloned()
        };
        let missing = |need: Need| need.0.key;
        let top = root_page(root, &page).map_err(missing)?;
        let Page::Root(held) = &*top else { return Err(root.key) };
        let entries = overlapping(held, 0, Offset::MAX, usize::MAX, &page).map_err(missing)?;
        let mut pages = tree_pages(held, &page).map_err(missing)?;
        pages.push(root.key);
        if let Some(gone) = pages.iter().find(|key| !self.objects.bucket.is_sound(&key.to_string())) {
            return Err(*gone);
        }
        Ok(Tree { entries, pages, root: top })
    }
}
