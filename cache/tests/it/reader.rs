//! The tier reader against an S3 server: finds what it is asked for with few requests, and never returns a wrong byte.

use bytes::Bytes;
use esker_cache::pools::PoolMetrics;
use esker_cache::testing::{MadeSegment, manifest, offload, segment};
use esker_cache::{Config, For, Kind, Pools, Reader, Scan, Start, Store};
use esker_cache_core::manifest::LeafEntry;
use esker_metadata_core::RootPlace;
use esker_s3stub::{Fault, Rule, Stub};
use esker_types::units::ByteCount;
use esker_types::{ClusterId, PartitionId, SegmentId};

use crate::support::{open, stub};

const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Segments of the history; the last two share an object.
const SEGMENTS: u64 = 6;

struct World {
    stub: Stub,
    store: Store,
    segments: Vec<MadeSegment>,
    entries: Vec<LeafEntry>,
    root: RootPlace,
}

/// 60 entries of 100 kB in each segment: a handful of blocks, compressed in every other segment.
async fn world() -> World {
    let (stub, store) = stub().await;
    let segments: Vec<_> =
        (0..SEGMENTS).map(|n| segment(1, n, n as i64 * 600, 60, 100_000, n.is_multiple_of(2))).collect();
    let mut entries = Vec::new();
    for one in segments[..4].chunks(1).chain([&segments[4..]]) {
        entries.extend(offload(&store, CLUSTER, one).await.expect("written"));
    }
    let root = manifest(&store, CLUSTER, 1, entries.clone()).await.expect("written");
    World { stub, store, segments, entries, root }
}

impl World {
    /// With empty caches.
    async fn reader(&self) -> Reader {
        self.reader_with(&Config::default()).await
    }

    async fn reader_with(&self, config: &Config) -> Reader {
        let pools = Pools::open(config, &PoolMetrics::default()).await.expect("opened");
        Reader::new(open(&self.stub.url("p")), pools, CLUSTER, ByteCount::mib(8))
    }

    fn scan(&self, reader: &Reader, start: Start, from: usize) -> Scan {
        let mut scan = reader.scan(start, For::Scan);
        for entry in &self.entries[from..] {
            scan.feed(id(entry.n), entry.place.clone());
        }
        scan
    }

    fn all(&self) -> Vec<Bytes> {
        self.segments.iter().flat_map(|segment| segment.entries.clone()).collect()
    }
}

fn id(n: u64) -> SegmentId {
    SegmentId { partition: PartitionId(1), n }
}

async fn rest(scan: &mut Scan) -> Vec<Bytes> {
    let mut entries = Vec::new();
    while let Some(block) = scan.next().await.expect("read") {
        entries.extend(block.entries().map(|entry| entry.expect("whole").bytes));
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn any_offset_and_time_is_found_with_four_requests_cold_and_none_warm() {
    let world = world().await;
    for offset in [0, 9, 10, 599, 600, 1_234, 3_599] {
        let reader = world.reader().await;
        for expected in [4, 0] {
            let before = reader.store().metrics().requests();
            for by_time in [false, true] {
                // Timestamps are offsets in this history.
                let found = match by_time {
                    false => reader.segment_at(&world.root, offset, For::Tail).await,
                    true => reader.segment_at_time(&world.root, offset, 0, For::Tail).await,
                };
                let entry = found.expect("read").expect("inside");
                assert_eq!(entry.n, offset as u64 / 600);
                let footer = reader.footer(id(entry.n), &entry.place, For::Tail).await.expect("read");
                let number = if by_time { footer.block_at(offset) } else { footer.block_of(offset) };
                let number = number.expect("inside");
                let block = reader.block(id(entry.n), &entry.place, &footer, number, For::Tail).await.expect("read");
                let holds = block.entries().map(|e| e.expect("whole").header);
                assert!(holds.into_iter().any(|h| h.base_offset <= offset && offset < h.end_offset()), "{offset}");
            }
            assert_eq!(reader.store().metrics().requests() - before, expected, "offset {offset}");
        }
    }
    let reader = world.reader().await;
    assert_eq!(reader.segment_at(&world.root, 3_600, For::Tail).await.expect("read"), None);
    assert_eq!(reader.segment_at_time(&world.root, 3_600, 0, For::Tail).await.expect("read"), None);
    assert_eq!(reader.segments(&world.root, 600, 1_801, 10, For::Tail).await.expect("read").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_return_every_entry_in_order_with_few_requests() {
    let world = world().await;
    let reader = world.reader().await;
    let mut scan = world.scan(&reader, Start::Begin, 0);
    assert_eq!(rest(&mut scan).await, world.all());
    let blocks: u64 = reader.store().metrics().attempts("read", "ok");
    // 6 footers and at most one request for a block; fewer as soon as the window has grown.
    let held: u64 = world.segments.iter().map(|segment| segment.facts.bytes.div_ceil(900_000)).sum();
    assert!(blocks <= 6 + held, "{blocks} requests for {held} blocks");
    assert!(scan.window() > 2 << 20, "the window grows for a consumer that keeps up");
    assert!(scan.hungry());
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_begin_where_they_are_told() {
    let world = world().await;
    let reader = world.reader().await;
    for offset in [0, 601, 777, 1_199] {
        let at = (offset / 600) as usize;
        for start in [Start::Offset(offset), Start::Time(offset)] {
            let got = rest(&mut world.scan(&reader, start, at)).await;
            let all = world.all();
            assert!(all.ends_with(&got), "{start:?}: a gapless end of the history");
            let needed = all.len() - offset as usize / 10;
            assert!((needed..needed + 22).contains(&got.len()), "{start:?}: {} entries, {needed} needed", got.len());
        }
    }
    assert_eq!(rest(&mut world.scan(&reader, Start::Offset(99_999), 5)).await, Vec::<Bytes>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_loses_nothing() {
    let world = world().await;
    let reader = world.reader().await;
    let mut scan = world.scan(&reader, Start::Begin, 0);
    let mut got = Vec::new();
    loop {
        // Polled once and dropped, then again until it is done.
        let hasty = futures_util::FutureExt::now_or_never(scan.next());
        let block = match hasty {
            Some(done) => done,
            None => scan.next().await,
        };
        let Some(block) = block.expect("read") else { break };
        got.extend(block.entries().map(|entry| entry.expect("whole").bytes));
    }
    assert_eq!(got, world.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_memory_is_enough() {
    let world = world().await;
    let mut config = Config::default();
    config.scan.memory = ByteCount::mib(1);
    config.scan.fetch_bytes = ByteCount::mib(2);
    config.scan.read_ahead = ByteCount::mib(2);
    let reader = world.reader_with(&config).await;
    let mut scans: Vec<Scan> = (0..4).map(|_| world.scan(&reader, Start::Begin, 0)).collect();
    for got in futures_util::future::join_all(scans.iter_mut().map(rest)).await {
        assert_eq!(got, world.all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_on_the_way_yields_a_wrong_byte() {
    let world = world().await;
    let faults = [
        Fault::FlipBit(12_345),
        Fault::FlipBit(0),
        Fault::CutBody(70_000),
        Fault::ShortBody(70_000),
        Fault::Status(503, "SlowDown"),
        Fault::OkWithError("InternalError"),
        Fault::OkButNothing,
        Fault::Silence,
    ];
    for fault in faults {
        let reader = world.reader().await;
        for skip in 0..4 {
            world.stub.fail(Rule::new("GET", "p/1/", 1, fault.clone()).after(skip * 3));
        }
        assert_eq!(rest(&mut world.scan(&reader, Start::Begin, 0)).await, world.all(), "{fault:?}");
        world.stub.heal();
        world.stub.fail(Rule::new("GET", "/m/", 2, fault.clone()));
        let found = reader.segment_at(&world.root, 700, For::Tail).await.expect("read").expect("inside");
        assert_eq!(found.n, 1, "{fault:?}");
        world.stub.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_objects_are_errors_and_nothing_else() {
    let world = world().await;
    let key = format!("p/{}", world.entries[1].place.key);
    let good = world.stub.object(&key).expect("there");
    // In a block, in the footer; a whole other object under this name; a cut one.
    let flip = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let other = world.stub.object(&format!("p/{}", world.entries[3].place.key)).expect("there");
    let footer = world.entries[1].place.footer_position as usize + 5;
    for bad in [flip(2_000_000), flip(footer), other, good.slice(..good.len() / 2)] {
        world.stub.set(&key, bad);
        let reader = world.reader().await;
        let mut scan = world.scan(&reader, Start::Begin, 0);
        let mut got = Vec::new();
        let error = loop {
            match scan.next().await {
                Ok(Some(block)) => got.extend(block.entries().map(|entry| entry.expect("whole").bytes)),
                Ok(None) => panic!("the damage was not seen"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error.kind, Kind::Damaged | Kind::Invalid), "{error}");
        assert!(world.all().starts_with(&got) && got.len() >= 60, "what came before it is good");
    }
    world.store.delete(&world.entries[1].place.key.to_string(), esker_cache::Class::Background).await.expect("deleted");
    let reader = world.reader().await;
    let missing = reader.footer(id(1), &world.entries[1].place, For::Tail).await.expect_err("gone");
    assert_eq!(missing.kind, Kind::NotFound, "{missing}");
}

/// The number of a block says nothing in an object of several segments: what is cached of one is never taken for another's.
#[tokio::test(flavor = "multi_thread")]
async fn segments_of_two_partitions_in_one_object_are_not_mixed_up_in_the_cache() {
    let (stub, store) = stub().await;
    // The same ordinal, as many entries, of the same size.
    let segments = [5, 9].map(|partition| segment(partition, 3, 0, 30, 100_000, false));
    let entries = offload(&store, CLUSTER, &segments).await.expect("written");
    assert_eq!(entries[0].place.key, entries[1].place.key);
    let pools = Pools::open(&Config::default(), &PoolMetrics::default()).await.expect("opened");
    let reader = Reader::new(open(&stub.url("p")), pools, CLUSTER, ByteCount::mib(8));
    let read = async |at: usize| {
        let (segment, place) = (segments[at].facts.segment, &entries[at].place);
        let footer = reader.footer(segment, place, For::Tail).await.expect("read");
        let mut read = Vec::new();
        for number in 0..footer.blocks.len() as u32 {
            let block = reader.block(segment, place, &footer, number, For::Tail).await.expect("read");
            read.extend(block.entries().map(|entry| entry.expect("whole").bytes));
        }
        read
    };
    for at in [0, 1] {
        assert!(read(at).await == segments[at].entries, "cold");
    }
    let requests = stub.requests("GET");
    for at in [1, 0, 1] {
        assert!(read(at).await == segments[at].entries, "from memory");
    }
    assert_eq!(stub.requests("GET"), requests);
}
