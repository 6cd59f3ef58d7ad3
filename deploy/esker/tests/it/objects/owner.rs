//! A gateway dies alone, at a step on the way into the bucket or out of it. The other one finishes while it is dead.

use std::collections::BTreeMap;
use std::path::Path;

use esker_bench::cluster::{Cluster, Signal, Spec};
use esker_bench::wait::{PATIENCE, until_some};
use esker_s3stub::{Fault, Rule, Stub};

use super::bucket::{becomes_tight, make_older};
use super::{Broker, RUN, consume, create, noise, produce_segments, segments, settle};
use crate::support::{ESKER, client, ok};

/// Segments for ever in small and in large objects, and a topic that keeps little.
const SMALL: &str = "small";
const LARGE: &str = "large";
const SHORT: &str = "short";

/// Two gateways over one metadata node and one bookie.
struct Gateways {
    folder: tempfile::TempDir,
    cluster: Cluster,
}

impl Broker for Gateways {
    fn ok(&self, args: &[&str]) -> Vec<u8> {
        let command = client(&self.cluster.servers().join(","), &self.cluster.ca(), args).output();
        ok(command.expect("the program starts"), args)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Gateways {
    async fn start(url: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let quick = [
            // Each partition's objects are below a folder of its own.
            "share-below=0",
            "fold-segments=2",
            "fold-age=1s",
            "retention-interval=1s",
            "grave-grace=1s",
            "retry-max=1s",
            "cache.store.part-bytes=5MiB",
        ];
        let mut settings: Vec<String> = quick.iter().map(|key| format!("gateway.objects.{key}")).collect();
        settings.push(format!("gateway.objects.url={url}"));
        settings.push("bookie.journal.file-bytes=64MiB".to_owned());
        let data = folder.path().join("cluster");
        let spec = Spec { metadata: 1, bookies: 1, gateways: 2, data, esker: ESKER.into(), settings };
        // Of the S3 server in this process, which takes any.
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.to_owned(), "k".to_owned()));
        let cluster = Cluster::start_with(spec, &keys).await.expect("the cluster comes up");
        Self { folder, cluster }
    }

    fn owner(&self, topic: &str) -> String {
        until_some("the partition has an owner", || {
            let rows = String::from_utf8(self.ok(&["partition", "list", topic, "--json"])).expect("text");
            let row: serde_json::Value = serde_json::from_str(rows.lines().next()?).expect("JSON");
            row["owner"].as_str().map(str::to_owned)
        })
    }

    /// Folder of a topic's only partition in the bucket, once something is there.
    fn place(&self, topic: &str) -> String {
        until_some("something is in the bucket", || {
            let all = segments(self, topic);
            let key = all.iter().find_map(|segment| segment["object"].as_str())?;
            Some(key.split('/').take(2).collect::<Vec<_>>().join("/"))
        })
    }
}

/// Of which topic the step is, and the request at which its owner dies: the store never answers it, whether it has
/// carried it out or not. `PLACE` stands for the folder of the topic's partition.
fn deaths() -> Vec<(&'static str, &'static str, Rule)> {
    let object = |method, fault| Rule::new(method, "PLACE/", 1, fault).without("/m/");
    let page = |method, fault| Rule::new(method, "PLACE/m/", 1, fault);
    let upload = |method, contains: &str, fault| Rule::new(method, contains, 1, fault);
    vec![
        ("object, not there", SMALL, object("PUT", Fault::Silence)),
        ("object, there", SMALL, object("PUT", Fault::SilenceAfter)),
        ("upload, a part sent", LARGE, upload("PUT", "partNumber=2", Fault::SilenceAfter)),
        ("upload, not completed", LARGE, upload("POST", "uploadId=", Fault::Silence)),
        ("upload, completed", LARGE, upload("POST", "uploadId=", Fault::SilenceAfter)),
        ("object, read back", SMALL, object("GET", Fault::Silence)),
        ("object, committed and read again", SMALL, object("GET", Fault::Silence).after(2)),
        ("first page, there", SMALL, page("PUT", Fault::SilenceAfter)),
        ("second page, not there", SMALL, page("PUT", Fault::Silence).after(1)),
        ("second page, there", SMALL, page("PUT", Fault::SilenceAfter).after(1)),
        ("object, not deleted", SHORT, object("DELETE", Fault::Silence)),
        ("object, deleted", SHORT, object("DELETE", Fault::SilenceAfter)),
        ("page, not deleted", SHORT, page("DELETE", Fault::Silence)),
        ("page, deleted", SHORT, page("DELETE", Fault::SilenceAfter)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_finishes_what_a_killed_gateway_began() {
    let stub = Stub::start("b").await.expect("a port");
    let mut broker = Gateways::start(&stub.url("p")).await;
    let one = ["esker.write.quorum=1", "esker.ack.quorum=1", "local.retention.ms=0"];
    create(&broker, SMALL, &[&one[..], &["segment.bytes=1048576"]].concat());
    create(&broker, LARGE, &[&one[..], &["segment.bytes=12582912"]].concat());
    create(&broker, SHORT, &[&one[..], &["segment.bytes=1048576", "retention.bytes=2097152"]].concat());
    let mut written: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let write = |broker: &Gateways, topic: &'static str, seed: u64, written: &mut BTreeMap<&str, Vec<u8>>| {
        let (bytes, run) = match topic {
            LARGE => (14 << 20, usize::MAX),
            SHORT => (3 * RUN, RUN),
            _ => (2 * RUN, RUN),
        };
        let input = noise(seed, bytes);
        produce_segments(broker, topic, &input, run);
        written.entry(topic).or_default().extend_from_slice(&input);
    };
    let topics = [SMALL, LARGE, SHORT];
    for (seed, topic) in (1..).zip(topics) {
        write(&broker, topic, seed, &mut written);
    }
    let places = topics.map(|topic| (topic, broker.place(topic)));
    for (seed, (step, topic, mut rule)) in (10..).zip(deaths()) {
        let place = &places.iter().find(|(of, _)| *of == topic).expect("of one of them").1;
        rule.contains = rule.contains.replace("PLACE", place);
        let due = stub.faults() + 1;
        stub.fail(rule);
        write(&broker, topic, seed, &mut written);
        let met = tokio::time::timeout(PATIENCE, stub.met(due)).await;
        assert!(met.is_ok(), "no owner ever came to: {step}");
        let victim = broker.owner(topic);
        broker.cluster.signal(&victim, Signal::Kill).await.expect("killed");
        stub.heal();
        // The survivor takes the partition over, and the step with it.
        write(&broker, topic, seed + 100, &mut written);
        settle(&broker, topic);
        assert_ne!(broker.owner(topic), victim, "{step}");
        broker.cluster.restart(&victim).await.expect("comes back");
    }
    for (topic, written) in &written {
        let there = consume(&broker, topic);
        match *topic {
            SHORT => assert!(written.ends_with(&there) && there.len() >= 2 << 20, "{} bytes", there.len()),
            _ => assert!(there == *written, "{topic}: {} bytes of {}", there.len(), written.len()),
        }
    }
    // What nobody committed is old enough for the sweep: whoever wrote it is dead.
    for gateway in ["gateway-1", "gateway-2"] {
        broker.cluster.signal(gateway, Signal::Kill).await.expect("killed");
    }
    make_older(&stub);
    for gateway in ["gateway-1", "gateway-2"] {
        broker.cluster.restart(gateway).await.expect("comes back");
    }
    becomes_tight(&stub, "p", &broker, &topics);
    for topic in [SMALL, LARGE] {
        assert!(consume(&broker, topic) == written[topic], "{topic}, after the sweep");
    }
    broker.cluster.stop_all().await.expect("stops by itself");
}
