//! The store over the network.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use esker_metadata_client::{Fault, MetadataStore, ProposeError, View, conformance};
use esker_metadata_core::{AllocProducerIds, Answer, Command, Query, SummaryQuery};
use tokio_util::sync::CancellationToken;

use crate::server::{Quorum, address};

fn ids(count: u32) -> Vec<Command> {
    vec![AllocProducerIds { count }.into()]
}

async fn quorum(nodes: usize) -> Quorum {
    let quorum = Quorum::start(nodes).await;
    conformance::run(Arc::new(quorum.store.clone())).await;
    quorum
}

#[tokio::test]
async fn it_conforms() {
    let quorum = Quorum::start(3).await;
    quorum.leader.store(1, Ordering::SeqCst);
    conformance::run(Arc::new(quorum.client(3))).await;
}

#[tokio::test]
async fn it_follows_the_leader() {
    let quorum = quorum(3).await;
    let store = quorum.client(3);
    for leader in [2, 0, 1, 1, 2] {
        quorum.leader.store(leader, Ordering::SeqCst);
        store.propose(ids(1)).await.unwrap();
        assert_eq!(store.leader(), Some(address(leader)));
    }
}

#[tokio::test]
async fn a_dead_node_is_passed_over() {
    let mut quorum = quorum(3).await;
    quorum.leader.store(1, Ordering::SeqCst);
    let store = quorum.client(3);
    store.propose(ids(1)).await.unwrap();
    drop(quorum.stops.remove(0));
    drop(quorum.stops.remove(0));
    quorum.leader.store(2, Ordering::SeqCst);
    // The link to the old leader breaks, under a request or between two. A read is repeated either way.
    assert!(matches!(store.read(Query::Summary(SummaryQuery {})).await, Ok(Answer::Summary(_))));
    store.propose(ids(1)).await.unwrap();
    assert_eq!(store.leader(), Some(address(2)));
}

#[tokio::test]
async fn an_unknown_outcome_is_never_repeated() {
    let quorum = quorum(1).await;
    let store = quorum.client(1);
    store.propose(ids(1)).await.unwrap();
    let next = || quorum.store.inspect(|state| state.cluster().unwrap().next_producer);
    let (before, sent) = (next(), quorum.proposals.load(Ordering::SeqCst));
    quorum.store.inject([Fault::UnknownApplied]);
    assert!(matches!(store.propose(ids(7)).await, Err(ProposeError::Unknown(_))));
    assert_eq!((next() - before, quorum.proposals.load(Ordering::SeqCst) - sent), (7, 1));
    // A sure refusal is repeated until it goes through.
    quorum.store.inject([Fault::NotApplied, Fault::NotApplied]);
    store.propose(ids(3)).await.unwrap();
    assert_eq!((next() - before, quorum.proposals.load(Ordering::SeqCst) - sent), (10, 4));
}

#[tokio::test]
async fn waiting_proposals_share_requests() {
    let quorum = quorum(1).await;
    let store = Arc::new(quorum.client(1));
    store.propose(ids(1)).await.unwrap();
    let before = quorum.proposals.load(Ordering::SeqCst);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let store = store.clone();
        tasks.spawn(async move { store.propose(ids(1)).await.map(|proposed| proposed.results.len()) });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap(), Ok(1));
    }
    let requests = quorum.proposals.load(Ordering::SeqCst) - before;
    assert!(requests < 100, "500 proposals took {requests} requests");
}

#[tokio::test]
async fn a_view_survives_the_node_it_followed() {
    let mut quorum = quorum(2).await;
    let store = quorum.client(2);
    let cancel = CancellationToken::new();
    let view = View::follow(&store, cancel.clone());
    view.ready().await;
    for node in [0, 1] {
        let made = quorum.store.apply(vec![conformance::topic(100 + node, &format!("late-{node}")).into()]);
        view.reached(made.revision).await;
        if node == 0 {
            drop(quorum.stops.remove(0));
        }
    }
    assert_eq!(view.read(|state| state.state_hash()), quorum.store.inspect(|state| state.state_hash()));
    cancel.cancel();
}
