//! Letting go: what the manifest no longer needs, and records that are too old or too much.

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_cache::{Class, For, Kind};
use esker_cache_core::manifest::{Buried, BuriedObject, Grave, Need, Page, PageRef, first_at_or_after, root_ref};
use esker_cache_core::steps::{EMPTY_MAX, Event};
use esker_metadata_core::{DeleteBegin, PartitionInfo, RootPlace};
use esker_types::{AllRules, ObjectKey, Offset, PageKey};

use super::claim;
use super::work::{Failure, Work};

/// Segments that one look of retention passes.
const RETIRED_MAX: usize = 4_096;
/// A segment's own clock may run ahead of ours by no more than this, ms.
const CLOCK_SKEW_MS: i64 = 3_600_000;

impl Work {
    /// Deletes what versions up to `upto_ver` let go. Again is harmless.
    pub(super) async fn empty(&self, root: &RootPlace, upto_ver: u64) -> Result<Vec<Grave>, Failure> {
        let page = self.bucket.reader.page(&root_ref(root), For::Scan).await?;
        let Page::Root(page) = &*page else { return Err(Failure::Other(format!("{} is no root page", root.key))) };
        let due: Vec<Grave> = page.graveyard.iter().filter(|g| g.ver <= upto_ver).take(EMPTY_MAX).cloned().collect();
        for grave in &due {
            // Whoever recovers the cluster from the bucket stands on what is there when its claim is: before each step,
            // however long the one before it took.
            self.ours().await?;
            match &grave.what {
                Buried::Page(page) => self.delete(page.key.to_string()).await?,
                Buried::Object(object) => self.delete_object(&object.key).await?,
                Buried::Tree(tree) => self.delete_tree(tree.page.clone()).await?,
            }
        }
        Ok(due)
    }

    /// Objects before the pages that name them, so that a second try finds what the first left.
    async fn delete_tree(&self, top: PageRef) -> Result<(), Failure> {
        let mut todo = vec![(top, false)];
        while let Some((of, emptied)) = todo.pop() {
            if emptied {
                self.delete(of.key.to_string()).await?;
                continue;
            }
            let page = match self.bucket.reader.page(&of, For::Scan).await {
                Ok(page) => page,
                Err(error) if error.kind == Kind::NotFound => continue,
                Err(error) if error.kind == Kind::Damaged => {
                    let key = of.key;
                    tracing::error!(%key, %error, "a page is damaged: what it lists stays until the sweep finds it");
                    self.gateway.metrics.alarms.inc();
                    self.delete(key.to_string()).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            todo.push((of, true));
            self.ours().await?;
            match &*page {
                Page::Leaf(leaf) => {
                    for entry in &leaf.entries {
                        self.delete_object(&entry.place.key).await?;
                    }
                }
                Page::Inner(inner) => todo.extend(inner.children.iter().map(|child| (child.clone(), false))),
                Page::Root(_) => {}
            }
        }
        Ok(())
    }

    async fn ours(&self) -> Result<(), Failure> {
        claim::ours(&self.gateway, &self.bucket).await.map_err(Failure::Other)
    }

    async fn delete_object(&self, key: &ObjectKey) -> Result<(), Failure> {
        match BuriedObject::deletes::<AllRules>(key) {
            true => self.delete(key.to_string()).await,
            false => Ok(()),
        }
    }

    async fn delete(&self, key: String) -> Result<(), Failure> {
        self.bucket.store.delete(&key, Class::Background).await?;
        self.gateway.metrics.objects_deleted.inc();
        Ok(())
    }

    /// Raises the log start over what is too old, or too much, in the manifest.
    pub(super) async fn retain(
        &self,
        info: &PartitionInfo,
        root: &RootPlace,
        before: Option<i64>,
        keep_bytes: Option<u64>,
    ) -> Result<Option<Event>, Failure> {
        let record = &info.record;
        let unfolded = info.chain.iter().filter(|row| row.segment.n > record.folded_to());
        let mut left = root.bytes + unfolded.map(|row| row.bytes).sum::<u64>();
        let mut start: Offset = record.log_start;
        let mut at = root.base_offset;
        let mut at_hand: BTreeMap<PageKey, Arc<Page>> = BTreeMap::new();
        let top = self.bucket.reader.page(&root_ref(root), For::Scan).await?;
        let Page::Root(top) = &*top else { return Err(Failure::Other(format!("{} is no root page", root.key))) };
        for _ in 0..RETIRED_MAX {
            let found = first_at_or_after(top, at, &|of: &PageRef| at_hand.get(&of.key).cloned());
            let entry = match found {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(Need(of)) => {
                    let page = self.bucket.reader.page(&of, For::Scan).await?;
                    at_hand.insert(of.key, page);
                    continue;
                }
            };
            let newest = entry.max_ts.min(entry.closed.0.saturating_add(CLOCK_SKEW_MS));
            let old = before.is_some_and(|before| newest < before);
            let much = keep_bytes.is_some_and(|keep| left.saturating_sub(entry.bytes) >= keep);
            if entry.end_offset > record.log_start && !old && !much {
                break;
            }
            left = left.saturating_sub(entry.bytes);
            at = entry.end_offset;
            start = start.max(entry.end_offset);
        }
        if start <= record.log_start {
            return Ok(None);
        }
        self.propose(DeleteBegin { partition: record.id, epoch: record.epoch, log_start: start }.into()).await
    }
}
