//! Rebuilds a cluster's metadata from its bucket: the newest backup, and the objects themselves for what is younger.
//!
//! Nothing is written here. Whoever uses the result claims the bucket first ([`Plan::incarnation`]), so that what may be
//! left of the former cluster stops deleting.

mod partition;

use std::sync::Arc;

use esker_cache_core::backup::BackupName;
use esker_cache_core::recover::Report;
use esker_metadata_core::{Bump, Change, State, TopicRecord};
use esker_types::{PartitionId, Quorum, WallMs};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::store::{Class, Error, Kind, Store};

const CLASS: Class = Class::Foreground;
/// Partitions under way at once. Each may hold the names of all its objects.
const AT_ONCE: usize = 4;
/// Partitions are numbered one by one: so many numbers without an object are the end of those made after the backup.
const EMPTY_NUMBERS: u64 = 64;

/// How to rebuild.
#[derive(Clone, Debug)]
pub struct Options {
    /// None: the newest that can be read.
    pub backup: Option<BackupName>,
    /// Incarnation of the new life; above all claims and backups of the bucket.
    pub incarnation: u8,
    /// Some: all topics take this quorum, for a cluster of another size.
    pub quorum: Option<Quorum>,
}

/// A rebuilt cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    pub backup: BackupName,
    /// When the backup was written, by the clock of the metadata.
    pub taken: WallMs,
    pub incarnation: u8,
    /// All rows of the new life.
    pub state: State,
    /// In the order of topic names and partitions.
    pub partitions: Vec<Outcome>,
    /// Objects of partitions that the backup does not know: their topics were made after it was taken.
    pub strange: Vec<(PartitionId, u64)>,
    /// What an operator should know besides.
    pub notes: Vec<String>,
}

/// One partition of the plan.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub topic: Arc<TopicRecord>,
    pub index: u32,
    pub partition: PartitionId,
    pub report: Report,
}

impl Store {
    /// Reads what is in the bucket and puts a cluster together from it.
    ///
    /// # Errors
    /// Those of the store; `NotFound` if there is no backup; `Damaged` if none can be read.
    pub async fn plan_recovery(&self, options: &Options) -> Result<Plan, Error> {
        let mut notes = Vec::new();
        let (backup, old) = self.newest_state(options.backup, &mut notes).await?;
        let cluster = old.cluster().ok_or_else(|| bad(&backup, "it holds no cluster"))?.clone();
        if options.incarnation <= cluster.incarnation {
            return Err(bad(&backup, "the new incarnation is not above its own"));
        }
        let bump = Bump { incarnation: options.incarnation };
        let ids: Vec<(Arc<TopicRecord>, u32, PartitionId)> = old
            .topics()
            .flat_map(|topic| (0..).zip(&topic.partitions).map(|(index, id)| (topic.clone(), index, *id)))
            .collect();
        let rebuilt = stream::iter(ids.into_iter().map(|(topic, index, id)| {
            let (old, bump) = (&old, &bump);
            async move {
                let (rebuilt, notes) = partition::rebuild(self, old, bump, id).await?;
                Ok::<_, Error>((topic, index, rebuilt, notes))
            }
        }));
        let mut rebuilt = rebuilt.buffered(AT_ONCE);
        let (mut rows, mut partitions) = (Vec::new(), Vec::new());
        while let Some((topic, index, rebuilt, more)) = rebuilt.try_next().await? {
            let partition = rebuilt.record.id;
            notes.extend(more.into_iter().map(|note| format!("{}/{index}: {note}", topic.name)));
            rows.extend(rebuilt.rows.into_iter().map(|row| Change::Segment(Arc::new(row))));
            rows.push(Change::Partition(Arc::new(rebuilt.record)));
            partitions.push(Outcome { topic, index, partition, report: rebuilt.report });
        }
        drop(rebuilt);
        let strange = self.strange_partitions(cluster.incarnation, cluster.next_partition).await?;
        rows.extend(old.gateways().map(|row| Change::Gateway(Arc::new(bump.gateway(row)))));
        rows.extend(old.bookies().map(|row| Change::Bookie(Arc::new(bump.bookie(row)))));
        rows.extend(old.deleted_partitions().cloned().map(Change::Deleted));
        for topic in old.topics() {
            let mut topic = TopicRecord::clone(topic);
            topic.settings.quorum = options.quorum.unwrap_or(topic.settings.quorum);
            rows.push(Change::Topic(Arc::new(topic)));
        }
        let mut cluster = bump.cluster(&cluster);
        cluster.quorum = options.quorum.unwrap_or(cluster.quorum);
        rows.push(Change::Cluster(Arc::new(cluster)));
        let state = State::from_rows(0, WallMs(0), rows);
        let (taken, incarnation) = (old.wall(), options.incarnation);
        Ok(Plan { backup, taken, incarnation, state, partitions, strange, notes })
    }

    async fn newest_state(
        &self,
        named: Option<BackupName>,
        notes: &mut Vec<String>,
    ) -> Result<(BackupName, State), Error> {
        if let Some(name) = named {
            return Ok((name, self.backup(&name).await?));
        }
        let names = self.backups().await?;
        let mut last = None;
        for name in &names {
            match self.backup(name).await {
                Ok(state) => return Ok((*name, state)),
                Err(error) if matches!(error.kind, Kind::Damaged | Kind::NotFound) => {
                    notes.push(format!("{name} can't be used ({error}): an older one is"));
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let detail = "there is no backup of the metadata in it: is this the place that metadata.objects.url named?";
            Error::new(Kind::NotFound, "recover from", self.location().describe(), detail)
        }))
    }

    /// Partitions from `next` on that have objects.
    async fn strange_partitions(&self, incarnation: u8, next: u64) -> Result<Vec<(PartitionId, u64)>, Error> {
        let (mut found, mut empty, mut id) = (Vec::new(), 0, next);
        while empty < EMPTY_NUMBERS {
            let names = partition::listed(self, incarnation, PartitionId(id)).await?;
            let objects = names.iter().filter(|name| name.key.parse::<esker_types::ObjectKey>().is_ok()).count() as u64;
            match objects {
                0 => empty += 1,
                _ => {
                    found.push((PartitionId(id), objects));
                    empty = 0;
                }
            }
            id += 1;
        }
        Ok(found)
    }
}

fn bad(name: &BackupName, why: &str) -> Error {
    Error::new(Kind::Damaged, "recover from", name.to_string(), why)
}
