//! A bucket that fails in every way: nothing wrong is served, nothing is lost, producers go on, and one line says why.

use std::time::Duration;

use esker_bench::wait::until;
use esker_s3stub::{Fault, Rule, Stub};

use super::bucket::{becomes_tight, make_older};
use super::{RUN, consume, create, noise, produce, produce_segments, segments, settle};
use crate::support::Standalone;

/// Deadlines that a test can wait for.
const QUICK: [&str; 12] = [
    // What did not verify is deleted at once, and not by a sweep a day later.
    "gateway.objects.share-below=0",
    "gateway.objects.fold-segments=2",
    // Graves are tidied at rest too, so that the next ones are emptied.
    "gateway.objects.fold-age=1s",
    "gateway.objects.retention-interval=1s",
    "gateway.objects.grave-grace=1s",
    "gateway.objects.retry-max=500ms",
    "gateway.objects.cache.store.attempt-timeout=500ms",
    "gateway.objects.cache.store.deadline=3s",
    "gateway.objects.cache.store.part-bytes=5MiB",
    // Too small to answer a replay.
    "gateway.objects.cache.scan.memory=1MiB",
    "gateway.objects.cache.tail.memory=1MiB",
    "bookie.journal.file-bytes=64MiB",
];

async fn start(url: &str) -> Standalone {
    let mut settings = vec!["--object-store", url];
    QUICK.iter().for_each(|quick| settings.extend(["--set", *quick]));
    Standalone::start(&settings).await
}

/// Everything that a store, or what lies before it, may do to a request.
fn weather() -> Vec<(&'static str, Vec<Rule>)> {
    let often = 12;
    let all = |fault: Fault| vec![Rule::new("", "p/", often, fault)];
    let writes = |fault: Fault| {
        let rule = |method| Rule::new(method, "p/", often / 2, fault.clone());
        vec![rule("PUT"), rule("POST")]
    };
    let reads = |fault: Fault| vec![Rule::new("GET", "p/0", often, fault)];
    vec![
        ("503 burst", all(Fault::Status(503, "SlowDown"))),
        ("500 after success", writes(Fault::StatusAfter(500, "InternalError"))),
        ("time-out", all(Fault::Silence)),
        ("time-out after success", writes(Fault::SilenceAfter)),
        ("409", writes(Fault::Status(409, "OperationAborted"))),
        ("412", writes(Fault::Status(412, "PreconditionFailed"))),
        ("200 with an error inside", writes(Fault::OkWithError("InternalError"))),
        ("200 and nothing done", writes(Fault::OkButNothing)),
        ("bodies cut", reads(Fault::CutBody(1_000))),
        ("bodies too short", reads(Fault::ShortBody(1_000))),
        ("bodies flipped", reads(Fault::FlipBit(5_000))),
        ("slow first byte", all(Fault::Delay(Duration::from_millis(300)))),
        ("expired credentials", all(Fault::Status(400, "ExpiredToken"))),
        ("no permission", all(Fault::Status(403, "AccessDenied"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_the_store_loses_or_changes_a_record() {
    let stub = Stub::start("b").await.expect("a port");
    let mut broker = start(&stub.url("p")).await;
    create(&broker, "t", &["segment.bytes=1048576", "local.retention.ms=0"]);
    create(&broker, "large", &["segment.bytes=12582912", "local.retention.ms=0"]);
    let (mut written, mut large) = (noise(0, 4 << 20), noise(100, 14 << 20));
    produce_segments(&broker, "t", &written, RUN);
    produce(&broker, "large", &large);
    settle(&broker, "t");
    for (seed, (what, rules)) in (1..).zip(weather()) {
        let before = stub.faults();
        rules.into_iter().for_each(|rule| stub.fail(rule));
        let input = noise(seed, 2 << 20);
        produce_segments(&broker, "t", &input, RUN);
        written.extend_from_slice(&input);
        if seed % 4 == 0 {
            let input = noise(100 + seed, 14 << 20);
            produce(&broker, "large", &input);
            large.extend_from_slice(&input);
        }
        // The reader meets them too, and waits rather than get anything else.
        assert!(consume(&broker, "t") == written, "{what}");
        until(what, || stub.faults() > before);
        stub.heal();
        settle(&broker, "t");
    }
    settle(&broker, "large");
    assert!(consume(&broker, "large") == large);
    broker.kill().await;
    make_older(&stub);
    broker.restart().await;
    assert!(consume(&broker, "t") == written, "with empty caches");
    becomes_tight(&stub, "p", &broker, &["t", "large"]);
    assert!(consume(&broker, "t") == written, "after the sweep");
}

/// A fault that does not pass: producers go on, one line in the log says what to do, and healing is noticed.
async fn broken(url: &str, words: &[&str]) -> (Standalone, Vec<u8>) {
    let broker = start(url).await;
    create(&broker, "t", &["segment.bytes=1048576", "local.retention.ms=0"]);
    let input = noise(1, 8 << 20);
    produce_segments(&broker, "t", &input, RUN);
    assert!(consume(&broker, "t") == input);
    assert!(segments(&broker, "t").iter().all(|s| s["tier"] == "bookies"));
    // Gateways put segments there, metadata its own copies: each says so once.
    let lines = |from: &str| {
        let log = broker.log();
        log.lines().filter(|line| line.contains(from) && line.contains("bucket")).map(str::to_owned).collect::<Vec<_>>()
    };
    until("it is told", || !lines("esker_gateway").is_empty());
    // Many more tries later it is still one line.
    let failures = || broker.metric("esker_gateway_offload_failures_total").expect("a metric");
    until("it is tried again", || failures() >= 4.0);
    for from in ["esker_gateway", "WARN esker_metadata"] {
        let told = lines(from);
        assert!(told.len() <= 1, "{told:?}");
        for line in told {
            words.iter().for_each(|word| assert!(line.contains(word), "{word:?} is not in {line}"));
        }
    }
    (broker, input)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_at_the_start_is_used_when_it_comes() {
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound")
    };
    let url = format!("s3://b/p?endpoint=http://{address}&region=us-east-1&path_style=true");
    let (broker, input) = broken(&url, &["can't reach the store", "endpoint"]).await;
    let _stub = Stub::start_at(&address.to_string(), "b", "").await.expect("the port is free");
    settle(&broker, "t");
    assert!(consume(&broker, "t") == input);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_permission_is_named() {
    let stub = Stub::start("b").await.expect("a port");
    stub.fail(Rule::new("", "", usize::MAX, Fault::Status(403, "AccessDenied")));
    let (broker, input) = broken(&stub.url("p"), &["no permission", "read, write, list and delete"]).await;
    stub.heal();
    settle(&broker, "t");
    assert!(consume(&broker, "t") == input);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_region_is_named() {
    let stub = Stub::start_at("127.0.0.1:0", "b", "eu-central-1").await.expect("a port");
    let url = stub.url("p").replace("eu-central-1", "us-east-1");
    broken(&url, &["region"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_cluster_is_left_alone() {
    let stub = Stub::start("b").await.expect("a port");
    let first = start(&stub.url("p")).await;
    create(&first, "t", &["segment.bytes=1048576", "local.retention.ms=0"]);
    let input = noise(2, 4 << 20);
    produce_segments(&first, "t", &input, RUN);
    settle(&first, "t");
    let second = start(&stub.url("p")).await;
    create(&second, "t", &["segment.bytes=1048576", "local.retention.ms=0"]);
    produce_segments(&second, "t", &noise(3, 4 << 20), RUN);
    let told = |broker: &Standalone| broker.log().contains("belongs to cluster");
    until("it is told", || told(&second));
    assert!(segments(&second, "t").iter().all(|s| s["tier"] == "bookies"));
    assert!(consume(&first, "t") == input && !told(&first));
}
