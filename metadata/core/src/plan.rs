//! What the controller should do next. Pure: the same state gives the same plan, whoever leads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use esker_types::{GatewayId, PartitionId, SessionId};

use crate::command::{Assign, Command, ExpireSession};
use crate::records::{NodeRef, PartitionRecord};
use crate::state::State;

/// A partition that should be handed over. The controller asks the owner, who proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    pub partition: PartitionId,
    pub from: GatewayId,
    pub to: GatewayId,
    pub to_session: SessionId,
}

/// Gateways that may be given partitions.
type Targets = BTreeMap<GatewayId, SessionId>;

/// Ends the `dead` sessions and gives every partition without a living owner to one: the gateway with the fewest
/// first; partitions with an open segment first, since somebody writes them. Without a gateway to give to, sessions
/// still end. The list may be longer than one raft entry holds: propose it in pieces, in this order.
pub fn expire_and_assign(state: &State, dead: &[SessionId]) -> Vec<Command> {
    let dead: BTreeSet<SessionId> = dead.iter().copied().filter(|id| state.session(*id).is_some()).collect();
    let mut commands: Vec<Command> = dead.iter().map(|session| ExpireSession { session: *session }.into()).collect();
    let targets = targets(state, &dead);
    let lives = |p: &PartitionRecord| {
        let session = p.owner.as_ref().map(|owner| owner.session);
        session.is_some_and(|id| state.session(id).is_some() && !dead.contains(&id))
    };
    let mut counts: BTreeMap<GatewayId, usize> = targets.keys().map(|id| (*id, 0)).collect();
    let mut orphans = Vec::new();
    for partition in state.partitions() {
        if !lives(partition) {
            orphans.push(partition);
        } else if let Some(count) = partition.owner.as_ref().and_then(|owner| counts.get_mut(&owner.gateway)) {
            *count += 1;
        }
    }
    orphans.sort_by_key(|partition| (partition.open.is_none(), partition.id));
    let mut fewest: BinaryHeap<Reverse<(usize, GatewayId)>> =
        counts.into_iter().map(|(id, count)| Reverse((count, id))).collect();
    for partition in orphans {
        let Some(Reverse((count, gateway))) = fewest.pop() else { break };
        let session = targets[&gateway];
        commands.push(Assign { partition: partition.id, expect_epoch: partition.epoch, session }.into());
        fewest.push(Reverse((count + 1, gateway)));
    }
    commands
}

/// Moves that empty the draining gateways and level the others to within one partition, as few as possible. Partitions
/// without an open segment go first: their move is one command. Partitions without a living owner are left alone.
pub fn rebalance(state: &State) -> Vec<Move> {
    let targets = targets(state, &BTreeSet::new());
    let mut owned: BTreeMap<GatewayId, Vec<&PartitionRecord>> = targets.keys().map(|id| (*id, Vec::new())).collect();
    for partition in state.partitions() {
        if let Some(owner) = partition.owner.as_ref().filter(|owner| state.session(owner.session).is_some()) {
            owned.entry(owner.gateway).or_default().push(partition);
        }
    }
    if targets.is_empty() {
        return Vec::new();
    }
    let total: usize = owned.values().map(Vec::len).sum();
    let (base, extra) = (total / targets.len(), total % targets.len());
    // Whoever has most keeps the odd ones: that is what makes the moves few.
    let mut ranked: Vec<GatewayId> = targets.keys().copied().collect();
    ranked.sort_by_key(|id| (Reverse(owned[id].len()), *id));
    let quota: BTreeMap<GatewayId, usize> =
        ranked.iter().enumerate().map(|(rank, id)| (*id, base + usize::from(rank < extra))).collect();

    let mut leaving: Vec<(&PartitionRecord, GatewayId)> = Vec::new();
    for (gateway, partitions) in &mut owned {
        let keep = quota.get(gateway).copied().unwrap_or(0);
        partitions.sort_by_key(|p| (p.open.is_none(), p.id));
        let surplus = partitions.len().saturating_sub(keep);
        leaving.extend(partitions.drain(partitions.len() - surplus..).map(|p| (p, *gateway)));
    }
    // Away from draining gateways first, their processes wait for it; among equals the cheap ones.
    leaving.sort_by_key(|(p, from)| (targets.contains_key(from), p.open.is_some(), p.id));
    let mut room: BinaryHeap<(usize, Reverse<GatewayId>)> = quota
        .iter()
        .map(|(id, quota)| (quota.saturating_sub(owned[id].len()), Reverse(*id)))
        .filter(|(room, _)| *room > 0)
        .collect();
    let mut moves = Vec::new();
    for (partition, from) in leaving {
        let Some((left, Reverse(to))) = room.pop() else { break };
        moves.push(Move { partition: partition.id, from, to, to_session: targets[&to] });
        if left > 1 {
            room.push((left - 1, Reverse(to)));
        }
    }
    moves
}

/// Live gateways that take partitions, `dead` sessions left out.
fn targets(state: &State, dead: &BTreeSet<SessionId>) -> Targets {
    let live = |session: &SessionId| {
        !dead.contains(session)
            && state.session(*session).is_some_and(|record| matches!(record.node, NodeRef::Gateway(_)))
    };
    let gateways = state.gateways().filter(|gateway| !gateway.draining);
    gateways.filter_map(|gateway| Some((gateway.id, gateway.session.filter(live)?))).collect()
}
