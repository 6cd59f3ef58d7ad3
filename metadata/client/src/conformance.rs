//! One suite that every implementation of the store must pass, on a fresh state machine. It panics where one does not.
//!
//! Other writers, such as a controller, may be at work at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use esker_metadata_core::{
    AllocProducerIds, Answer, COMMANDS_MAX, ClusterQuery, Command, CreateTopic, DeleteTopic, ExpireSession,
    GatewayAddresses, InitCluster, PartitionQuery, Query, RegisterBookie, RegisterGateway, Reply, SummaryQuery,
    TopicAnswer, TopicQuery, VERSION_MAX,
};
use esker_types::{BootId, ClusterId, ErrorCode, InstanceId, PartitionId, Quorum, SessionId, TopicId};
use tokio_util::sync::CancellationToken;

use crate::keeper::{SessionKeeper, SessionLost};
use crate::store::{MetadataStore, ProposeError, RenewError, WatchEvent};
use crate::view::View;

/// No step of the suite may take longer. Generous: a real quorum may hold an election meanwhile.
const STEP_MAX: Duration = Duration::from_secs(30);
const BOOT: BootId = BootId([0xb1; 16]);

/// Runs the whole suite.
pub async fn run(store: Arc<dyn MetadataStore>) {
    let steps = async {
        birth(&*store).await;
        commands_answer_in_order(&*store).await;
        a_read_sees_what_was_proposed(&*store).await;
        too_many_commands_are_refused(&*store).await;
        concurrent_proposals_get_their_own_answers(&store).await;
        a_watch_tells_everything_in_order(&*store).await;
        a_view_ends_equal(&*store).await;
        sessions_are_renewed_until_they_end(&store).await;
    };
    if tokio::time::timeout(STEP_MAX, steps).await.is_err() {
        panic!("the suite hangs: no end after {STEP_MAX:?}");
    }
}

/// A topic of one partition on one bookie.
pub fn topic(tag: u8, name: &str) -> CreateTopic {
    CreateTopic {
        id: TopicId([tag; 16]),
        name: name.to_owned(),
        partitions: 1,
        replication: Some(1),
        settings: Vec::new(),
        internal: false,
        validate_only: false,
    }
}

async fn propose(store: &dyn MetadataStore, command: impl Into<Command>) -> Reply {
    let proposed = store.propose(vec![command.into()]).await.expect("a healthy store takes commands");
    proposed.single().expect("the suite's commands are valid")
}

async fn birth(store: &dyn MetadataStore) {
    let cluster = match store.read(Query::Cluster(ClusterQuery {})).await {
        Ok(Answer::Cluster(answer)) => answer.cluster,
        other => panic!("a question about the cluster was answered by {other:?}"),
    };
    if cluster.is_none() {
        let id = ClusterId([0xc1; 16]);
        let quorum = Quorum { write: 1, ack: 1 };
        propose(store, InitCluster { id, quorum, auto_create_topics: false, default_partitions: 1 }).await;
    }
    let bookie = RegisterBookie {
        name: "suite-bookie".to_owned(),
        instance: InstanceId([0x11; 16]),
        boot: BOOT,
        expect_boot_no: 0,
        durable_lsn: 0,
        address: "127.0.0.1:1".to_owned(),
        zone: String::new(),
        version: VERSION_MAX,
        replaces: None,
    };
    propose(store, bookie).await;
}

async fn commands_answer_in_order(store: &dyn MetadataStore) {
    let batch = vec![
        topic(1, "suite-a").into(),
        topic(2, "suite-a").into(),
        topic(3, "suite-b").into(),
        DeleteTopic { topic: TopicId([9; 16]) }.into(),
    ];
    let results = store.propose(batch).await.expect("a healthy store takes commands").results;
    let codes: Vec<Option<ErrorCode>> = results.iter().map(|r| r.as_ref().err().map(|reject| reject.code)).collect();
    assert_eq!(codes, [None, Some(ErrorCode::TopicExists), None, Some(ErrorCode::UnknownTopicId)]);
}

async fn a_read_sees_what_was_proposed(store: &dyn MetadataStore) {
    for tag in 10..20u8 {
        let name = format!("suite-{tag}");
        let made = propose(store, topic(tag, &name)).await;
        let Ok(Answer::Topic(TopicAnswer { topic: Some(found) })) =
            store.read(Query::Topic(TopicQuery { name: name.clone(), id: None })).await
        else {
            panic!("topic {name} was made and is not there");
        };
        assert!(matches!(made, Reply::Topic(reply) if reply.partitions == found.partitions));
    }
    match store.read(Query::Partition(PartitionQuery { partition: PartitionId(1 << 40) })).await {
        Ok(Answer::Partition(answer)) => assert!(answer.info.is_none() && !answer.deleted && answer.revision > 0),
        other => panic!("a question about a partition was answered by {other:?}"),
    }
}

async fn too_many_commands_are_refused(store: &dyn MetadataStore) {
    let one: Command = AllocProducerIds { count: 1 }.into();
    for commands in [vec![], vec![one; COMMANDS_MAX + 1]] {
        assert!(matches!(store.propose(commands).await, Err(ProposeError::NotApplied(_))));
    }
}

async fn concurrent_proposals_get_their_own_answers(store: &Arc<dyn MetadataStore>) {
    let mut tasks = tokio::task::JoinSet::new();
    for count in 1..=8u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut got = Vec::new();
            for _ in 0..25 {
                match propose(&*store, AllocProducerIds { count }).await {
                    Reply::ProducerIds(ids) if ids.count == count => {
                        got.extend(ids.first.0..ids.first.0 + u64::from(count))
                    }
                    other => panic!("asked for {count} ids, got {other:?}"),
                }
            }
            got
        });
    }
    let mut all = BTreeSet::new();
    while let Some(got) = tasks.join_next().await {
        for id in got.expect("no task panics") {
            assert!(all.insert(id), "producer id {id} was given out twice");
        }
    }
    assert_eq!(all.len(), 25 * (1..=8).sum::<usize>());
}

async fn a_watch_tells_everything_in_order(store: &dyn MetadataStore) {
    let mut watch = store.watch();
    let Some(WatchEvent::Snapshot(first)) = watch.next().await else { panic!("a watch begins with a snapshot") };
    assert!(first.topic_by_name("suite-a").is_some(), "and the snapshot is not older than the watch");
    let mut copy = esker_metadata_core::State::clone(&first);
    propose(store, topic(30, "suite-watched")).await;
    while copy.topic_by_name("suite-watched").is_none() {
        match watch.next().await {
            Some(WatchEvent::Delta(delta)) => copy.replay(&delta).expect("deltas have no gaps"),
            Some(WatchEvent::Snapshot(state)) => copy = esker_metadata_core::State::clone(&state),
            None => panic!("the watch ended"),
        }
    }
}

async fn a_view_ends_equal(store: &dyn MetadataStore) {
    let cancel = CancellationToken::new();
    let view = View::follow(store, cancel.clone());
    view.ready().await;
    for tag in 40..60u8 {
        propose(store, topic(tag, &format!("suite-{tag}"))).await;
    }
    // Others may write meanwhile: ask again until both show the same revision.
    loop {
        let Ok(Answer::Summary(truth)) = store.read(Query::Summary(SummaryQuery {})).await else {
            panic!("a question for the summary was not answered by one");
        };
        view.reached(truth.revision).await;
        let seen = view.read(|state| state.summary());
        if seen.revision == truth.revision {
            assert_eq!(seen, truth, "equal revisions, equal states");
            break;
        }
    }
    cancel.cancel();
}

async fn sessions_are_renewed_until_they_end(store: &Arc<dyn MetadataStore>) {
    let addresses =
        GatewayAddresses { quic: String::new(), kafka: String::new(), http: String::new(), internal: String::new() };
    let name = "suite-gateway".to_owned();
    let register = RegisterGateway { name, boot: BOOT, addresses, zone: String::new(), version: VERSION_MAX };
    let Reply::Gateway(reply) = propose(&**store, register).await else { panic!("a gateway reply") };
    let renewed = store.renew(reply.session, BOOT).await.expect("the session lives");
    assert!(renewed.ttl > Duration::ZERO);
    assert_eq!(store.renew(reply.session, BootId([0xb2; 16])).await, Err(RenewError::Lost), "another process");
    assert_eq!(store.renew(SessionId(1 << 40), BOOT).await, Err(RenewError::Lost), "nobody's session");
    let keeper = SessionKeeper::start(store.clone(), reply.session, BOOT, Duration::from_millis(90));
    assert!(!keeper.is_lost());
    propose(&**store, ExpireSession { session: reply.session }).await;
    assert_eq!(keeper.lost().await, SessionLost::Ended);
    let Ok(Answer::Session(answer)) =
        store.read(Query::Session(esker_metadata_core::SessionQuery { session: reply.session })).await
    else {
        panic!("a question for a session was not answered by one");
    };
    assert!(answer.session.is_none());
}
