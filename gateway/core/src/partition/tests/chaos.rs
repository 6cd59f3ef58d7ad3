//! Random schedules against a small cluster: nothing acked is lost, doubled or moved. The simulator does the heavy
//! breaking; this finds the plain mistakes in a second.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_types::{AllRules, Entry, EntryKind, Offset, Quorum, Rules, SegmentId, Time};
use esker_wire::batch::split;

use super::world::*;

/// (client, sequence) at each offset, read from the holders that metadata names.
fn log<R: Rules>(world: &mut World<R>) -> BTreeMap<Offset, (i64, i32)> {
    let mut found = BTreeMap::new();
    let chain: Vec<_> = world.state.chain(world.id).cloned().collect();
    let mut expected = 0;
    for closed in &chain {
        assert_eq!(closed.base_offset, expected, "the chain has a hole");
        expected = closed.end_offset;
        for holder in &closed.holders {
            let i = (0..world.bookies.len()).find(|i| instance(*i) == holder.instance).expect("a known holder");
            let held = world.bookies[i].held.get(&closed.segment).map(Vec::as_slice).unwrap_or_default();
            assert!(held.len() as u64 > closed.last, "holder {i} of {} does not hold all of it", closed.segment);
            read(&mut found, closed.segment, &held[..=closed.last as usize]);
        }
    }
    if let Some(open) = world.state.partition(world.id).expect("exists").open.clone() {
        assert_eq!(open.base_offset, expected);
        let segment = SegmentId { partition: world.id, n: open.n };
        let best = world.bookies.iter().filter_map(|b| b.held.get(&segment)).max_by_key(|held| held.len());
        read(&mut found, segment, best.map(Vec::as_slice).unwrap_or_default());
    }
    found
}

fn read(found: &mut BTreeMap<Offset, (i64, i32)>, segment: SegmentId, entries: &[bytes::Bytes]) {
    for bytes in entries {
        let entry = Entry::parse(bytes.clone()).expect("whole entries");
        assert_eq!(entry.header.segment, segment);
        if entry.header.kind != EntryKind::Data {
            continue;
        }
        for batch in split(entry.payload(), true) {
            let batch = batch.expect("whole batches");
            let header = batch.header();
            for i in 0..batch.count() as i32 {
                let at = header.base_offset + Offset::from(i);
                let value = (header.producer_id, header.base_sequence + i);
                assert_eq!(*found.entry(at).or_insert(value), value, "two values at offset {at}");
            }
        }
    }
}

fn run<R: Rules>(seed: u64) -> World<R> {
    let mut rng = Rng::new(seed ^ 0xabcd);
    let quorums = [(1, 1), (3, 2), (3, 2), (2, 2), (3, 3), (4, 3), (5, 3)];
    let (write, ack) = quorums[rng.below(quorums.len() as u64) as usize];
    let bookies = usize::from(write) + rng.below(3) as usize;
    let mut pick = |percent: u64, most: u64| if rng.chance(percent) { rng.below(most) } else { 0 };
    let faults = Faults {
        loss: pick(60, 20),
        unknown: pick(60, 50),
        crash: pick(60, 8),
        storm: pick(50, 10),
        moves: pick(60, 30),
        bookie_down: pick(50, 10),
        delay_ms: 1 + pick(80, 40),
    };
    let mut world = World::<R>::new(seed, bookies, 3, Quorum { write, ack }, faults);
    world.clients = (0..4).map(|_| Client { size: 1, ..Client::default() }).collect();
    for client in 0..world.clients.len() {
        world.send(Job::Client { client, attempt: 0 });
    }
    world.send(Job::Nemesis);
    world.send(Job::Controller);
    world.run(Time::from_millis(6_000));
    world.healed = true;
    for bookie in &mut world.bookies {
        bookie.up = true;
    }
    let until = world.now + Duration::from_secs(30);
    world.run(until);
    world
}

fn check<R: Rules>(seed: u64, world: &mut World<R>) {
    assert!(world.alarms.is_empty(), "seed {seed}: {:?}", world.alarms);
    let stuck: Vec<_> = world.processes.iter().map(|p| (p.life, p.partition.phase(), p.partition.deadline())).collect();
    let done = world.clients.iter().filter(|c| c.done).count();
    assert_eq!(done, world.clients.len(), "seed {seed}: clients never got an answer; {stuck:?} {:?}", world.now);
    let log = log(world);
    let by_value: BTreeMap<(i64, i32), Offset> = log.iter().map(|(at, value)| (*value, *at)).collect();
    assert_eq!(by_value.len(), log.len(), "seed {seed}: a record is in the log twice");
    for (i, client) in world.clients.iter().enumerate() {
        for (sequence, size, base) in &client.acked {
            for k in 0..*size as i32 {
                let at = by_value.get(&(i as i64 + 1, sequence + k)).copied();
                assert_eq!(at, Some(base + Offset::from(k)), "seed {seed}: client {i} sequence {}", sequence + k);
            }
        }
    }
}

#[test]
fn nothing_acked_is_lost_doubled_or_moved() {
    let seeds = std::env::var("ESKER_CHAOS_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let first = std::env::var("ESKER_CHAOS_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let (mut acks, mut seen) = (0, BTreeMap::<&str, u32>::new());
    for seed in first..first + seeds {
        let mut world = run::<AllRules>(seed);
        check(seed, &mut world);
        acks += world.clients.iter().map(|c| c.acked.len()).sum::<usize>();
        for what in world.seen {
            *seen.entry(what).or_default() += 1;
        }
    }
    println!("{seeds} seeds, {acks} acks, {seen:?}");
    if seeds >= 300 {
        for what in
            ["crash", "unknown outcome", "handover", "roll", "put-intent", "write back", "transfer", "duplicate"]
        {
            assert!(seen.contains_key(what), "no seed ever met {what}");
        }
    }
}

macro_rules! mutant {
    ($name:ident, $rule:ident, $seeds:literal) => {
        #[test]
        fn $name() {
            #[derive(Clone, Copy, Debug, Default)]
            struct Broken;
            impl Rules for Broken {
                const NAME: &'static str = stringify!($rule);
                const $rule: bool = false;
            }
            let dead = |seed: &u64| {
                let seed = *seed;
                std::panic::catch_unwind(move || check(seed, &mut run::<Broken>(seed))).is_err()
            };
            let killer = (0..$seeds).find(dead);
            println!("{}: killed by seed {killer:?}", Broken::NAME);
            assert!(killer.is_some(), "nobody noticed that {} does not hold", Broken::NAME);
        }
    };
}

mutant!(acks_behind_a_frozen_end_are_noticed, FREEZE_BEFORE_ROLL, 400);
mutant!(a_handover_without_a_freeze_is_noticed, HANDOVER_FREEZES, 400);
mutant!(thawing_after_a_read_is_noticed, STAY_FROZEN_WHILE_UNKNOWN, 400);
mutant!(a_missing_write_back_is_noticed, WRITE_BACK, 400);
mutant!(half_a_write_back_is_noticed, WRITE_BACK_WHOLE_SUFFIX, 400);
mutant!(too_few_fences_are_noticed, RECOVERY_COVERAGE, 400);
mutant!(a_segment_continued_by_another_process_is_noticed, OWN_START_ONLY, 400);
mutant!(a_blind_dedupe_is_noticed, DEDUPE_PENDING, 400);
mutant!(a_snapshot_of_the_live_table_is_noticed, SNAPSHOT_FOLDS_PREFIX, 400);
