//! All is lost but the bucket: every record in it comes back at its offset with its time, and nothing is given out twice.

use std::collections::BTreeMap;
use std::path::Path;

use esker_bench::cluster::{Cluster, Signal, Spec};
use esker_bench::wait::{until, until_ok};
use serde_json::Value;

use crate::support::{ESKER, Standalone, client, ok, refused, text};

fn documents(output: Vec<u8>) -> Vec<Value> {
    let text = String::from_utf8(output).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON document a line")).collect()
}

fn offset(record: &Value) -> i64 {
    record["offset"].as_i64().expect("an offset")
}

/// How the cluster is asked: `esker` with these words must succeed.
type Ask<'a> = &'a dyn Fn(&[&str]) -> Vec<u8>;

fn records(ask: Ask<'_>, topic: &str) -> Vec<Value> {
    documents(ask(&["consume", topic, "--from", "earliest", "--to-end", "--skip-lost", "--format", "json"]))
}

fn fill(ask: Ask<'_>, folder: &Path, topic: &str, seed: u64) {
    let file = folder.join(format!("input-{seed}"));
    std::fs::write(&file, text(seed, 5 << 20, 2_000)).expect("written");
    ask(&["produce", topic, "--partition", "0", "--file", &file.to_string_lossy()]);
}

/// Writes until a segment is closed, twice: what is under way when the limit is reached still goes into the segment, so
/// one write may fill only one, however much it is.
fn fill_two_segments(ask: Ask<'_>, folder: &Path, topic: &str, seed: u64) {
    for count in 1..=2 {
        fill(ask, folder, topic, seed + count as u64);
        until_ok("a full segment is closed", || {
            let all = segments(ask, topic);
            if closed(&all).count() >= count { Ok(()) } else { Err(format!("{all:?}")) }
        });
    }
}

fn segments(ask: Ask<'_>, topic: &str) -> Vec<Value> {
    documents(ask(&["segment", "list", topic, "--partition", "0", "--json"]))
}

fn closed(all: &[Value]) -> impl Iterator<Item = &Value> {
    all.iter().filter(|segment| segment["state"] == "closed")
}

/// Waits until all closed segments of partition 0 are in the bucket.
fn settle(ask: Ask<'_>, topic: &str) {
    until_ok("old segments are in the bucket", || {
        let all = segments(ask, topic);
        let safe = |segment: &Value| segment["tier"].as_str().is_some_and(|tier| tier.contains("object"));
        if closed(&all).all(safe) { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

fn recover(args: &[&str]) -> Value {
    let mut words = vec!["recover", "--json"];
    words.extend(args);
    let output = std::process::Command::new(ESKER).args(&words).output().expect("starts");
    documents(ok(output, &words)).remove(0)
}

/// Waits until a copy of the metadata that knows the topic is in the bucket.
fn backed_up(url: &str, topic: &str) {
    until("a copy of the metadata is in the bucket", || {
        let output = std::process::Command::new(ESKER)
            .args(["recover", "--from", url, "--dry-run", "--json", "--data", "/nonexistent"])
            .output()
            .expect("starts");
        output.status.success()
            && documents(output.stdout)[0]["partitions"]
                .as_array()
                .is_some_and(|p| p.iter().any(|p| p["topic"] == topic))
    });
}

/// Names and sizes of all that is in a folder.
fn names(folder: &Path) -> BTreeMap<String, u64> {
    let (mut found, mut open) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            match entry.file_type().expect("known").is_dir() {
                true => open.push(entry.path()),
                false => {
                    let name = entry.path().strip_prefix(folder).expect("below").display().to_string();
                    found.insert(name, entry.metadata().expect("known").len());
                }
            }
        }
    }
    found
}

/// What was in the bucket is back, byte for byte, and new records go on behind all that was ever acked.
fn check(ask: Ask<'_>, topic: &str, report: &Value, before: &[Value], folder: &Path, seed: u64) {
    let mine = |p: &&Value| p["topic"] == topic && p["partition"] == 0;
    let partition = report["partitions"].as_array().expect("partitions").iter().find(mine).expect("partition 0");
    let end = partition["in_bucket_to"].as_i64().expect("an offset");
    let expected: Vec<&Value> = before.iter().filter(|record| offset(record) < end).collect();
    let back = records(ask, topic);
    assert!(!expected.is_empty() && back.iter().collect::<Vec<_>>() == expected, "all below {end}, and nothing else");
    fill(ask, folder, topic, seed);
    let all = records(ask, topic);
    let new = offset(&all[back.len()]);
    let goes_on_at = partition["goes_on_at"].as_i64();
    assert!(Some(new) == goes_on_at && before.iter().all(|record| offset(record) < new), "no offset twice");
}

const SETTINGS: [&str; 3] =
    ["gateway.objects.fold-segments=3", "gateway.objects.fold-age=1s", "metadata.objects.snapshot-interval=1s"];

fn create(ask: Ask<'_>, topic: &str) {
    let create = ["topic", "create", topic, "--partitions", "2", "--config", "retention.bytes=999999999"];
    let segment = ["--config", "segment.bytes=1048576", "--config", "local.retention.ms=0"];
    let one = ["--config", "esker.write.quorum=1", "--config", "esker.ack.quorum=1"];
    ask(&[&create[..], &segment[..], &one[..]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_broker_comes_back_from_its_bucket_twice() {
    let bucket = tempfile::tempdir().expect("temporary folder");
    let url = format!("file://{}", bucket.path().display());
    let sets: Vec<&str> = SETTINGS.iter().flat_map(|set| ["--set", *set]).collect();
    let mut broker = Standalone::start(&[&["--object-store", &url], &sets[..]].concat()).await;
    create(&|args| broker.ok(args), "t");
    let scratch = tempfile::tempdir().expect("temporary folder");
    fill_two_segments(&|args| broker.ok(args), scratch.path(), "t", 1);
    let mut kept = BTreeMap::new();
    for life in 1..=2u64 {
        let ask = |args: &[&str]| broker.ok(args);
        settle(&ask, "t");
        backed_up(&url, "t");
        let before = records(&ask, "t");
        broker.kill().await;
        std::fs::remove_dir_all(broker.data()).expect("deleted");
        let data = broker.data().display().to_string();
        let report = recover(&["--from", &url, "--data", &data]);
        assert_eq!(report["incarnation"], life);
        let again = client(&broker.quic, &broker.ca(), &["recover", "--from", &url, "--data", &data]).output();
        refused(again.expect("starts"), 1, &["holds metadata already"]);
        // What is there was written by an earlier life, and stays as it is.
        let there = names(bucket.path());
        broker.restart().await;
        let ask = |args: &[&str]| broker.ok(args);
        check(&ask, "t", &report, &before, scratch.path(), 10 + life);
        let described = documents(ask(&["topic", "describe", "t", "--json"])).remove(0).to_string();
        assert!(described.contains("999999999"), "settings come back: {described}");
        kept.extend(there.into_iter().filter(|(name, _)| !name.starts_with("metadata/")));
    }
    let now = names(bucket.path());
    for (name, size) in kept {
        assert!(now.get(&name).is_none_or(|found| *found == size), "{name} was written over");
    }
    assert!(now.keys().any(|name| name.starts_with("0/")) && now.keys().any(|name| name.starts_with("1/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_back_into_blank_nodes() {
    let (folder, bucket) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
    let url = format!("file://{}", bucket.path().display());
    let mut settings: Vec<String> = SETTINGS.iter().map(|set| set.to_string()).collect();
    settings.extend(["bookie.journal.file-bytes=64MiB", "metadata.heartbeat=250ms"].map(str::to_owned));
    settings.extend(["gateway", "metadata"].map(|role| format!("{role}.objects.url={url}")));
    let data = folder.path().join("cluster");
    let spec = Spec { metadata: 1, bookies: 1, gateways: 1, data: data.clone(), esker: ESKER.into(), settings };
    let mut cluster = Cluster::start(spec).await.expect("the cluster comes up");
    let (servers, ca) = (cluster.servers().join(","), cluster.ca());
    let ask = |args: &[&str]| ok(client(&servers, &ca, args).output().expect("starts"), args);
    create(&ask, "t");
    fill_two_segments(&ask, folder.path(), "t", 3);
    settle(&ask, "t");
    backed_up(&url, "t");
    let before = records(&ask, "t");
    let roles = cluster.describe().roles;
    for role in &roles {
        cluster.signal(&role.id, Signal::Kill).await.expect("killed");
        // A gateway has none.
        if role.data.exists() {
            std::fs::remove_dir_all(&role.data).expect("deleted");
        }
    }
    let metadata = roles[0].addresses["internal"].clone();
    let pem = |name: &str| data.join("tls").join(name).display().to_string();
    let (voter, tls) = (format!("metadata-1={metadata}"), [pem("ca.pem"), pem("admin.pem"), pem("admin.key")]);
    let recovering = tokio::task::spawn_blocking({
        let url = url.clone();
        move || {
            let [ca, cert, key] = &tls;
            recover(&["--from", &url, "--voters", &voter, "--tls-ca", ca, "--tls-cert", cert, "--tls-key", key])
        }
    });
    // Ready only when it has a cluster.
    cluster.restart("metadata-1").await.expect("ready");
    let report = recovering.await.expect("no panic");
    for id in ["bookie-1", "gateway-1"] {
        cluster.restart(id).await.expect("ready");
    }
    check(&ask, "t", &report, &before, folder.path(), 40);
    cluster.stop_all().await.expect("stops");
}

#[test]
fn what_can_not_be_recovered_is_one_line() {
    let (bucket, folder) = (tempfile::tempdir().expect("temp"), tempfile::tempdir().expect("temp"));
    let (url, data) = (format!("file://{}", bucket.path().display()), folder.path().display().to_string());
    let run = |args: &[&str]| {
        let words: Vec<&str> = ["recover", "--data", &data].iter().chain(args).copied().collect();
        std::process::Command::new(ESKER).args(words).output().expect("starts")
    };
    let said = String::from_utf8_lossy(&run(&["--from", &url]).stderr).into_owned();
    assert!(said.contains("no backup of the metadata"), "{said}");
    refused(run(&["--from", "ftp://x"]), 1, &["unknown scheme"]);
    refused(run(&["--from", &url, "--backup", "metadata/1"]), 1, &["backup name"]);
    refused(run(&["--from", &url, "--quorum", "2/3"]), 2, &["3/2"]);
    refused(run(&[]), 2, &["--from"]);
    assert!(!folder.path().join("metadata").exists());
}
