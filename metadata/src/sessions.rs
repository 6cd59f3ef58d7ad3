//! Which gateways and bookies live, as the leader sees it on its own monotonic clock. Nothing of this is replicated:
//! a new leader gives everybody a full time to live from the moment that it leads.
//!
//! No safety hangs on it. A session that is ended too early costs its process a step down; one that is ended too late
//! costs its partitions a longer pause.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use esker_types::{SessionId, Time};

/// Deaths within this span count together.
const DEATHS_WINDOW: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Sessions {
    ttl: Duration,
    /// When each ends unless it is renewed.
    until: BTreeMap<SessionId, Time>,
    /// Probed and found dead; to be ended at once.
    dead: BTreeSet<SessionId>,
    /// When the last ones were found dead.
    deaths: VecDeque<Time>,
}

impl Sessions {
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, until: BTreeMap::new(), dead: BTreeSet::new(), deaths: VecDeque::new() }
    }

    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Live ones.
    pub fn count(&self) -> usize {
        self.until.len()
    }

    /// This node leads from now on: all get a full time to live.
    pub fn begin(&mut self, now: Time, live: impl IntoIterator<Item = SessionId>) {
        let until = now + self.ttl;
        self.until = live.into_iter().map(|session| (session, until)).collect();
        self.dead.clear();
        self.deaths.clear();
    }

    /// The sessions that the state machine holds now: new ones get a full time to live, the others are forgotten.
    pub fn follow(&mut self, now: Time, live: impl IntoIterator<Item = SessionId>) {
        let until = now + self.ttl;
        let old = std::mem::take(&mut self.until);
        self.until = live.into_iter().map(|id| (id, old.get(&id).copied().unwrap_or(until))).collect();
        self.dead.retain(|session| self.until.contains_key(session));
    }

    /// The process was heard of. A process that speaks is not dead, whatever a probe said.
    pub fn renew(&mut self, now: Time, session: SessionId) {
        if let Some(until) = self.until.get_mut(&session) {
            *until = (*until).max(now + self.ttl);
            self.dead.remove(&session);
        }
    }

    /// A probe says that the process is gone. If more than a third of all die within two seconds, the fault is more
    /// likely on our side: then probes decide nothing, and the time to live does. False: not believed.
    pub fn found_dead(&mut self, now: Time, session: SessionId) -> bool {
        if !self.until.contains_key(&session) || self.dead.contains(&session) {
            return false;
        }
        while self.deaths.front().is_some_and(|at| now.since(*at) > DEATHS_WINDOW) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        // The ones that died in the window and were ended already counted as living at its begin.
        let ended = self.deaths.len().saturating_sub(self.dead.len() + 1);
        let all = self.until.len() + ended;
        if all > 2 && self.deaths.len() * 3 > all {
            self.dead.clear();
            return false;
        }
        self.dead.insert(session);
        true
    }

    /// Sessions to be ended now.
    pub fn expired(&self, now: Time) -> Vec<SessionId> {
        let over =
            |(session, until): (&SessionId, &Time)| (*until <= now || self.dead.contains(session)).then_some(*session);
        self.until.iter().filter_map(over).collect()
    }

    /// When the next session ends by its time to live.
    pub fn next_end(&self) -> Option<Time> {
        self.until.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u64>) -> impl Iterator<Item = SessionId> {
        range.map(SessionId)
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn sessions(n: u64) -> Sessions {
        let mut sessions = Sessions::new(Duration::from_secs(2));
        sessions.begin(at(0), ids(0..n));
        sessions
    }

    #[test]
    fn a_session_that_is_not_renewed_ends_after_its_time() {
        let mut table = sessions(2);
        table.renew(at(1_500), SessionId(0));
        assert!(table.expired(at(1_999)).is_empty());
        assert_eq!(table.next_end(), Some(at(2_000)));
        assert_eq!(table.expired(at(2_000)), [SessionId(1)]);
        assert_eq!(table.expired(at(3_500)), [SessionId(0), SessionId(1)]);
        table.follow(at(3_500), []);
        assert!(table.count() == 0 && table.expired(at(9_999)).is_empty());
    }

    #[test]
    fn a_new_leader_gives_everybody_a_full_time() {
        let mut table = sessions(3);
        table.begin(at(10_000), ids(0..3));
        assert!(table.expired(at(11_999)).is_empty());
        assert_eq!(table.expired(at(12_000)).len(), 3);
    }

    #[test]
    fn a_session_that_is_new_gets_a_full_time_and_an_old_one_keeps_its_own() {
        let mut table = sessions(1);
        table.follow(at(1_000), ids(0..2));
        assert_eq!(table.expired(at(2_000)), [SessionId(0)]);
        assert_eq!(table.expired(at(3_000)).len(), 2);
    }

    #[test]
    fn a_process_found_dead_ends_at_once_unless_it_speaks() {
        let mut table = sessions(9);
        assert!(table.found_dead(at(10), SessionId(4)));
        assert!(!table.found_dead(at(11), SessionId(77)), "unknown");
        assert_eq!(table.expired(at(11)), [SessionId(4)]);
        table.renew(at(12), SessionId(4));
        assert!(table.expired(at(12)).is_empty());
    }

    #[test]
    fn many_deaths_at_once_are_not_believed() {
        let mut table = sessions(9);
        for n in 0..3 {
            assert!(table.found_dead(at(10 + n), SessionId(n)));
        }
        assert!(!table.found_dead(at(20), SessionId(3)));
        assert!(table.expired(at(20)).is_empty(), "those before are doubted too");
        assert_eq!(table.expired(at(2_000)).len(), 9);
        // Later the doubt is over.
        let mut table = sessions(9);
        assert!((0..3).all(|n| table.found_dead(at(10), SessionId(n))));
        table.follow(at(20), ids(3..9));
        assert!(!table.found_dead(at(30), SessionId(3)), "the ended ones still count");
        table.begin(at(100), ids(3..9));
        assert!(table.found_dead(at(3_000), SessionId(3)));
    }

    #[test]
    fn in_a_cluster_of_one_or_two_a_probe_is_believed() {
        let mut table = sessions(2);
        assert!(table.found_dead(at(1), SessionId(0)));
        assert_eq!(table.expired(at(1)), [SessionId(0)]);
    }
}
