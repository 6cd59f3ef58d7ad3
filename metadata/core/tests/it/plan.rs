//! The controller's plans.

use std::collections::BTreeMap;

use esker_metadata_core::plan::{Move, expire_and_assign, rebalance};
use esker_metadata_core::*;
use esker_types::*;
use proptest::prelude::*;

use crate::world::*;

fn counts(w: &World) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for p in w.state.partitions().filter(|p| w.state.has_live_owner(p)) {
        *counts.entry(p.owner.as_ref().unwrap().gateway.0).or_default() += 1;
    }
    counts
}

fn follow(w: &mut World, commands: &[Command]) {
    let applied = w.apply(commands);
    assert!(applied.results.iter().all(Result::is_ok), "{:?}", applied.results);
}

/// What the owners do when asked.
fn carry_out(w: &mut World, moves: &[Move]) {
    for m in moves {
        let p = w.state.partition(m.partition).unwrap();
        assert_eq!(p.owner.as_ref().unwrap().gateway, m.from);
        let handover = Handover { partition: p.id, epoch: p.epoch, close: None, to_session: m.to_session, next: None };
        w.ok(handover);
    }
}

#[test]
fn partitions_are_spread_over_gateways_that_stay() {
    let mut w = World::new(3, 3, 10);
    w.ok(DrainGateway { gateway: GatewayId(3), draining: true });
    let plan = expire_and_assign(&w.state, &[]);
    follow(&mut w, &plan);
    assert_eq!(counts(&w), BTreeMap::from([(1, 5), (2, 5)]));
    assert_eq!(expire_and_assign(&w.state, &[]), vec![]);
}

#[test]
fn a_dead_gateways_partitions_go_to_the_others_written_ones_first() {
    let mut w = World::new(3, 3, 9);
    let plan = expire_and_assign(&w.state, &[]);
    follow(&mut w, &plan);
    let dead = w.session(1);
    // Partition index 6 is the last of gateway 1's, and the only one that is written.
    let written = w.partition(6);
    assert_eq!(written.owner.as_ref().unwrap().session, dead);
    w.ok(Open { partition: written.id, epoch: written.epoch, prev: None, next: next(1) });
    let plan = expire_and_assign(&w.state, &[dead, SessionId(4711)]);
    assert_eq!(plan[0], ExpireSession { session: dead }.into());
    assert!(matches!(&plan[1], Command::Assign(assign) if assign.partition == written.id));
    assert_eq!(plan.len(), 4);
    follow(&mut w, &plan);
    let mut left: Vec<usize> = counts(&w).into_values().collect();
    left.sort_unstable();
    assert_eq!(left, vec![4, 5]);
}

#[test]
fn without_gateways_sessions_still_end() {
    let mut w = World::new(3, 1, 4);
    let dead = w.session(1);
    let plan = expire_and_assign(&w.state, &[dead]);
    assert_eq!(plan, vec![ExpireSession { session: dead }.into()]);
    follow(&mut w, &plan);
    assert_eq!(rebalance(&w.state), vec![]);
}

#[test]
fn a_new_gateway_takes_its_share_and_no_more() {
    let mut w = World::new(3, 2, 10);
    let plan = expire_and_assign(&w.state, &[]);
    follow(&mut w, &plan);
    assert_eq!(rebalance(&w.state), vec![]);
    w.ok(gateway(3, 3));
    let moves = rebalance(&w.state);
    assert_eq!(moves.len(), 3);
    assert!(moves.iter().all(|m| m.to == GatewayId(3)));
    carry_out(&mut w, &moves);
    assert_eq!(rebalance(&w.state), vec![]);
}

#[test]
fn a_draining_gateway_is_emptied() {
    let mut w = World::new(3, 3, 8);
    let plan = expire_and_assign(&w.state, &[]);
    follow(&mut w, &plan);
    w.ok(DrainGateway { gateway: GatewayId(2), draining: true });
    let moves = rebalance(&w.state);
    assert!(moves.iter().all(|m| m.from == GatewayId(2)), "the others stay where they are");
    carry_out(&mut w, &moves);
    assert_eq!(counts(&w), BTreeMap::from([(1, 4), (3, 4)]));
}

proptest! {
    #[test]
    fn any_spread_is_levelled_with_the_fewest_moves(
        owners in proptest::collection::vec(1u64..=5, 0..40),
        draining in proptest::collection::btree_set(1u64..=5, 0..3),
    ) {
        let mut w = World::new(3, 5, 40);
        for (index, owner) in owners.iter().enumerate() {
            let p = w.partition(index as u32);
            let session = w.session(*owner);
            w.ok(Assign { partition: p.id, expect_epoch: p.epoch, session });
        }
        for gateway in &draining {
            w.ok(DrainGateway { gateway: GatewayId(*gateway), draining: true });
        }
        let before = counts(&w);
        let moves = rebalance(&w.state);
        prop_assert_eq!(&moves, &rebalance(&w.state));
        carry_out(&mut w, &moves);
        let after = counts(&w);
        let stay = (1..=5).filter(|g| !draining.contains(g));
        let levels: Vec<usize> = stay.clone().map(|g| after.get(&g).copied().unwrap_or(0)).collect();
        prop_assert!(levels.iter().max().unwrap() - levels.iter().min().unwrap() <= 1, "{levels:?}");
        prop_assert_eq!(levels.iter().sum::<usize>(), owners.len());
        // Fewest: nobody both gives and gets.
        for gateway in stay {
            let gives = moves.iter().any(|m| m.from == GatewayId(gateway));
            let gets = moves.iter().any(|m| m.to == GatewayId(gateway));
            prop_assert!(!(gives && gets), "gateway {} had {:?}", gateway, before.get(&gateway));
        }
        prop_assert_eq!(rebalance(&w.state), vec![]);
    }
}
