//! Old segments move to a bucket, bookies let them go, and what was written comes back, byte for byte.

mod bucket;
mod faults;
mod kill;
mod owner;
mod replay;
mod shared;

use std::path::Path;

use esker_bench::wait::until;
use serde_json::Value;

use crate::support::{Standalone, text};

/// Whatever runs the roles of a broker, with the command line as its client.
trait Broker {
    /// The command must succeed; gives its stdout.
    fn ok(&self, args: &[&str]) -> Vec<u8>;
    /// For files.
    fn folder(&self) -> &Path;
}

impl Broker for Standalone {
    fn ok(&self, args: &[&str]) -> Vec<u8> {
        Standalone::ok(self, args)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn segments(broker: &impl Broker, topic: &str) -> Vec<Value> {
    let listed = broker.ok(&["segment", "list", topic, "--json"]);
    String::from_utf8(listed).expect("text").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// All but the newest closed segment and the open one are in the bucket alone.
fn settled(broker: &impl Broker, topic: &str) -> bool {
    let all = segments(broker, topic);
    let closed: Vec<&Value> = all.iter().filter(|s| s["state"] == "closed").collect();
    let Some((last, old)) = closed.split_last() else { return false };
    !old.is_empty() && old.iter().all(|s| s["tier"] == "object") && last["tier"] == "bookies, object"
}

fn settle(broker: &impl Broker, topic: &str) {
    until("old segments are in the bucket alone", || settled(broker, topic));
}

/// Lines that do not get much shorter by compression.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let character = |at: usize| if at % 1_000 == 999 { b'\n' } else { b'0' + (next() >> 40) as u8 % 75 };
    let mut lines: Vec<u8> = (0..bytes).map(character).collect();
    lines.push(b'\n');
    lines
}

fn create(broker: &impl Broker, topic: &str, settings: &[&str]) {
    let mut create = vec!["topic", "create", topic];
    settings.iter().for_each(|setting| create.extend(["--config", *setting]));
    broker.ok(&create);
}

/// The newest closed segment of a topic.
fn closed(broker: &impl Broker, topic: &str) -> Option<u64> {
    segments(broker, topic).iter().filter(|s| s["state"] == "closed").filter_map(|s| s["segment"].as_u64()).max()
}

/// In runs of about `run` bytes, more than a segment has, each in a segment of its own.
fn produce_segments(broker: &impl Broker, topic: &str, input: &[u8], run: usize) {
    let mut rest = input;
    while !rest.is_empty() {
        let from = run.min(rest.len()) - 1;
        let end = rest[from..].iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| from + at + 1);
        let (now, later) = rest.split_at(end);
        let (before, last) = (closed(broker, topic), later.is_empty());
        produce(broker, topic, now);
        until("a full segment is closed", || last || closed(broker, topic) != before);
        rest = later;
    }
}

fn produce(broker: &impl Broker, topic: &str, input: &[u8]) {
    let file = broker.folder().join("input");
    std::fs::write(&file, input).expect("written");
    broker.ok(&["produce", topic, "--file", &file.to_string_lossy()]);
}

/// Enough to close a segment of 1 MiB.
const RUN: usize = 5 << 18;

fn consume(broker: &impl Broker, topic: &str) -> Vec<u8> {
    broker.ok(&["consume", topic, "--from", "earliest", "--to-end"])
}

async fn start() -> Standalone {
    let quick = ["--set", "gateway.objects.fold-segments=4", "--set", "gateway.objects.retention-interval=1s"];
    Standalone::start(&quick).await
}

fn fill(broker: &impl Broker, topic: &str, settings: &[&str], seed: u64) -> Vec<u8> {
    create(broker, topic, &[&["segment.bytes=1048576"], settings].concat());
    let input = text(seed, 16 << 20, 2_000);
    produce_segments(broker, topic, &input, 3 * RUN);
    input
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_back_from_the_bucket_after_a_crash_with_empty_caches() {
    let mut broker = start().await;
    let input = fill(&broker, "t", &["local.retention.ms=0"], 5);
    settle(&broker, "t");
    assert!(consume(&broker, "t") == input, "with warm caches");
    let held = broker.metric("esker_gateway_accounted_bytes").expect("a metric");
    assert!(held > 1e6, "blocks that were read are counted: {held} bytes");
    broker.kill().await;
    broker.restart().await;
    assert!(consume(&broker, "t") == input, "with cold ones");
    let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let middle = lines.len() / 2;
    let rest = broker.ok(&["consume", "t", "--from", &format!("offset:{middle}"), "--to-end"]);
    assert!(rest == lines[middle..].concat(), "from the middle of an object");
    assert!(broker.ok(&["consume", "t", "--from", "time:-1h", "--to-end"]) == input, "by time");
    let more = fill(&broker, "u", &["local.retention.ms=0"], 6);
    settle(&broker, "u");
    assert!(consume(&broker, "u") == more, "offload goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_size_lets_go_what_is_in_the_bucket() {
    let broker = start().await;
    let input = fill(&broker, "t", &["local.retention.ms=0", "retention.bytes=4194304"], 7);
    until("old records go", || consume(&broker, "t").len() < input.len());
    let kept = consume(&broker, "t");
    assert!(input.ends_with(&kept) && kept.len() < input.len(), "the newest part: {} of {}", kept.len(), input.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_can_not_be_reached_does_not_stop_producers() {
    let broker = Standalone::start(&["--object-store", "s3://no-such-bucket/x?endpoint=http://127.0.0.1:1"]).await;
    let input = fill(&broker, "t", &["local.retention.ms=0"], 8);
    assert!(consume(&broker, "t") == input);
    assert!(segments(&broker, "t").iter().all(|s| s["tier"] == "bookies"));
}
