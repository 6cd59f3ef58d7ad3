//! A lone voter: standalone.

use std::time::{Duration, Instant};

use esker_metadata_client::MetadataStore;
use esker_metadata_core::Query;
use esker_types::ClusterId;

use crate::fixture::{Cluster, Node, create, network, topics};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_makes_its_cluster_and_keeps_it_over_restarts() {
    let began = Instant::now();
    let mut cluster = Cluster::single().await;
    assert!(began.elapsed() < Duration::from_secs(10), "a lone voter waits for nobody");
    cluster.nodes[0].server().ready().expect("ready");
    let id = cluster.nodes[0].server().read(|state| state.cluster().expect("born").id);
    let client = cluster.client("g1");
    for i in 0..20 {
        create(&client, &format!("topic-{i}")).await;
    }
    cluster.nodes[0].stop().await;
    cluster.start(0).await;
    let again = cluster.nodes[0].server().read(|state| state.cluster().expect("born").id);
    assert_eq!(again, id);
    assert_eq!(topics(&client).await, 20);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_a_snapshot_shows_everything() {
    let mut cluster = Cluster::single().await;
    let client = cluster.client("g1");
    for i in 0..30 {
        create(&client, &format!("before-{i}")).await;
    }
    cluster.nodes[0].config.entries_kept = 0;
    cluster.nodes[0].stop().await;
    cluster.start(0).await;
    let server = cluster.nodes[0].server();
    server.write_snapshot().await.expect("asked");
    // Later entries make raft look at the purge again.
    let mut i = 0;
    while server.status().purged.is_none() {
        create(&client, &format!("after-{i}")).await;
        i += 1;
    }
    let hash = server.read(|state| (state.revision(), state.state_hash()));
    cluster.nodes[0].stop().await;
    cluster.start(0).await;
    let mut revisions = cluster.nodes[0].server().revision();
    revisions.wait_for(|revision| *revision >= hash.0).await.expect("running");
    assert_eq!(cluster.nodes[0].server().read(|state| (state.revision(), state.state_hash())), hash);
    assert_eq!(topics(&client).await, 30 + i);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_stops_the_node_in_one_line() {
    let mut cluster = Cluster::single().await;
    let client = cluster.client("g1");
    create(&client, "t").await;
    cluster.nodes[0].server().write_snapshot().await.expect("asked");
    let snapshots = cluster.nodes[0].config.data_dir.join("snapshots");
    let named = || std::fs::read_dir(&snapshots).expect("dir").filter_map(Result::ok).map(|entry| entry.path());
    let file = loop {
        match named().find(|path| path.extension().is_some_and(|ext| ext == "snapshot")) {
            Some(file) => break file,
            None => tokio::task::yield_now().await,
        }
    };
    cluster.nodes[0].stop().await;
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("write");
    let hub = cluster.hub.clone();
    let error = cluster.nodes[0].try_start(&hub).await.expect_err("damaged").to_string();
    assert!(error.contains("snapshot") && error.contains("damaged") && !error.contains('\n'), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_cluster_is_refused_in_one_line() {
    let mut cluster = Cluster::single().await;
    cluster.nodes[0].stop().await;
    let wrong = network(esker_types::Role::Metadata, "meta-1", &cluster.hub);
    wrong.set_cluster(ClusterId([9; 16]));
    let deps = esker_metadata::Deps {
        network: wrong,
        registry: &mut prometheus_client::registry::Registry::default(),
        cancel: tokio_util::sync::CancellationToken::new(),
        birth: None,
    };
    let error = esker_metadata::Server::start(cluster.nodes[0].config.clone(), deps).await.err().expect("refused");
    let text = error.to_string();
    assert!(text.contains("belongs to cluster") && !text.contains('\n'), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_beside_snapshots_is_refused() {
    let mut cluster = Cluster::single().await;
    cluster.nodes[0].stop().await;
    let data = cluster.nodes[0].config.data_dir.clone();
    std::fs::remove_file(data.join("raft.redb")).expect("removed");
    std::fs::write(data.join("snapshots").join("00000000000000000009-0000000001-0.snapshot"), b"x").expect("written");
    let hub = cluster.hub.clone();
    let error = cluster.nodes[0].try_start(&hub).await.expect_err("refused").to_string();
    assert!(error.contains("half of it is lost"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_node_serves_nothing_and_says_so() {
    let mut node = Node::new("lonely", false);
    let hub = esker_net::Hub::new();
    node.try_start(&hub).await.expect("started");
    assert!(node.server().ready().expect_err("not ready").contains("no leader"));
    let config = esker_metadata_client::RemoteConfig {
        deadline: Duration::from_millis(200),
        ..esker_metadata_client::RemoteConfig::new(vec![node.address()])
    };
    let client = esker_metadata_client::RemoteStore::new(network(esker_types::Role::Gateway, "g", &hub), config);
    client.read(Query::Cluster(esker_metadata_core::ClusterQuery {})).await.expect_err("no leader");
    node.stop().await;
}
