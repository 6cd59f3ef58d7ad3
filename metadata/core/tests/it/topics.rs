//! Topics.

use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

#[test]
fn a_topic_is_made_once_however_often_it_is_proposed() {
    let mut w = World::new(3, 0, 0);
    let create = topic(1, "orders", 3);
    let first = w.ok(create.clone());
    assert_eq!(w.ok(create.clone()), first);
    assert_eq!(w.state.partitions().len(), 3);
    assert_eq!(w.refused(topic(2, "orders", 1)), ErrorCode::TopicExists);
    assert_eq!(w.refused(topic(1, "other", 1)), ErrorCode::InvalidRequest);
    w.ok(DeleteTopic { topic: topic_id(1) });
    w.ok(DeleteTopic { topic: topic_id(1) });
    assert_eq!(w.refused(create), ErrorCode::TopicDeleted, "a late copy does not bring it back");
    let Reply::Topic(again) = w.ok(topic(2, "orders", 1)) else { panic!("a topic reply") };
    assert_eq!(again.partitions, vec![PartitionId(4)], "partition ids are not used twice");
    assert_eq!(w.state.deleted_partitions().len(), 3);
}

#[test]
fn names_follow_kafkas_rule() {
    let mut w = World::new(3, 0, 0);
    let long = "x".repeat(250);
    for bad in ["", ".", "..", "a b", "a/b", "ä", "__mine", long.as_str()] {
        assert_eq!(w.refused(topic(1, bad, 1)), ErrorCode::InvalidTopicName, "{bad:?}");
    }
    assert_eq!(w.refused(CreateTopic { internal: true, ..topic(1, "mine", 1) }), ErrorCode::InvalidTopicName);
    w.ok(CreateTopic { internal: true, ..topic(1, "__mine", 1) });
    w.ok(topic(2, &"x".repeat(249), 1));
    w.ok(topic(3, "A.b_c-1", 1));
    assert_eq!(w.refused(DeleteTopic { topic: topic_id(1) }), ErrorCode::NotAuthorized);
}

#[test]
fn counts_and_quorums_are_checked() {
    let mut w = World::new(3, 0, 0);
    assert_eq!(w.refused(topic(1, "t", PARTITIONS_PER_TOPIC_MAX + 1)), ErrorCode::InvalidPartitions);
    let with = |replication, settings| CreateTopic { replication, settings, ..topic(1, "t", 1) };
    for n in [0, 4, 8, 300] {
        assert_eq!(w.refused(with(Some(n), vec![])), ErrorCode::InvalidReplicationFactor, "{n}");
    }
    let wide = vec![setting("esker.write.quorum", "4")];
    assert_eq!(w.refused(with(None, wide)), ErrorCode::InvalidReplicationFactor);
    let torn = vec![setting("esker.write.quorum", "3")];
    assert_eq!(w.refused(with(Some(2), torn)), ErrorCode::InvalidConfig);
    assert_eq!(w.refused(with(None, vec![setting("segment.bytes", "x")])), ErrorCode::InvalidConfig);
    let validated = CreateTopic { validate_only: true, ..with(None, vec![]) };
    w.ok(validated);
    assert!(w.state.topic_by_name("t").is_none());
    w.ok(with(Some(1), vec![setting("retention.ms", "1000")]));
    let settings = w.state.topic_by_name("t").unwrap().settings.effective();
    assert_eq!((settings.quorum, settings.retention_ms), (Quorum { write: 1, ack: 1 }, 1000));
    w.ok(topic(2, "default", 0));
    assert_eq!(w.state.topic_by_name("default").unwrap().settings.quorum, QUORUM);
    assert_eq!(w.state.topic_by_name("default").unwrap().partitions.len(), 1);
}

#[test]
fn a_topic_needs_bookies() {
    let mut w = World::new(2, 0, 0);
    assert_eq!(w.refused(topic(1, "t", 1)), ErrorCode::InvalidReplicationFactor);
    w.ok(bookie(3));
    w.ok(topic(1, "t", 1));
    w.ok(LoseBookie { bookie: BookieId(3), instance: instance(3) });
    assert_eq!(w.refused(topic(2, "u", 1)), ErrorCode::InvalidReplicationFactor);
}

#[test]
fn a_topic_grows_and_is_altered() {
    let mut w = World::new(3, 0, 1);
    let id = topic_id(1);
    let grow = |total| AddPartitions { topic: id, total, validate_only: false };
    assert_eq!(w.refused(grow(0)), ErrorCode::InvalidPartitions);
    w.ok(grow(3));
    w.ok(grow(3));
    assert_eq!(w.state.partitions().len(), 3);
    assert_eq!(w.partition(2).index, 2);
    assert_eq!(
        w.refused(AddPartitions { topic: topic_id(9), total: 2, validate_only: false }),
        ErrorCode::UnknownTopicId
    );
    let alter = |settings| AlterTopic { topic: id, settings, validate_only: false };
    w.ok(alter(vec![setting("esker.write.quorum", "2"), setting("esker.ack.quorum", "2")]));
    let quorum = w.state.topic(id).unwrap().settings.quorum;
    assert_eq!(quorum, Quorum { write: 2, ack: 2 });
    assert_eq!(
        w.refused(alter(vec![setting("esker.write.quorum", "1"), setting("esker.ack.quorum", "2")])),
        ErrorCode::InvalidConfig
    );
    w.ok(alter(vec![Setting { name: "esker.write.quorum".to_owned(), value: None }]));
    assert_eq!(w.state.topic(id).unwrap().settings.quorum, QUORUM);
}

#[test]
fn a_hundred_thousand_partitions_fit() {
    let mut w = World::new(3, 2, 100_000);
    let commands = plan::expire_and_assign(&w.state, &[]);
    assert_eq!(commands.len(), 100_000);
    for batch in commands.chunks(COMMANDS_MAX) {
        let applied = w.state.apply::<AllRules>(0, batch);
        assert_eq!(applied.delta.changes.len(), batch.len(), "a delta is as long as what changed");
    }
    let again = decode_snapshot(&encode_snapshot(&w.state)).unwrap();
    assert_eq!(again.state_hash(), w.state.state_hash());
    assert_eq!(w.state.summary().ownerless, 0);
}
