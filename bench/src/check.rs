//! What producers were promised, held against what readers find. Knows nothing of Esker's inside.
//!
//! Every producer sends sequences 0, 1, 2, ... to one partition, in order, through an idempotent client. A record is
//! *acked* at an offset, *refused* (must not be there), or *unknown* (may be there, once).

use std::collections::BTreeMap;
use std::fmt;

/// What happened to one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acked(i64),
    Unknown,
}

/// The promises made to one producer: outcome by sequence.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    pub partition: u32,
    pub outcomes: Vec<Outcome>,
}

/// One kind of broken promise, with how often and the first case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    pub count: u64,
    pub first: Option<String>,
}

impl Fault {
    fn add(&mut self, case: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(case);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub acked: u64,
    pub unknown: u64,
    pub read: u64,
    /// Acked and not found.
    pub lost: Fault,
    pub duplicated: Fault,
    /// A producer's records stand in another order than they were sent.
    pub reordered: Fault,
    /// Found at another offset than the ack said.
    pub misplaced: Fault,
    /// Bytes that nobody sent.
    pub corrupt: Fault,
    /// Offsets that a reader saw twice or backwards.
    pub backwards: Fault,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.faults().iter().all(|(_, fault)| fault.count == 0)
    }

    fn faults(&self) -> [(&'static str, &Fault); 6] {
        [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("reordered", &self.reordered),
            ("misplaced", &self.misplaced),
            ("corrupt", &self.corrupt),
            ("backwards", &self.backwards),
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acked {} unknown {} read {}", self.acked, self.unknown, self.read)?;
        for (name, fault) in self.faults() {
            write!(f, " {name} {}", fault.count)?;
            if let Some(first) = &fault.first {
                write!(f, " ({first})")?;
            }
        }
        Ok(())
    }
}

/// Takes records in the order in which they are read from each partition, then gives the verdict.
pub struct Checker {
    promises: BTreeMap<u64, Promises>,
    seen: BTreeMap<u64, Seen>,
    /// Next offset expected at least, per partition.
    position: BTreeMap<u32, i64>,
    verdict: Verdict,
}

#[derive(Default)]
struct Seen {
    /// One bit a sequence.
    found: Vec<u64>,
    next: u64,
}

impl Seen {
    /// False if it was there already.
    fn insert(&mut self, sequence: u64) -> bool {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if self.found.len() <= word {
            self.found.resize(word + 1, 0);
        }
        let new = self.found[word] & bit == 0;
        self.found[word] |= bit;
        new
    }

    fn contains(&self, sequence: u64) -> bool {
        self.found.get((sequence / 64) as usize).is_some_and(|word| word & (1 << (sequence % 64)) != 0)
    }
}

impl Checker {
    pub fn new(promises: BTreeMap<u64, Promises>) -> Self {
        Self { promises, seen: BTreeMap::new(), position: BTreeMap::new(), verdict: Verdict::default() }
    }

    pub fn record(&mut self, partition: u32, offset: i64, value: &[u8]) {
        let verdict = &mut self.verdict;
        verdict.read += 1;
        let position = self.position.entry(partition).or_insert(0);
        if offset < *position {
            verdict.backwards.add(|| format!("partition {partition}: offset {offset} after {}", *position - 1));
        }
        *position = (*position).max(offset + 1);
        let at = || format!("partition {partition} offset {offset}");
        let known = super::record::verify(value).and_then(|(p, s)| Some((p, s, self.promises.get(&p)?)));
        let Some((producer, sequence, promises)) = known else { return verdict.corrupt.add(at) };
        let Some(outcome) = promises.outcomes.get(sequence as usize) else { return verdict.corrupt.add(at) };
        let case = || format!("producer {producer} sequence {sequence} at {}", at());
        let seen = self.seen.entry(producer).or_default();
        if !seen.insert(sequence) {
            return verdict.duplicated.add(case);
        }
        if sequence < seen.next {
            verdict.reordered.add(case);
        }
        seen.next = seen.next.max(sequence + 1);
        if promises.partition != partition || matches!(outcome, Outcome::Acked(acked) if *acked != offset) {
            verdict.misplaced.add(|| format!("{}, promised {outcome:?}", case()));
        }
    }

    pub fn finish(mut self) -> Verdict {
        for (producer, promises) in &self.promises {
            let seen = self.seen.entry(*producer).or_default();
            for (sequence, outcome) in promises.outcomes.iter().enumerate() {
                let Outcome::Acked(offset) = outcome else {
                    self.verdict.unknown += 1;
                    continue;
                };
                self.verdict.acked += 1;
                if !seen.contains(sequence as u64) {
                    self.verdict.lost.add(|| format!("producer {producer} sequence {sequence} acked at {offset}"));
                }
            }
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fill;

    fn value(sequence: u64) -> Vec<u8> {
        let mut out = Vec::new();
        fill(&mut out, 1, sequence, 40);
        out
    }

    /// Producer 1 had sequences 0..3 acked at offsets 0..3 and does not know about sequence 3.
    fn checker() -> Checker {
        let outcomes = vec![Outcome::Acked(0), Outcome::Acked(1), Outcome::Acked(2), Outcome::Unknown];
        Checker::new(BTreeMap::from([(1, Promises { partition: 0, outcomes })]))
    }

    fn read(records: &[(i64, u64)]) -> Verdict {
        let mut checker = checker();
        for (offset, sequence) in records {
            checker.record(0, *offset, &value(*sequence));
        }
        checker.finish()
    }

    #[test]
    fn a_kept_promise_is_clean_with_and_without_the_unknown_one() {
        assert!(read(&[(0, 0), (1, 1), (2, 2)]).is_clean());
        assert!(read(&[(0, 0), (1, 1), (2, 2), (3, 3)]).is_clean());
    }

    #[test]
    fn each_broken_promise_is_named() {
        assert_eq!(read(&[(0, 0), (2, 2)]).lost.count, 1);
        assert_eq!(read(&[(0, 0), (1, 1), (2, 2), (3, 2)]).duplicated.count, 1);
        assert_eq!(read(&[(0, 1), (1, 0), (2, 2)]).reordered.count, 1);
        assert_eq!(read(&[(0, 0), (1, 1), (5, 2)]).misplaced.count, 1);
        assert_eq!(read(&[(0, 0), (1, 1), (1, 2)]).backwards.count, 1);
        let mut checker = checker();
        checker.record(0, 0, b"not one of ours, but long enough");
        assert_eq!(checker.finish().corrupt.count, 1);
    }
}
