//! A cluster's metadata from a bucket: backups, manifests, objects, and what of them is damaged or gone.

use std::path::Path;
use std::sync::Arc;

use esker_cache::recover::{Options, Plan};
use esker_cache::testing::{MadeSegment, manifest, offload, segment};
use esker_cache::{Class, Kind, Store};
use esker_cache_core::backup::BackupName;
use esker_cache_core::manifest::LeafEntry;
use esker_metadata_core::*;
use esker_types::*;

use crate::support::open;

const CLUSTER: ClusterId = ClusterId([9; 16]);
const P: u64 = first_id(1) + 6;

/// Segment `n` of 50 offsets.
fn made(n: u64) -> MadeSegment {
    segment(P, n, n as i64 * 50 - 50, 5, 300, true)
}

fn row(made: &MadeSegment, entry: Option<&LeafEntry>) -> ClosedSegment {
    let f = &made.facts;
    ClosedSegment {
        segment: f.segment,
        seg_epoch: f.seg_epoch,
        quorum: f.quorum,
        members: Vec::new(),
        holders: Vec::new(),
        base_offset: f.base_offset,
        end_offset: f.end_offset,
        last: f.last,
        digest: f.digest,
        bytes: f.bytes,
        first_ts: f.first_ts,
        max_ts: f.max_ts,
        opened: f.opened,
        closed: f.closed,
        ver: 0,
        object: entry.map(|entry| entry.place.clone()),
    }
}

/// Six closed segments: 1..=3 in the manifest, 4 in an object, 5 in an object that the backup does not know of, 6 on
/// bookies only; one more is open.
struct Lost {
    store: Store,
    state: State,
    entries: Vec<LeafEntry>,
}

impl Lost {
    async fn new(dir: &Path) -> Self {
        let store = open(&format!("file://{}", dir.display()));
        let mut entries = Vec::new();
        for n in 1..=5 {
            entries.extend(offload(&store, CLUSTER, &[made(n)]).await.expect("written"));
        }
        let root = manifest(&store, CLUSTER, P, entries[..3].to_vec()).await.expect("written");
        let topic = TopicId([4; 16]);
        let mut record = PartitionRecord::born(PartitionId(P), topic, 0, 1);
        let last = made(6).facts;
        record.last = Some(LastClosed { n: 6, last: last.last, end_offset: last.end_offset, digest: last.digest });
        (record.root, record.next_n, record.next_offset) = (Some(root), 8, 300);
        record.open = Some(OpenSegment {
            n: 7,
            seg_epoch: Epoch(1),
            session: SessionId(1),
            quorum: last.quorum,
            members: Vec::new(),
            base_offset: 300,
            opened: WallMs(5),
        });
        let mut cluster = ClusterRecord::born(CLUSTER, 1, last.quorum, false, 1);
        (cluster.incarnation, cluster.next_partition) = (1, P + 1);
        let settings = TopicSettings::new(last.quorum);
        let topic = TopicRecord {
            id: topic,
            name: "t".to_owned(),
            partitions: vec![PartitionId(P)],
            settings: TopicSettings { retention_ms: Some(77), ..settings },
            internal: false,
        };
        let settings = GroupSettings { consumer_session_timeout_ms: Some(9_000), ..GroupSettings::NONE };
        let rows = [
            Change::Cluster(Arc::new(cluster)),
            Change::Topic(Arc::new(topic)),
            Change::Partition(Arc::new(record)),
            Change::Segment(Arc::new(row(&made(4), Some(&entries[3])))),
            Change::Segment(Arc::new(row(&made(5), None))),
            Change::Segment(Arc::new(row(&made(6), None))),
            Change::Group(Arc::new(GroupRecord { name: "readers".to_owned(), settings })),
        ];
        let state = State::from_rows(40, WallMs(1_000), rows);
        Self { store, state, entries }
    }

    async fn back_up(&self) -> BackupName {
        let name = BackupName { incarnation: 1, revision: self.state.revision(), node: 5 };
        self.store.put_backup(&name, encode_snapshot(&self.state).into()).await.expect("written");
        name
    }

    async fn plan(&self) -> Plan {
        self.plan_life(2).await
    }

    async fn plan_life(&self, incarnation: u8) -> Plan {
        let options = Options { backup: None, incarnation, quorum: None };
        self.store.plan_recovery(&options).await.expect("recovered")
    }
}

/// Turns a bit of an object, whose size stays.
fn damage(dir: &Path, entry: &LeafEntry) {
    let file = dir.join(entry.place.key.to_string());
    let mut bytes = std::fs::read(&file).expect("there");
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("writable");
}

#[tokio::test]
async fn a_cluster_is_put_together_from_its_bucket() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    // Of a topic that was made after the backup.
    offload(&lost.store, CLUSTER, &[segment(P + 3, 1, 0, 2, 10, true)]).await.expect("written");
    let plan = lost.plan().await;
    let report = &plan.partitions[0].report;
    assert_eq!((report.in_bucket_to, report.newer, report.segments), (250, 1, 5));
    assert_eq!(report.missing, [LostRange { from: 250, to: 300 }]);
    assert_eq!((report.open_from, report.goes_on_at), (Some(300), 1 << 40));
    assert_eq!((plan.strange.as_slice(), plan.notes.len()), (&[(PartitionId(P + 3), 1)][..], 0));
    let state = &plan.state;
    let topic = state.topic_by_name("t").expect("there");
    assert_eq!((topic.settings.retention_ms, topic.partitions[0]), (Some(77), PartitionId(P)));
    let group = state.group("readers").expect("there");
    assert_eq!(group.settings.consumer_session_timeout_ms, Some(9_000));
    let cluster = state.cluster().expect("there");
    assert_eq!((cluster.id, cluster.incarnation, cluster.next_producer), (CLUSTER, 2, first_id(2)));
    let ns: Vec<u64> = state.chain(PartitionId(P)).map(|row| row.segment.n).collect();
    assert_eq!(ns, [4, 5]);
    assert_eq!(state.partition(PartitionId(P)).expect("there").folded_to(), 3);
}

#[tokio::test]
async fn a_damaged_backup_is_passed_over_and_none_at_all_is_said() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut lost = Lost::new(dir.path()).await;
    let options = Options { backup: None, incarnation: 2, quorum: None };
    let error = lost.store.plan_recovery(&options).await.expect_err("nothing there");
    assert!(error.kind == Kind::NotFound && error.to_string().contains("no backup"), "{error}");
    let old = lost.back_up().await;
    lost.state = State::from_rows(41, WallMs(2_000), lost.state.rows());
    let new = lost.back_up().await;
    let file = dir.path().join(new.to_string());
    let mut bytes = std::fs::read(&file).expect("there");
    bytes[50] ^= 1;
    std::fs::write(&file, bytes).expect("writable");
    let plan = lost.plan().await;
    assert_eq!(plan.backup, old);
    assert!(plan.notes[0].contains("an older one is"), "{:?}", plan.notes);
    let named = Options { backup: Some(new), ..options };
    assert_eq!(lost.store.plan_recovery(&named).await.expect_err("damaged").kind, Kind::Damaged);
}

#[tokio::test]
async fn a_manifest_that_was_replaced_meanwhile_is_found_by_its_pages() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    let record = lost.state.partition(PartitionId(P)).expect("there");
    let old = record.root.clone().expect("folded");
    // The former cluster went on: a version with one segment more, and the old root was deleted.
    let mut names = esker_cache_core::manifest::PageNames {
        cluster: CLUSTER,
        incarnation: 1,
        partition: PartitionId(P),
        epoch: Epoch(1),
        next_seq: 50,
    };
    let reader_page = async |of: &esker_cache_core::manifest::PageRef| {
        let bytes = lost.store.read_whole(&of.key.to_string(), 1 << 20, Class::Foreground).await.expect("there");
        Arc::new(esker_cache_core::manifest::decode_page(CLUSTER, of, &bytes).expect("whole"))
    };
    let mut at_hand = std::collections::BTreeMap::new();
    let change =
        esker_cache_core::manifest::Edit { append: vec![lost.entries[3].clone()], folded_to: 4, ..Default::default() };
    let edited = loop {
        let made = esker_cache_core::manifest::edit(
            Some(&old),
            &change,
            &mut names,
            &|of: &esker_cache_core::manifest::PageRef| at_hand.get(&of.key).cloned(),
        );
        match made {
            Ok(edited) => break edited,
            Err(esker_cache_core::manifest::Need(of)) => {
                let page = reader_page(&of).await;
                at_hand.insert(of.key, page);
            }
        }
    };
    for (key, bytes, _) in edited.pages {
        lost.store.put(&key.to_string(), bytes, Class::Offload).await.expect("written");
    }
    lost.store.delete(&old.key.to_string(), Class::Background).await.expect("deleted");
    let plan = lost.plan().await;
    let partition = plan.state.partition(PartitionId(P)).expect("there");
    assert_eq!((partition.folded_to(), partition.root_ver()), (4, 2));
    assert_eq!((plan.partitions[0].report.in_bucket_to, plan.partitions[0].report.segments), (250, 5));
    // And without any manifest the objects alone tell it all.
    lost.store.delete(&edited.root.key.to_string(), Class::Background).await.expect("deleted");
    let plan = lost.plan().await;
    let partition = plan.state.partition(PartitionId(P)).expect("there");
    assert_eq!((partition.folded_to(), plan.state.chain(PartitionId(P)).count()), (0, 5));
    assert_eq!(plan.partitions[0].report.in_bucket_to, 250);
}

#[tokio::test]
async fn damaged_and_missing_objects_are_holes_that_are_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    // In the manifest, but gone; and one that nobody committed, with a flipped byte.
    lost.store.delete(&lost.entries[1].place.key.to_string(), Class::Background).await.expect("deleted");
    damage(dir.path(), &lost.entries[4]);
    let plan = lost.plan().await;
    let report = &plan.partitions[0].report;
    assert_eq!(report.missing, [LostRange { from: 50, to: 100 }, LostRange { from: 200, to: 300 }]);
    assert!(plan.notes.iter().any(|note| note.contains("left out")), "{:?}", plan.notes);
    let partition = plan.state.partition(PartitionId(P)).expect("there");
    assert_eq!(partition.lost, [LostRange { from: 50, to: 100 }, LostRange { from: 200, to: 1 << 40 }]);
}

#[tokio::test]
async fn a_tail_that_has_rotted_gives_way_to_the_one_before_it() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    // What metadata committed, and what the manifest lists: both were verified once, and have the right size.
    lost.store.delete(&lost.entries[4].place.key.to_string(), Class::Background).await.expect("deleted");
    damage(dir.path(), &lost.entries[3]);
    for (tail, end) in [(3, 150), (2, 100)] {
        let plan = lost.plan().await;
        let partition = plan.state.partition(PartitionId(P)).expect("there");
        assert_eq!(partition.last.as_ref().map(|last| (last.n, last.end_offset)), Some((tail, end)));
        let rows: Vec<u64> = plan.state.chain(PartitionId(P)).map(|row| row.segment.n).collect();
        assert_eq!((rows, partition.copies_from), (vec![tail], tail));
        assert_eq!((plan.partitions[0].report.in_bucket_to, partition.lost[0].from), (end, end));
        let rotten = lost.entries[tail as usize].place.key.to_string();
        assert_eq!(plan.notes.iter().filter(|note| note.contains(&rotten)).count(), 1, "{:?}", plan.notes);
        damage(dir.path(), &lost.entries[tail as usize - 1]);
    }
}

#[tokio::test]
async fn records_of_a_life_that_left_no_backup_come_back_and_its_offsets_are_not_given_out_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    // Recovered as life 2, which went on at 2^40, and then lost with all backups of its own.
    let began = 1 << 40;
    offload(&lost.store, CLUSTER, &[segment(P, first_id(2), began, 5, 300, true)]).await.expect("written");
    offload(&lost.store, CLUSTER, &[segment(first_id(2) + 4, first_id(2), 0, 2, 10, true)]).await.expect("written");
    let plan = lost.plan_life(3).await;
    let report = &plan.partitions[0].report;
    assert_eq!((report.in_bucket_to, report.newer, report.segments), (began + 50, 2, 6));
    assert!(report.goes_on_at >= 2 * began, "{}", report.goes_on_at);
    assert_eq!(report.missing, [LostRange { from: 250, to: 300 }], "nobody wrote what life 2 jumped over");
    assert_eq!(plan.lives_without_backup, [2]);
    assert_eq!(plan.strange, [(PartitionId(first_id(2) + 4), 1)]);
    let last = plan.state.partition(PartitionId(P)).and_then(|partition| partition.last.clone()).expect("a tail");
    assert_eq!((last.n, last.end_offset), (first_id(2), began + 50));
    assert!(lost.plan().await.lives_without_backup.is_empty(), "life 1 left the backup");
}

#[tokio::test]
async fn what_a_recovery_gives_up_is_said() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut lost = Lost::new(dir.path()).await;
    let topic = TopicId([5; 16]);
    let mut record = PartitionRecord::born(PartitionId(P - 1), topic, 0, 1);
    record.next_offset = 4;
    let settings = TopicSettings::new(Quorum { write: 1, ack: 1 });
    let partitions = vec![record.id];
    let groups = TopicRecord { id: topic, name: "__groups".to_owned(), partitions, settings, internal: true };
    let bookie = |id: u64, name: &str, instance| BookieRecord {
        id: BookieId(id),
        name: name.to_owned(),
        instance,
        address: String::new(),
        zone: String::new(),
        boot_no: 1,
        boot: BootId([1; 16]),
        durable_lsn: 0,
        state: BookieState::Live,
        session: None,
        retired: Vec::new(),
        version: 1,
        disk_total: 0,
        disk_used: 0,
    };
    let bookies = [bookie(1, "b-1", InstanceId([1; 16])), bookie(2, "b-2", InstanceId::NIL)];
    let rows = lost.state.rows().chain([Change::Topic(groups.into()), Change::Partition(record.into())]);
    let rows: Vec<Change> = rows.chain(bookies.map(|bookie| Change::Bookie(bookie.into()))).collect();
    lost.state = State::from_rows(41, WallMs(2_000), rows);
    lost.back_up().await;
    // Retention took the first segment after the backup.
    lost.store.delete(&lost.entries[0].place.key.to_string(), Class::Background).await.expect("deleted");
    let plan = lost.plan().await;
    assert_eq!(plan.bookies, ["b-1"], "the other one's data was lost before");
    assert!(plan.notes.iter().any(|note| note.contains("esker group reset-offsets")), "{:?}", plan.notes);
    let outcome = plan.partitions.iter().find(|outcome| outcome.topic.name == "t").expect("there");
    assert_eq!((outcome.report.log_start, outcome.report.retired.clone()), (50, Some(LostRange { from: 0, to: 50 })));
}

/// Segment `n` of 50 offsets of partition P, in an object that is named after a segment of another one.
async fn share(lost: &Lost, first: MadeSegment, n: u64) -> Vec<LeafEntry> {
    offload(&lost.store, CLUSTER, &[first, made(n)]).await.expect("written")
}

#[tokio::test]
async fn segments_in_objects_of_other_names_are_found_and_foreign_ordinals_are_not_taken_for_own_ones() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    // The name says ordinal 2, which is folded here, of a partition that the backup does not know.
    let strange = P + 100;
    share(&lost, segment(strange, 2, 0, 2, 10, true), 6).await;
    // And one whose name is this partition's, with a segment that nobody has to read again.
    offload(&lost.store, CLUSTER, &[made(5), segment(P + 101, 1, 0, 2, 10, true)]).await.expect("written");
    let plan = lost.plan().await;
    let report = &plan.partitions[0].report;
    assert_eq!((report.in_bucket_to, report.newer, report.segments), (300, 2, 6));
    assert_eq!((report.missing.len(), plan.notes.len()), (0, 0), "{report:?} {:?}", plan.notes);
    assert_eq!(plan.strange, [(PartitionId(strange), 1), (PartitionId(P + 101), 1)], "far behind the last known one");
    let rows: Vec<(u64, bool)> = plan
        .state
        .chain(PartitionId(P))
        .map(|row| (row.segment.n, row.object.as_ref().is_some_and(|place| place.key.shared)))
        .collect();
    assert_eq!(rows, [(4, false), (5, false), (6, true)]);
    let record = plan.state.partition(PartitionId(P)).expect("there");
    assert!(record.next_n >= first_id(2) && record.last.as_ref().is_some_and(|last| last.n == 6));
}

#[tokio::test]
async fn a_shared_object_of_a_life_without_a_backup_comes_back_too() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let lost = Lost::new(dir.path()).await;
    lost.back_up().await;
    let began = 1 << 40;
    let company = segment(first_id(2) + 4, first_id(2), 0, 2, 10, true);
    let ours = segment(P, first_id(2), began, 5, 300, true);
    offload(&lost.store, CLUSTER, &[company, ours]).await.expect("written");
    let plan = lost.plan_life(3).await;
    let report = &plan.partitions[0].report;
    assert_eq!((report.in_bucket_to, report.newer, report.segments), (began + 50, 2, 6));
    assert_eq!((plan.lives_without_backup.as_slice(), plan.notes.len()), (&[2][..], 0));
    assert_eq!(plan.strange, [(PartitionId(first_id(2) + 4), 1)]);
}

#[tokio::test]
async fn old_shared_objects_are_looked_into_only_when_a_manifest_is_gone() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut lost = Lost::new(dir.path()).await;
    // The backup is two days younger than all objects: what it does not name was given up.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2 * 86_400);
    let later = later.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    lost.state = State::from_rows(41, WallMs(later), lost.state.rows());
    lost.back_up().await;
    share(&lost, segment(P - 3, 2, 0, 2, 10, true), 6).await;
    let damaged = share(&lost, segment(P - 3, 9, 0, 2, 10, true), 3).await;
    let file = dir.path().join(damaged[0].place.key.to_string());
    let bytes = std::fs::read(&file).expect("there");
    std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("writable");
    let plan = lost.plan().await;
    assert_eq!((plan.partitions[0].report.in_bucket_to, plan.notes.len()), (250, 0), "{:?}", plan.notes);
    let root = lost.state.partition(PartitionId(P)).and_then(|record| record.root.clone()).expect("folded");
    lost.store.delete(&root.key.to_string(), Class::Background).await.expect("deleted");
    let plan = lost.plan().await;
    let report = &plan.partitions[0].report;
    assert_eq!((report.in_bucket_to, report.segments, report.missing.len()), (300, 6, 0), "{report:?}");
}
