//! `esker object` on files and on a store, whole and damaged.

use std::path::Path;
use std::process::{Command, Output};

use bytes::Bytes;
use esker_cache_core::object::{Encoder, EncoderOptions, Identity, SegmentFacts};
use esker_s3stub::Stub;
use esker_types::entry::{CHAIN_START, NO_SNAPSHOT};
use esker_types::*;
use esker_wire::batch::{BatchBuilder, Compression};
use serde_json::Value;

use crate::support::{ESKER, refused};

/// Entries of a segment with `batches` of three records each; the records' times are a thousand times their offsets.
fn segment(n: u64, base_offset: Offset, batches: i64, compression: Compression) -> (SegmentFacts, Vec<Bytes>) {
    let segment = SegmentId::new(7, n);
    let (mut chain, mut offset, mut entries) = (CHAIN_START, base_offset, Vec::new());
    let mut push = |kind, count: u32, max_ts, payload: &[u8], offset: &mut Offset| {
        let header = EntryHeader {
            kind,
            segment,
            seg_epoch: Epoch(3),
            entry: entries.len() as u64,
            base_offset: *offset,
            count,
            max_ts,
            snap: NO_SNAPSHOT,
            len: payload.len() as u32,
            payload_crc: checksum::crc32c(payload),
            chain: 0,
        }
        .sealed(chain);
        chain = header.chain;
        *offset = header.end_offset();
        entries.push(Entry::assemble(header, payload).bytes);
    };
    push(EntryKind::Snapshot, 0, -1, b"state", &mut offset);
    for _ in 0..batches {
        let mut batch = BatchBuilder::new(compression, 256);
        (0..3).for_each(|i| {
            let value = format!("value {}", offset + i);
            batch.push((offset + i) * 1_000, Some(b"k"), Some(value.as_bytes()), &[]);
        });
        let mut batch = batch.build(None);
        batch.assign(offset, 3);
        push(EntryKind::Data, 3, (offset + 2) * 1_000, batch.bytes(), &mut offset);
    }
    let facts = SegmentFacts {
        segment,
        seg_epoch: Epoch(3),
        quorum: Quorum { write: 3, ack: 2 },
        base_offset,
        end_offset: offset,
        last: entries.len() as u64 - 1,
        digest: chain,
        bytes: 0,
        first_ts: base_offset * 1_000,
        max_ts: (offset - 1) * 1_000,
        opened: WallMs(5),
        closed: WallMs(1_700_000_000_000),
    };
    (facts, entries)
}

fn object() -> Vec<u8> {
    let key = ObjectKey { incarnation: 0, partition: PartitionId(7), n: 4, epoch: Epoch(3), attempt: 1, shared: true };
    let identity = Identity { cluster: ClusterId([7; 16]), key };
    let mut encoder = Encoder::new(identity, EncoderOptions { block_target: 300, level: 1 });
    for (facts, entries) in [segment(4, 10, 6, Compression::None), segment(5, 28, 2, Compression::Zstd)] {
        encoder.begin(facts).expect("room");
        entries.iter().for_each(|entry| encoder.push(entry).expect("in order"));
        encoder.end().expect("whole");
    }
    encoder.finish();
    std::iter::from_fn(|| encoder.take()).flatten().collect()
}

fn esker(words: &[&str]) -> Output {
    let mut command = Command::new(ESKER);
    command.args(words).env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s");
    command.output().expect("starts")
}

fn on(verb: &str, path: &Path, more: &[&str]) -> Output {
    esker(&[&["object", verb, &path.to_string_lossy()], more].concat())
}

fn documents(output: Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn an_object_says_what_it_holds() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("3-1s");
    std::fs::write(&file, object()).expect("writable");
    let of = |all: &[Value], kind: &str| all.iter().filter(|d| d["type"] == kind).cloned().collect::<Vec<_>>();
    let all = documents(on("dump", &file, &["--json", "--records"]));
    let (objects, segments, records) = (of(&all, "object"), of(&all, "segment"), of(&all, "record"));
    assert_eq!((objects[0]["key"].as_str(), objects[0]["segments"].as_u64()), (Some("0/7/4/3-1s"), Some(2)));
    assert_eq!((segments[0]["base_offset"].as_i64(), segments[1]["end_offset"].as_i64()), (Some(10), Some(34)));
    assert_eq!(records.len(), 24);
    for (record, offset) in records.iter().zip(10..) {
        assert_eq!((record["offset"].as_i64(), record["timestamp"].as_i64()), (Some(offset), Some(offset * 1_000)));
        assert_eq!(record["value"], format!("value {offset}"));
    }
    assert_eq!(of(&all, "entry").len(), 2, "one snapshot of producer state each");
    let index = documents(on("dump", &file, &["--json"]));
    assert!(of(&index, "record").is_empty() && of(&index, "block").len() > 3, "without the records the index alone");
    let text = String::from_utf8(on("dump", &file, &["--records"]).stdout).expect("text");
    assert!(text.contains("segment 7/5: epoch 3, quorum 3/2, offsets 28..34, times 1970-01-01T00:00:28Z"), "{text}");
    assert!(text.contains("33 1970-01-01T00:00:33Z key \"k\" value \"value 33\""), "{text}");
    let whole = documents(on("verify", &file, &["--json"]));
    assert_eq!((whole[0]["records"].as_u64(), whole[0]["batches"].as_u64()), (Some(24), Some(8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_read_from_a_store_by_its_url() {
    let stub = Stub::start("b").await.expect("a port");
    let dir = tempfile::tempdir().expect("temporary folder");
    let store =
        esker_cache::Store::open(&format!("file://{}", dir.path().display()), Default::default(), Default::default());
    let store = store.expect("a folder");
    store.put("0/7/4/3-1s", object().into(), esker_cache::Class::Foreground).await.expect("written");
    stub.set("p/0/7/4/3-1s", object());
    let url = stub.url("p/0/7/4/3-1s");
    let absent = stub.url("p/0/7/4/9-9");
    let run = |words: Vec<String>| {
        tokio::task::spawn_blocking(move || esker(&words.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let words = |verb: &str, url: &str| ["object", verb, url].map(str::to_owned).to_vec();
    let whole = run(words("verify", &url)).await.expect("no panic");
    assert!(whole.status.success() && String::from_utf8_lossy(&whole.stdout).contains("24 records"), "{whole:?}");
    refused(run(words("dump", &absent)).await.expect("no panic"), 1, &["no such object"]);
    let in_folder = format!("file://{}/0/7/4/3-1s", dir.path().display());
    assert!(run(words("verify", &in_folder)).await.expect("no panic").status.success());
}

#[test]
fn a_damaged_object_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (file, good) = (dir.path().join("o"), object());
    // Head, a block, a footer, the directory, the trailer.
    for at in [5, 100, good.len() - 700, good.len() - 150, good.len() - 20] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&file, &bad).expect("writable");
        refused(on("verify", &file, &[]), 1, &["object"]);
    }
    std::fs::write(&file, &good[..good.len() / 2]).expect("writable");
    refused(on("verify", &file, &[]), 1, &["damaged"]);
    refused(on("dump", &file, &["--json"]), 1, &["damaged"]);
    std::fs::write(&file, b"a text file").expect("writable");
    refused(on("dump", &file, &[]), 1, &["not an object of Esker"]);
    refused(on("verify", &dir.path().join("absent"), &[]), 1, &["no such object"]);
    refused(esker(&["object", "verify"]), 2, &["FILE-or-URL"]);
}

/// Checksums of blocks can be right over batches that are not: whoever wrote it had them wrong in memory.
#[test]
fn a_batch_that_does_not_verify_is_found_below_good_checksums() {
    let (facts, entries) = segment(4, 10, 1, Compression::None);
    let (first, second) = (&entries[0], &entries[1]);
    let mut payload = second[84..].to_vec();
    *payload.last_mut().expect("records") ^= 1;
    let old = EntryHeader::decode(second).expect("made above");
    let chain = EntryHeader::decode(first).expect("made above").chain;
    let header = EntryHeader { payload_crc: checksum::crc32c(&payload), ..old }.sealed(chain);
    let facts = SegmentFacts { digest: header.chain, ..facts };
    let key = ObjectKey { incarnation: 0, partition: PartitionId(7), n: 4, epoch: Epoch(3), attempt: 1, shared: false };
    let mut encoder = Encoder::new(Identity { cluster: ClusterId([7; 16]), key }, EncoderOptions::default());
    encoder.begin(facts).expect("room");
    encoder.push(first).expect("in order");
    encoder.push(&Entry::assemble(header, &payload).bytes).expect("in order");
    encoder.end().expect("whole");
    encoder.finish();
    let bytes: Vec<u8> = std::iter::from_fn(|| encoder.take()).flatten().collect();
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("o");
    std::fs::write(&file, bytes).expect("writable");
    refused(on("verify", &file, &[]), 1, &["segment 7/4, entry 1", "crc"]);
}
