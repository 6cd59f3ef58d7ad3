//! Copies of the state in the bucket.

use esker_cache::store::StoreMetrics;
use esker_cache::{Store, StoreConfig};
use esker_cache_core::backup::BackupName;
use esker_cache_core::claim::{Claim, Standing};
use esker_types::BootId;
use esker_types::units::Interval;

use crate::fixture::{Cluster, LONG, create};

fn url(dir: &tempfile::TempDir) -> String {
    format!("file://{}", dir.path().display())
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(&url(dir), StoreConfig::default(), StoreMetrics::default()).expect("a folder")
}

/// All nodes of a cluster, started again with a bucket.
async fn with_bucket(cluster: &mut Cluster, url: &str) {
    for i in 0..cluster.nodes.len() {
        let objects = &mut cluster.nodes[i].config.objects;
        objects.url = url.to_owned();
        objects.snapshot_settle = Interval::millis(20);
        objects.snapshots_kept = 3;
        cluster.nodes[i].stop().await;
        cluster.start(i).await;
    }
}

/// Waits until node `i` has written the state of `revision`, or a later one.
async fn written(cluster: &Cluster, i: usize, revision: u64) -> BackupName {
    let mut newest = cluster.nodes[i].server().backups();
    let there = newest.wait_for(|name| name.is_some_and(|name| name.revision >= revision));
    let name = *tokio::time::timeout(LONG, there).await.expect("in time").expect("running");
    name.expect("waited for it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_topics_is_in_the_bucket_soon_and_old_copies_go() {
    let dir = tempfile::tempdir().expect("temp");
    let mut cluster = Cluster::single().await;
    with_bucket(&mut cluster, &url(&dir)).await;
    let client = cluster.client("g1");
    let mut last = None;
    for i in 0..6 {
        let revision = create(&client, &format!("topic-{i}")).await;
        last = Some(written(&cluster, 0, revision).await);
    }
    let name = last.expect("six");
    let state = store(&dir).backup(&name).await.expect("whole");
    let ours = cluster.nodes[0].server().read(|state| state.cluster().cloned());
    assert_eq!((state.cluster().cloned(), state.topics().count()), (ours, 6));
    assert!(state.topic_by_name("topic-5").is_some());
    cluster.stop().await;
    let kept = store(&dir).backups().await.expect("listed");
    assert!(kept.len() <= 3 && kept[0] == name, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_goes_on_with_it() {
    let dir = tempfile::tempdir().expect("temp");
    let mut cluster = Cluster::born(3, false).await;
    with_bucket(&mut cluster, &url(&dir)).await;
    let first = cluster.leader().await;
    let revision = create(&cluster.client("g1"), "before").await;
    let one = written(&cluster, first, revision).await;
    cluster.nodes[first].stop().await;
    let second = cluster.leader().await;
    let revision = create(&cluster.client("g2"), "after").await;
    let two = written(&cluster, second, revision).await;
    assert!(two > one && two.node != one.node);
    let state = store(&dir).backup(&two).await.expect("whole");
    assert!(state.topic_by_name("before").is_some() && state.topic_by_name("after").is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_of_another_cluster_or_of_a_later_life_is_left_alone() {
    let dir = tempfile::tempdir().expect("temp");
    let mut cluster = Cluster::single().await;
    with_bucket(&mut cluster, &url(&dir)).await;
    let revision = create(&cluster.client("g1"), "first").await;
    written(&cluster, 0, revision).await;
    let ours = cluster.nodes[0].server().read(|state| state.cluster().map(|cluster| cluster.id)).expect("born");
    // Recovered elsewhere.
    let claim = Claim { cluster: ours, incarnation: 1, by: BootId([1; 16]) };
    assert_eq!(store(&dir).claim(&claim).await.expect("claimed"), Standing::Ours);
    let before = store(&dir).backups().await.expect("listed");
    cluster.nodes[0].stop().await;
    cluster.start(0).await;
    let mut failures = cluster.nodes[0].server().backup_failures();
    tokio::time::timeout(LONG, failures.wait_for(|failures| *failures > 0)).await.expect("in time").expect("running");
    assert_eq!(store(&dir).backups().await.expect("listed"), before);
    assert!(cluster.nodes[0].server().backups().borrow().is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_does_not_answer_holds_up_nothing() {
    let mut cluster = Cluster::single().await;
    with_bucket(&mut cluster, "s3://nowhere/x?endpoint=http://127.0.0.1:1&region=r").await;
    let client = cluster.client("g1");
    for i in 0..20 {
        create(&client, &format!("topic-{i}")).await;
    }
    assert!(cluster.nodes[0].server().backups().borrow().is_none());
    cluster.stop().await;
}
