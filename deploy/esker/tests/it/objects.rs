//! Old segments move to a folder, bookies let them go, and what was written comes back, byte for byte.

use serde_json::Value;

use crate::support::{Standalone, text};

fn segments(broker: &Standalone, topic: &str) -> Vec<Value> {
    let listed = broker.ok(&["segment", "list", topic, "--json"]);
    String::from_utf8(listed).expect("text").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// All but the newest closed segment and the open one are in the bucket alone.
fn settled(broker: &Standalone, topic: &str) -> bool {
    let all = segments(broker, topic);
    let closed: Vec<&Value> = all.iter().filter(|s| s["state"] == "closed").collect();
    let (last, old) = closed.split_last().expect("some were closed");
    old.len() > 3 && old.iter().all(|s| s["tier"] == "object") && last["tier"] == "bookies, object"
}

fn settle(broker: &Standalone, topic: &str) {
    // Ends by itself, or with the test's own time limit: there is nothing to wait for but the process.
    while !settled(broker, topic) {}
}

async fn start() -> Standalone {
    let quick = ["--set", "gateway.objects.fold-segments=4", "--set", "gateway.objects.retention-interval=1s"];
    Standalone::start(&quick).await
}

fn fill(broker: &Standalone, topic: &str, settings: &[&str], seed: u64) -> Vec<u8> {
    let mut create = vec!["topic", "create", topic, "--config", "segment.bytes=1048576"];
    settings.iter().for_each(|setting| create.extend(["--config", *setting]));
    broker.ok(&create);
    let input = text(seed, 16 << 20, 2_000);
    let file = broker.folder.path().join("input");
    std::fs::write(&file, &input).expect("written");
    broker.ok(&["produce", topic, "--file", &file.to_string_lossy()]);
    input
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_back_from_the_bucket_after_a_crash_with_empty_caches() {
    let mut broker = start().await;
    let input = fill(&broker, "t", &["local.retention.ms=0"], 5);
    settle(&broker, "t");
    assert!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]) == input, "with warm caches");
    broker.kill().await;
    broker.restart().await;
    assert!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]) == input, "with cold ones");
    let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let middle = lines.len() / 2;
    let rest = broker.ok(&["consume", "t", "--from", &format!("offset:{middle}"), "--to-end"]);
    assert!(rest == lines[middle..].concat(), "from the middle of an object");
    assert!(broker.ok(&["consume", "t", "--from", "time:-1h", "--to-end"]) == input, "by time");
    let more = fill(&broker, "u", &["local.retention.ms=0"], 6);
    settle(&broker, "u");
    assert!(broker.ok(&["consume", "u", "--from", "earliest", "--to-end"]) == more, "offload goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_size_lets_go_what_is_in_the_bucket() {
    let broker = start().await;
    let input = fill(&broker, "t", &["local.retention.ms=0", "retention.bytes=4194304"], 7);
    let log_start = || segments(&broker, "t").first().and_then(|s| s["base_offset"].as_i64()).unwrap_or(0);
    while log_start() == 0 {}
    let kept = broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]);
    assert!(input.ends_with(&kept) && kept.len() < input.len(), "the newest part: {} of {}", kept.len(), input.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_can_not_be_reached_does_not_stop_producers() {
    let broker = Standalone::start(&["--object-store", "s3://no-such-bucket/x?endpoint=http://127.0.0.1:1"]).await;
    let input = fill(&broker, "t", &["local.retention.ms=0"], 8);
    assert!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]) == input);
    assert!(segments(&broker, "t").iter().all(|s| s["tier"] == "bookies"));
}
