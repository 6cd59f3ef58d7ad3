//! Rebuilds a cluster's metadata from its bucket: the newest backup, and the objects themselves for what is younger.
//!
//! Nothing is written here. Whoever wants to use a plan claims the bucket for its incarnation first and plans then: what
//! may be left of the former cluster stops deleting when it sees the claim, and a plan stands on what it does not delete.

mod partition;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;

use esker_cache_core::backup::BackupName;
use esker_cache_core::recover::Report;
use esker_metadata_core::{Bump, Change, ClusterRecord, State, TopicRecord};
use esker_types::{ObjectKey, PartitionId, Quorum, WallMs, first_id};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::store::{Class, Error, Kind, Store};
use shared::Shared;

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

/// Where a recovery begins: the newest backup that can be read, or the one that was asked for.
#[derive(Clone, Debug)]
pub struct Base {
    pub backup: BackupName,
    pub state: State,
    pub cluster: Arc<ClusterRecord>,
    /// Newer backups that can't be used, and why.
    pub notes: Vec<String>,
}

impl Base {
    /// Storage nodes whose data the recovery gives up: what they hold and no object does is lost with it.
    pub fn bookies(&self) -> Vec<String> {
        let with_data = self.state.bookies().filter(|bookie| !bookie.instance.is_nil());
        with_data.map(|bookie| bookie.name.clone()).collect()
    }
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
    /// Storage nodes whose data is given up.
    pub bookies: Vec<String>,
    /// Lives after the backup's that left objects. What they wrote comes back as far as it is in objects; what they did
    /// to topics, settings and users does not.
    pub lives_without_backup: Vec<u8>,
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
        let base = self.recovery_base(options.backup).await?;
        let bookies = base.bookies();
        let Base { backup, state: old, cluster, mut notes } = base;
        if options.incarnation <= cluster.incarnation {
            return Err(bad(&backup, "the new incarnation is not above its own"));
        }
        let bump = Bump { from: cluster.incarnation, incarnation: options.incarnation };
        let lives_without_backup = self.lives_between(bump.from, bump.incarnation).await?;
        let ids: Vec<(Arc<TopicRecord>, u32, PartitionId)> = old
            .topics()
            .flat_map(|topic| (0..).zip(&topic.partitions).map(|(index, id)| (topic.clone(), index, *id)))
            .collect();
        let shared = Shared::find(self, &old, bump.incarnation).await?;
        notes.extend(shared.notes.iter().cloned());
        let rebuilt = stream::iter(ids.into_iter().map(|(topic, index, id)| {
            let (old, bump, shared) = (&old, &bump, &shared);
            async move {
                let (rebuilt, notes) = partition::rebuild(self, old, bump, &topic, id, shared).await?;
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
        if partitions.iter().any(|outcome| outcome.topic.internal && outcome.report.was_written()) {
            notes.push(
                "consumer groups have lost their offsets, which are on storage nodes only: set them with `esker group \
                 reset-offsets` before consumers start"
                    .to_owned(),
            );
        }
        let lives: Vec<u8> = std::iter::once(bump.from).chain(lives_without_backup.iter().copied()).collect();
        let mut strange = self.strange_partitions(&lives, cluster.next_partition).await?;
        for (id, objects, foreign) in shared.strange(cluster.next_partition) {
            strange.entry(id).and_modify(|found| *found += foreign).or_insert(objects);
        }
        rows.extend(old.gateways().map(|row| Change::Gateway(Arc::new(bump.gateway(row)))));
        rows.extend(old.bookies().map(|row| Change::Bookie(Arc::new(bump.bookie(row)))));
        rows.extend(old.deleted_partitions().cloned().map(Change::Deleted));
        rows.extend(old.groups().cloned().map(Change::Group));
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
        let strange = strange.into_iter().collect();
        Ok(Plan { backup, taken, incarnation, state, partitions, bookies, lives_without_backup, strange, notes })
    }

    /// The backup from which [`Store::plan_recovery`] would begin now.
    ///
    /// # Errors
    /// As there.
    pub async fn recovery_base(&self, named: Option<BackupName>) -> Result<Base, Error> {
        let mut notes = Vec::new();
        let (backup, state) = match named {
            Some(name) => (name, self.backup(&name).await?),
            None => self.newest_state(&mut notes).await?,
        };
        let cluster = state.cluster().ok_or_else(|| bad(&backup, "it holds no cluster"))?.clone();
        Ok(Base { backup, state, cluster, notes })
    }

    /// Lives above `after` and below `before` that left an object.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn lives_between(&self, after: u8, before: u8) -> Result<Vec<u8>, Error> {
        let mut found = Vec::new();
        for life in after.saturating_add(1)..before {
            if !self.list(&life.to_string(), None, 1, CLASS).await?.is_empty() {
                found.push(life);
            }
        }
        Ok(found)
    }

    async fn newest_state(&self, notes: &mut Vec<String>) -> Result<(BackupName, State), Error> {
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

    /// Partitions that have objects of their own name, and that were made by the backup's life, the first of `lives`,
    /// from `next` on, or by one after it.
    async fn strange_partitions(&self, lives: &[u8], next: u64) -> Result<BTreeMap<PartitionId, u64>, Error> {
        let mut found = BTreeMap::new();
        for (at, life) in lives.iter().enumerate() {
            let (mut empty, mut id) = (0, if at == 0 { next } else { first_id(*life) });
            while empty < EMPTY_NUMBERS {
                let (strange, mut objects) = (PartitionId(id), 0);
                for writer in &lives[at..] {
                    let names = self.list_all(&partition::folder(*writer, strange), CLASS).await?;
                    objects += names.iter().filter(|name| name.key.parse::<ObjectKey>().is_ok()).count() as u64;
                }
                match objects {
                    0 => empty += 1,
                    _ => {
                        found.insert(strange, objects);
                        empty = 0;
                    }
                }
                id += 1;
            }
        }
        Ok(found)
    }
}

fn bad(name: &BackupName, why: &str) -> Error {
    Error::new(Kind::Damaged, "recover from", name.to_string(), why)
}
