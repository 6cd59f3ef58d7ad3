//! Random histories of one partition: clients that retry, owners that roll, fail over and snapshot anywhere. The log
//! itself is the model: whatever happens, it must hold each producer's records once, in order, without holes, and a
//! table restored at any point must equal the one that saw everything.

use super::*;

const PRODUCERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// The producer sends its next batch.
    Send { producer: usize, count: i32 },
    /// It sends again one of those that it has no answer for, or the last answered ones.
    Retry { producer: usize, back: usize },
    /// It comes back with a raised epoch.
    Raise { producer: usize },
    /// So many more batches are on an ack quorum.
    Commit { batches: usize },
    /// A new owner: everything above `keep` more batches is gone, state from a snapshot taken at `snapshot`.
    FailOver { keep: usize, snapshot: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let producer = 0..PRODUCERS;
    prop_oneof![
        6 => (producer.clone(), 1..4i32).prop_map(|(producer, count)| Step::Send { producer, count }),
        3 => (producer.clone(), 0..7usize).prop_map(|(producer, back)| Step::Retry { producer, back }),
        1 => producer.prop_map(|producer| Step::Raise { producer }),
        4 => (1..4usize).prop_map(|batches| Step::Commit { batches }),
        1 => (0..4usize, 0..64usize).prop_map(|(keep, snapshot)| Step::FailOver { keep, snapshot }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Logged {
    sequence: Sequence,
    base_offset: i64,
    count: u32,
    ts: i64,
}

#[derive(Default)]
struct World {
    table: Table,
    log: Vec<Logged>,
    committed: usize,
    /// Batches made by each client under its present epoch, in order, with the offset they first got.
    sent: [Vec<Sequence>; PRODUCERS],
    epochs: [i16; PRODUCERS],
}

impl World {
    fn end_of(&self, batches: usize) -> i64 {
        self.log[..batches].last().map_or(0, |b| b.base_offset + i64::from(b.count))
    }

    fn offer(&mut self, sequence: Sequence) {
        let at = self.log.iter().position(|b| b.sequence == sequence);
        match (self.table.admit(Some(&sequence)), at) {
            (Ok(Admission::Append), None) => {
                let count = (sequence.last - sequence.first) as u32 + 1;
                let logged = Logged {
                    sequence,
                    base_offset: self.end_of(self.log.len()),
                    count,
                    ts: 1_000 + self.log.len() as i64,
                };
                self.table.pend(Some(&sequence), logged.base_offset, count, logged.ts);
                self.log.push(logged);
            }
            (Ok(Admission::DuplicatePending { base_offset }), Some(at)) => {
                assert!(at >= self.committed);
                assert_eq!(base_offset, self.log[at].base_offset);
            }
            (Ok(Admission::DuplicateCommitted { base_offset }), Some(at)) => {
                assert!(at < self.committed);
                assert_eq!(base_offset, self.log[at].base_offset);
            }
            // A hole in front of it, or it is older than what is remembered.
            (Err(_), _) => {}
            (Ok(wrong), at) => panic!("{wrong:?} for a batch that is at {at:?} of the log"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { producer, count } => {
                let first = self.sent[producer].last().map_or(0, |b| b.last + 1);
                let sequence = of(producer as u64, self.epochs[producer], first, count);
                self.sent[producer].push(sequence);
                self.offer(sequence);
            }
            Step::Retry { producer, back } => {
                let sent = &self.sent[producer];
                if let Some(sequence) = sent.len().checked_sub(1 + back).map(|at| sent[at]) {
                    self.offer(sequence);
                }
            }
            Step::Raise { producer } => {
                self.epochs[producer] += 1;
                self.sent[producer].clear();
            }
            Step::Commit { batches } => {
                self.committed = self.log.len().min(self.committed + batches);
                self.table.commit_up_to(self.end_of(self.committed));
            }
            Step::FailOver { keep, snapshot } => self.fail_over(keep, snapshot),
        }
    }

    fn fail_over(&mut self, keep: usize, snapshot: usize) {
        // The old owner wrote a snapshot somewhere, folding what lay before it, committed or not.
        let survive = self.log.len().min(self.committed + keep);
        let at = (self.committed + snapshot % (survive - self.committed + 1)).min(survive);
        let chunks = self.table.snapshot_at(self.end_of(at));
        let mut live = self.table.clone();
        live.fail_from(self.end_of(survive));
        live.commit_up_to(self.end_of(survive));
        self.log.truncate(survive);
        self.committed = survive;

        let mut restored = restore(&chunks, TableLimits::default()).unwrap();
        for logged in &self.log[at..] {
            restored.pend(Some(&logged.sequence), logged.base_offset, logged.count, logged.ts);
        }
        restored.commit_up_to(self.end_of(survive));
        assert_eq!(restored, live, "a pure function of the log");
        self.table = restored;
    }

    /// I12: gapless, without duplicates.
    fn check_log(&self) {
        for producer in 0..PRODUCERS as u64 {
            let mut last: Option<Sequence> = None;
            for found in self.log.iter().map(|b| b.sequence).filter(|s| s.producer.0 == producer) {
                match last {
                    Some(last) if last.epoch == found.epoch => assert_eq!(found.first, last.last + 1),
                    Some(last) => assert!(found.epoch > last.epoch && found.first == 0),
                    None => assert_eq!(found.first, 0),
                }
                last = Some(found);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_log_holds_each_record_once(steps in proptest::collection::vec(any_step(), 1..120)) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
            world.check_log();
        }
    }
}
