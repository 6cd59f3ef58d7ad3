//! Whose bucket it is, also when the store says the wrong thing.

use esker_cache::{Kind, Store};
use esker_cache_core::claim::{Claim, Standing};
use esker_s3stub::{Fault, Rule};
use esker_types::{BootId, ClusterId};

use crate::support::{open, stub};

fn claim(cluster: u8, incarnation: u8, by: u8) -> Claim {
    Claim { cluster: ClusterId([cluster; 16]), incarnation, by: BootId([by; 16]) }
}

async fn story(store: &Store) {
    assert_eq!(store.newest_claim().await, Ok(None));
    assert_eq!(store.claim(&claim(1, 0, 1)).await, Ok(Standing::Ours));
    assert_eq!(store.claim(&claim(1, 0, 2)).await, Ok(Standing::Ours), "another process of the same cluster");
    assert_eq!(store.newest_claim().await, Ok(Some(claim(1, 0, 1))), "the first one's stays");
    assert_eq!(store.claim(&claim(2, 0, 3)).await, Ok(Standing::Foreign(ClusterId([1; 16]))));
    assert_eq!(store.claim(&claim(2, 9, 3)).await, Ok(Standing::Foreign(ClusterId([1; 16]))));
    assert_eq!(store.claim(&claim(1, 10, 4)).await, Ok(Standing::Ours), "rebuilt");
    assert_eq!(store.claim(&claim(1, 0, 1)).await, Ok(Standing::Superseded(10)));
}

#[tokio::test]
async fn a_bucket_belongs_to_the_newest_incarnation_of_one_cluster() {
    story(&open("memory:")).await;
    let dir = tempfile::tempdir().expect("temporary folder");
    story(&open(&format!("file://{}", dir.path().display()))).await;
    let (_stub, store) = stub().await;
    story(&store).await;
}

#[tokio::test]
async fn a_claim_is_made_once_whatever_the_answers_say() {
    for fault in [
        Fault::StatusAfter(503, "SlowDown"),
        Fault::Status(409, "ConditionalRequestConflict"),
        Fault::Status(412, "PreconditionFailed"),
        Fault::OkButNothing,
    ] {
        let (stub, store) = stub().await;
        stub.fail(Rule::new("PUT", "p/claims", 1, fault.clone()));
        assert_eq!(store.claim(&claim(1, 0, 1)).await, Ok(Standing::Ours), "{fault:?}");
        assert_eq!(stub.keys(), ["p/claims/0"], "{fault:?}");
    }
}

#[tokio::test]
async fn a_damaged_claim_lets_nobody_write() {
    let (stub, store) = stub().await;
    stub.set("p/claims/0", "something else");
    assert_eq!(store.claim(&claim(1, 0, 1)).await.expect_err("whose?").kind, Kind::Damaged);
    assert_eq!(stub.keys(), ["p/claims/0"]);
}
