//! Which bookies this gateway had trouble with lately. Only a hint for placement, never for safety.

use std::collections::BTreeMap;
use std::time::Duration;

use esker_types::{BookieId, Time};

/// First penalty: long enough that a restart passes, short enough that width comes back soon.
const FIRST: Duration = Duration::from_secs(10);
/// Penalties double up to this; a bookie that behaved for as long starts anew.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Time,
    length: Duration,
}

/// Penalised bookies; at most one record per bookie that metadata knows.
#[derive(Clone, Debug, Default)]
pub struct Penalties {
    by_bookie: BTreeMap<BookieId, Penalty>,
}

impl Penalties {
    /// A partition abandoned the bookie. Many partitions report one event: while a penalty runs, nothing is added.
    pub fn penalise(&mut self, now: Time, bookie: BookieId) {
        let length = match self.by_bookie.get(&bookie) {
            Some(running) if now < running.until => return,
            Some(past) if now.since(past.until) < LONGEST => (past.length * 2).min(LONGEST),
            _ => FIRST,
        };
        self.by_bookie.insert(bookie, Penalty { until: now + length, length });
    }

    /// The bookie came back by itself, with a new connection: it may be used at once. A next offence counts as a repeat.
    pub fn forgive(&mut self, now: Time, bookie: BookieId) {
        if let Some(penalty) = self.by_bookie.get_mut(&bookie) {
            penalty.until = penalty.until.min(now);
        }
    }

    pub fn is_penalised(&self, now: Time, bookie: BookieId) -> bool {
        self.by_bookie.get(&bookie).is_some_and(|p| now < p.until)
    }

    /// When the earliest running penalty ends, if one runs: the time to think of full width again.
    pub fn next_end(&self, now: Time) -> Option<Time> {
        self.by_bookie.values().map(|p| p.until).filter(|until| *until > now).min()
    }

    /// Metadata no longer knows the bookie.
    pub fn forget_all_but(&mut self, known: impl Fn(BookieId) -> bool) {
        self.by_bookie.retain(|bookie, _| known(*bookie));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_double_for_repeat_offenders_only() {
        let (mut penalties, bookie) = (Penalties::default(), BookieId(1));
        let at = |secs: u64| Time::from_millis(secs * 1000);
        penalties.penalise(at(0), bookie);
        penalties.penalise(at(5), bookie);
        assert!(penalties.is_penalised(at(9), bookie) && !penalties.is_penalised(at(10), bookie));
        penalties.penalise(at(11), bookie);
        assert!(penalties.is_penalised(at(30), bookie) && !penalties.is_penalised(at(31), bookie));
        for round in 0..10 {
            penalties.penalise(at(1_000 * round + 400), bookie);
        }
        assert_eq!(penalties.next_end(at(9_401)), Some(at(9_410)), "long peace between them: ten seconds again");
        penalties.forgive(at(9_402), bookie);
        assert!(!penalties.is_penalised(at(9_402), bookie), "it came back");
        penalties.penalise(at(9_403), bookie);
        assert_eq!(penalties.next_end(at(9_403)), Some(at(9_423)), "twice in a short time");
        penalties.forget_all_but(|_| false);
        assert!(!penalties.is_penalised(at(9_401), bookie));
    }
}
