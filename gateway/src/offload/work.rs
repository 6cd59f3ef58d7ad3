//! Does one step of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use esker_cache::{Class, For, Kind};
use esker_cache_core::manifest::{self, Edit, Need, Page, PageNames, PageRef};
use esker_cache_core::steps::{Event, Step};
use esker_metadata_client::ProposeError;
use esker_metadata_core::{Command, PartitionInfo, RootPlace, SetRoot};
use esker_types::{ObjectKey, PageKey};

use super::Bucket;
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
            Step::Verify { facts, place } => {
                let n = facts.segment.n;
                if self.whole(facts, &place).await? {
                    return Ok(Some(Event::Verified { n }));
                }
                // Nobody was told of it. What this delete misses is left to the sweep.
                if let Err(error) = self.bucket.store.delete(&place.key.to_string(), Class::Background).await {
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
}
