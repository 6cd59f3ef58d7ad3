//! The in-memory store, and its faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use esker_metadata_client::{
    Fault, MemoryStore, MetadataStore, ProposeError, Proposed, ReadError, RenewError, Renewed, SessionKeeper,
    SessionLost, Watch, conformance,
};
use esker_metadata_core::{AllocProducerIds, Answer, Command, InitCluster, Query, Reply};
use esker_types::{BootId, ClusterId, Quorum, SessionId};
use futures_util::future::BoxFuture;

fn ids(count: u32) -> Vec<Command> {
    vec![AllocProducerIds { count }.into()]
}

fn born() -> MemoryStore {
    let store = MemoryStore::new();
    let quorum = Quorum { write: 1, ack: 1 };
    let id = ClusterId([1; 16]);
    store.apply(vec![InitCluster { id, quorum, auto_create_topics: false, default_partitions: 1 }.into()]);
    store
}

#[tokio::test]
async fn it_conforms() {
    conformance::run(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn faults_strike_once_each_and_in_order() {
    let store = born();
    store.inject([Fault::NotApplied, Fault::UnknownNever, Fault::UnknownApplied, Fault::UnknownLate]);
    let next = |store: &MemoryStore| store.inspect(|state| state.cluster().unwrap().next_producer);
    assert!(matches!(store.propose(ids(1)).await, Err(ProposeError::NotApplied(_))));
    assert!(matches!(store.propose(ids(1)).await, Err(ProposeError::Unknown(_))));
    assert_eq!(next(&store), 1);
    assert!(matches!(store.propose(ids(10)).await, Err(ProposeError::Unknown(_))));
    assert_eq!(next(&store), 11);
    assert!(matches!(store.propose(ids(100)).await, Err(ProposeError::Unknown(_))));
    assert_eq!(next(&store), 11);
    let Ok(Reply::ProducerIds(got)) = store.propose(ids(1)).await.unwrap().single() else { panic!("ids") };
    assert_eq!(got.first.0, 11);
    assert!(store.apply_late());
    assert!(!store.apply_late());
    assert_eq!(next(&store), 112);
}

/// Says nothing to the first renewals, then that the session has ended.
struct Silent {
    store: MemoryStore,
    renewals: AtomicU32,
}

impl MetadataStore for Silent {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<Proposed, ProposeError>> {
        self.store.propose(commands)
    }
    fn read(&self, query: Query) -> BoxFuture<'_, Result<Answer, ReadError>> {
        self.store.read(query)
    }
    fn watch(&self) -> Watch {
        self.store.watch()
    }
    fn renew(&self, session: SessionId, boot: BootId) -> BoxFuture<'_, Result<Renewed, RenewError>> {
        self.store.set_unavailable(self.renewals.fetch_add(1, Ordering::SeqCst) < 6);
        self.store.renew(session, boot)
    }
}

#[tokio::test]
async fn a_silent_store_is_no_verdict_on_a_session() {
    let store = Arc::new(Silent { store: born(), renewals: AtomicU32::new(0) });
    let boot = BootId([2; 16]);
    let keeper = SessionKeeper::start(store.clone(), SessionId(1), boot, Duration::from_millis(9));
    assert_eq!(keeper.lost().await, SessionLost::Ended);
    assert_eq!(store.renewals.load(Ordering::SeqCst), 7, "six times silence, then the verdict");
    let stopped = SessionKeeper::start(store, SessionId(1), boot, Duration::from_secs(2));
    stopped.stop().await;
}
