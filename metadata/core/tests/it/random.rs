//! Any sequence of commands, sensible or not, late or twice, keeps I1, I2 and I9; and a copy that replays the deltas, or
//! is made from a snapshot, is the same state.

use std::collections::{BTreeMap, BTreeSet};

use esker_metadata_core::*;
use esker_types::*;
use proptest::prelude::*;

use crate::world::*;

/// Raw material of one command; [`make`] turns it into one that fits, or nearly fits, the state of the moment.
#[derive(Clone, Copy, Debug)]
struct Dice {
    op: u8,
    a: u8,
    b: u8,
    c: u8,
    wall: i16,
}

fn dice() -> impl Strategy<Value = Dice> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<i16>()).prop_map(|(op, a, b, c, wall)| Dice {
        op,
        a,
        b,
        c,
        wall,
    })
}

/// What must hold for ever.
#[derive(Default)]
struct Memory {
    closed: BTreeMap<SegmentId, (EntryId, Offset, u64)>,
    opened: BTreeMap<PartitionId, u64>,
    epochs: BTreeMap<PartitionId, (Epoch, Option<SessionId>)>,
    floors: BTreeMap<PartitionId, (Offset, u64, u64)>,
    ids: BTreeSet<(&'static str, u64)>,
    given: BTreeSet<u64>,
    wall: i64,
}

fn partition(state: &State, n: u8) -> PartitionRecord {
    let count = state.partitions().len().max(1);
    match state.partitions().nth(usize::from(n) % count) {
        Some(record) => PartitionRecord::clone(record),
        None => PartitionRecord::born(PartitionId(77), topic_id(1), 0, 0),
    }
}

fn members(pick: u8) -> Vec<Member> {
    (0..3).map(|i| member(u64::from((pick.wrapping_add(i)) % 5) + 1)).collect()
}

fn make(state: &State, d: Dice) -> Command {
    let p = partition(state, d.a);
    // One in eight comes from the past.
    let epoch = if d.c.is_multiple_of(8) { Epoch(p.epoch.0.saturating_sub(1)) } else { p.epoch };
    let session = SessionId(u64::from(d.b % 24));
    let live = state.gateways().filter_map(|g| g.session).nth(usize::from(d.b % 3)).unwrap_or(session);
    let n = if d.c.is_multiple_of(5) { u64::from(d.b % 6) } else { p.next_n };
    let next = (!d.b.is_multiple_of(4)).then(|| NextSegment { n, quorum: QUORUM, members: members(d.b) });
    let base = p.open.as_ref().map_or(p.next_offset, |open| open.base_offset);
    let records = i64::from(d.b % 5) - i64::from(d.c % 16 == 1);
    let close = Close {
        n: p.open.as_ref().map_or(p.next_n, |open| open.n),
        last: (!d.b.is_multiple_of(7)).then_some(EntryId::from(d.b)),
        end_offset: base + records,
        digest: u64::from(d.c),
        bytes: 1,
        first_ts: 0,
        max_ts: 0,
        holders: p.open.as_ref().map_or(members(d.c), |open| open.members[usize::from(d.c % 3 == 2)..].to_vec()),
    };
    let closed = state.chain(p.id).nth(usize::from(d.b % 4));
    let segment = closed.map(|s| s.segment).or(p.open_id()).unwrap_or(SegmentId { partition: p.id, n });
    let ver = closed.map_or(0, |s| s.ver);
    let (g, b) = (u64::from(d.b % 3) + 1, u64::from(d.b % 5) + 1);
    let upto_n = u64::from(d.b) % (p.next_n + 1);
    let at = p.id;
    match d.op % 34 {
        0 if d.c % 8 == 1 => {
            let session = p.owner.as_ref().map_or(session, |owner| owner.session);
            Release { partition: at, epoch, session }.into()
        }
        0..=2 => Assign { partition: at, expect_epoch: epoch, session: live }.into(),
        3 => Assign { partition: at, expect_epoch: epoch, session }.into(),
        4..=7 => {
            let next = NextSegment { n, quorum: QUORUM, members: members(d.c) };
            Open { partition: at, epoch, prev: p.tail_n(), next }.into()
        }
        8..=12 => Roll { partition: at, epoch, close, next }.into(),
        13..=14 => {
            let close = p.open.is_some().then_some(close);
            Handover { partition: at, epoch, close, to_session: live, next }.into()
        }
        15 => ForceClose { partition: at, epoch, close }.into(),
        16 => DataLoss { partition: at, epoch, from: p.log_start, to: p.log_start + i64::from(d.b) }.into(),
        17 => PutIntent { segment, ver, epoch, member: member(b), ttl_ms: 1 + u32::from(d.c) * 50 }.into(),
        18 => ReplaceMember { segment, ver, old: member(u64::from(d.c % 5) + 1), new: member(b) }.into(),
        19 => DropBookieCopies { partition: at, epoch, upto_n }.into(),
        20 => DeleteBegin { partition: at, epoch, log_start: p.log_start + i64::from(d.b % 6) }.into(),
        21 => DeleteDone { partition: at, epoch, upto_n }.into(),
        22 => gateway(g, u64::from(d.c % 4) + 1).into(),
        23 => {
            let known = state.bookie_by_name(&format!("b{b}"));
            let expect_boot_no = known.map_or(0, |bookie| bookie.boot_no);
            RegisterBookie { boot: boot(u64::from(d.c) + 1), expect_boot_no, ..bookie(b) }.into()
        }
        24 => ExpireSession { session: if d.c.is_multiple_of(2) { live } else { session } }.into(),
        25 => match d.c % 4 {
            0 => DrainBookie { bookie: BookieId(b), draining: d.c.is_multiple_of(8) }.into(),
            1 => DrainGateway { gateway: GatewayId(g), draining: d.c % 8 == 1 }.into(),
            2 => OpenSession { node: NodeRef::Gateway(GatewayId(g)), boot: boot(u64::from(d.c % 4) + 1) }.into(),
            _ => AllocProducerIds { count: u32::from(d.b) }.into(),
        },
        26 => topic(u64::from(d.b % 4) + 1, &format!("t{}", d.b % 4), u32::from(d.c % 3) + 1).into(),
        27 => {
            AddPartitions { topic: topic_id(u64::from(d.b % 4) + 1), total: u32::from(d.c % 5), validate_only: false }
                .into()
        }
        28 if d.c % 4 == 1 => {
            let interval = (!d.b.is_multiple_of(5)).then(|| (1_000 + u32::from(d.b)).to_string());
            let settings = vec![Setting { name: "consumer.heartbeat.interval.ms".to_owned(), value: interval }];
            AlterGroup { name: format!("g{}", d.a % 3), settings, validate_only: d.c % 8 == 1 }.into()
        }
        28 if d.c.is_multiple_of(4) => DeleteTopic { topic: topic_id(u64::from(d.b % 4) + 1) }.into(),
        28 => AlterTopic {
            topic: topic_id(2),
            settings: vec![setting("retention.ms", "5")],
            validate_only: d.c.is_multiple_of(2),
        }
        .into(),
        29..=31 => {
            let key = ObjectKey {
                incarnation: 0,
                partition: at,
                n: segment.n,
                epoch,
                attempt: u64::from(d.c % 3),
                shared: false,
            };
            let (digest, end_offset) = closed.map_or((0, 0), |s| (s.digest, s.end_offset));
            let place =
                ObjectPlace { key, position: 60, len: 9, footer_position: 69, footer_len: 9, footer_crc: 1, size: 99 };
            OffloadCommit { partition: at, epoch, n: segment.n, digest, end_offset, place }.into()
        }
        32 if d.c.is_multiple_of(4) => Pin {
            partition: at,
            id: u64::from(d.b % 3),
            root_ver: p.root_ver() + u64::from(d.b.is_multiple_of(4)),
            ttl_ms: 1 + u32::from(d.c),
        }
        .into(),
        32 if d.c % 4 == 1 => Unpin { partition: at, id: u64::from(d.b % 3) }.into(),
        32 => {
            let ver = p.root_ver() + u64::from(!d.c.is_multiple_of(9));
            let key = PageKey { incarnation: 0, partition: at, epoch, seq: u64::from(d.c) };
            let folded_to = p.folded_to() + u64::from(d.b % 4);
            let root =
                RootPlace { key, ver, len: 1, crc: 1, folded_to, segments: 1, bytes: 1, base_offset: 0, end_offset: 1 };
            let log_start = d.c.is_multiple_of(6).then_some(p.log_start + i64::from(d.b % 3));
            SetRoot { partition: at, epoch, expect_ver: p.root_ver(), root, log_start }.into()
        }
        _ if d.c.is_multiple_of(16) => LoseBookie { bookie: BookieId(b), instance: instance(b) }.into(),
        _ => Roll { partition: at, epoch, close, next: None }.into(),
    }
}

impl Memory {
    fn check(&mut self, state: &State, applied: &Applied) {
        assert!(state.wall().0 >= self.wall, "the clock went back");
        self.wall = state.wall().0;
        for reply in applied.results.iter().flatten() {
            if let Reply::ProducerIds(ids) = reply {
                let fresh = (ids.first.0..ids.first.0 + u64::from(ids.count)).all(|id| self.given.insert(id));
                assert!(fresh, "I9: a producer id was given out twice");
            }
        }
        for change in &applied.delta.changes {
            self.note(change);
        }
        state.partitions().for_each(|p| self.partition(state, p));
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Segment(s) => {
                let end = (s.last, s.end_offset, s.digest);
                assert_eq!(*self.closed.entry(s.segment).or_insert(end), end, "I2: {} changed", s.segment);
                assert!(s.end_offset > s.base_offset && !s.holders.is_empty());
            }
            Change::SessionGone(key) => {
                self.ids.insert(("ended session", key.id.0));
            }
            Change::Session(s) => {
                assert!(!self.ids.contains(&("ended session", s.id.0)), "I9: session {} came back", s.id);
            }
            Change::PartitionGone(key) => {
                self.ids.insert(("deleted partition", key.id.0));
            }
            Change::Partition(p) => {
                assert!(!self.ids.contains(&("deleted partition", p.id.0)), "I9: partition {} came back", p.id);
                let epoch = (p.epoch, p.owner.as_ref().map(|owner| owner.session));
                let old = self.epochs.insert(p.id, epoch).unwrap_or(epoch);
                assert!(
                    old.0 < epoch.0 || old == epoch || (old.0 == epoch.0 && epoch.1.is_none()),
                    "one epoch, one owner: {old:?} {epoch:?}"
                );
                let Some(open) = &p.open else { return };
                let newest = self.opened.entry(p.id).or_insert(0);
                assert!(open.n >= *newest, "I9: segment {}/{} came back", p.id, open.n);
                *newest = open.n;
            }
            _ => {}
        }
    }

    fn partition(&mut self, state: &State, p: &PartitionRecord) {
        let floors = (p.log_start, p.copies_from, p.next_n);
        let old = self.floors.insert(p.id, floors).unwrap_or(floors);
        assert!(old.0 <= floors.0 && old.1 <= floors.1 && old.2 <= floors.2, "{old:?} {floors:?}");
        // I1: disjoint and gapless but for what is declared lost or deleted.
        let covered = |from: Offset, to: Offset| {
            from == to || to <= p.log_start || p.lost.iter().any(|lost| lost.from <= from && to <= lost.to)
        };
        let chain: Vec<_> = state.chain(p.id).collect();
        for pair in chain.windows(2) {
            assert!(pair[0].end_offset <= pair[1].base_offset && pair[0].segment.n < pair[1].segment.n);
            assert!(covered(pair[0].end_offset, pair[1].base_offset), "I1: an undeclared gap in {}", p.id);
        }
        if let Some(last) = &p.last {
            assert!(last.end_offset <= p.next_offset && covered(last.end_offset, p.next_offset));
            // Its row may be gone when its records are; older ones that wait to be folded stay.
            let gone = last.end_offset <= p.log_start;
            let same = |s: &ClosedSegment| s.segment.n == last.n && s.end_offset == last.end_offset;
            assert!(chain.last().is_none_or(|s| same(s) || (gone && s.segment.n < last.n)));
        }
        if let Some(open) = &p.open {
            assert!(open.base_offset == p.next_offset && open.n < p.next_n);
            assert!(chain.last().is_none_or(|s| s.segment.n < open.n), "I1: the open segment is the last");
            assert!(!self.closed.contains_key(&SegmentId { partition: p.id, n: open.n }), "I2: opened again");
        }
        assert!(p.tail_n().is_none_or(|tail| p.copies_from <= tail.max(p.copies_from)));
        assert!(p.lost.windows(2).all(|pair| pair[0].to < pair[1].from));
    }
}

fn run(batches: &[Vec<Dice>]) {
    let mut w = World::new(5, 3, 2);
    let mut follower = w.state.clone();
    let mut memory = Memory::default();
    let mut past: Vec<Command> = Vec::new();
    for batch in batches {
        let mut commands = Vec::new();
        for d in batch {
            // A command may be applied late and twice.
            let late = (d.op >= 240 && !past.is_empty()).then(|| past[usize::from(d.a) % past.len()].clone());
            let command = late.unwrap_or_else(|| make(&w.state, *d));
            past.push(command.clone());
            commands.push(command);
        }
        w.wall += i64::from(batch.first().map_or(0, |d| d.wall)) / 8;
        let applied = w.apply(&commands);
        memory.check(&w.state, &applied);
        let sent: Delta = wire::decode(&wire::encode(&applied.delta)).unwrap();
        follower.replay(&sent).unwrap();
    }
    assert_eq!(follower.state_hash(), w.state.state_hash(), "deltas over the wire");
    let restored = decode_snapshot(&encode_snapshot(&w.state)).unwrap();
    assert_eq!(restored.state_hash(), w.state.state_hash());
    assert_eq!(restored.rows().collect::<Vec<_>>(), w.state.rows().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), ..ProptestConfig::default() })]
    #[test]
    fn any_commands_keep_the_invariants(
        batches in proptest::collection::vec(proptest::collection::vec(dice(), 1..4), 1..120),
    ) {
        run(&batches);
    }
}

#[test]
fn the_generator_reaches_what_it_must() {
    let mut w = World::new(5, 3, 2);
    let mut seen: BTreeMap<(&'static str, bool), u32> = BTreeMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..40_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [op, a, b, c, ..] = (seed >> 24).to_le_bytes();
        let command = make(&w.state, Dice { op, a, b, c, wall: 0 });
        if matches!(command, Command::LoseBookie(_) | Command::DeleteTopic(_)) && seed >> 56 != 0 {
            continue;
        }
        w.wall += 7;
        let applied = w.state.apply::<AllRules>(w.wall, std::slice::from_ref(&command));
        *seen.entry((command.name(), applied.results[0].is_ok())).or_default() += 1;
    }
    for name in [
        "assign",
        "open",
        "roll",
        "handover",
        "force-close",
        "put-intent",
        "drop-bookie-copies",
        "delete-done",
        "offload-commit",
        "set-root",
        "pin",
    ] {
        for accepted in [true, false] {
            let count = seen.get(&(name, accepted)).copied().unwrap_or(0);
            assert!(count >= 20, "{name} accepted={accepted}: {count} of {seen:?}");
        }
    }
    assert!(seen.get(&("replace-member", true)).copied().unwrap_or(0) > 0, "{seen:?}");
}
