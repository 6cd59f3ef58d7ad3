//! Three voters: elections, commands, reads, watches, restarts, snapshots.

use std::sync::Arc;

use esker_metadata_client::{MetadataStore, View};
use esker_metadata_core::{AllocProducerIds, Command, Reply};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Cluster, LONG, create, topics};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_agree_inside_the_process() {
    three_voters_agree(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_agree_over_tcp() {
    three_voters_agree(true).await;
}

async fn three_voters_agree(tcp: bool) {
    let mut cluster = Cluster::born(3, tcp).await;
    let client = cluster.client("g1");
    let mut last = 0;
    for i in 0..50 {
        last = create(&client, &format!("topic-{i}")).await;
    }
    assert_eq!(topics(&client).await, 50);
    cluster.agree(last).await;
    assert!(cluster.nodes.iter().all(|node| node.server().ready().is_ok()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_takes_over_and_the_old_one_catches_up() {
    let mut cluster = Cluster::born(3, false).await;
    let client = cluster.client("g1");
    create(&client, "before").await;
    for round in 0..5 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].stop().await;
        create(&client, &format!("without-{round}")).await;
        assert_ne!(cluster.leader().await, leader);
        cluster.start(leader).await;
        let last = create(&client, &format!("again-{round}")).await;
        cluster.agree(last).await;
    }
    assert_eq!(topics(&client).await, 11);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_serves_nothing_and_the_whole_comes_back() {
    let mut cluster = Cluster::born(3, false).await;
    let client = cluster.client("g1");
    create(&client, "a").await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    for i in &others {
        cluster.nodes[*i].stop().await;
    }
    // A leader alone confirms no read. It may take its lease to notice; it never answers.
    let alone = esker_metadata_client::RemoteConfig {
        deadline: std::time::Duration::from_millis(1_500),
        ..esker_metadata_client::RemoteConfig::new(vec![cluster.nodes[leader].address()])
    };
    let network = crate::fixture::network(esker_types::Role::Gateway, "g2", &cluster.hub);
    let cut_off = esker_metadata_client::RemoteStore::new(network, alone);
    let query = esker_metadata_core::Query::Summary(esker_metadata_core::SummaryQuery {});
    cut_off.read(query).await.expect_err("no quorum");
    for i in others {
        cluster.start(i).await;
    }
    let last = create(&client, "b").await;
    cluster.agree(last).await;
    // All at once.
    cluster.stop().await;
    for i in 0..3 {
        cluster.start(i).await;
    }
    assert_eq!(topics(&client).await, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_share_entries_and_each_gets_its_own_answer() {
    let mut cluster = Cluster::born(3, false).await;
    let client = Arc::new(cluster.client("g1"));
    let before = cluster.nodes[cluster.leader().await].server().status().last;
    let calls = (0..2_000).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let done = client.propose(vec![Command::from(AllocProducerIds { count: 1 })]).await.expect("proposed");
            match done.single() {
                Ok(Reply::ProducerIds(ids)) => ids.first.0,
                other => panic!("{other:?}"),
            }
        })
    });
    let mut ids = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        ids.push(call.await.expect("task"));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2_000, "an id was given twice");
    let entries = cluster.nodes[cluster.leader().await].server().status().last - before;
    assert!(entries < 1_000, "{entries} entries for 2,000 commands");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_is_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::blank(3, true).await;
    for node in &mut cluster.nodes {
        node.stop().await;
        node.config.entries_kept = 5;
        node.config.snapshot_entries = 20;
    }
    for i in 0..3 {
        cluster.start(i).await;
    }
    cluster.init().await;
    let client = cluster.client("g1");
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.nodes[away].stop().await;
    let mut i = 0;
    while cluster.nodes[leader].server().status().purged.is_none_or(|purged| purged < 30) {
        create(&client, &format!("topic-{i}")).await;
        i += 1;
        assert!(i < 2_000, "no purge");
    }
    cluster.start(away).await;
    let last = create(&client, "after").await;
    cluster.agree(last).await;
    assert!(cluster.nodes[away].server().status().snapshot.is_some_and(|at| at >= 20));
    // And once more from its own disk.
    cluster.nodes[away].stop().await;
    cluster.start(away).await;
    cluster.agree(last).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_follows_over_a_change_of_leader() {
    let mut cluster = Cluster::born(3, false).await;
    let client = cluster.client("g1");
    let cancel = CancellationToken::new();
    let view = View::follow(&client, cancel.clone());
    let at = create(&client, "one").await;
    tokio::time::timeout(LONG, view.reached(at)).await.expect("in time");
    for round in 0..3 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].stop().await;
        let at = create(&client, &format!("round-{round}")).await;
        tokio::time::timeout(LONG, view.reached(at)).await.expect("in time");
        cluster.start(leader).await;
    }
    let at = create(&client, "last").await;
    tokio::time::timeout(LONG, view.reached(at)).await.expect("in time");
    cluster.agree(at).await;
    let server = cluster.nodes[0].server();
    let ours = view.read(|state| (state.revision(), state.state_hash()));
    let theirs = server.read(|state| (state.revision(), state.state_hash()));
    assert!(ours == theirs || ours.0 != theirs.0, "the copy differs at the same revision");
    assert_eq!(view.read(|state| state.topics().count()), 5);
    cancel.cancel();
    cluster.stop().await;
}
