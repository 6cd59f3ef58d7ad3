use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use esker_types::{ErrorCode, Time};

use super::super::api::Response;
use super::super::out::Cx;
use super::{Classic, Initial, Member, Phase};

/// Shortest time that members are given to join and sync.
const REBALANCE_MIN: Duration = Duration::from_secs(1);

impl Classic {
    /// Begins a rebalance unless one is under way.
    pub(super) fn prepare(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.phase, Phase::Preparing { .. }) {
            return;
        }
        self.fail_syncs(cx, ErrorCode::RebalanceInProgress);
        let longest = self.rebalance_timeout();
        let delay = cx.config.initial_rebalance_delay;
        self.phase = match self.phase == Phase::Empty && !delay.is_zero() {
            true => {
                let initial = Initial { last: cx.now + longest.max(delay), grown: false };
                Phase::Preparing { until: cx.now + delay, initial: Some(initial) }
            }
            false => Phase::Preparing { until: cx.now + longest, initial: None },
        };
        self.since_ms = cx.wall;
    }

    /// Goes on as soon as nobody is missing.
    pub(super) fn try_complete_join(&mut self, cx: &mut Cx<'_>) {
        let all_here = self.pending.is_empty() && self.members.values().all(|member| member.join.is_some());
        match &self.phase {
            Phase::Preparing { initial: None, .. } if all_here => self.complete_join(cx),
            // The first generation is given its time, unless all have gone again.
            Phase::Preparing { initial: Some(_), .. } if self.members.is_empty() => self.complete_join(cx),
            _ => {}
        }
    }

    /// The time to join is over.
    pub(super) fn on_join_timeout(&mut self, cx: &mut Cx<'_>) {
        if let Phase::Preparing { until, initial: Some(Initial { last, grown }) } = &mut self.phase
            && *grown
            && cx.now < *last
        {
            *until = (cx.now + cx.config.initial_rebalance_delay).min(*last);
            *grown = false;
            return;
        }
        let missing: Vec<String> = self
            .members
            .values()
            .filter(|member| member.join.is_none() && member.instance.is_none())
            .map(|member| member.id.clone())
            .collect();
        missing.iter().for_each(|id| {
            self.take_out(id);
        });
        let nobody_joined = self.members.values().all(|member| member.join.is_none());
        if nobody_joined && !self.members.is_empty() {
            // Only static members, all away: they keep their place until their sessions end.
            self.phase = Phase::Preparing { until: cx.now + self.rebalance_timeout(), initial: None };
            return;
        }
        self.complete_join(cx);
    }

    fn complete_join(&mut self, cx: &mut Cx<'_>) {
        self.dirty = true;
        self.since_ms = cx.wall;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.drop_pending(|_| false);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol.clear();
            self.leader.clear();
            return;
        }
        let leads = |member: &Member| member.join.is_some();
        if !self.members.get(&self.leader).is_some_and(leads) {
            let next = self.members.values().find(|member| leads(member)).or_else(|| self.members.values().next());
            self.leader = next.map(|member| member.id.clone()).unwrap_or_default();
        }
        // Joins are refused that would leave no protocol that all know.
        self.protocol = choose(self.members.values().map(|member| &member.protocols[..])).unwrap_or_default();
        self.phase = Phase::Completing { until: cx.now + self.rebalance_timeout() };
        let mut answers = Vec::new();
        for member in self.members.values() {
            if let Some(ticket) = member.join {
                answers.push((ticket, self.joined(member, member.id == self.leader)));
            }
        }
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            member.is_new = false;
            if member.join.take().is_some() {
                member.deadline = cx.now + member.session;
            }
        }
        for (ticket, joined) in answers {
            cx.answer(ticket, Response::Join(Ok(joined)));
        }
    }

    /// The longest that any member asks for, and a little for those that ask for none.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance).max().unwrap_or_default().max(REBALANCE_MIN)
    }

    /// When something is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        let phase = match &self.phase {
            Phase::Preparing { until, .. } | Phase::Completing { until } => Some(*until),
            Phase::Empty | Phase::Stable => None,
        };
        let sessions = self.members.values().filter(|member| member.may_expire()).map(|member| member.deadline);
        sessions.chain(self.pending.values().copied()).chain(phase).min()
    }

    /// Ends sessions and waits that are over.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        self.drop_pending(|until| until > now);
        let over = |member: &&Member| member.may_expire() && member.deadline <= cx.now;
        let gone: Vec<String> = self.members.values().filter(over).map(|member| member.id.clone()).collect();
        for id in &gone {
            self.remove(cx, id);
        }
        match self.phase {
            Phase::Preparing { until, .. } if until <= cx.now => self.on_join_timeout(cx),
            Phase::Completing { until } if until <= cx.now => self.on_sync_timeout(cx),
            _ => {}
        }
        self.try_complete_join(cx);
    }

    /// Members without an assignment after that long will not come for it.
    fn on_sync_timeout(&mut self, cx: &mut Cx<'_>) {
        let late = |member: &&Member| member.sync.is_none();
        let gone: Vec<String> = self.members.values().filter(late).map(|member| member.id.clone()).collect();
        match gone.is_empty() {
            // All wait for the leader's assignment and the leader is among them: it sent none. Begin anew.
            true => self.prepare(cx),
            false => gone.iter().for_each(|id| self.remove(cx, id)),
        }
    }
}

impl Member {
    /// Who waits for an answer of ours can't be expected to send heartbeats, but for the long wait of a new member.
    fn may_expire(&self) -> bool {
        self.is_new || (self.join.is_none() && self.sync.is_none())
    }
}

/// The protocol that most members like best among those that all know. A tie goes to the first by name.
pub fn choose<'a>(lists: impl Iterator<Item = &'a [(String, Bytes)]> + Clone) -> Option<String> {
    let known_to_all = |name: &str| lists.clone().all(|list| list.iter().any(|(other, _)| other == name));
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    let first = lists.clone().next()?;
    let candidates: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).filter(|name| known_to_all(name)).collect();
    for list in lists.clone() {
        if let Some((name, _)) = list.iter().find(|(name, _)| candidates.contains(&name.as_str())) {
            *votes.entry(name).or_default() += 1;
        }
    }
    let most = votes.values().copied().max()?;
    votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
}
