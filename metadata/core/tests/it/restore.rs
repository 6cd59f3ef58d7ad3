//! What comes back from a backup goes on in a life of its own.

use esker_metadata_core::*;
use esker_types::*;

use crate::world::*;

const LATER: Bump = Bump { from: 1, incarnation: 2 };

fn partition() -> PartitionRecord {
    let mut record = PartitionRecord::born(PartitionId(7), topic_id(1), 0, 0);
    (record.epoch, record.next_n, record.next_offset, record.log_start) = (Epoch(9), 6, 500, 10);
    record.open = Some(OpenSegment {
        n: 5,
        seg_epoch: Epoch(9),
        session: SessionId(3),
        quorum: Quorum { write: 1, ack: 1 },
        members: vec![member(1)],
        base_offset: 500,
        opened: WallMs(1),
    });
    record
}

fn last(n: u64, end_offset: Offset) -> LastClosed {
    LastClosed { n, last: 3, end_offset, digest: 77 }
}

#[test]
fn nothing_of_the_past_is_given_out_again() {
    let old = partition();
    let new = LATER.partition::<AllRules>(&old, 500, Some(last(4, 500)), &[]);
    assert!(new.epoch > old.epoch && new.epoch == Epoch::first(2) && new.next_n == first_id(2));
    assert!(new.open.is_none() && new.owner.is_none());
    assert_eq!((new.next_offset, new.log_start, new.copies_from), (1 << 40, 10, 4));
    // The open segment held an unknown number of records.
    assert_eq!(new.lost, [LostRange { from: 500, to: 1 << 40 }]);
    let again = Bump { from: 2, incarnation: 3 }.partition::<AllRules>(&new, 500, Some(last(4, 500)), &[]);
    assert_eq!((again.next_offset, again.lost.len()), (2 << 40, 1), "a second time jumps further, over one hole");
    let skipped = Bump { from: 2, incarnation: 5 }.partition::<AllRules>(&new, 500, Some(last(4, 500)), &[]);
    assert_eq!(
        skipped.next_offset,
        4 << 40,
        "lives 3 and 4 began at 2 and 3 times 2^40, and nobody knows how they went on"
    );
    let nothing = LATER.partition::<AllRules>(&PartitionRecord::born(PartitionId(8), topic_id(1), 1, 0), 0, None, &[]);
    assert_eq!((nothing.next_offset, nothing.last), (1 << 40, None), "nobody knows that nothing was written");
}

#[test]
fn counters_of_ids_are_no_change_of_the_cluster() {
    let world = World::new(1, 0, 0);
    let cluster = world.state.cluster().expect("born");
    let busy =
        ClusterRecord { next_session: 900, next_producer: 5_000, next_partition: 7, ..ClusterRecord::clone(cluster) };
    assert!(!busy.differs(cluster) && !cluster.differs(&busy));
    assert!(ClusterRecord { version: cluster.version + 1, ..busy.clone() }.differs(cluster));
    assert!(LATER.cluster(cluster).differs(cluster), "another life");
}

#[test]
fn names_keep_their_ids_and_lost_data_never_comes_back() {
    let mut world = World::new(1, 0, 0);
    let old = world.state.bookie(BookieId(1)).expect("registered").clone();
    let gone = LATER.bookie(&old);
    assert_eq!((gone.id, gone.state, gone.instance), (old.id, BookieState::Lost, InstanceId::NIL));
    let cluster = LATER.cluster(world.state.cluster().expect("born"));
    assert_eq!((cluster.incarnation, cluster.next_producer, cluster.next_partition), (2, first_id(2), first_id(2)));
    let rows = [Change::Cluster(cluster.into()), Change::Bookie(gone.into())];
    world.state = State::from_rows(0, WallMs(0), rows);
    let back = RegisterBookie { instance: old.instance, ..bookie(1) };
    assert_eq!(world.refused(back), ErrorCode::WrongInstance, "its data was given up");
    let fresh = RegisterBookie { instance: instance(99), boot: boot(99), ..bookie(1) };
    assert!(matches!(world.ok(fresh), Reply::Bookie(BookieReply { bookie, .. }) if bookie == old.id));
    let live = world.state.bookie(old.id).expect("there");
    assert_eq!((live.state, live.retired.as_slice()), (BookieState::Live, &[old.instance][..]));
}

/// A state with several hundred topics, so that a restore comes in pieces.
fn large() -> State {
    let mut rows = Vec::new();
    let mut world = World::new(1, 0, 0);
    for i in 0..3_000u64 {
        let id = PartitionId(first_id(1) + i);
        let mut uuid = [i as u8; 16];
        uuid[..8].copy_from_slice(&i.to_be_bytes());
        let topic = TopicId::from_random(uuid);
        let mut record = PartitionRecord::born(id, topic, 0, 1);
        record.lost = (0..20).map(|k| LostRange { from: k * 10, to: k * 10 + 1 }).collect();
        rows.push(Change::Partition(record.into()));
        let settings = TopicSettings::new(Quorum { write: 1, ack: 1 });
        let name = format!("topic-{i}");
        rows.push(Change::Topic(
            TopicRecord { id: topic, name, partitions: vec![id], settings, internal: false }.into(),
        ));
    }
    let cluster = LATER.cluster(world.state.cluster().expect("born"));
    rows.push(Change::Cluster(cluster.into()));
    world.state = State::from_rows(0, WallMs(0), rows);
    world.state
}

#[test]
fn pieces_come_in_once_each_and_in_order() {
    let (whole, mut state) = (large(), State::default());
    let commands = restore_commands(&whole);
    assert!(commands.len() > 2, "{} pieces", commands.len());
    let mut put = |command: &Command| state.apply::<AllRules>(5, std::slice::from_ref(command)).results.remove(0);
    assert!(put(&commands[1]).is_err(), "not before the first");
    for (i, command) in commands.iter().enumerate() {
        let encoded = CommandBatch::new(1, vec![command.clone()]).encode();
        assert!(encoded.len() < 2 << 20, "it fits into an entry");
        assert_eq!(put(command), Ok(Reply::DONE), "piece {i}");
        assert_eq!(put(command), Ok(Reply::DONE), "piece {i} again");
    }
    assert!(put(&commands[0]).is_err(), "the cluster is there");
    assert_eq!((state.rows_hash(), state.topics().count()), (whole.rows_hash(), 3_000));
    assert_eq!(state.cluster(), whole.cluster());
}

#[test]
fn a_cluster_that_lives_and_a_part_of_another_restore_are_refused() {
    let mut world = World::new(1, 0, 0);
    let commands = restore_commands(&large());
    assert_eq!(world.refused(commands[0].clone()), ErrorCode::Precondition);
    let mut state = State::default();
    let foreign = TopicRecord {
        id: topic_id(5),
        name: "other".to_owned(),
        partitions: Vec::new(),
        settings: TopicSettings::new(Quorum { write: 1, ack: 1 }),
        internal: false,
    };
    let foreign = State::from_rows(0, WallMs(0), [Change::Topic(foreign.into())]);
    let first = restore_commands(&foreign).remove(0);
    assert_eq!(state.apply::<AllRules>(1, &[first]).results, [Ok(Reply::DONE)]);
    let refused = state.apply::<AllRules>(2, &commands[..1]).results.remove(0).expect_err("another restore");
    assert!(refused.reason.contains("another restore"), "{}", refused.reason);
}
