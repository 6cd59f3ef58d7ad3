//! Does one step of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_cache::{Class, For, Kind};
use esker_cache_core::manifest::{
    self, Buried, Edit, Grave, Need, Page, PageNames, PageRef, first_at_or_after, root_ref,
};
use esker_cache_core::steps::{Event, Step};
use esker_metadata_client::ProposeError;
use esker_metadata_core::{Command, DeleteBegin, PartitionInfo, RootPlace, SetRoot};
use esker_types::{ObjectKey, Offset, PageKey};

use super::Bucket;
use crate::gateway::Gateway;

/// Graves emptied by one step.
const GRAVES: usize = 256;
/// Segments that one look of retention passes.
const RETIRED_MAX: usize = 4_096;
/// A segment's own clock may run ahead of ours by no more than this, ms.
const CLOCK_SKEW_MS: i64 = 3_600_000;

/// The step was not done, or nobody knows: it is tried again after a while.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(String);

impl Failure {
    pub fn other(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<esker_cache::Error> for Failure {
    fn from(error: esker_cache::Error) -> Self {
        Self(error.to_string())
    }
}

pub(super) struct Work {
    pub gateway: Arc<Gateway>,
    pub bucket: Bucket,
    /// Names given out by this process.
    pub names: AtomicU64,
    pub incarnation: u8,
}

impl Work {
    pub async fn perform(&self, info: &PartitionInfo, step: Step) -> Result<Option<Event>, Failure> {
        match step {
            Step::Write(facts) => {
                let row = info.chain.iter().find(|row| row.segment == facts.segment);
                let copies = row.map(|row| row.holders.clone()).unwrap_or_default();
                let key = ObjectKey {
                    incarnation: self.incarnation,
                    partition: facts.segment.partition,
                    n: facts.segment.n,
                    epoch: info.record.epoch,
                    attempt: self.names.fetch_add(1, Ordering::Relaxed),
                    shared: false,
                };
                let place = self.write(facts, &copies, key).await?;
                self.gateway.metrics.offloaded_bytes.inc_by(place.size);
                Ok(Some(Event::Written { n: facts.segment.n, place }))
            }
            Step::Verify { facts, place } => Ok(Some(match self.whole(facts, &place).await? {
                true => Event::Verified { n: facts.segment.n },
                false => Event::Bad { n: facts.segment.n },
            })),
            Step::VerifyAgain { facts, place } => match self.whole(facts, &place).await? {
                true => Ok(Some(Event::VerifiedAgain { n: facts.segment.n })),
                false => {
                    let key = place.key;
                    tracing::error!(%key, "a committed object does not hold its segment: its copies stay on bookies");
                    self.gateway.metrics.alarms.inc();
                    Err(Failure(format!("object {key} does not hold segment {}", facts.segment)))
                }
            },
            Step::Propose(command) => self.propose(command).await,
            Step::Fold { old, edit } => self.fold(info, old, &edit).await.map(Some),
            Step::Empty { root, upto_ver } => {
                self.empty(&root, upto_ver).await.map(|graves| Some(Event::Emptied(graves)))
            }
            Step::Retain { root, before, keep_bytes } => self.retain(info, &root, before, keep_bytes).await,
        }
    }

    /// At return our copy of the metadata shows what was applied.
    async fn propose(&self, command: Command) -> Result<Option<Event>, Failure> {
        let name = command.name();
        match self.gateway.store.propose(vec![command]).await {
            Ok(proposed) => {
                self.gateway.view.reached(proposed.revision).await;
                match proposed.single() {
                    Ok(_) => Ok(None),
                    Err(reject) => {
                        tracing::info!(command = name, reason = reject.reason, "refused: the record decides");
                        Ok(Some(Event::Rejected))
                    }
                }
            }
            Err(ProposeError::NotApplied(reason) | ProposeError::Unknown(reason)) => Err(Failure(reason)),
        }
    }

    /// Writes the pages of the manifest's next version. The pointer is moved by a step of its own.
    async fn fold(&self, info: &PartitionInfo, old: Option<RootPlace>, edit: &Edit) -> Result<Event, Failure> {
        let mut names = PageNames {
            cluster: self.bucket.cluster,
            incarnation: self.incarnation,
            partition: info.record.id,
            epoch: info.record.epoch,
            next_seq: self.names.fetch_add(1 << 20, Ordering::Relaxed),
        };
        let mut at_hand: BTreeMap<PageKey, Arc<Page>> = BTreeMap::new();
        let edited = loop {
            let made = manifest::edit(old.as_ref(), edit, &mut names, &|of: &PageRef| at_hand.get(&of.key).cloned());
            match made {
                Ok(edited) => break edited,
                Err(Need(of)) => {
                    let page = self.bucket.reader.page(&of, For::Scan).await?;
                    at_hand.insert(of.key, page);
                }
            }
        };
        for (key, bytes, _) in edited.pages {
            self.bucket.store.put(&key.to_string(), bytes, Class::Offload).await?;
        }
        Ok(Event::PagesWritten(SetRoot {
            partition: info.record.id,
            epoch: info.record.epoch,
            expect_ver: old.map_or(0, |old| old.ver),
            root: edited.root,
            log_start: None,
        }))
    }

    /// Deletes what versions up to `upto_ver` let go. Again is harmless.
    async fn empty(&self, root: &RootPlace, upto_ver: u64) -> Result<Vec<Grave>, Failure> {
        let page = self.bucket.reader.page(&root_ref(root), For::Scan).await?;
        let Page::Root(page) = &*page else { return Err(Failure(format!("{} is no root page", root.key))) };
        let due: Vec<Grave> = page.graveyard.iter().filter(|g| g.ver <= upto_ver).take(GRAVES).cloned().collect();
        for grave in &due {
            match &grave.what {
                Buried::Page(page) => self.delete(page.key.to_string()).await?,
                Buried::Object(object) => self.delete(object.key.to_string()).await?,
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
                Err(error) => return Err(error.into()),
            };
            todo.push((of, true));
            match &*page {
                Page::Leaf(leaf) => {
                    for entry in leaf.entries.iter().filter(|entry| !entry.place.key.shared) {
                        self.delete(entry.place.key.to_string()).await?;
                    }
                }
                Page::Inner(inner) => todo.extend(inner.children.iter().map(|child| (child.clone(), false))),
                Page::Root(_) => {}
            }
        }
        Ok(())
    }

    async fn delete(&self, key: String) -> Result<(), Failure> {
        self.bucket.store.delete(&key, Class::Background).await?;
        self.gateway.metrics.objects_deleted.inc();
        Ok(())
    }

    /// Raises the log start over what is too old, or too much, in the manifest.
    async fn retain(
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
        let Page::Root(top) = &*top else { return Err(Failure(format!("{} is no root page", root.key))) };
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
