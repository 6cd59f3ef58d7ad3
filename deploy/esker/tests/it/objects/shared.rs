//! Small segments of quiet topics share objects: written together, read, let go and swept each for itself.

use std::collections::{BTreeMap, BTreeSet};

use esker_bench::wait::PATIENCE;
use esker_s3stub::{Fault, Rule, Stub};

use super::bucket::{becomes_tight, make_older};
use super::{RUN, consume, create, noise, produce_segments, segments, settle};
use crate::support::Standalone;

const TOPICS: [&str; 5] = ["a", "b", "c", "d", "e"];
const WAIT: &str = "gateway.objects.share-wait";

async fn start(stub: &Stub) -> Standalone {
    let url = stub.url("p");
    let mut settings = vec!["--object-store", url.as_str()];
    for quick in [
        "gateway.objects.share-wait=1h",
        "gateway.objects.fold-segments=2",
        "gateway.objects.fold-age=1s",
        "gateway.objects.retention-interval=1s",
        "gateway.objects.grave-grace=1s",
        "gateway.objects.retry-max=1s",
        "bookie.journal.file-bytes=64MiB",
    ] {
        settings.extend(["--set", quick]);
    }
    Standalone::start(&settings).await
}

/// Two closed segments of each at least, which wait for company on bookies.
fn write(broker: &Standalone, topics: &[&str], seed: u64, written: &mut BTreeMap<String, Vec<u8>>) {
    for (topic, seed) in topics.iter().zip(seed..) {
        let input = noise(seed, 3 * RUN);
        produce_segments(broker, topic, &input, RUN);
        written.entry((*topic).to_owned()).or_default().extend_from_slice(&input);
    }
}

/// Ends it, without a warning; what waits is written by the next one at once, or waits on.
async fn restart(broker: &mut Standalone, wait: &str) {
    broker.kill().await;
    broker.set(WAIT, wait);
    broker.restart().await;
}

fn objects(stub: &Stub) -> BTreeSet<String> {
    let below = |key: String| key.strip_prefix("p/").filter(|key| key.starts_with("0/")).map(str::to_owned);
    stub.keys().into_iter().filter_map(below).filter(|key| !key.contains("/m/")).collect()
}

/// Which topics have a segment in each object.
fn topics_by_object(broker: &Standalone) -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut found: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for topic in TOPICS {
        for segment in segments(broker, topic) {
            if let Some(object) = segment["object"].as_str() {
                found.entry(object.to_owned()).or_default().insert(topic);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_topics_share_objects_until_the_last_of_them_is_deleted() {
    let stub = Stub::start("b").await.expect("a port");
    let mut broker = start(&stub).await;
    let mut written = BTreeMap::new();
    for topic in TOPICS {
        create(&broker, topic, &["segment.bytes=1048576", "local.retention.ms=0"]);
    }
    write(&broker, &TOPICS, 1, &mut written);
    let closed = |broker: &Standalone| {
        TOPICS.map(|topic| segments(broker, topic).iter().filter(|s| s["state"] == "closed").count())
    };
    let waiting = closed(&broker);
    assert!(objects(&stub).is_empty() && waiting.iter().all(|closed| *closed >= 2), "small ones wait: {waiting:?}");

    restart(&mut broker, "0s").await;
    TOPICS.iter().for_each(|topic| settle(&broker, topic));
    let (by_object, all) = (topics_by_object(&broker), closed(&broker).iter().sum::<usize>());
    assert_eq!(by_object.keys().cloned().collect::<BTreeSet<String>>(), objects(&stub));
    assert!(by_object.len() < all, "{} objects of {all} segments", by_object.len());
    let (shared, members) = by_object.iter().max_by_key(|(_, topics)| topics.len()).expect("some");
    assert!(shared.ends_with('s') && members.len() >= 2, "{shared} of {members:?}");
    let (objects_shared, segments_shared) = (
        broker.metric("esker_gateway_shared_objects_total").expect("a metric"),
        broker.metric("esker_gateway_shared_segments_total").expect("a metric"),
    );
    assert!(objects_shared >= 1.0 && segments_shared >= members.len() as f64, "{objects_shared}, {segments_shared}");
    for topic in TOPICS {
        assert!(consume(&broker, topic) == written[topic], "{topic}, of which bookies have the newest only");
    }

    let gone = *members.first().expect("several");
    let left: Vec<&str> = TOPICS.into_iter().filter(|topic| *topic != gone).collect();
    broker.ok(&["topic", "delete", gone]);
    broker.kill().await;
    make_older(&stub);
    broker.restart().await;
    // Everything of the deleted topic goes but what it shares.
    becomes_tight(&stub, "p", &broker, &left);
    assert!(objects(&stub).contains(shared), "others are in {shared}");
    for topic in &left {
        assert!(consume(&broker, topic) == written[*topic], "{topic} after {gone} was deleted");
    }

    for topic in left {
        broker.ok(&["topic", "delete", topic]);
    }
    broker.kill().await;
    make_older(&stub);
    broker.restart().await;
    becomes_tight(&stub, "p", &broker, &[]);
    assert_eq!(objects(&stub), BTreeSet::new());
}

/// Requests at which the broker dies while two topics are on their way into one object.
fn deaths() -> Vec<(&'static str, Rule)> {
    let object = |method, fault| Rule::new(method, "p/0/", 1, fault).without("/m/");
    vec![
        ("object, not there", object("PUT", Fault::Silence)),
        ("object, there", object("PUT", Fault::SilenceAfter)),
        ("its end read back", object("GET", Fault::Silence)),
        ("its head read back", object("GET", Fault::Silence).after(1)),
        ("a segment read back", object("GET", Fault::Silence).after(2)),
        ("one verified, the other not", object("GET", Fault::Silence).after(4)),
        ("both verified, one or both committed", object("GET", Fault::Silence).after(6)),
        ("page, not there", Rule::new("PUT", "/m/", 1, Fault::Silence)),
        ("page of the one, not of the other", Rule::new("PUT", "/m/", 1, Fault::SilenceAfter).after(1)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_finishes_what_was_begun_together() {
    let stub = Stub::start("b").await.expect("a port");
    let mut broker = start(&stub).await;
    let mut written = BTreeMap::new();
    let topics = ["a", "b"];
    for topic in topics {
        create(&broker, topic, &["segment.bytes=1048576", "local.retention.ms=0"]);
    }
    for (seed, (step, rule)) in (1..).zip(deaths()) {
        write(&broker, &topics, 100 * seed, &mut written);
        broker.kill().await;
        let due = stub.faults() + 1;
        stub.fail(rule);
        broker.set(WAIT, "0s");
        broker.restart().await;
        let met = tokio::time::timeout(PATIENCE, stub.met(due)).await;
        assert!(met.is_ok(), "the broker never came to: {step}\n{}", broker.log());
        broker.kill().await;
        stub.heal();
        make_older(&stub);
        broker.set(WAIT, "1h");
        broker.restart().await;
        for topic in topics {
            assert!(consume(&broker, topic) == written[topic], "{topic} after: {step}");
        }
    }
    restart(&mut broker, "0s").await;
    topics.iter().for_each(|topic| settle(&broker, topic));
    for topic in topics {
        assert!(consume(&broker, topic) == written[topic], "{topic} from the bucket");
    }
    assert!(objects(&stub).iter().any(|key| key.ends_with('s')), "{:?}", objects(&stub));
    becomes_tight(&stub, "p", &broker, &topics);
}
