//! `esker bucket` against an S3 server in this process and a local folder.

use std::process::{Command, Output};

use esker_s3stub::{Fault, Rule, Stub};

use crate::support::{ESKER, refused};

fn esker(words: &[&str]) -> Output {
    let mut command = Command::new(ESKER);
    command.args(words).env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s");
    command.output().expect("starts")
}

async fn run(words: Vec<String>) -> Output {
    let run = move || esker(&words.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn words(verb: &str, url: &str, more: &[&str]) -> Vec<String> {
    ["bucket", verb, url].iter().chain(more).map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_set_up_and_checked() {
    let stub = Stub::start("b").await.expect("a port");
    stub.drop_bucket();
    let url = stub.url("p");
    refused(run(words("check", &url, &[])).await, 1, &["esker bucket setup"]);
    let setup = run(words("setup", &url, &["--json"])).await;
    assert!(setup.status.success(), "{setup:?}");
    let check = run(words("check", &url, &["--json"])).await;
    let lines = String::from_utf8(check.stdout).expect("text");
    assert!(check.status.success() && lines.lines().count() == 7, "{lines}");
    for name in ["list", "write", "read", "ranged read", "conditional create", "upload in parts", "delete"] {
        assert!(lines.contains(&format!("\"step\":\"{name}\"")), "{name}: {lines}");
    }
    assert!(stub.keys().is_empty(), "nothing stays behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_a_check_is_named_and_fails_the_command() {
    let stub = Stub::start("b").await.expect("a port");
    stub.fail(Rule::new("DELETE", "", usize::MAX, Fault::Status(403, "AccessDenied")));
    let check = run(words("check", &stub.url("p"), &[])).await;
    let table = String::from_utf8_lossy(&check.stdout).into_owned();
    let delete = table.lines().find(|line| line.starts_with("delete")).expect("a line for each check");
    assert!(delete.contains("failed") && delete.contains("no permission"), "{table}");
    refused(check, 1, &["1 of 7 checks failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_a_store_and_mistakes_are_one_line() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let url = format!("file://{}", dir.path().display());
    assert!(run(words("setup", &url, &[])).await.status.success());
    assert!(run(words("check", &url, &[])).await.status.success());
    refused(run(words("check", "s3://k:s@b/p", &[])).await, 1, &["environment"]);
    refused(run(words("check", "ftp://b/p", &[])).await, 1, &["unknown scheme", "s3://"]);
}
