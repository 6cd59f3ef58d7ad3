//! All is lost but the bucket: every record in it comes back at its offset with its time, and nothing is given out twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use esker_bench::cluster::{Cluster, Signal, Spec};
use esker_bench::wait::{until, until_ok};
use esker_s3stub::{Fault, Rule, Stub};
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

/// Waits until all closed segments of partition 0 are in the bucket, and gives the end of the last one.
fn settle(ask: Ask<'_>, topic: &str) -> i64 {
    until_ok("old segments are in the bucket", || {
        let all = segments(ask, topic);
        let safe = |segment: &Value| segment["tier"].as_str().is_some_and(|tier| tier.contains("object"));
        let end = closed(&all).filter_map(|segment| segment["end_offset"].as_i64()).max();
        if closed(&all).all(safe) { end.ok_or_else(|| "none is closed".to_owned()) } else { Err(format!("{all:?}")) }
    })
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(ESKER);
    // Of the S3 server in this process, which takes any.
    command.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "k");
    command.arg("recover").args(args).output().expect("starts")
}

fn recover(args: &[&str]) -> Value {
    let words = [&["--json", "--give-up-bookies"], args].concat();
    documents(ok(run(&words), &words)).remove(0)
}

/// The command fails, and the last line it says is why.
fn refused_last(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.contains(why)), "{why:?} is not what it says last: {said}");
}

/// Waits until a copy of the metadata that knows the topic is in the bucket.
fn backed_up(url: &str, topic: &str) {
    until("a copy of the metadata is in the bucket", || {
        let output = run(&["--from", url, "--dry-run", "--json", "--data", "/nonexistent"]);
        output.status.success()
            && documents(output.stdout)[0]["partitions"]
                .as_array()
                .is_some_and(|p| p.iter().any(|p| p["topic"] == topic))
    });
}

/// Names of all that is in a folder, and hashes of what it says.
fn names(folder: &Path) -> BTreeMap<String, u64> {
    let (mut found, mut open) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("readable").flatten() {
            match entry.file_type().expect("known").is_dir() {
                true => open.push(entry.path()),
                false => {
                    let name = entry.path().strip_prefix(folder).expect("below").display().to_string();
                    let mut hasher = DefaultHasher::new();
                    std::fs::read(entry.path()).expect("readable").hash(&mut hasher);
                    found.insert(name, hasher.finish());
                }
            }
        }
    }
    found
}

/// Partition 0, as a recovery reports it.
fn reported<'a>(report: &'a Value, topic: &str) -> &'a Value {
    let mine = |p: &&Value| p["topic"] == topic && p["partition"] == 0;
    report["partitions"].as_array().expect("partitions").iter().find(mine).expect("partition 0")
}

/// Whatever was in the bucket is said to be: all below `safe`, without a hole.
fn is_whole(report: &Value, topic: &str, safe: i64) {
    let partition = reported(report, topic);
    assert!(partition["in_bucket_to"].as_i64() >= Some(safe), "{safe} was in the bucket: {partition}");
    let holes = partition["missing"].as_array().expect("ranges");
    assert!(holes.iter().all(|hole| hole[0].as_i64() >= Some(safe)), "nothing is missing below {safe}: {partition}");
    assert!(partition["retired"].is_null() && partition["log_start"] == 0, "{partition}");
}

/// What was in the bucket is back, byte for byte, and new records go on behind all that was ever acked.
fn check(ask: Ask<'_>, topic: &str, report: &Value, before: &[Value], folder: &Path, seed: u64) {
    let partition = reported(report, topic);
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

const SETTINGS: [&str; 4] = [
    "gateway.objects.share-wait=0s",
    "gateway.objects.fold-segments=3",
    "gateway.objects.fold-age=1s",
    "metadata.objects.snapshot-interval=1s",
];

fn create(ask: Ask<'_>, topic: &str) {
    let create = ["topic", "create", topic, "--partitions", "2", "--config", "retention.bytes=999999999"];
    let segment = ["--config", "segment.bytes=1048576", "--config", "local.retention.ms=0"];
    let one = ["--config", "esker.write.quorum=1", "--config", "esker.ack.quorum=1"];
    ask(&[&create[..], &segment[..], &one[..]].concat());
}

/// A broker with two closed segments of topic t.
async fn with_history(url: &str, scratch: &Path) -> Standalone {
    let sets: Vec<&str> = SETTINGS.iter().flat_map(|set| ["--set", *set]).collect();
    let broker = Standalone::start(&[&["--object-store", url], &sets[..]].concat()).await;
    create(&|args| broker.ok(args), "t");
    fill_two_segments(&|args| broker.ok(args), scratch, "t", 1);
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_broker_comes_back_from_its_bucket_twice() {
    let bucket = tempfile::tempdir().expect("temporary folder");
    let url = format!("file://{}", bucket.path().display());
    let scratch = tempfile::tempdir().expect("temporary folder");
    let mut broker = with_history(&url, scratch.path()).await;
    let (mut kept, mut before) = (BTreeMap::new(), Vec::new());
    for life in 1..=2u64 {
        let ask = |args: &[&str]| broker.ok(args);
        let safe = settle(&ask, "t");
        backed_up(&url, "t");
        before = records(&ask, "t");
        broker.kill().await;
        std::fs::remove_dir_all(broker.data()).expect("deleted");
        let data = broker.data().display().to_string();
        refused_last(&run(&["--from", &url, "--data", &data]), "--give-up-bookies");
        let report = recover(&["--from", &url, "--data", &data]);
        assert_eq!(report["incarnation"], life, "what was refused claimed nothing");
        is_whole(&report, "t", safe);
        refused(run(&["--from", &url, "--data", &data]), 1, &["holds metadata already"]);
        // What is there was written by an earlier life, and stays as it is.
        let there = names(bucket.path());
        broker.restart().await;
        let ask = |args: &[&str]| broker.ok(args);
        check(&ask, "t", &report, &before, scratch.path(), 10 + life);
        let described = documents(ask(&["topic", "describe", "t", "--json"])).remove(0).to_string();
        assert!(described.contains("999999999"), "settings come back: {described}");
        // But what an upload had not finished when the broker was killed.
        kept.extend(there.into_iter().filter(|(name, _)| !name.starts_with("metadata/") && !name.contains('#')));
    }
    let now = names(bucket.path());
    for folder in ["0/", "1/", "claims/"] {
        assert!(kept.keys().any(|name| name.starts_with(folder)), "nothing in {folder}: {kept:?}");
    }
    for (name, hash) in kept {
        assert_eq!(now.get(&name), Some(&hash), "{name} was deleted or written over");
    }
    assert!(before.iter().any(|record| offset(record) >= 1 << 40), "life 1 had records");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_whose_metadata_is_gone_too_gives_back_its_records() {
    let bucket = tempfile::tempdir().expect("temporary folder");
    let url = format!("file://{}", bucket.path().display());
    let scratch = tempfile::tempdir().expect("temporary folder");
    let mut broker = with_history(&url, scratch.path()).await;
    settle(&|args| broker.ok(args), "t");
    backed_up(&url, "t");
    let data = broker.data().display().to_string();
    broker.kill().await;
    std::fs::remove_dir_all(broker.data()).expect("deleted");
    recover(&["--from", &url, "--data", &data]);
    broker.restart().await;
    let ask = |args: &[&str]| broker.ok(args);
    fill_two_segments(&ask, scratch.path(), "t", 20);
    let (safe, before) = (settle(&ask, "t"), records(&ask, "t"));
    assert!(safe > 1 << 40, "{safe}");
    broker.kill().await;
    std::fs::remove_dir_all(broker.data()).expect("deleted");
    // The copies of life 1 are damaged, those of life 0 were never deleted.
    let backups = bucket.path().join("metadata");
    let mut kept = Vec::new();
    for name in names(&backups).into_keys().filter(|name| !name.contains('#')) {
        match name.starts_with("001-") {
            true => std::fs::write(backups.join(&name), "no metadata").expect("writable"),
            false => kept.push(format!("metadata/{name}")),
        }
    }
    kept.sort_unstable();
    let newest = kept.last().expect("one of life 0").as_str();
    let give_up = ["--from", &url, "--data", &data, "--give-up-bookies"];
    refused_last(&run(&give_up), &format!("--backup {newest}"));
    let report = recover(&["--from", &url, "--data", &data, "--backup", newest]);
    assert!(report["incarnation"] == 2 && report["lives_without_backup"][0] == 1, "{report}");
    let partition = reported(&report, "t");
    assert!(partition["in_bucket_to"].as_i64() >= Some(safe), "{safe}: {partition}");
    broker.restart().await;
    check(&|args| broker.ok(args), "t", &report, &before, scratch.path(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_takes_its_place_before_it_looks() {
    let stub = Stub::start("b").await.expect("a port");
    let url = stub.url("p");
    let sets = ["metadata.objects.snapshots-kept=1", "metadata.objects.snapshot-settle=10ms"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let mut broker = Standalone::start(&[&["--object-store", &url], &sets[..]].concat()).await;
    // A copy that was written counts, whether older ones can be deleted or not.
    stub.fail(Rule::new("DELETE", "p/metadata/", usize::MAX, Fault::Status(403, "AccessDenied")));
    for name in ["t", "u", "v", "w"] {
        let written = broker.metric("esker_metadata_backups_total");
        create(&|args| broker.ok(args), name);
        until("a copy of the metadata is in the bucket", || broker.metric("esker_metadata_backups_total") > written);
    }
    stub.met(3).await;
    assert_eq!(broker.metric("esker_metadata_backup_failures_total"), Some(0.0));
    stub.heal();
    broker.kill().await;
    let claims = || stub.keys().into_iter().filter(|key| key.starts_with("p/claims/")).count();
    assert_eq!(claims(), 1);
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().display().to_string();
    let args = ["--from", &url, "--data", &data, "--give-up-bookies"];
    // Somebody has the folder: no claim is made, and what is there is left alone.
    let lock = File::create(folder.path().join("lock")).expect("created");
    lock.try_lock().expect("free");
    std::fs::create_dir(folder.path().join("metadata")).expect("created");
    refused_last(&run(&args), "in use by another process");
    assert!(claims() == 1 && folder.path().join("metadata").is_dir());
    drop(lock);
    // Nothing of a partition is looked at before the claim.
    let looks = || stub.fail(Rule::new("GET", "prefix=p%2F0", usize::MAX, Fault::Delay(Duration::ZERO)));
    stub.fail(Rule::new("PUT", "p/claims/1", 1, Fault::Status(403, "AccessDenied")));
    looks();
    let met = stub.faults();
    refused_last(&run(&args), "no permission");
    assert_eq!(stub.faults() - met, 1, "the claim alone");
    let output = run(&args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("given up: what storage nodes"), "{said}");
    assert!(stub.faults() - met > 1 && claims() == 2, "then the partitions are");
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
    let safe = settle(&ask, "t");
    backed_up(&url, "t");
    let before = records(&ask, "t");
    let roles = cluster.describe().roles;
    let metadata = roles[0].addresses["internal"].clone();
    let pem = |name: &str| data.join("tls").join(name).display().to_string();
    let (voter, tls) = (format!("metadata-1={metadata}"), [pem("ca.pem"), pem("admin.pem"), pem("admin.key")]);
    let [ca, cert, key] = &tls;
    let into = ["--from", &url, "--voters", &voter, "--tls-ca", ca, "--tls-cert", cert, "--tls-key", key];
    refused_last(&run(&[&into[..], &["--give-up-bookies"]].concat()), "belongs to a quorum already");
    assert!(!bucket.path().join("claims").join("1").exists(), "a cluster that lives is not disturbed");
    for role in &roles {
        cluster.signal(&role.id, Signal::Kill).await.expect("killed");
        // A gateway has none.
        if role.data.exists() {
            std::fs::remove_dir_all(&role.data).expect("deleted");
        }
    }
    let recovering = tokio::task::spawn_blocking({
        let into = into.map(str::to_owned);
        move || recover(&into.each_ref().map(String::as_str))
    });
    // Ready only when it has a cluster.
    cluster.restart("metadata-1").await.expect("ready");
    let report = recovering.await.expect("no panic");
    is_whole(&report, "t", safe);
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
    let run = |args: &[&str]| run(&[&["--data", data.as_str()], args].concat());
    let said = String::from_utf8_lossy(&run(&["--from", &url]).stderr).into_owned();
    assert!(said.contains("no backup of the metadata"), "{said}");
    refused(run(&["--from", "ftp://x"]), 1, &["unknown scheme"]);
    refused(run(&["--from", &url, "--backup", "metadata/1"]), 1, &["backup name"]);
    refused(run(&["--from", &url, "--quorum", "2/3"]), 2, &["3/2"]);
    refused(run(&[]), 2, &["--from"]);
    assert!(!folder.path().join("metadata").exists());
}
