//! Writers that race to create one name, in a store that answers everything wrong now and then: who is told that the name
//! is his has it, and who is told that it is another's is right too.

use esker_cache_core::create::*;
use esker_types::{AllRules, Rules};

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const WRITERS: usize = 3;

/// Where one of them stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Writes,
    /// Will look what is there.
    Looks(Said),
    Told(Created),
}

struct World {
    dice: Dice,
    /// Who holds the name. The first effect wins.
    there: Option<usize>,
    /// Effects of requests whose clients have given up.
    late: Vec<usize>,
    writers: [Writer; WRITERS],
}

impl World {
    fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), there: None, late: Vec::new(), writers: [Writer::Writes; WRITERS] }
    }

    fn put(&mut self, writer: usize) -> Writer {
        let free = self.there.is_none();
        let fate = self.dice.below(6);
        // Those of the third kind have an effect, those of the others may have one later, or never.
        let has_effect = !matches!(fate, 2 | 4 | 5);
        if has_effect {
            self.there.get_or_insert(writer);
        }
        match fate {
            0 if free => Writer::Told(Created::Ours),
            0 => Writer::Looks(Said::Taken),
            1 => Writer::Looks(Said::Unknown),
            // Two requests met: this one or none of them came through.
            2 | 3 => Writer::Looks(Said::Conflict),
            4 => {
                self.late.push(writer);
                Writer::Looks(Said::Unknown)
            }
            _ => Writer::Looks(Said::Unknown),
        }
    }

    fn step<R: Rules>(&mut self, writer: usize) {
        self.writers[writer] = match self.writers[writer] {
            Writer::Writes => self.put(writer),
            Writer::Looks(said) => {
                let there = match self.there {
                    None => There::Nothing,
                    Some(holder) if holder == writer => There::Ours,
                    Some(_) => There::Others,
                };
                match created::<R>(said, there) {
                    Created::Again => Writer::Writes,
                    told => Writer::Told(told),
                }
            }
            told => told,
        };
        if self.dice.below(4) == 0
            && let Some(late) = self.late.pop()
        {
            self.there.get_or_insert(late);
        }
    }

    /// The first promise that does not hold in the end.
    fn broken(&self) -> Option<String> {
        (0..WRITERS).find_map(|writer| {
            let holds = self.there == Some(writer);
            let kept = match self.writers[writer] {
                Writer::Told(Created::Ours) => holds,
                Writer::Told(Created::Others) => self.there.is_some() && !holds,
                other => return Some(format!("writer {writer} never came to an end: {other:?}")),
            };
            (!kept).then(|| format!("writer {writer} was told {:?}, {:?} has it", self.writers[writer], self.there))
        })
    }
}

fn race<R: Rules>(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..400 {
        let writer = world.dice.below(WRITERS as u64) as usize;
        world.step::<R>(writer);
    }
    while let Some(late) = world.late.pop() {
        world.there.get_or_insert(late);
    }
    world
}

#[test]
fn everybody_is_told_the_truth() {
    let mut won = [0; WRITERS];
    for seed in 0..2_000 {
        let world = race::<AllRules>(seed);
        assert_eq!(world.broken(), None, "seed {seed}");
        won[world.there.expect("somebody won")] += 1;
    }
    assert!(won.iter().all(|times| *times > 200), "nothing was tried: {won:?}");
}

#[derive(Clone, Copy, Debug, Default)]
struct ConflictExists;

impl Rules for ConflictExists {
    const NAME: &'static str = "409 as exists";
    const CONFLICT_IS_NO_ANSWER: bool = false;
}

#[test]
fn a_conflict_that_is_taken_for_an_answer_is_found() {
    let seed = (0..2_000).find(|seed| race::<ConflictExists>(*seed).broken().is_some());
    println!("{} found after {} seeds", ConflictExists::NAME, seed.expect("it survives") + 1);
}
