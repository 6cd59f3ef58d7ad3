//! One object read by itself, whole and in every damaged form.

use std::path::Path;

use esker_cache::testing::{MadeSegment, offload, segment};
use esker_cache::{Error, Inspect, Kind, StoreConfig};
use esker_types::ClusterId;
use proptest::prelude::*;

use crate::support::open;

const CLUSTER: ClusterId = ClusterId([9; 16]);

/// Reads an object in full; gives the number of entries that were shown.
async fn read(what: &str) -> Result<u64, Error> {
    let object = Inspect::open(what, StoreConfig::default()).await?;
    let mut entries = 0;
    for at in 0..object.directory().parts.len() {
        let footer = object.footer(at).await?;
        let mut seen = |_: &esker_types::Entry| {
            entries += 1;
            Ok(())
        };
        object.entries(at, footer, &mut seen).await?;
    }
    Ok(entries)
}

/// Two segments in one object, written by the same code as a broker's.
async fn written(dir: &Path) -> Vec<u8> {
    let store = open(&format!("file://{}", dir.display()));
    let made: Vec<MadeSegment> = vec![segment(7, 4, 100, 5, 60, true), segment(7, 5, 150, 3, 40, false)];
    let entries = offload(&store, CLUSTER, &made).await.expect("written");
    std::fs::read(dir.join(entries[0].place.key.to_string())).expect("a file")
}

#[tokio::test]
async fn an_object_is_read_without_a_cluster_by_path_and_by_url() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let bytes = written(dir.path()).await;
    let file = dir.path().join("copy");
    std::fs::write(&file, &bytes).expect("writable");
    let path = file.display().to_string();
    assert_eq!(read(&path).await, Ok(8));
    assert_eq!(read(&format!("file://{path}")).await, Ok(8));
    let object = Inspect::open(&path, StoreConfig::default()).await.expect("whole");
    assert_eq!((object.identity().cluster, object.size()), (CLUSTER, bytes.len() as u64));
    assert!(object.identity().key.shared && object.directory().parts.len() == 2);
    assert_eq!(object.footer(1).await.expect("whole").facts.base_offset, 150);
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let bytes = written(dir.path()).await;
    let file = dir.path().join("bad");
    let path = file.display().to_string();
    let refused = async |bytes: &[u8], how: &str| {
        std::fs::write(&file, bytes).expect("writable");
        let error = read(&path).await.expect_err(how);
        assert!(matches!(error.kind, Kind::Damaged | Kind::Invalid), "{how}: {error}");
        assert!(!error.to_string().contains('\n'), "{how}: {error}");
    };
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        refused(&bad, &format!("byte {at}")).await;
    }
    for cut in (0..bytes.len()).step_by(7) {
        refused(&bytes[..cut], &format!("cut at {cut}")).await;
    }
    refused(&[&bytes[..], b"x"].concat(), "one byte longer").await;
    refused(&[&bytes[..], &bytes[..]].concat(), "twice").await;
}

#[tokio::test]
async fn what_is_no_object_is_called_by_its_name() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let said = async |what: String| read(&what).await.expect_err("refused").to_string();
    let file = dir.path().join("page");
    for (bytes, word) in
        [(&b"ESKP...."[..], "manifest"), (b"ESKM....", "snapshot"), (b"hello", "not an object"), (b"", "not an object")]
    {
        std::fs::write(&file, bytes).expect("writable");
        let line = said(file.display().to_string()).await;
        assert!(line.contains(word), "{line}");
    }
    assert!(said(dir.path().join("absent").display().to_string()).await.contains("no such object"));
    assert!(said(dir.path().display().to_string()).await.contains("not a file"));
    assert!(said("s3://bucket".to_owned()).await.contains("names a store"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_bytes_behind_a_good_magic_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("noise");
        std::fs::write(&file, [&b"ESKH\x01\x00"[..], &bytes].concat()).expect("writable");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        prop_assert!(runtime.block_on(read(&file.display().to_string())).is_err());
    }
}
