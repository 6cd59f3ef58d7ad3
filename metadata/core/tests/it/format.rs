//! What is on disk and on the wire.

use esker_metadata_core::*;
use esker_types::*;
use proptest::prelude::*;

use crate::world::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One of every command.
fn all_commands() -> Vec<Command> {
    let close = close(1, 10);
    let segment = SegmentId::new(1, 1);
    let (partition, epoch) = (PartitionId(1), Epoch(1));
    vec![
        init(1).into(),
        FinalizeVersion { version: 1 }.into(),
        CreateTopic { replication: Some(3), settings: vec![setting("retention.ms", "5")], ..topic(1, "t", 2) }.into(),
        AlterTopic { topic: topic_id(1), settings: vec![setting("retention.ms", "6")], validate_only: true }.into(),
        AddPartitions { topic: topic_id(1), total: 3, validate_only: false }.into(),
        DeleteTopic { topic: topic_id(1) }.into(),
        gateway(1, 1).into(),
        bookie(1).into(),
        ReportBookie {
            bookie: BookieId(1),
            instance: instance(1),
            boot_no: 1,
            durable_lsn: 2,
            read_only: true,
            disk_total: 3,
            disk_used: 4,
        }
        .into(),
        OpenSession { node: NodeRef::Bookie(BookieId(1)), boot: boot(1) }.into(),
        ExpireSession { session: SessionId(1) }.into(),
        DrainGateway { gateway: GatewayId(1), draining: true }.into(),
        DrainBookie { bookie: BookieId(1), draining: true }.into(),
        LoseBookie { bookie: BookieId(1), instance: instance(1) }.into(),
        AllocProducerIds { count: 9 }.into(),
        Assign { partition, expect_epoch: epoch, session: SessionId(1) }.into(),
        Open { partition, epoch, prev: None, next: next(1) }.into(),
        Roll { partition, epoch, close: close.clone(), next: Some(next(2)) }.into(),
        Handover { partition, epoch, close: None, to_session: SessionId(2), next: None }.into(),
        ForceClose { partition, epoch, close }.into(),
        DataLoss { partition, epoch, from: 1, to: 2 }.into(),
        Release { partition, epoch, session: SessionId(1) }.into(),
        PutIntent { segment, ver: 1, epoch, member: member(1), ttl_ms: 5 }.into(),
        ReplaceMember { segment, ver: 1, old: member(1), new: member(2) }.into(),
        DropBookieCopies { partition, epoch, upto_n: 2 }.into(),
        DeleteBegin { partition, epoch, log_start: 5 }.into(),
        DeleteDone { partition, epoch, upto_n: 2 }.into(),
    ]
}

#[test]
fn every_command_round_trips() {
    let mut all = all_commands();
    all.push(Restore { rows: vec![Change::TopicGone(TopicKey { id: topic_id(1) })], before: 1, after: 2 }.into());
    let batch = CommandBatch::new(1_700_000_000_000, all);
    assert_eq!(CommandBatch::decode(&batch.encode()), Ok(batch.clone()));
    let newer = CommandBatch { version: COMMAND_VERSION + 1, ..batch.clone() };
    assert_eq!(CommandBatch::decode(&newer.encode()), Err(wire::DecodeError::Newer("command batch")));
    let long = CommandBatch::new(0, vec![AllocProducerIds { count: 1 }.into(); COMMANDS_MAX + 1]);
    assert!(CommandBatch::decode(&long.encode()).is_err());
}

/// The formats are frozen: a change is a new version, not a new golden value.
#[test]
fn golden_bytes() {
    let batch = CommandBatch::new(
        1_700_000_000_000,
        vec![
            Assign { partition: PartitionId(7), expect_epoch: Epoch(3), session: SessionId(12) }.into(),
            Roll { partition: PartitionId(7), epoch: Epoch(4), close: close(1, 10), next: Some(next(2)) }.into(),
        ],
    );
    assert_eq!(hex(&batch.encode()), GOLDEN_BATCH);
    let all = CommandBatch::new(0, all_commands()).encode();
    assert_eq!((all.len(), checksum::crc32c(&all)), GOLDEN_ALL);
}

#[test]
fn golden_state() {
    let mut w = World::new(3, 2, 2);
    w.assign(1);
    w.open();
    let roll = w.roll_of(10, Some(next(2)));
    w.ok(roll);
    w.ok(PutIntent { segment: SegmentId::new(1, 1), ver: 0, epoch: Epoch(0), member: member(3), ttl_ms: 5 });
    assert_eq!(w.state.state_hash(), GOLDEN_HASH, "voters of different builds must agree");
    let again = decode_snapshot(&encode_snapshot(&w.state)).unwrap();
    assert_eq!(again.state_hash(), GOLDEN_HASH);
    assert_eq!((again.revision(), again.wall()), (w.state.revision(), w.state.wall()));
}

#[test]
fn a_damaged_snapshot_is_never_a_state() {
    let w = World::new(3, 1, 1);
    let good = encode_snapshot(&w.state);
    assert!(decode_snapshot(&good).is_ok());
    assert!(decode_snapshot(&[]).is_err());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_snapshot(&bad).is_err(), "bit {bit}");
    }
    for cut in 0..good.len() {
        assert!(decode_snapshot(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut newer = good[..good.len() - 4].to_vec();
    newer[4] = 2;
    newer.extend_from_slice(&checksum::crc32c(&newer).to_le_bytes());
    assert_eq!(decode_snapshot(&newer).unwrap_err(), SnapshotError::Newer { found: 2 });
}

#[test]
fn results_and_answers_round_trip() {
    let refused: CommandResult = Err(Reject::new(ErrorCode::FencedEpoch, "why"));
    assert_eq!(wire::decode::<CommandResult>(&wire::encode(&refused)), Ok(refused));
    for reply in [
        Reply::DONE,
        Reply::Epoch(EpochReply { epoch: Epoch(3) }),
        Reply::Topic(TopicReply { topic: topic_id(1), partitions: vec![PartitionId(1), PartitionId(2)] }),
    ] {
        let result: CommandResult = Ok(reply);
        assert_eq!(wire::decode::<CommandResult>(&wire::encode(&result)), Ok(result));
    }
    let mut w = World::new(3, 1, 1);
    w.assign(1);
    w.open();
    let roll = w.roll_of(10, Some(next(2)));
    w.ok(roll);
    let instance = instance(1);
    for query in [
        Query::Cluster(ClusterQuery {}),
        Query::Partition(PartitionQuery { partition: PartitionId(1) }),
        Query::Partition(PartitionQuery { partition: PartitionId(99) }),
        Query::Topic(TopicQuery { name: "t".to_owned(), id: None }),
        Query::Topic(TopicQuery { name: String::new(), id: Some(topic_id(1)) }),
        Query::BookieGc(GcQuery { instance, segments: vec![SegmentId::new(1, 1), SegmentId::new(1, 99)] }),
        Query::OpenSegmentsOf(InstanceQuery { instance }),
        Query::BookieByName(BookieQuery { name: "b1".to_owned() }),
        Query::GatewayByName(GatewayQuery { name: "g1".to_owned() }),
        Query::Session(SessionQuery { session: w.session(1) }),
        Query::Summary(SummaryQuery {}),
        Query::SegmentsOf(SegmentsQuery { instance }),
    ] {
        assert_eq!(wire::decode::<Query>(&wire::encode(&query)), Ok(query.clone()));
        let answer = w.state.answer(&query);
        assert_eq!(wire::decode::<Answer>(&wire::encode(&answer)), Ok(answer));
    }
}

proptest! {
    #[test]
    fn foreign_bytes_are_refused_not_fatal(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = CommandBatch::decode(&bytes);
        let _ = decode_snapshot(&bytes);
        let _ = wire::decode::<Delta>(&bytes);
        let _ = wire::decode::<Answer>(&bytes);
    }

    #[test]
    fn flipped_commands_are_refused_or_applied_not_fatal(
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = CommandBatch::new(5, all_commands()).encode();
        for (at, mask) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= mask;
        }
        if let Ok(batch) = CommandBatch::decode(&bytes) {
            let mut w = World::new(3, 2, 2);
            w.apply(&batch.commands);
        }
    }
}

const GOLDEN_BATCH: &str = concat!(
    "08011080d095ffbc311a09f2010608071003180c1a980182029401080710041a4208011009180a21d2000000000000002880203005383242",
    "14080112101111111111111111000000000000000142140802121011111111111111110000000000000002224a08021204080310021a1408",
    "011210111111111111111100000000000000011a1408021210111111111111111100000000000000021a1408031210111111111111111100",
    "00000000000003",
);
const GOLDEN_ALL: (usize, u32) = (890, 1_740_712_889);
const GOLDEN_HASH: u64 = 342_874_644_530_151_940;
