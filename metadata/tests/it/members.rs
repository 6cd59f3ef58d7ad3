//! Births and changes of the quorum.

use esker_metadata_client::admin::{AddMember, AdminAsk, AdminReply, InitCluster, ListMembers, Members, RemoveMember};

use crate::fixture::{Cluster, create, topics};

async fn members(cluster: &Cluster, ask: AdminAsk) -> Members {
    match cluster.admin(ask).await.expect("answered") {
        AdminReply::Members(members) => members,
        other => panic!("{other:?}"),
    }
}

fn voters(members: &Members) -> usize {
    members.members.iter().filter(|member| member.voter).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_of_one_grows_to_three_and_back() {
    let mut cluster = Cluster::single().await;
    let client = cluster.client("g1");
    create(&client, "one").await;
    for expected in [2, 3] {
        let i = cluster.grow().await;
        let add = AddMember { address: cluster.nodes[i].config.listen.clone() };
        // Twice: the second is answered like the first.
        for _ in 0..2 {
            assert_eq!(voters(&members(&cluster, AdminAsk::Add(add.clone())).await), expected);
        }
    }
    let last = create(&client, "three").await;
    cluster.agree(last).await;
    // The first one leaves, though it may lead.
    let remove = AdminAsk::Remove(RemoveMember { member: "meta-1".to_owned() });
    let left = members(&cluster, remove).await;
    assert_eq!((voters(&left), left.members.len()), (2, 2));
    cluster.nodes[0].stop().await;
    let client = cluster.client("g2");
    create(&client, "two").await;
    assert_eq!(topics(&client).await, 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_is_a_stranger() {
    let mut cluster = Cluster::born(3, false).await;
    let client = cluster.client("g1");
    create(&client, "before").await;
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    let old = cluster.nodes[wiped].server().node();
    cluster.nodes[wiped].stop().await;
    std::fs::remove_dir_all(&cluster.nodes[wiped].config.data_dir).expect("wiped");
    cluster.start(wiped).await;
    assert_ne!(cluster.nodes[wiped].server().node(), old);
    // The other two go on; the stranger gets nothing, and can't be added while its old place is held.
    create(&client, "without").await;
    let status = cluster.nodes[wiped].server().status();
    assert!(status.voters.is_empty() && status.last == 0);
    let add = AdminAsk::Add(AddMember { address: cluster.nodes[wiped].config.listen.clone() });
    let error = cluster.admin(add.clone()).await.expect_err("its old place is held").to_string();
    assert!(error.contains("lost its data"), "{error}");
    let remove = AdminAsk::Remove(RemoveMember { member: format!("{old:x}") });
    assert_eq!(voters(&members(&cluster, remove).await), 2);
    assert_eq!(voters(&members(&cluster, add).await), 3);
    let last = create(&client, "after").await;
    cluster.agree(last).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_birth_checks_its_voters() {
    let mut cluster = Cluster::blank(3, false).await;
    let init = |voters: &[&str]| {
        let voters = voters.iter().map(|name| format!("inproc:{name}")).collect();
        AdminAsk::Init(InitCluster { voters, ..InitCluster::default() })
    };
    for (voters, complaint) in [
        (&["meta-1", "meta-2"][..], "1, 3 or 5"),
        (&["meta-1", "meta-2", "meta-2"], "same node"),
        (&["meta-1", "meta-2", "meta-9"], "meta-9"),
    ] {
        let error = cluster.admin(init(voters)).await.expect_err(complaint).to_string();
        assert!(error.contains(complaint), "{error}");
    }
    cluster.init().await;
    let error = cluster.admin(init(&["meta-1", "meta-2", "meta-3"])).await.expect_err("twice").to_string();
    assert!(error.contains("belongs to cluster"), "{error}");
    let list = members(&cluster, AdminAsk::Members(ListMembers {})).await;
    assert_eq!((voters(&list), list.cluster.len()), (3, 16));
    let last = AdminAsk::Remove(RemoveMember { member: "nobody".to_owned() });
    cluster.admin(last).await.expect_err("unknown");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_voters_survive_two() {
    let mut cluster = Cluster::born(5, false).await;
    let client = cluster.client("g1");
    create(&client, "a").await;
    for round in 0..2 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].stop().await;
        create(&client, &format!("without-{round}")).await;
    }
    assert_eq!(topics(&client).await, 3);
    cluster.stop().await;
}
