//! The broker dies at every step on the way into the bucket and out of it. Its successor finishes.

use esker_s3stub::{Fault, Rule, Stub};

use super::bucket::{becomes_tight, make_older};
use super::{PATIENCE, RUN, consume, create, noise, produce_segments, settle};
use crate::support::Standalone;

/// A request at which the broker dies: the store never answers it, whether it has carried it out or not.
fn deaths() -> Vec<(&'static str, Rule)> {
    let rule = |method, contains: &str, fault| Rule::new(method, contains, 1, fault);
    vec![
        ("claim, not there", rule("PUT", "p/claims", Fault::Silence)),
        ("claim, there", rule("PUT", "p/claims", Fault::SilenceAfter)),
        ("object, not there", rule("PUT", "p/0/", Fault::Silence).without("/m/")),
        ("object, there", rule("PUT", "p/0/", Fault::SilenceAfter).without("/m/")),
        ("object, looked for", rule("HEAD", "p/0/", Fault::Silence).without("/m/")),
        ("upload, begun", rule("POST", "?uploads", Fault::SilenceAfter)),
        ("upload, a part sent", rule("PUT", "partNumber=2", Fault::SilenceAfter)),
        ("upload, not completed", rule("POST", "uploadId=", Fault::Silence)),
        ("upload, completed", rule("POST", "uploadId=", Fault::SilenceAfter)),
        ("object, read back", rule("GET", "p/0/", Fault::Silence).without("/m/")),
        ("object, read back further", rule("GET", "p/0/", Fault::Silence).without("/m/").after(1)),
        ("object, committed and read again", rule("GET", "p/0/", Fault::Silence).without("/m/").after(2)),
        ("object, committed and read again further", rule("GET", "p/0/", Fault::Silence).without("/m/").after(3)),
        ("first page, not there", rule("PUT", "/m/", Fault::Silence)),
        ("first page, there", rule("PUT", "/m/", Fault::SilenceAfter)),
        ("second page, not there", rule("PUT", "/m/", Fault::Silence).after(1)),
        ("second page, there", rule("PUT", "/m/", Fault::SilenceAfter).after(1)),
        ("page, looked for", rule("HEAD", "/m/", Fault::Silence).after(1)),
        ("object, not deleted", rule("DELETE", "p/0/", Fault::Silence).without("/m/")),
        ("object, deleted", rule("DELETE", "p/0/", Fault::SilenceAfter).without("/m/")),
        ("objects, some deleted", rule("DELETE", "p/0/", Fault::Silence).without("/m/").after(1)),
        ("page, not deleted", rule("DELETE", "/m/", Fault::Silence)),
        ("page, deleted", rule("DELETE", "/m/", Fault::SilenceAfter)),
        ("pages, some deleted", rule("DELETE", "/m/", Fault::Silence).after(1)),
    ]
}

/// Small topics of every kind: history for ever in small and in large objects, and a short one.
const TOPICS: [&str; 3] = ["small", "large", "short"];

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_finishes_what_a_killed_owner_began() {
    let stub = Stub::start("b").await.expect("a port");
    let url = stub.url("p");
    let mut settings = vec!["--object-store", url.as_str()];
    for quick in [
        "gateway.objects.fold-segments=2",
        "gateway.objects.fold-age=1s",
        "gateway.objects.retention-interval=1s",
        "gateway.objects.grave-grace=1s",
        "gateway.objects.retry-max=1s",
        "gateway.objects.cache.store.part-bytes=5MiB",
        "bookie.journal.file-bytes=64MiB",
    ] {
        settings.extend(["--set", quick]);
    }
    let mut deaths = deaths().into_iter();
    // The claim comes before anything else.
    let (first, rule) = deaths.next().expect("many");
    stub.fail(rule);
    let mut broker = Standalone::start(&settings).await;
    create(&broker, "small", &["segment.bytes=1048576", "local.retention.ms=0"]);
    create(&broker, "large", &["segment.bytes=12582912", "local.retention.ms=0"]);
    create(&broker, "short", &["segment.bytes=1048576", "local.retention.ms=0", "retention.bytes=2097152"]);
    die(&stub, &mut broker, first, 1).await;
    let mut written: [Vec<u8>; 3] = Default::default();
    for (seed, (step, rule)) in (1..).zip(deaths) {
        let due = stub.faults() + 1;
        let uploads = rule.contains.contains("upload") || rule.contains.contains("part");
        let deletes = rule.method == "DELETE";
        stub.fail(rule);
        broker.restart().await;
        for (topic, written) in TOPICS.into_iter().zip(&mut written) {
            let (bytes, run) = match topic {
                "large" if uploads => (14 << 20, usize::MAX),
                "short" if deletes => (3 * RUN, RUN),
                "small" if !uploads && !deletes => (2 * RUN, RUN),
                _ => continue,
            };
            let input = noise(seed, bytes);
            produce_segments(&broker, topic, &input, run);
            written.extend_from_slice(&input);
        }
        die(&stub, &mut broker, step, due).await;
    }
    broker.restart().await;
    for (topic, written) in TOPICS.into_iter().zip(&written) {
        let there = consume(&broker, topic);
        match topic {
            "short" => assert!(written.ends_with(&there) && there.len() >= 2 << 20, "{} bytes", there.len()),
            _ => assert!(there == *written, "{topic}: {} bytes of {}", there.len(), written.len()),
        }
    }
    becomes_tight(&stub, "p", &broker, &TOPICS);
    for topic in ["small", "large"] {
        settle(&broker, topic);
    }
    assert!(consume(&broker, "small") == written[0], "from the bucket");
    assert!(consume(&broker, "large") == written[1], "from the bucket");
    assert_eq!(stub.keys().iter().filter(|key| key.contains("claims")).count(), 1);
}

/// The broker is killed while the store carries a request out, or before.
async fn die(stub: &Stub, broker: &mut Standalone, step: &str, due: u64) {
    let met = tokio::time::timeout(PATIENCE, stub.met(due)).await;
    assert!(met.is_ok(), "the broker never came to: {step}\n{}", broker.log());
    broker.kill().await;
    stub.heal();
    make_older(stub);
}
