//! Clients of the classic protocol under random joins, leaves, silence, lost answers and crashes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use esker_types::ErrorCode;

use super::world::{World, commit, fetch, fetched, heartbeat, join, member, sync};
use crate::groups::{Config, Leave, Request, Response, Ticket};

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

#[derive(Default)]
struct Client {
    id: String,
    generation: i32,
    waits: Option<Ticket>,
    stage: Stage,
    held: Vec<i32>,
    /// Members to assign to, as leader.
    members: Option<Vec<String>>,
}

#[derive(Default, PartialEq, Debug, Clone, Copy)]
enum Stage {
    #[default]
    Out,
    Joining,
    Syncing,
    In,
}

struct Model {
    world: World,
    random: Random,
    clients: Vec<Client>,
    /// Who was given a partition in a generation.
    given: BTreeMap<(i32, i32), String>,
    /// Per partition: highest offset acknowledged, highest sent.
    acked: [i64; 6],
    sent: i64,
    commits: Vec<(Ticket, usize, i64)>,
    stable_checks: usize,
    grants: usize,
}

const PARTITIONS: i32 = 6;

impl Model {
    fn new(seed: u64) -> Self {
        let config = Config { snapshot_bytes: 3000, initial_rebalance_delay: Duration::ZERO, ..Config::default() };
        let mut world = World::new(config);
        world.prompt = false;
        Self {
            world,
            random: Random(seed),
            clients: (0..4).map(|_| Client::default()).collect(),
            given: BTreeMap::new(),
            acked: [-1; 6],
            sent: 0,
            commits: Vec::new(),
            stable_checks: 0,
            grants: 0,
        }
    }

    fn step(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        match self.random.below(20) {
            0 => self.crash(),
            1 => self.world.pass(Duration::from_millis(self.random.below(8_000))),
            2 => {
                // The process of the client dies.
                self.clients[index] = Client::default();
            }
            3 => self.leave(index),
            4..=8 => {
                let some = self.random.below(4) as usize;
                self.world.commit(some);
            }
            9..=10 => self.commit(index),
            _ => self.go_on(index),
        }
        self.collect();
    }

    fn go_on(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.waits.is_some() {
            return;
        }
        client.waits = match client.stage {
            Stage::Out | Stage::Joining => {
                client.stage = Stage::Joining;
                let request = join("g", member(&client.id));
                Some(self.world.send(Request::Join(request)))
            }
            Stage::Syncing => {
                let members = client.members.take().unwrap_or_default();
                let count = members.len().max(1);
                let share = |n: usize| (0..PARTITIONS as u8).filter(|p| usize::from(*p) % count == n).collect();
                let parts = members.into_iter().enumerate().map(|(n, id)| (id, share(n)));
                let (who, parts) = (member(&client.id), parts.collect::<Vec<(String, Bytes)>>());
                Some(self.world.send(sync("g", who, client.generation, parts)))
            }
            Stage::In => Some(self.world.send(heartbeat("g", member(&client.id), client.generation))),
        };
    }

    fn collect(&mut self) {
        for index in 0..self.clients.len() {
            let Some(response) = self.clients[index].waits.and_then(|ticket| self.world.answer(ticket)) else {
                continue;
            };
            self.clients[index].waits = None;
            self.on_answer(index, response);
        }
        let world = &mut self.world;
        let acked = &mut self.acked;
        self.commits.retain(|(ticket, partition, offset)| match world.answer(*ticket) {
            Some(Response::Commit(each)) if each == [Ok(())] => {
                acked[*partition] = acked[*partition].max(*offset);
                false
            }
            answered => answered.is_none(),
        });
    }

    fn on_answer(&mut self, index: usize, response: Response) {
        let client = &mut self.clients[index];
        let failed = match response {
            Response::Join(Ok(joined)) => {
                client.id.clone_from(&joined.member);
                client.generation = joined.generation;
                client.members = (joined.leader == joined.member)
                    .then(|| joined.members.into_iter().map(|other| other.who.member).collect());
                client.stage = Stage::Syncing;
                return;
            }
            Response::Sync(Ok(synced)) => {
                client.held = synced.assignment.iter().map(|p| i32::from(*p)).collect();
                client.stage = Stage::In;
                for partition in &client.held {
                    self.grants += 1;
                    let holder = self.given.entry((client.generation, *partition)).or_insert(client.id.clone());
                    assert_eq!(*holder, client.id, "one holder of a partition in generation {}", client.generation);
                }
                return;
            }
            Response::Heartbeat(Ok(())) => return,
            Response::Join(Err(refused)) => refused.code,
            Response::Sync(Err(code)) | Response::Heartbeat(Err(code)) => code,
            other => panic!("{other:?}"),
        };
        client.held.clear();
        client.stage = Stage::Joining;
        if failed == ErrorCode::UnknownMember {
            client.id.clear();
        }
    }

    fn leave(&mut self, index: usize) {
        let client = std::mem::take(&mut self.clients[index]);
        if !client.id.is_empty() {
            let members = vec![member(&client.id)];
            self.world.send(Request::Leave(Leave { group: "g".into(), members }));
        }
    }

    fn commit(&mut self, index: usize) {
        let client = &self.clients[index];
        let Some(partition) = client.held.first().copied().filter(|_| client.stage == Stage::In) else { return };
        self.sent += 1;
        let ticket = self.world.send(commit("g", member(&client.id), client.generation, partition, self.sent));
        self.commits.push((ticket, partition as usize, self.sent));
    }

    fn crash(&mut self) {
        let under_way = self.world.log.len() - self.world.committed;
        let quiet = under_way == 0 && self.state() == "Stable";
        let survivors = self.random.below(under_way as u64 + 1) as usize;
        let members = if quiet { self.members() } else { Vec::new() };
        self.world.crash(survivors);
        self.commits.clear();
        for client in &mut self.clients {
            client.waits = None;
            // A client whose sync fails joins again.
            if client.stage == Stage::Syncing {
                client.stage = Stage::Joining;
            }
        }
        for client in self.clients.iter().filter(|client| members.contains(&client.id)) {
            if client.stage == Stage::In {
                let beat = self.world.ask_committed(heartbeat("g", member(&client.id), client.generation));
                assert_eq!(beat, Response::Heartbeat(Ok(())), "a reload disturbs nobody");
                self.stable_checks += 1;
            }
        }
        for partition in 0..PARTITIONS {
            let found = fetched(self.world.ask_committed(fetch("g", partition)));
            assert!(found >= self.acked[partition as usize], "partition {partition} went back to {found}");
            assert!(found <= self.sent);
            self.acked[partition as usize] = found;
        }
    }

    fn state(&mut self) -> &'static str {
        match self.world.ask_committed(Request::Describe { group: "g".into() }) {
            Response::Describe(described) => described.state,
            other => panic!("{other:?}"),
        }
    }

    fn members(&mut self) -> Vec<String> {
        match self.world.ask_committed(Request::Describe { group: "g".into() }) {
            Response::Describe(described) => described.members.into_iter().map(|m| m.who.member).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// All goes well from now on: everybody ends up in one generation, with all partitions.
    fn heal(&mut self) {
        self.world.prompt = true;
        self.world.commit(usize::MAX / 2);
        self.collect();
        for round in 0..200 {
            for index in 0..self.clients.len() {
                self.go_on(index);
                self.collect();
            }
            self.world.pass(Duration::from_secs(2));
            self.collect();
            let generation = self.clients[0].generation;
            let all_in = self.clients.iter().all(|c| c.stage == Stage::In && c.generation == generation);
            if round > 20 && all_in {
                let mut held: Vec<i32> = self.clients.iter().flat_map(|client| client.held.clone()).collect();
                held.sort_unstable();
                assert_eq!(held, (0..PARTITIONS).collect::<Vec<_>>());
                return;
            }
        }
        panic!("the group does not come to rest: {:?}", self.clients.iter().map(|c| c.stage).collect::<Vec<_>>());
    }
}

#[test]
fn classic_groups_survive_whatever_happens() {
    let (mut stable_checks, mut grants) = (0, 0);
    for seed in 0..400 {
        let run = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            (0..400).for_each(|_| model.step());
            model.heal();
            (model.stable_checks, model.grants)
        });
        let (checks, given) = run.unwrap_or_else(|_| panic!("seed {seed}"));
        (stable_checks, grants) = (stable_checks + checks, grants + given);
    }
    assert!(stable_checks > 100 && grants > 1000, "the runs reach what they are for: {stable_checks} {grants}");
}
