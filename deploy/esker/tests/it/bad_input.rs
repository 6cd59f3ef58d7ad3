//! Wrong input: one clear line, the right exit status, and nothing lost or half made.

use std::process::Command;

use esker_bench::cluster::ports;

use crate::support::{ESKER, Standalone, client, refused};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_words_of_a_client() {
    let broker = Standalone::start(&[]).await;
    broker.ok(&["topic", "create", "t", "--config", "max.message.bytes=100000"]);
    refused(broker.run(&["produce", "nowhere"]), 1, &["nowhere", "esker topic create"]);
    refused(broker.run(&["consume", "nowhere", "--to-end"]), 1, &["nowhere"]);
    refused(broker.run(&["consume", "t", "--partition", "7", "--to-end"]), 1, &["partition 7"]);
    refused(broker.run(&["topic", "create", "t"]), 1, &["exists"]);
    refused(broker.run(&["topic", "create", "a/b"]), 1, &["a/b"]);
    refused(broker.run(&["topic", "create", "x", "--config", "retention.msec=5"]), 1, &["retention.msec"]);
    refused(broker.run(&["topic", "create", "x", "--config", "cleanup.policy=compact"]), 1, &["cleanup.policy"]);
    refused(broker.run(&["topic", "create", "x", "--config", "esker.write.quorum=3"]), 1, &["bookie"]);
    refused(broker.run(&["consume", "t", "--from", "soon"]), 2, &["offset:N"]);

    let file = broker.folder.path().join("input");
    std::fs::write(&file, [b"small\n".as_slice(), &vec![b'x'; 200_000], b"\n"].concat()).expect("written");
    refused(broker.run(&["produce", "t", "--file", &file.to_string_lossy()]), 1, &["max.message.bytes"]);
    assert_eq!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]), b"small\n", "the acked prefix is there");
    assert_eq!(broker.run(&["topic"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_authority_names_the_file_to_pass() {
    let broker = Standalone::start(&[]).await;
    let other = broker.folder.path().join("other");
    let made = Command::new(ESKER).args(["tls", "init", "--dir"]).arg(&other).output().expect("starts");
    assert!(made.status.success());
    refused(client(&broker.quic, &other.join("ca.pem"), &["topic", "list"]).output().expect("starts"), 1, &["--ca"]);
    refused(client(&broker.quic, &other.join("no.pem"), &["topic", "list"]).output().expect("starts"), 1, &["no.pem"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_and_a_port_in_use() {
    let broker = Standalone::start(&[]).await;
    let free = ports::free(1).expect("a free port")[0];
    let output = client(&format!("127.0.0.1:{free}"), &broker.ca(), &["topic", "list"]).output().expect("starts");
    refused(output, 1, &["127.0.0.1", "--server"]);

    let folder = broker.folder.path().join("second").to_string_lossy().into_owned();
    let http = format!("127.0.0.1:{free}");
    let second = ["standalone", "--data", &folder, "--quic", &broker.quic, "--kafka", "off", "--http", &http];
    refused(Command::new(ESKER).args(second).output().expect("starts"), 1, &[&broker.quic, "in use"]);
    let data = broker.data().to_string_lossy().into_owned();
    let twice =
        ["standalone", "--data", &data, "--quic", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    refused(Command::new(ESKER).args(twice).output().expect("starts"), 1, &["another process"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_quic_port_disturbs_nobody() {
    let broker = Standalone::start(&[]).await;
    broker.ok(&["topic", "create", "t"]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    for length in 0..1200usize {
        let junk: Vec<u8> = (0..length).map(|i| (i * 31 + length) as u8).collect();
        socket.send_to(&junk, &broker.quic).expect("sent");
    }
    let file = broker.folder.path().join("input");
    std::fs::write(&file, b"still here\n").expect("written");
    broker.ok(&["produce", "t", "--file", &file.to_string_lossy()]);
    assert_eq!(broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]), b"still here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing() {
    // 48 MiB of journal in all: far less than what is sent.
    let settings = [
        "--set",
        "bookie.disk.budget=48MiB",
        "--set",
        "bookie.disk.reserve=4MiB",
        "--set",
        "bookie.journal.file-bytes=8MiB",
        "--set",
        "bookie.journal.group-bytes=1MiB",
    ];
    let mut broker = Standalone::start(&settings).await;
    broker.ok(&["topic", "create", "t"]);
    let input = crate::support::text(5, 128 << 20, 2_000);
    let file = broker.folder.path().join("input");
    std::fs::write(&file, &input).expect("written");
    let output = broker.run(&["produce", "t", "--file", &file.to_string_lossy(), "--json", "--delivery-timeout", "3s"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the acked prefix as JSON");
    refused(output, 1, &["not acknowledged", "read-only because their disks are full", "bookie.disk.budget"]);
    let acked = said["records"].as_u64().expect("a number") as usize;
    assert!(acked > 0);
    for _ in 0..2 {
        let copy = broker.ok(&["consume", "t", "--from", "earliest", "--to-end"]);
        assert!(input.starts_with(&copy) && copy.iter().filter(|b| **b == b'\n').count() >= acked);
        broker.kill().await;
        broker.restart().await;
    }
}

#[test]
fn configuration_mistakes_name_the_key() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("bookie.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("written");
        Command::new(ESKER).args(["config", "check", "--role", "bookie"]).arg(&file).output().expect("starts")
    };
    refused(check("[bookie]\nnode-nam = \"b\"\n"), 1, &["bookie.node-nam", "node-name"]);
    refused(check("[bookie.journal]\ngroup-bytes = \"many\"\n"), 1, &["bookie.journal.group-bytes", "many"]);
    refused(check("[bookie\n"), 1, &["line 1"]);
    assert!(check("[bookie]\nnode-name = \"b\"\n").status.success());
    for role in ["metadata", "bookie", "gateway"] {
        let shown = Command::new(ESKER).args(["config", "show", "--role", role]).output().expect("starts");
        assert!(shown.status.success());
        std::fs::write(&file, &shown.stdout).expect("written");
        let checked =
            Command::new(ESKER).args(["config", "check", "--role", role]).arg(&file).output().expect("starts");
        assert!(checked.status.success(), "{role}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}
