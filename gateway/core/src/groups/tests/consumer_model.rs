//! Clients of the consumer protocol under random joins, leaves, silence, lost answers and crashes.

use std::collections::BTreeSet;
use std::time::Duration;

use esker_types::ErrorCode;

use super::classic_model::Random;
use super::world::{World, beat, member, topic_id};
use crate::groups::{Config, LEAVE_EPOCH, Partitions, Request, Response, Ticket};

#[derive(Default)]
struct Client {
    id: String,
    epoch: i32,
    owned: BTreeSet<i32>,
    waits: Option<Ticket>,
}

struct Model {
    world: World,
    random: Random,
    clients: Vec<Client>,
    names: u32,
    takes: usize,
}

const PARTITIONS: i32 = 6;

impl Model {
    fn new(seed: u64) -> Self {
        let mut world = World::new(Config { snapshot_bytes: 3000, ..Config::default() });
        world.prompt = false;
        let clients = (0..4).map(|_| Client::default()).collect();
        Self { world, random: Random(seed), clients, names: 0, takes: 0 }
    }

    fn step(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(24) {
            0 => self.crash(),
            1 => self.world.pass(Duration::from_millis(self.random.below(20_000))),
            2 => self.clients[index] = Client::default(),
            3 => {
                let client = std::mem::take(&mut self.clients[index]);
                if client.epoch > 0 {
                    self.world.send(Request::ConsumerHeartbeat(beat("g", member(&client.id), LEAVE_EPOCH)));
                }
            }
            // The answer gets lost: the client repeats itself.
            4 => self.clients[index].waits = None,
            5..=10 => {
                let some = self.random.below(4) as usize;
                self.world.commit(some);
            }
            _ => self.beat(index),
        }
        self.collect();
    }

    fn beat(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.waits.is_some() {
            return;
        }
        if client.id.is_empty() {
            self.names += 1;
            client.id = format!("m{}", self.names);
        }
        let mut request = beat("g", member(&client.id), client.epoch);
        let owned = Partitions::from([(topic_id("t"), client.owned.iter().copied().collect())]);
        request.owned = Some(if client.epoch == 0 { Partitions::new() } else { owned });
        request.topics = Some(vec!["t".to_owned()]);
        request.rebalance_timeout = Some(Duration::from_secs(30));
        client.waits = Some(self.world.send(Request::ConsumerHeartbeat(request)));
    }

    fn collect(&mut self) {
        for index in 0..self.clients.len() {
            let Some(response) = self.clients[index].waits.and_then(|ticket| self.world.answer(ticket)) else {
                continue;
            };
            self.clients[index].waits = None;
            let Response::ConsumerHeartbeat(result) = response else { panic!("{response:?}") };
            match result {
                Ok(beat) => {
                    let client = &mut self.clients[index];
                    client.epoch = beat.epoch;
                    if let Some(assignment) = beat.assignment {
                        client.owned = assignment.values().flatten().copied().collect();
                    }
                    self.check(index);
                }
                Err(refused) => {
                    let known = [ErrorCode::UnknownMember, ErrorCode::FencedMemberEpoch, ErrorCode::UnknownGroup];
                    assert!(known.contains(&refused.code), "{refused:?}");
                    // It gives up what it has and begins anew; a fenced member keeps its id.
                    let client = &mut self.clients[index];
                    client.owned.clear();
                    client.epoch = 0;
                }
            }
        }
    }

    /// Nobody else that is still a member owns what this client just learned that it owns.
    fn check(&mut self, index: usize) {
        let members = self.members();
        let client = &self.clients[index];
        self.takes += client.owned.len();
        for (_, other) in self.clients.iter().enumerate().filter(|(n, _)| *n != index) {
            if members.contains(&other.id) && other.epoch > 0 && members.contains(&client.id) {
                let both: Vec<&i32> = client.owned.intersection(&other.owned).collect();
                assert!(both.is_empty(), "{} and {} both own {both:?}", client.id, other.id);
            }
        }
    }

    fn members(&mut self) -> BTreeSet<String> {
        let ticket = self.world.send(Request::ConsumerDescribe { group: "g".into() });
        let prompt = self.world.answer(ticket);
        // Not committed yet: ask the state itself.
        let described = prompt.unwrap_or_else(|| {
            let replayed = &mut self.world.replayed(0);
            replayed.start(self.world.now);
            replayed.request(
                self.world.now,
                self.world.wall,
                &self.world.topics,
                1,
                Request::ConsumerDescribe { group: "g".into() },
            );
            match replayed.poll() {
                Some(crate::groups::Effect::Answer { response, .. }) => response,
                other => panic!("{other:?}"),
            }
        });
        match described {
            Response::ConsumerDescribe(Ok(described)) => described.members.into_iter().map(|m| m.who.member).collect(),
            Response::ConsumerDescribe(Err(_)) => BTreeSet::new(),
            other => panic!("{other:?}"),
        }
    }

    fn crash(&mut self) {
        let under_way = self.world.log.len() - self.world.committed;
        let survivors = self.random.below(under_way as u64 + 1) as usize;
        self.world.crash(survivors);
        self.clients.iter_mut().for_each(|client| client.waits = None);
        if survivors == under_way {
            // Reading from the last snapshot or from the very beginning comes to the same.
            let before = self.describe_from(0);
            assert_eq!(before, self.describe_from(self.world.log_start));
        }
    }

    fn describe_from(&self, from: usize) -> String {
        let mut replayed = self.world.replayed(from);
        replayed.start(self.world.now);
        let about = Request::ConsumerDescribe { group: "g".into() };
        replayed.request(self.world.now, self.world.wall, &self.world.topics, 1, about);
        format!("{:?}", replayed.poll())
    }

    fn heal(&mut self) {
        self.world.prompt = true;
        self.world.commit(usize::MAX / 2);
        for _ in 0..60 {
            for index in 0..self.clients.len() {
                self.beat(index);
                self.collect();
            }
            self.world.pass(Duration::from_secs(3));
        }
        let mut owned: Vec<i32> = self.clients.iter().flat_map(|client| client.owned.iter().copied()).collect();
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>());
        let sizes: Vec<usize> = self.clients.iter().map(|client| client.owned.len()).collect();
        assert!(sizes.iter().all(|size| (1..=2).contains(size)), "{sizes:?}");
    }
}

#[test]
fn consumer_groups_survive_whatever_happens() {
    let mut takes = 0;
    for seed in 0..400 {
        let run = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            (0..400).for_each(|_| model.step());
            model.heal();
            model.takes
        });
        takes += run.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(takes > 1000, "the runs reach what they are for: {takes}");
}
