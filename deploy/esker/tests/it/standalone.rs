//! The main job on embedded defaults: what goes in comes back, byte for byte, also over a crash.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Standalone, refused, text};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_back_identical_with_every_compression() {
    let broker = Standalone::start(&[]).await;
    // ESKER_LONG=1: the 1 GiB of the README.
    let bytes = if std::env::var_os("ESKER_LONG").is_some() { 1 << 30 } else { 24 << 20 };
    let input = text(7, bytes, 1_000_000);
    let file = broker.folder.path().join("input");
    std::fs::write(&file, &input).expect("written");
    for codec in CODECS {
        broker.ok(&["topic", "create", codec]);
        broker.ok(&["produce", codec, "--file", &file.to_string_lossy(), "--compression", codec]);
        let copy = broker.ok(&["consume", codec, "--from", "earliest", "--to-end"]);
        assert!(copy == input, "{codec}: {} bytes came back of {}", copy.len(), input.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_and_a_missing_last_newline_are_records_too() {
    let broker = Standalone::start(&[]).await;
    broker.ok(&["topic", "create", "t"]);
    let mut child = broker.command(&["produce", "t", "--json"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(b"\n\na\n\nlast").expect("taken");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(said["records"], 5);
    assert_eq!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]), b"\n\na\n\nlast\n");
    assert_eq!(broker.ok(&["consume", "t", "--from", "offset:2", "--max", "1"]), b"a\n");
}

/// Every record that was acknowledged is there after a crash, in order, once; and nothing that was not sent.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_kill_nine() {
    let mut broker = Standalone::start(&[]).await;
    broker.ok(&["topic", "create", "t"]);
    for round in 0..3u64 {
        let input = text(100 + round, 64 << 20, 2_000);
        let before = broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]);

        let mut producer = broker.command(&["produce", "t", "--json", "--delivery-timeout", "1s"]);
        let producer = producer.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut producer = producer.spawn().expect("starts");
        // The end of the input comes only after the kill: the producer can't be done before it.
        let (mut stdin, (first, rest)) = (producer.stdin.take().expect("piped"), input.split_at(input.len() / 2));
        let (first, rest) = (first.to_vec(), rest.to_vec());
        let (killed, after_kill) = std::sync::mpsc::channel::<()>();
        let feeder = std::thread::spawn(move || {
            let fed = stdin.write_all(&first);
            let _ = after_kill.recv();
            // It gives up while it is fed, or when it has all and can't deliver it.
            let _ = fed.and_then(|()| stdin.write_all(&rest));
        });
        // Some progress first, then the kill, at whatever point that is.
        wait_for_growth(&broker, before.len());
        broker.kill().await;
        killed.send(()).expect("the feeder waits");
        let output = producer.wait_with_output().expect("ends");
        feeder.join().expect("fed");
        assert_eq!(output.status.code(), Some(1), "the producer must not claim success");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the acked prefix as JSON");
        let acked = said["records"].as_u64().expect("a number") as usize;

        broker.restart().await;
        let after = broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]);
        assert!(after.starts_with(&before), "what was there before the crash is there after it");
        let new = &after[before.len()..];
        assert!(input.starts_with(new), "in order, once, and nothing else");
        let survived = new.iter().filter(|byte| **byte == b'\n').count();
        assert!(survived >= acked, "{acked} records were acknowledged, {survived} are there");
    }
}

fn wait_for_growth(broker: &Standalone, from: usize) {
    loop {
        let now = broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]);
        if now.len() > from {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_bookies_in_one_process_are_a_real_quorum() {
    let mut broker = Standalone::start(&["--bookies", "3"]).await;
    broker.ok(&["topic", "create", "t", "--partitions", "2"]);
    let file = broker.folder.path().join("input");
    std::fs::write(&file, b"a\nb\nc\n").expect("written");
    broker.ok(&["produce", "t", "--partition", "1", "--file", &file.to_string_lossy()]);
    let listed = broker.ok(&["segment", "list", "t", "--json"]);
    let segment: serde_json::Value = serde_json::from_slice(&listed).expect("one segment, one JSON document");
    assert_eq!(segment["members"].as_array().map(Vec::len), Some(3));
    broker.stop().await;
    broker.restart().await;
    assert_eq!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]), b"a\nb\nc\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_a_group_are_reset_and_shown() {
    let broker = Standalone::start(&[]).await;
    let json = |args: &[&str]| -> Vec<serde_json::Value> {
        let said = broker.ok(args);
        said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(from_json).collect()
    };
    broker.ok(&["topic", "create", "t", "--partitions", "2"]);
    let file = broker.folder.path().join("input");
    std::fs::write(&file, b"a\nb\nc\n").expect("written");
    broker.ok(&["produce", "t", "--partition", "0", "--file", &file.to_string_lossy()]);
    assert_eq!(json(&["group", "list", "--json"]), Vec::<serde_json::Value>::new());
    refused(broker.run(&["group", "describe", "g"]), 1, &["\"g\"", "esker group list"]);
    refused(broker.run(&["group", "reset-offsets", "g", "--to", "earliest"]), 1, &["esker group list"]);
    refused(broker.run(&["group", "reset-offsets", "g", "--to", "now"]), 2, &["earliest"]);
    refused(broker.run(&["group", "reset-offsets", "g", "--to", "latest", "--topic", "u"]), 1, &["\"u\""]);

    let reset = |more: &[&str]| json(&[&["group", "reset-offsets", "g", "--json", "--to"], more].concat());
    let moved =
        |from: Option<i64>, to: i64| serde_json::json!({ "topic": "t", "partition": 0, "from": from, "to": to });
    assert_eq!(reset(&["offset:1", "--topic", "t/0", "--dry-run"]), [moved(None, 1)]);
    assert!(json(&["group", "list", "--json"]).is_empty(), "a dry run leaves nothing");
    assert_eq!(reset(&["offset:1", "--topic", "t/0"]), [moved(None, 1)]);
    assert_eq!(reset(&["latest"]), [moved(Some(1), 3)]);
    assert_eq!(reset(&["offset:99"]), [moved(Some(3), 3)], "held within the log");
    assert_eq!(reset(&["time:2001-01-01T00:00:00Z"]), [moved(Some(3), 0)]);
    assert_eq!(reset(&["offset:2"]), [moved(Some(0), 2)]);

    let [group] = &json(&["group", "list", "--json"])[..] else { panic!("one group") };
    assert_eq!((&group["group"], &group["state"]), (&"g".into(), &"Empty".into()));
    let [group] = &json(&["group", "describe", "g", "--json"])[..] else { panic!("one document") };
    assert_eq!((&group["lag"], &group["members"]), (&1.into(), &serde_json::json!([])));
    let place = &group["partitions"][0];
    assert_eq!((&place["offset"], &place["high_watermark"], &place["lag"]), (&2.into(), &3.into(), &1.into()));
    let table = String::from_utf8(broker.ok(&["group", "describe", "g"])).expect("text");
    assert!(table.contains("LAG") && table.contains("Empty"), "{table}");
}

fn from_json(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line).expect("one document per line")
}
