//! Every fault that a store is known for: no wrong byte comes back, what was said to be written is there, and nothing
//! stays behind that no listing shows.

use std::time::Duration;

use bytes::Bytes;
use esker_cache::{Class, Kind, Store};
use esker_s3stub::{Fault, Rule, Stub};
use esker_types::units::{ByteCount, Interval};

use crate::support::{config, noise, open, open_with, stub};

const C: Class = Class::Foreground;

/// Faults of a request that passes after a few tries.
fn passing() -> Vec<Fault> {
    vec![
        Fault::Status(503, "SlowDown"),
        Fault::Status(500, "InternalError"),
        Fault::Status(429, "TooManyRequests"),
        Fault::Status(409, "OperationAborted"),
        Fault::StatusAfter(500, "InternalError"),
        Fault::StatusAfter(503, "ServiceUnavailable"),
        Fault::StatusAfter(409, "ConditionalRequestConflict"),
        Fault::Silence,
        Fault::SilenceAfter,
        Fault::Delay(Duration::from_millis(20)),
    ]
}

#[tokio::test]
async fn reads_outlast_passing_faults_and_never_return_cut_bodies() {
    let (stub, store) = stub().await;
    let body = noise(300_000, 7);
    store.put("k", body.clone(), C).await.expect("written");
    let mut faults = passing();
    faults.extend([Fault::CutBody(0), Fault::CutBody(100_000), Fault::ShortBody(0), Fault::ShortBody(299_999)]);
    faults.extend([Fault::OkWithError("InternalError"), Fault::OkButNothing]);
    for fault in faults {
        stub.fail(Rule::new("GET", "p/k", 2, fault.clone()));
        assert_eq!(store.read("k", 0..300_000, C).await.expect("read"), body, "{fault:?}");
        stub.heal();
        stub.fail(Rule::new("GET", "p/k", 2, fault.clone()));
        assert_eq!(store.read_end("k", 1000, C).await.expect("read").0, body.slice(299_000..), "{fault:?}");
        stub.heal();
    }
}

#[tokio::test]
async fn writes_end_with_exactly_the_object_whatever_the_answers_say() {
    let mut faults = passing();
    faults.extend([Fault::OkWithError("InternalError"), Fault::OkWithError("AccessDenied"), Fault::OkButNothing]);
    for fault in faults {
        let (stub, store) = stub().await;
        let body = noise(10_000, 3);
        stub.fail(Rule::new("PUT", "p/k", 2, fault.clone()));
        store.put("k", body.clone(), C).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(stub.object("p/k").expect("there"), body, "{fault:?}");
        assert_eq!(stub.keys(), ["p/k"]);
    }
}

#[tokio::test]
async fn a_conditional_write_is_settled_by_what_is_stored() {
    let mut faults = passing();
    // Both say that somebody else was first, and nothing is there: false alarms.
    faults.extend([Fault::Status(412, "PreconditionFailed"), Fault::StatusAfter(412, "PreconditionFailed")]);
    for fault in faults {
        let (stub, store) = stub().await;
        stub.fail(Rule::new("PUT", "p/claim", 2, fault.clone()));
        store.create("claim", Bytes::from_static(b"me"), C).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        stub.heal();
        stub.fail(Rule::new("PUT", "p/claim", 1, fault.clone()));
        let other = store.create("claim", Bytes::from_static(b"you"), C).await.expect_err("taken");
        assert_eq!(other.kind, Kind::Exists, "{fault:?}: {other}");
        assert_eq!(stub.object("p/claim").expect("there").as_ref(), b"me");
    }
}

#[tokio::test]
async fn uploads_survive_faults_at_every_step_and_leave_no_parts() {
    let steps = [("POST", "uploads"), ("PUT", "partNumber=1"), ("PUT", "partNumber=3"), ("POST", "uploadId")];
    let mut faults = passing();
    faults.push(Fault::OkWithError("InternalError"));
    for (method, step) in steps {
        for fault in &faults {
            let (stub, store) = stub().await;
            let body = noise(11 << 20, 5);
            stub.fail(Rule::new(method, step, 1, fault.clone()));
            let mut upload = store.upload("big", Class::Offload).expect("a good key");
            upload.write(body.clone()).await.unwrap_or_else(|e| panic!("{step} {fault:?}: {e}"));
            let bytes = upload.finish().await.unwrap_or_else(|e| panic!("{step} {fault:?}: {e}"));
            assert_eq!((bytes, stub.object("p/big").expect("there")), (11 << 20, body), "{step} {fault:?}");
            // An id that was lost with its answer is the bucket's lifecycle rule's business.
            assert!(stub.open_uploads() <= usize::from(step == "uploads"), "{step} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_failed_or_dropped_upload_is_aborted() {
    let (stub, store) = stub().await;
    stub.fail(Rule::new("PUT", "partNumber=2", usize::MAX, Fault::Status(403, "AccessDenied")));
    let mut upload = store.upload("big", Class::Offload).expect("a good key");
    upload.write(noise(11 << 20, 5)).await.ok();
    let error = upload.finish().await.expect_err("refused");
    assert_eq!(error.kind, Kind::Denied, "{error}");
    until(|| stub.open_uploads() == 0).await;

    stub.heal();
    let mut upload = store.upload("big", Class::Offload).expect("a good key");
    upload.write(noise(11 << 20, 5)).await.expect("taken");
    assert_eq!(stub.open_uploads(), 1);
    drop(upload);
    until(|| stub.open_uploads() == 0).await;
    assert!(stub.keys().is_empty());

    let mut upload = store.upload("big", Class::Offload).expect("a good key");
    upload.write(noise(11 << 20, 5)).await.expect("taken");
    upload.abort().await;
    assert_eq!(stub.open_uploads(), 0);
}

/// Lets other tasks run until `done`; the abort of a dropped upload runs beside the test.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn deletes_outlast_faults() {
    for fault in passing() {
        let (stub, store) = stub().await;
        store.put("k", Bytes::from_static(b"x"), C).await.expect("written");
        stub.fail(Rule::new("DELETE", "p/k", 2, fault.clone()));
        store.delete("k", C).await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert!(stub.keys().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_long_outage_costs_few_requests_and_ends_with_it() {
    let stub = Stub::start("b").await.expect("a port");
    let deadline = Interval::secs(2);
    let store = open_with(&stub.url("p"), esker_cache::StoreConfig { retry_budget: 5, deadline, ..config() });
    store.put("k", Bytes::from_static(b"x"), C).await.expect("written");
    stub.fail(Rule::new("GET", "", usize::MAX, Fault::Status(503, "SlowDown")));
    let (before, started) = (stub.requests("GET"), std::time::Instant::now());
    for _ in 0..50 {
        assert_eq!(store.read("k", 0..1, C).await.expect_err("out").kind, Kind::Unavailable);
    }
    // The burst, and one retry for each second that went by, however fast this machine is.
    let most = 50 + 5 + started.elapsed().as_secs() + 1;
    let tries = stub.requests("GET") - before;
    assert!((50..=most).contains(&tries), "50 reads made {tries} requests, at most {most} are paid for");
    stub.heal();
    assert_eq!(store.read("k", 0..1, C).await.expect("healed").as_ref(), b"x");
}

#[tokio::test]
async fn refusals_end_at_once_in_one_clear_line() {
    let (stub, store) = stub().await;
    let cases = [
        (403, "AccessDenied", Kind::Denied, "no permission"),
        (400, "ExpiredToken", Kind::Credentials, "environment"),
        (403, "InvalidAccessKeyId", Kind::Credentials, "environment"),
        (404, "NoSuchBucket", Kind::NoBucket, "esker bucket setup"),
    ];
    for (status, code, kind, words) in cases {
        stub.fail(Rule::new("GET", "", 1, Fault::Status(status, code)));
        let error = store.read("k", 0..1, C).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
        let line = error.to_string();
        assert!(line.contains(words) && line.lines().count() == 1, "{line}");
    }
    assert_eq!(stub.requests("GET"), cases.len() as u64, "no retries of what can't succeed");
}

#[tokio::test]
async fn wrong_region_missing_bucket_and_nobody_there_are_told_apart() {
    let stub = Stub::start_at("127.0.0.1:0", "b", "eu-west-1").await.expect("a port");
    open(&stub.url("p")).probe().await.expect("the right region");
    let wrong = open(&stub.url("p").replace("eu-west-1", "us-east-1")).probe().await.expect_err("wrong region");
    assert!(wrong.kind == Kind::Region && wrong.to_string().contains("eu-west-1"), "{wrong}");
    let missing = open(&stub.url("p").replace("s3://b/", "s3://other/")).probe().await.expect_err("no bucket");
    assert!(missing.kind == Kind::NoBucket, "{missing}");
    let url = stub.url("p");
    drop(stub);
    let patience = esker_cache::StoreConfig { deadline: Interval::millis(600), ..config() };
    let gone = open_with(&url, patience).probe().await.expect_err("nobody there");
    assert_eq!(gone.kind, Kind::Unreachable, "{gone}");
}

#[tokio::test]
async fn a_store_that_loses_an_upload_says_so_instead_of_waiting() {
    let (stub, store) = stub().await;
    let mut upload = store.upload("big", Class::Offload).expect("a good key");
    upload.write(noise(11 << 20, 5)).await.expect("taken");
    stub.forget_uploads();
    let error = upload.finish().await.expect_err("lost");
    assert!(error.kind == Kind::NotFound && error.to_string().contains("again"), "{error}");
}

#[tokio::test]
async fn slow_answers_within_patience_are_answers() {
    let (stub, _) = stub().await;
    let patient = esker_cache::StoreConfig {
        attempt_timeout: Interval::secs(20),
        bytes_per_second_min: ByteCount::mib(1),
        ..config()
    };
    let store: Store = open_with(&stub.url("p"), patient);
    store.put("k", noise(100, 1), C).await.expect("written");
    stub.fail(Rule::new("GET", "p/k", 1, Fault::Delay(Duration::from_millis(700))));
    assert_eq!(store.read("k", 0..100, C).await.expect("read"), noise(100, 1));
    assert_eq!(store.metrics().attempts("read", "timeout"), 0);
}
