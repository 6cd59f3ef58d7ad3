//! The measurement of replays, made small: what it says of a cluster is true.

use esker_bench::tier::{Setup, replay};
use esker_s3stub::Stub;
use esker_types::ByteCount;

use crate::support::ESKER;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_starts_with_empty_caches_gives_all_partitions_back() {
    let stub = Stub::start("b").await.expect("a port");
    let folder = tempfile::tempdir().expect("temporary folder");
    let setup = Setup {
        folder: folder.path().to_owned(),
        esker: ESKER.into(),
        bookies: 1,
        store: stub.url("p"),
        keys: Some(("k".to_owned(), "k".to_owned())),
    };
    let plan = replay::Plan {
        setup,
        bytes: ByteCount::mib(64),
        partitions: 2,
        segment_bytes: ByteCount::mib(8),
        compressible: true,
        rounds: 1,
        warm: true,
        drop_page_cache: false,
    };
    let report = replay::run(&plan, |step| println!("{step}")).await.expect("the same comes back");
    println!("{report:?}");
    assert_eq!((report.records, report.rounds.len()), (64 << 10, 1));
    // One of each partition at least: how many segments a fast producer fills depends on the machine.
    assert!(report.objects >= 2, "{} objects", report.objects);
    assert!(stub.requests("GET") as usize > report.objects);
    let warm = report.warm.expect("asked for");
    assert!(warm.blocks_from_ssd > warm.blocks_from_store, "{warm:?}");
}
