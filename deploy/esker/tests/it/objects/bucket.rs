//! What should be in a bucket, told from its own manifests and from what metadata still lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use esker_bench::wait::until;
use esker_cache_core::claim::Claim;
use esker_cache_core::manifest::{Page, PageRef, decode_page};
use esker_s3stub::Stub;
use esker_types::{ClusterId, PageKey};

use super::{Broker, segments};

/// Older than any age at which the sweep takes what nothing reaches.
const OLD: Duration = Duration::from_secs(48 * 3_600);

pub type Files = BTreeMap<String, Bytes>;

/// All objects of the stub below a prefix, but copies of the metadata: those come and go by the clock.
pub fn files(stub: &Stub, prefix: &str) -> Files {
    let below = |key: &String| key.strip_prefix(prefix)?.strip_prefix('/').map(str::to_owned);
    let below = |key: &String| below(key).filter(|key| !key.starts_with("metadata/"));
    let keys = stub.keys();
    keys.iter().filter_map(|key| Some((below(key)?, stub.object(key)?))).collect()
}

/// To be called while no gateway runs: what is there now was written by processes that are dead.
pub fn make_older(stub: &Stub) {
    stub.keys().iter().for_each(|key| stub.make_older(key, OLD));
}

/// Names that manifests and metadata list. Of every partition the newest root counts.
pub(super) fn expected(files: &Files, broker: &impl Broker, topics: &[&str]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BTreeSet::from(["claims/0".to_owned()]);
    for segment in topics.iter().flat_map(|topic| segments(broker, topic)) {
        names.extend(segment["object"].as_str().map(str::to_owned));
    }
    let claim = String::from_utf8(files["claims/0"].to_vec()).expect("text");
    let cluster = claim.parse::<Claim>().expect("a claim").cluster;
    let mut roots: BTreeMap<u64, (u64, PageKey)> = BTreeMap::new();
    for (key, page) in files.keys().filter_map(|name| page(files, cluster, &name.parse().ok()?)) {
        if let Page::Root(root) = page {
            let newest = roots.entry(key.partition.0).or_insert((root.ver, key));
            *newest = (*newest).max((root.ver, key));
        }
    }
    let mut todo: Vec<PageKey> = roots.into_values().map(|(_, key)| key).collect();
    while let Some(key) = todo.pop() {
        names.insert(key.to_string());
        match page(files, cluster, &key) {
            Some((_, Page::Root(root))) => todo.extend(root.children.iter().map(|child| child.key)),
            Some((_, Page::Inner(inner))) => todo.extend(inner.children.iter().map(|child| child.key)),
            Some((_, Page::Leaf(leaf))) => names.extend(leaf.entries.iter().map(|entry| entry.place.key.to_string())),
            // Its name is missed in the comparison.
            None => {}
        }
    }
    names
}

fn page(files: &Files, cluster: ClusterId, key: &PageKey) -> Option<(PageKey, Page)> {
    let bytes = files.get(&key.to_string())?;
    let of = PageRef::alone(*key, bytes);
    Some((*key, decode_page(cluster, &of, bytes).ok()?))
}

/// Sweeps until the bucket holds exactly what is listed, or fails with the difference.
pub(super) fn becomes_tight(stub: &Stub, prefix: &str, broker: &impl Broker, topics: &[&str]) {
    until("the bucket holds what is listed", || {
        broker.ok(&["bucket", "sweep"]);
        let files = files(stub, prefix);
        let expected = expected(&files, broker, topics);
        let there: BTreeSet<String> = files.into_keys().collect();
        let (leaked, missing): (Vec<_>, Vec<_>) =
            (there.difference(&expected).collect(), expected.difference(&there).collect());
        // Seen if it fails in the end.
        println!("leaked {leaked:?}, missing {missing:?}");
        leaked.is_empty() && missing.is_empty()
    });
}
