//! Setting up a bucket, against a server in this process.

use esker_s3admin::{Admin, Error, StepResult, Target};
use esker_s3stub::{Fault, Rule, Stub};

fn target(stub: &Stub) -> Target {
    Target {
        bucket: "b".to_owned(),
        endpoint: Some(format!("http://{}", stub.address())),
        region: Some("us-east-1".to_owned()),
        path_style: true,
        key_id: "k".to_owned(),
        secret_key: "s".to_owned(),
        session_token: None,
    }
}

#[tokio::test]
async fn a_bucket_is_made_once_and_kept() {
    let stub = Stub::start("b").await.expect("a port");
    stub.drop_bucket();
    let admin = Admin::new(target(&stub));
    let first = admin.setup().await.expect("set up");
    assert!(matches!(first[0].result, StepResult::Done(_)), "{first:?}");
    assert!(matches!(first[1].result, StepResult::Done(_)), "{first:?}");
    let rules = stub.lifecycle().expect("rules are there");
    assert!(rules.contains("AbortIncompleteMultipartUpload") && rules.contains("DaysAfterInitiation"), "{rules}");
    let again = admin.setup().await.expect("set up");
    assert!(again.iter().all(|step| matches!(step.result, StepResult::Already(_))), "{again:?}");
}

#[tokio::test]
async fn a_store_without_lifecycle_rules_is_a_warning() {
    let stub = Stub::start("b").await.expect("a port");
    stub.fail(Rule::new("", "lifecycle", 10, Fault::Status(501, "NotImplemented")));
    let steps = Admin::new(target(&stub)).setup().await.expect("set up");
    assert!(matches!(&steps[1].result, StepResult::Warning(text) if text.contains("lifecycle")), "{steps:?}");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let stub = Stub::start("b").await.expect("a port");
    stub.drop_bucket();
    stub.fail(Rule::new("PUT", "/b", 10, Fault::Status(403, "AccessDenied")));
    let denied = Admin::new(target(&stub)).setup().await.expect_err("refused");
    assert!(matches!(denied, Error::Denied { .. }), "{denied:?}");
    stub.heal();
    stub.fail(Rule::new("PUT", "/b", 10, Fault::Status(409, "BucketAlreadyExists")));
    let taken = Admin::new(target(&stub)).setup().await.expect_err("refused");
    assert!(taken.to_string().contains("choose another bucket"), "{taken}");

    let gone = target(&stub);
    drop(stub);
    let unreachable = Admin::new(gone).setup().await.expect_err("nobody listens");
    assert!(matches!(unreachable, Error::Unreachable { .. }) && unreachable.to_string().lines().count() == 1);
}
