//! Objects with segments of several partitions. Each is named after its first one alone, so that the names below a
//! partition don't tell what the bucket holds of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use esker_cache_core::object::Identity;
use esker_metadata_core::State;
use esker_types::{ClusterId, ObjectKey, PartitionId};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::CLASS;
use crate::store::{Error, Kind, Listed, Store};

/// An object that was written so long before the backup was taken is in it, or was given up: clocks differ, and writing
/// takes its time.
const MARGIN: Duration = Duration::from_secs(24 * 3_600);
/// Directories that are read at once.
const AT_ONCE: usize = 8;

/// What one shared object holds of one partition.
#[derive(Clone, Debug)]
pub(super) struct SharedObject {
    pub key: ObjectKey,
    /// Of the whole object, in bytes.
    pub size: u64,
    /// Ordinals of the partition's segments in it.
    pub segments: Vec<u64>,
}

type ByPartition = BTreeMap<PartitionId, Vec<SharedObject>>;

/// Shared objects of all lives, by what they hold.
pub(super) struct Shared {
    /// Those that the backup may not know.
    recent: ByPartition,
    /// All of them: for partitions whose manifest is gone.
    all: OnceCell<ByPartition>,
    names: Vec<(ObjectKey, SystemTime)>,
    cluster: ClusterId,
    /// Objects that can't be used, and why.
    pub notes: Vec<String>,
}

impl Shared {
    /// Looks through all lives before `before`, once for all partitions.
    pub async fn find(store: &Store, old: &State, before: u8) -> Result<Self, Error> {
        let cluster = old.cluster().map_or(ClusterId::NIL, |cluster| cluster.id);
        let taken = UNIX_EPOCH + Duration::from_millis(u64::try_from(old.wall().0).unwrap_or(0));
        let since = taken.checked_sub(MARGIN).unwrap_or(UNIX_EPOCH);
        let mut names = Vec::new();
        for life in 0..before {
            let keep = |listed: Listed| {
                let key: ObjectKey = listed.key.parse().ok()?;
                key.shared.then_some((key, listed.modified))
            };
            store.list_each(&life.to_string(), CLASS, |listed| names.extend(keep(listed))).await?;
        }
        let recent = names.iter().filter(|(_, modified)| *modified >= since).map(|(key, _)| *key);
        let (recent, notes) = directories(store, cluster, recent.collect()).await?;
        Ok(Self { recent, all: OnceCell::new(), names, cluster, notes })
    }

    /// Those with segments of `id`: the recent ones, or all if the backup is no help.
    pub async fn of(&self, store: &Store, id: PartitionId, all: bool) -> Result<&[SharedObject], Error> {
        let by_partition = match all {
            false => &self.recent,
            true => {
                let keys = || self.names.iter().map(|(key, _)| *key).collect();
                let read = async || Ok::<_, Error>(directories(store, self.cluster, keys()).await?.0);
                self.all.get_or_try_init(read).await?
            }
        };
        Ok(by_partition.get(&id).map_or(&[], Vec::as_slice))
    }

    /// Partitions from `next` on, which the backup does not know: in how many recent objects they have segments, and how
    /// many of those are named after others.
    pub fn strange(&self, next: u64) -> impl Iterator<Item = (PartitionId, u64, u64)> {
        self.recent.range(PartitionId(next)..).map(|(id, objects)| {
            let foreign = objects.iter().filter(|object| object.key.partition != *id);
            (*id, objects.len() as u64, foreign.count() as u64)
        })
    }
}

async fn directories(
    store: &Store,
    cluster: ClusterId,
    keys: Vec<ObjectKey>,
) -> Result<(ByPartition, Vec<String>), Error> {
    let read = stream::iter(keys.into_iter().map(|key| async move {
        match store.directory(&Identity { cluster, key }, CLASS).await {
            Ok((directory, size)) => Ok((key, Ok((directory, size)))),
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Invalid | Kind::NotFound) => Ok((key, Err(error))),
            Err(error) => Err(error),
        }
    }));
    let mut read = read.buffered(AT_ONCE);
    let (mut found, mut notes) = (ByPartition::new(), Vec::new());
    while let Some((key, read)) = read.try_next().await? {
        let (directory, size) = match read {
            Ok(read) => read,
            Err(error) => {
                notes.push(format!("object {key} is left out, whatever segments it held: {error}"));
                continue;
            }
        };
        for part in directory.parts {
            let objects = found.entry(part.segment.partition).or_default();
            match objects.last_mut().filter(|object| object.key == key) {
                Some(object) => object.segments.push(part.segment.n),
                None => objects.push(SharedObject { key, size, segments: vec![part.segment.n] }),
            }
        }
    }
    Ok((found, notes))
}
