//! A cluster of real processes under load, and faults beside it. The load's promises are checked at the end:
//! 0 lost, 0 duplicated, 0 reordered. Times are printed, never asserted.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_bench::check::Verdict;
use esker_bench::cluster::{Cluster, Signal, Spec};
use esker_bench::workload::{self, Load, Running};
use esker_client::{Client, ClientConfig, ProducerConfig, Trust};
use tokio::time::Instant;

use crate::support::{ESKER, client, ok, refused};

const PARTITIONS: u32 = 4;

struct World {
    folder: tempfile::TempDir,
    cluster: Cluster,
    client: Client,
}

impl World {
    async fn start(metadata: usize, bookies: usize, gateways: usize) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = folder.path().join("cluster");
        let settings = vec!["bookie.journal.file-bytes=64MiB".to_owned()];
        let spec = Spec { metadata, bookies, gateways, data, esker: ESKER.into(), settings };
        let cluster = Cluster::start(spec).await.expect("the cluster comes up");
        let config = ClientConfig::new(cluster.servers(), Trust::CaFile(cluster.ca()));
        let client = Client::connect(config).await.expect("connected");
        Self { folder, cluster, client }
    }

    async fn load(&self, topic: &str, rate: u64) -> Running {
        self.esker_ok(&["topic", "create", topic, "--partitions", &PARTITIONS.to_string()]);
        let producer = ProducerConfig { linger: Duration::from_millis(1), ..ProducerConfig::default() };
        let load = Load { topic: topic.to_owned(), partitions: PARTITIONS, record_bytes: 1024, rate, producer };
        let mut running = Running::start(&self.client, load);
        running.acked_after(Instant::now()).await.expect("the load gets going");
        running
    }

    async fn judge(&self, running: Running) -> Verdict {
        let topic = running.topic().to_owned();
        let promises = running.stop().await.expect("every producer finishes");
        let verdict = workload::judge(&self.client, &topic, PARTITIONS, promises).await.expect("readable");
        println!("{verdict}");
        verdict
    }

    fn esker(&self, args: &[&str]) -> std::process::Output {
        client(&self.cluster.servers().join(","), &self.cluster.ca(), args).output().expect("the program starts")
    }

    fn esker_ok(&self, args: &[&str]) -> Vec<u8> {
        ok(self.esker(args), args)
    }

    fn json_lines(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.esker_ok(args)).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON document a line")).collect()
    }

    /// Owner's name by partition of a topic.
    fn owners(&self, topic: &str) -> BTreeMap<u64, String> {
        let rows = self.json_lines(&["partition", "list", topic, "--json"]);
        let pair = |row: &serde_json::Value| Some((row["partition"].as_u64()?, row["owner"].as_str()?.to_owned()));
        rows.iter().filter_map(pair).collect()
    }
}

fn clean(verdict: &Verdict) {
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.acked > 0 && verdict.unknown == 0, "producers with retries finish: {verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_one_process_may_die() {
    let mut world = World::start(3, 3, 2).await;
    let mut running = world.load("faults", 2_000).await;
    let owner = world.owners("faults").remove(&0).expect("partition 0 is owned");
    for victim in ["bookie-1", "metadata-1", &owner, "bookie-2", "metadata-2", "bookie-3", "metadata-3"] {
        let killed = Instant::now();
        world.cluster.signal(victim, Signal::Kill).await.expect("killed");
        running.acked_after(Instant::now() + Duration::from_millis(500)).await.expect("the load goes on without it");
        let stall = running.longest_stall(killed);
        world.cluster.restart(victim).await.expect("comes back by itself");
        let restarted = Instant::now();
        running.acked_after(restarted).await.expect("the load goes on with it");
        println!("kill -9 {victim}: longest produce stall {stall:?}, back in service after {:?}", restarted - killed);
    }
    clean(&world.judge(running).await);
    world.cluster.stop_all().await.expect("stops by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_planned_moves_disturb_nobody() {
    let mut world = World::start(1, 3, 2).await;
    let mut running = world.load("moves", 2_000).await;
    let mut pauses = Vec::new();
    for round in 0..100u64 {
        let partition = round % u64::from(PARTITIONS);
        let owner = world.owners("moves").remove(&partition).expect("owned");
        let to = if owner == "gateway-1" { "gateway-2" } else { "gateway-1" };
        let moved = world.json_lines(&["partition", "move", &format!("moves/{partition}"), "--to", to, "--json"]);
        pauses.push(moved[0]["pause_ms"].as_f64().expect("the measured pause"));
        running.acked_after(Instant::now()).await.expect("no client error");
    }
    println!("pauses of 100 moves, ms: {pauses:?}");
    clean(&world.judge(running).await);
    world.cluster.stop_all().await.expect("stops by itself");
}

/// A paused gateway wakes up and still believes that it owns its partitions: its writes must not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_owner_can_not_ack() {
    let mut world = World::start(1, 3, 2).await;
    let mut running = world.load("zombie", 1_000).await;
    for _ in 0..2 {
        let zombie = world.owners("zombie").remove(&0).expect("owned");
        let paused = Instant::now();
        world.cluster.signal(&zombie, Signal::Pause).await.expect("paused");
        running.acked_after(Instant::now() + Duration::from_secs(1)).await.expect("another gateway took over");
        println!("SIGSTOP {zombie}: longest produce stall {:?}", running.longest_stall(paused));
        assert_ne!(world.owners("zombie").get(&0), Some(&zombie), "the partition moved on");
        world.cluster.signal(&zombie, Signal::Resume).await.expect("resumed");
        running.acked_after(Instant::now()).await.expect("the load goes on");
    }
    clean(&world.judge(running).await);
    world.cluster.stop_all().await.expect("stops by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_gateway_hands_everything_over_first() {
    let mut world = World::start(1, 3, 2).await;
    let mut running = world.load("drain", 1_000).await;
    for id in ["gateway-1", "gateway-2"] {
        let stopping = Instant::now();
        world.cluster.stop(id).await.expect("stops by itself");
        running.acked_after(Instant::now()).await.expect("the other one serves");
        println!("SIGTERM {id}: longest produce stall {:?}", running.longest_stall(stopping));
        assert!(world.owners("drain").values().all(|owner| owner != id));
        world.cluster.restart(id).await.expect("comes back");
    }
    clean(&world.judge(running).await);
    world.cluster.stop_all().await.expect("stops by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_cluster_is_refused() {
    let mut world = World::start(1, 1, 1).await;
    let mut other = World::start(1, 1, 1).await;
    world.cluster.stop("bookie-1").await.expect("stops");
    other.cluster.stop_all().await.expect("stops");
    let (ours, theirs) = (world.folder.path().join("cluster/bookie-1"), other.folder.path().join("cluster/bookie-1"));
    std::fs::rename(ours.join("data"), ours.join("data.kept")).expect("renamed");
    std::fs::rename(theirs.join("data"), ours.join("data")).expect("renamed");
    let config = ours.join("config.toml");
    let output = std::process::Command::new(ESKER).args(["bookie", "--config"]).arg(&config).output().expect("starts");
    let output = std::process::Output { stderr: last_line(&output.stderr), ..output };
    refused(output, 1, &["cluster"]);
    // A wiped folder is no better: the bookie's name stands for what it stored.
    std::fs::remove_dir_all(ours.join("data")).expect("removed");
    let output = std::process::Command::new(ESKER).args(["bookie", "--config"]).arg(&config).output().expect("starts");
    let output = std::process::Output { stderr: last_line(&output.stderr), ..output };
    refused(output, 1, &["new-instance"]);
    std::fs::remove_dir_all(ours.join("data")).ok();
    std::fs::rename(ours.join("data.kept"), ours.join("data")).expect("renamed");
    world.cluster.restart("bookie-1").await.expect("its own folder is taken up again");
    world.cluster.stop_all().await.expect("stops");
}

/// Log lines come before the line that says why the process ended.
fn last_line(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text).trim().lines().last().unwrap_or_default().as_bytes().to_vec()
}
