//! The leak sweep: what was written and never committed, what found no grave, and all of deleted topics.
//!
//! One gateway does it for all, the live one with the lowest id; that two do it at once for a moment is harmless. The
//! order is the proof (see `esker_cache_core::steps`): list, then read metadata linearizably, then judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use esker_cache::{Class, For, Kind};
use esker_cache_core::manifest::{Need, Page, PageRef};
use esker_cache_core::object::{Directory, Identity};
use esker_cache_core::steps::{Candidate, Verdict, candidate, doomed, parse, verdict};
use esker_metadata_core::{Answer, PartitionQuery, Query};
use esker_types::{AllRules, PageKey, PartitionId, WallMs};
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Bucket, claim};
use crate::gateway::Gateway;

/// Names judged by one read of the metadata.
const NAMES: usize = 4_096;
/// Names of leaks that one page tells.
const TOLD: usize = 1_000;
/// Deletes under way at once.
const PARALLEL: usize = 4;
/// Pages of manifests held while a page of names is judged: 60 KiB each at most, on the wire.
const PAGES_MAX: usize = 512;
/// A sweep looks for work so often.
const LOOK: Duration = Duration::from_secs(10);
/// The first sweep of a process: not while everything starts.
const FIRST: Duration = Duration::from_secs(600);

/// What became of one page of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub listed: u64,
    pub listed_bytes: u64,
    /// Objects and pages that nothing reaches and that are old enough.
    pub leaked: u64,
    pub leaked_bytes: u64,
    /// The first of them.
    pub names: Vec<String>,
    /// Where the next page begins; none at the end.
    pub next: Option<String>,
}

/// Sweeps until `cancel`. The bucket is known to be ours.
pub(super) async fn run(gateway: Arc<Gateway>, bucket: Bucket, cancel: CancellationToken) {
    let (interval, retry) = (gateway.config.objects.sweep_interval.0, gateway.config.objects.retry_max.0);
    if interval.is_zero() {
        return;
    }
    let mut pace = Pace::new(interval, retry, Instant::now());
    // Deletions before this are left to the sweep of the whole bucket.
    let mut deleted_upto = gateway.view.read(esker_metadata_core::State::wall);
    while cancel.run_until_cancelled(tokio::time::sleep(LOOK.min(interval))).await.is_some() {
        let began = Instant::now();
        if !is_chosen(&gateway) || !pace.may_ask(began) {
            continue;
        }
        let one = async {
            deleted_upto = sweep_deleted(&gateway, &bucket, deleted_upto).await?;
            if pace.is_due(began) { sweep_all(&gateway, &bucket).await } else { Ok(()) }
        };
        let Some(swept) = cancel.run_until_cancelled(one).await else { return };
        if let Err(reason) = &swept {
            let failures = pace.failures + 1;
            match failures.is_power_of_two() {
                true => tracing::warn!(reason, failures, "the bucket can't be swept: what leaked stays in it"),
                false => tracing::debug!(reason, failures, "the bucket still can't be swept"),
            }
        }
        pace.done(began, Instant::now(), swept.is_ok());
    }
}

/// When the bucket is swept, and when it is asked again after a failure.
struct Pace {
    interval: Duration,
    retry: Duration,
    due: Instant,
    not_before: Instant,
    failures: u32,
}

impl Pace {
    fn new(interval: Duration, retry: Duration, now: Instant) -> Self {
        Self { interval, retry, due: now + FIRST.min(interval), not_before: now, failures: 0 }
    }

    fn may_ask(&self, now: Instant) -> bool {
        now >= self.not_before
    }

    /// All of it, not only what was deleted of late.
    fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// What began at `began` is over.
    fn done(&mut self, began: Instant, now: Instant, worked: bool) {
        if worked {
            self.failures = 0;
            if self.is_due(began) {
                self.due = now + self.interval;
            }
            return;
        }
        let wait = self.retry.saturating_mul(1 << self.failures.min(16)).min(self.interval);
        (self.failures, self.not_before) = (self.failures.saturating_add(1), now + wait);
    }
}

/// The live gateway with the lowest id.
fn is_chosen(gateway: &Gateway) -> bool {
    let session = gateway.standing.borrow().session;
    let first = |state: &esker_metadata_core::State| {
        let mut live = state.gateways().filter(|g| g.session.is_some_and(|session| state.session(session).is_some()));
        live.next().and_then(|gateway| gateway.session)
    };
    session.is_some() && gateway.view.read(first) == session
}

async fn sweep_all(gateway: &Gateway, bucket: &Bucket) -> Result<(), String> {
    let swept = sweep_folder(gateway, bucket, "").await?;
    let age = gateway.config.objects.sweep_age.0;
    let uploads = bucket.store.sweep_abandoned(age, false).await.map_err(|error| error.to_string())?;
    let (listed, leaked, bytes) = (swept.listed, swept.leaked, swept.leaked_bytes);
    tracing::info!(listed, leaked, bytes, uploads, "the bucket was swept");
    Ok(())
}

/// Partitions that were deleted after `from` and a grace ago. Gives the time up to which it is done.
async fn sweep_deleted(gateway: &Gateway, bucket: &Bucket, from: WallMs) -> Result<WallMs, String> {
    let grace = i64::try_from(gateway.config.objects.grave_grace.0.as_millis()).unwrap_or(i64::MAX);
    let (upto, due) = gateway.view.read(|state| {
        let upto = WallMs(state.wall().0.saturating_sub(grace));
        let due = state.deleted_partitions().filter(|row| row.deleted > from && row.deleted <= upto);
        (upto, due.map(|row| row.id).collect::<Vec<PartitionId>>())
    });
    let newest = gateway.incarnation();
    for id in due {
        for incarnation in 0..=newest {
            let swept = sweep_folder(gateway, bucket, &format!("{incarnation}/{id}")).await?;
            if swept.leaked > 0 {
                tracing::info!(partition = %id, objects = swept.leaked, "a deleted partition left the bucket");
            }
        }
    }
    Ok(upto.max(from))
}

async fn sweep_folder(gateway: &Gateway, bucket: &Bucket, folder: &str) -> Result<Swept, String> {
    let mut sum = Swept::default();
    let mut after = None;
    loop {
        let page = sweep_page(gateway, bucket, folder, after.as_deref(), false).await?;
        sum.listed += page.listed;
        sum.leaked += page.leaked;
        sum.leaked_bytes += page.leaked_bytes;
        after = page.next;
        if after.is_none() {
            return Ok(sum);
        }
    }
}

/// Judges the names below `folder` that come behind `after`, and deletes those that leaked unless it is a dry run.
pub async fn sweep_page(
    gateway: &Gateway,
    bucket: &Bucket,
    folder: &str,
    after: Option<&str>,
    dry_run: bool,
) -> Result<Swept, String> {
    claim::ours(gateway, bucket).await?;
    let listed = bucket.store.list(folder, after, NAMES, Class::Background).await.map_err(|e| e.to_string())?;
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(gateway.clock.wall_ms()).unwrap_or(0));
    let mut swept = Swept {
        listed: listed.len() as u64,
        listed_bytes: listed.iter().map(|object| object.bytes).sum(),
        next: listed.get(NAMES - 1).map(|last| last.key.clone()),
        ..Swept::default()
    };
    let Some(first) = listed.iter().find_map(|object| parse(&object.key)) else { return Ok(swept) };
    // All partitions by one read: a shared object is judged by several.
    up_to_date(gateway, first.partition()).await?;
    let mut pages = AtHand::default();
    let mut leaks = Vec::new();
    for object in listed {
        let age = u64::try_from(object.age(now).as_millis()).unwrap_or(u64::MAX);
        if pages.leaked(gateway, bucket, &object.key, age).await? {
            swept.leaked += 1;
            swept.leaked_bytes += object.bytes;
            leaks.push(object.key);
        }
    }
    if !dry_run {
        let deletes = leaks.clone().into_iter().map(|key| {
            let store = bucket.store.clone();
            async move { store.delete(&key, Class::Background).await }
        });
        let mut deletes = stream::iter(deletes).buffer_unordered(PARALLEL);
        while let Some(deleted) = deletes.next().await {
            deleted.map_err(|error| error.to_string())?;
            gateway.metrics.objects_swept.inc();
        }
    }
    leaks.truncate(TOLD);
    swept.names = leaks;
    Ok(swept)
}

/// At return our copy of the metadata shows all that was committed before.
async fn up_to_date(gateway: &Gateway, partition: PartitionId) -> Result<(), String> {
    let answer = gateway.store.read(Query::Partition(PartitionQuery { partition })).await;
    match answer.map_err(|error| error.to_string())? {
        Answer::Partition(answer) => {
            gateway.view.reached(answer.revision).await;
            Ok(())
        }
        _ => Err("metadata answered another question".to_owned()),
    }
}

/// Pages of the manifests that were asked for.
#[derive(Default)]
struct AtHand(BTreeMap<PageKey, Arc<Page>>);

impl AtHand {
    async fn leaked(&mut self, gateway: &Gateway, bucket: &Bucket, name: &str, age_ms: u64) -> Result<bool, String> {
        let objects = &gateway.config.objects;
        let ms = |interval: esker_types::Interval| u64::try_from(interval.0.as_millis()).unwrap_or(u64::MAX);
        let grace = i64::try_from(ms(objects.grave_grace)).unwrap_or(i64::MAX);
        let (incarnation, dead) = gateway.view.read(|state| {
            let incarnation = state.cluster().map_or(0, |cluster| cluster.incarnation);
            (incarnation, parse(name).is_some_and(|found| doomed(&found, state, grace)))
        });
        if dead {
            return Ok(true);
        }
        let Some(found) = candidate(name, incarnation, age_ms, ms(objects.sweep_age)) else { return Ok(false) };
        self.unreached(gateway, bucket, &found).await
    }

    async fn unreached(&mut self, gateway: &Gateway, bucket: &Bucket, found: &Candidate) -> Result<bool, String> {
        if self.0.len() > PAGES_MAX {
            self.0.clear();
        }
        let mut directory = None;
        loop {
            let pages = |of: &PageRef| self.0.get(&of.key).cloned();
            let judged = gateway.view.read(|state| verdict::<AllRules>(found, state, directory.as_ref(), &pages));
            let of = match judged {
                Ok(Verdict::NeedsDirectory) => match directory_of(bucket, found).await? {
                    Some(read) => {
                        directory = Some(read);
                        continue;
                    }
                    None => return Ok(false),
                },
                Ok(verdict) => return Ok(verdict == Verdict::Delete),
                Err(Need(of)) => of,
            };
            match bucket.reader.page(&of, For::Scan).await {
                Ok(page) => drop(self.0.insert(of.key, page)),
                // Without its manifest nothing can be said of a name: it stays.
                Err(error) => {
                    tracing::debug!(%error, "a name is not judged");
                    return Ok(false);
                }
            }
        }
    }
}

/// What is in a shared object. None: that can't be read, and nothing can be said of it.
async fn directory_of(bucket: &Bucket, found: &Candidate) -> Result<Option<Directory>, String> {
    let Candidate::Object(key) = found else { return Ok(None) };
    let identity = Identity { cluster: bucket.cluster, key: *key };
    match bucket.store.directory(&identity, Class::Background).await {
        Ok((directory, _)) => Ok(Some(directory)),
        Err(error) if matches!(error.kind, Kind::NotFound | Kind::Damaged | Kind::Invalid) => {
            tracing::debug!(%key, %error, "what a shared object holds is not known: it stays");
            Ok(None)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_refuses_is_asked_ever_more_rarely_and_swept_when_it_works() {
        let (interval, retry) = (Duration::from_secs(3_600), Duration::from_secs(60));
        let began = Instant::now();
        let mut pace = Pace::new(interval, retry, began);
        assert!(pace.may_ask(began) && !pace.is_due(began) && pace.is_due(began + FIRST));
        let mut now = began + FIRST;
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.done(now, now, false);
            assert!(!pace.may_ask(now));
            waits.push((pace.not_before - now).as_secs());
            now = pace.not_before;
            assert!(pace.may_ask(now) && pace.is_due(now), "the sweep is still owed");
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        pace.done(now, now, true);
        assert!(pace.may_ask(now) && !pace.is_due(now) && pace.is_due(now + interval));
        let later = now + LOOK;
        pace.done(later, later, true);
        assert!(pace.is_due(now + interval), "a look at what was deleted puts nothing off");
    }
}
