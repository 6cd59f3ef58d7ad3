//! Does one step of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_cache::{Class, For, Kind};
use esker_cache_core::manifest::{self, Edit, Need, Page, PageNames, PageRef};
use esker_cache_core::object::SegmentFacts;
use esker_cache_core::steps::{Event, Step};
use esker_metadata_client::ProposeError;
use esker_metadata_core::{Command, PartitionInfo, RootPlace, SetRoot};
use esker_types::{ObjectKey, PageKey, SegmentId};

use super::Bucket;
use super::copy::Source;
use crate::gateway::Gateway;

/// The step was not done, or nobody knows: it is tried again after a while.
#[derive(Debug)]
pub(super) enum Failure {
    /// The bucket is in trouble, for others too.
    Store(esker_cache::Error),
    /// Something about this partition.
    Other(String),
}

impl Failure {
    pub fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<esker_cache::Error> for Failure {
    fn from(error: esker_cache::Error) -> Self {
        match error.kind {
            Kind::NotFound | Kind::Damaged | Kind::Invalid | Kind::Shutdown => Self::other(error),
            _ => Self::Store(error),
        }
    }
}

/// Why an object was not written, and for which of its segments. None: the fault is none of theirs.
#[derive(Debug)]
pub(super) struct Failed {
    pub by: Option<usize>,
    pub failure: Failure,
}

impl Failed {
    pub fn store(error: esker_cache::Error) -> Self {
        Self { by: None, failure: error.into() }
    }
}

fn source(info: &PartitionInfo, facts: SegmentFacts) -> Source {
    let row = info.chain.iter().find(|row| row.segment == facts.segment);
    Source { facts, copies: row.map(|row| row.holders.clone()).unwrap_or_default() }
}

pub(super) struct Work {
    pub gateway: Arc<Gateway>,
    pub bucket: Bucket,
    /// Names given out by this process.
    pub names: AtomicU64,
    pub incarnation: u8,
}

impl Work {
    /// One step of one partition, or the same object for several: see [`Work::share`].
    pub async fn perform(&self, steps: Vec<(PartitionInfo, Step)>) -> Result<Vec<Option<Event>>, Failed> {
        if let [(info, step)] = &steps[..] {
            let performed = self.perform_one(info, step.clone()).await;
            return performed.map(|event| vec![event]).map_err(|failure| Failed { by: Some(0), failure });
        }
        let writes = steps.iter().filter_map(|(info, step)| match step {
            Step::Write(facts) => Some((info, *facts)),
            _ => None,
        });
        let members: Vec<(&PartitionInfo, SegmentFacts)> = writes.collect();
        assert_eq!(members.len(), steps.len(), "partitions share nothing but an object");
        Ok(self.share(&members).await?.into_iter().map(Some).collect())
    }

    async fn perform_one(&self, info: &PartitionInfo, step: Step) -> Result<Option<Event>, Failure> {
        match step {
            Step::Write(facts) => {
                let places = self.write(&[source(info, facts)], self.object_name(info, facts.segment, false)).await;
                let place = places.map_err(|failed| failed.failure)?.swap_remove(0);
                self.gateway.metrics.offloaded_bytes.inc_by(place.size);
                Ok(Some(Event::Written { n: facts.segment.n, place }))
            }
            Step::Verify { facts, place } => {
                let n = facts.segment.n;
                if self.whole(facts, &place).await? {
                    return Ok(Some(Event::Verified { n }));
                }
                // Nobody was told of it, unless it is shared. What this delete misses is left to the sweep.
                if !place.key.shared
                    && let Err(error) = self.bucket.store.delete(&place.key.to_string(), Class::Background).await
                {
                    tracing::debug!(%error, "an object that did not verify stays until the sweep");
                }
                Ok(Some(Event::Bad { n }))
            }
            // Read twice before anybody is alarmed: bytes may have been damaged on their way.
            Step::VerifyAgain { facts, place } => {
                match self.whole(facts, &place).await? || self.whole(facts, &place).await? {
                    true => Ok(Some(Event::VerifiedAgain { n: facts.segment.n })),
                    false => {
                        let key = place.key;
                        tracing::error!(%key, "a committed object does not hold its segment: its copies stay on bookies");
                        self.gateway.metrics.alarms.inc();
                        Err(Failure::Other(format!("object {key} does not hold segment {}", facts.segment)))
                    }
                }
            }
            Step::Propose(command) => self.propose(command).await,
            Step::Fold { old, edit } => self.fold(info, old, &edit).await.map(Some),
            Step::Empty { root, upto_ver } => {
                self.empty(&root, upto_ver).await.map(|graves| Some(Event::Emptied(graves)))
            }
            Step::Retain { root, before, keep_bytes } => self.retain(info, &root, before, keep_bytes).await,
        }
    }

    /// Writes the segments of several partitions into one object, named after the first. Each goes on from there by
    /// itself. In the order of `members`, which is not empty.
    async fn share(&self, members: &[(&PartitionInfo, SegmentFacts)]) -> Result<Vec<Event>, Failed> {
        let (first, facts) = members[0];
        let key = self.object_name(first, facts.segment, true);
        let sources: Vec<Source> = members.iter().map(|(info, facts)| source(info, *facts)).collect();
        let places = self.write(&sources, key).await?;
        let metrics = &self.gateway.metrics;
        metrics.offloaded_bytes.inc_by(places[0].size);
        metrics.shared_objects.inc();
        metrics.shared_segments.inc_by(places.len() as u64);
        let written = members.iter().zip(places);
        Ok(written.map(|((_, facts), place)| Event::Written { n: facts.segment.n, place }).collect())
    }

    /// A name that was never given out: this process holds the epoch, and counts.
    fn object_name(&self, info: &PartitionInfo, first: SegmentId, shared: bool) -> ObjectKey {
        ObjectKey {
            incarnation: self.incarnation,
            partition: first.partition,
            n: first.n,
            epoch: info.record.epoch,
            attempt: self.names.fetch_add(1, Ordering::Relaxed),
            shared,
        }
    }

    /// At return our copy of the metadata shows what was applied.
    pub(super) async fn propose(&self, command: Command) -> Result<Option<Event>, Failure> {
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
            Err(error @ (ProposeError::NotApplied(_) | ProposeError::Unknown(_))) => Err(Failure::other(error)),
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
            let (store, key) = (&self.bucket.store, key.to_string());
            store.put(&key, bytes.clone(), Class::Offload).await?;
            // Once bookies let go, a page is the only way to what lies below it: it is read before anything points to it.
            if store.read(&key, 0..bytes.len() as u64, Class::Offload).await? != bytes {
                return Err(Failure::Other(format!("page {key} is not what was written; it is written anew")));
            }
        }
        Ok(Event::PagesWritten(SetRoot {
            partition: info.record.id,
            epoch: info.record.epoch,
            expect_ver: old.map_or(0, |old| old.ver),
            root: edited.root,
            log_start: None,
        }))
    }
}
