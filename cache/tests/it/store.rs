//! What every kind of store must do.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use esker_cache::{Class, Kind, Store};

use crate::support::{noise, open, stub};

const C: Class = Class::Foreground;

async fn every_store(test: impl AsyncFn(&Store)) {
    test(&open("memory:")).await;
    let dir = tempfile::tempdir().expect("temporary folder");
    test(&open(&format!("file://{}", dir.path().display()))).await;
    let (_stub, store) = stub().await;
    test(&store).await;
}

#[tokio::test]
async fn objects_come_back_whole_and_in_parts() {
    every_store(async |store| {
        let body = noise(3_000_000, 1);
        store.put("a/one", body.clone(), C).await.expect("written");
        assert_eq!(store.read("a/one", 0..3_000_000, C).await.expect("read"), body);
        assert_eq!(store.read("a/one", 17..99_999, C).await.expect("read"), body.slice(17..99_999));
        let parts = store.read_parts("a/one", 1000, &[1, 70_000, 0, 5], C).await.expect("read");
        let lengths: Vec<usize> = parts.iter().map(Bytes::len).collect();
        assert_eq!((lengths, parts.concat()), (vec![1, 70_000, 0, 5], body[1000..71_006].to_vec()));
        let (end, size) = store.read_end("a/one", 100, C).await.expect("read");
        assert_eq!((end, size), (body.slice(2_999_900..), 3_000_000));
        let (all, _) = store.read_end("a/one", 1 << 22, C).await.expect("shorter than asked for");
        assert_eq!(all, body);
        assert_eq!(store.size("a/one", C).await.expect("there"), 3_000_000);
        let beyond = store.read("a/one", 2_999_999..3_000_001, C).await.expect_err("beyond the end");
        assert_eq!(beyond.kind, Kind::Invalid, "{beyond}");
        assert_eq!(store.read_whole("a/one", 2_999_999, C).await.expect_err("too large").kind, Kind::Invalid);
    })
    .await;
}

#[tokio::test]
async fn absent_objects_are_not_found_and_deleting_is_idempotent() {
    every_store(async |store| {
        assert_eq!(store.read("x", 0..1, C).await.expect_err("absent").kind, Kind::NotFound);
        assert_eq!(store.read_end("x", 1, C).await.expect_err("absent").kind, Kind::NotFound);
        assert_eq!(store.size("x", C).await.expect_err("absent").kind, Kind::NotFound);
        store.put("x", Bytes::from_static(b"x"), C).await.expect("written");
        store.delete("x", C).await.expect("deleted");
        store.delete("x", C).await.expect("deleted again");
        assert_eq!(store.size("x", C).await.expect_err("gone").kind, Kind::NotFound);
        assert_eq!(store.read("../x", 0..1, C).await.expect_err("bad key").kind, Kind::Invalid);
    })
    .await;
}

#[tokio::test]
async fn only_the_first_creator_wins_and_repeats_of_it_are_its_own() {
    every_store(async |store| {
        store.create("claim", Bytes::from_static(b"me"), C).await.expect("free");
        store.create("claim", Bytes::from_static(b"me"), C).await.expect("mine already");
        let other = store.create("claim", Bytes::from_static(b"you"), C).await.expect_err("taken");
        assert_eq!(other.kind, Kind::Exists);
        assert_eq!(store.read_whole("claim", 10, C).await.expect("read").as_ref(), b"me");
    })
    .await;
}

#[tokio::test]
async fn uploads_of_any_size_and_chunking_arrive_whole() {
    every_store(async |store| {
        let part = store.config().part_bytes.as_usize();
        for (n, size) in [0, 1, part - 1, part, part + 1, 2 * part, 3 * part + 12_345].into_iter().enumerate() {
            let (key, body) = (format!("up/{n}"), noise(size, n as u64));
            let mut upload = store.upload(&key, Class::Offload).expect("a good key");
            for chunk in body.chunks(777_777) {
                upload.write(body.slice_ref(chunk)).await.expect("taken");
            }
            assert_eq!(store.size(&key, C).await.expect_err("not there before its end").kind, Kind::NotFound);
            assert_eq!(upload.finish().await.expect("finished"), size as u64);
            assert_eq!(store.read(&key, 0..size as u64, C).await.expect("read"), body, "{size} bytes");
        }
    })
    .await;
}

#[tokio::test]
async fn listings_are_ordered_paged_and_know_ages() {
    every_store(async |store| {
        for n in [5, 3, 9, 1, 7] {
            store.put(&format!("l/{n}"), Bytes::from(vec![0; n]), C).await.expect("written");
        }
        store.put("lx/2", Bytes::from_static(b"a neighbour by name"), C).await.expect("written");
        let (mut keys, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = store.list("l", after.as_deref(), 2, C).await.expect("listed");
            let more = page.len() == 2;
            for found in page {
                assert_eq!(found.key, format!("l/{}", found.bytes));
                assert!(found.age(SystemTime::now()) < Duration::from_secs(3600));
                after = Some(found.key.clone());
                keys.push(found.bytes);
            }
            if !more {
                break;
            }
        }
        assert_eq!(keys, [1, 3, 5, 7, 9]);
        assert_eq!(store.list("", None, 100, C).await.expect("listed").len(), 6);
        assert!(store.list("nothing", None, 100, C).await.expect("listed").is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_good_store_passes_all_checks_and_is_left_clean() {
    every_store(async |store| {
        let checks = store.check().await;
        assert!(checks.len() == 7 && checks.iter().all(|c| c.result.is_ok()), "{checks:?}");
        assert!(store.list("", None, 10, C).await.expect("listed").is_empty());
    })
    .await;
}

#[tokio::test]
async fn many_requests_stay_within_their_classes_bound() {
    let (_stub, store) = stub().await;
    store.put("k", noise(1000, 1), C).await.expect("written");
    let reads = (0..200).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.read("k", 0..1000, Class::Replay).await.map(|b| b.len()) })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.expect("no panic"), Ok(1000));
    }
}

#[tokio::test]
async fn files_of_killed_uploads_are_swept_by_age_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let store = open(&format!("file://{}", dir.path().display()));
    store.put("a/b", Bytes::from_static(b"x"), C).await.expect("written");
    let mut upload = store.upload("a/big", C).expect("a good key");
    upload.write(noise(6 << 20, 1)).await.expect("taken");
    // As after a kill -9: nobody aborts, nobody finishes.
    let staged = dir.path().join("a/big#1");
    assert!(staged.exists(), "how the library names them");
    let copy = dir.path().join("a/left#7");
    std::fs::copy(&staged, &copy).expect("copied");
    upload.abort().await;
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep_abandoned(hour, false).await, Ok(0), "too young");
    assert_eq!(store.sweep_abandoned(Duration::ZERO, true).await, Ok(1));
    assert!(copy.exists() && !staged.exists());
    assert_eq!(store.sweep_abandoned(Duration::ZERO, false).await, Ok(1));
    assert!(!copy.exists());
    assert_eq!(store.list("", None, 10, C).await.expect("listed").len(), 1);
}
