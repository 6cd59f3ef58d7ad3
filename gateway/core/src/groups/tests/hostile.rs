//! Clients that send whatever they like, and logs that hold what no coordinator writes: nothing panics, every bound holds,
//! whoever waits is answered, and a replay gives what was committed.
//!
//! A round depends on its number alone. By environment: `ESKER_FUZZ_INPUTS=50000000` for so many requests in each test (10 minutes
//! and more on one core), `ESKER_FUZZ_SEED=77` for the number of the first round.

use std::time::Duration;

use bytes::Bytes;

use super::classic_model::Random;
use super::world::{World, topic_id};
use crate::groups::{
    Commit, CommitOffset, Config, ConsumerHeartbeat, Coordinator, Fetch, Heartbeat, Identity, Join, Leave, List,
    Partitions, Request, Response, SyncGroup,
};

const GROUPS: [&str; 4] = ["g", "h", "a longer name of a group", ""];

/// Requests of a round.
const REQUESTS: u64 = 300;

/// Says how to run a round again if it panics.
struct Rerun {
    test: &'static str,
    seed: u64,
}

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            eprintln!(
                "again: ESKER_FUZZ_SEED={seed} ESKER_FUZZ_INPUTS=1 cargo test --release -p esker-gateway-core {test}"
            );
        }
    }
}

/// Runs rounds for so many requests, or for what `ESKER_FUZZ_INPUTS` says.
fn rounds(test: &'static str, inputs: u64, mut round: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("ESKER_FUZZ_SEED").unwrap_or(0);
    let count = number("ESKER_FUZZ_INPUTS").unwrap_or(inputs).div_ceil(REQUESTS);
    for seed in first..first + count {
        let _rerun = Rerun { test, seed };
        round(seed);
    }
    println!("{test}: {count} rounds of {REQUESTS} requests");
}

fn config() -> Config {
    Config {
        initial_rebalance_delay: Duration::from_millis(10),
        members_max: 5,
        pending_max: 5,
        groups_max: 3,
        member_bytes_max: 2_000,
        group_bytes_max: 6_000,
        state_bytes_max: 40_000,
        offset_metadata_bytes_max: 50,
        snapshot_bytes: 4_000,
        offsets_retention: Duration::from_secs(120),
        ..Config::default()
    }
}

/// Makes requests out of what clients have been told, of what they could make up, and of extremes.
struct Liar {
    random: Random,
    /// Member ids that somebody was given.
    ids: Vec<String>,
    epochs: Vec<i32>,
}

impl Liar {
    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize].clone()
    }

    fn coin(&mut self) -> bool {
        self.random.below(2) == 0
    }

    fn group(&mut self) -> String {
        self.pick(&GROUPS).to_owned()
    }

    fn text(&mut self) -> String {
        let long = "x".repeat(self.random.below(3_000) as usize);
        self.pick(&[
            String::new(),
            "range".into(),
            "t".into(),
            "u".into(),
            "gone".into(),
            "\u{0}\u{1f600}".into(),
            long,
        ])
    }

    fn bytes(&mut self) -> Bytes {
        let len = self.pick(&[0usize, 1, 30, 300, 2_500]);
        (0..len).map(|_| self.random.below(256) as u8).collect()
    }

    fn who(&mut self) -> Identity {
        let mut ids = self.ids.clone();
        ids.extend([String::new(), "made up".to_owned()]);
        let instance = self.pick(&[None, None, Some("i".to_owned()), Some("j".to_owned()), Some(String::new())]);
        Identity { member: self.pick(&ids), instance }
    }

    fn number(&mut self) -> i32 {
        let mut numbers = self.epochs.clone();
        numbers.extend([0, 0, 1, -1, -2, -3, i32::MAX, i32::MIN]);
        self.pick(&numbers)
    }

    fn time(&mut self) -> Duration {
        self.pick(&[
            Duration::ZERO,
            Duration::from_secs(7),
            Duration::from_secs(60),
            Duration::from_millis(i32::MAX as u64),
        ])
    }

    fn many<T>(&mut self, most: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.random.below(most + 1);
        (0..count).map(|_| make(self)).collect()
    }

    fn partition(&mut self) -> (String, i32) {
        (self.text(), self.pick(&[0, 1, 2, 5, 6, -1, i32::MAX]))
    }

    fn owned(&mut self) -> Partitions {
        let topic = |l: &mut Self| (topic_id(l.pick(&["t", "u", "gone"])), l.many(4, |l| l.partition().1));
        self.many(3, topic).into_iter().collect()
    }

    fn request(&mut self) -> Request {
        let (group, who) = (self.group(), self.who());
        let fresh = std::array::from_fn(|_| self.random.below(4) as u8);
        match self.random.below(16) {
            0..=3 => Request::Join(Join {
                group,
                who,
                client_id: self.text(),
                client_host: "/h".into(),
                session_timeout: self.time(),
                rebalance_timeout: self.time(),
                protocol_type: self.pick(&["consumer", "consumer", "connect", ""]).to_owned(),
                protocols: self.many(3, |l| (l.text(), l.bytes())),
                knows_member_ids: self.coin(),
                knows_skip: self.coin(),
                fresh,
            }),
            4..=5 => Request::Sync(SyncGroup {
                group,
                who,
                generation: self.number(),
                protocol_type: self.pick(&[None, Some("consumer".into()), Some(String::new())]),
                protocol: self.pick(&[None, Some("range".into()), Some("other".into())]),
                assignments: self.many(4, |l| (l.who().member, l.bytes())),
            }),
            6 => Request::Heartbeat(Heartbeat { group, who, generation: self.number() }),
            7 => Request::Leave(Leave { group, members: self.many(4, Self::who) }),
            8..=9 => Request::Commit(Commit {
                group,
                who,
                generation: self.number(),
                knows_epochs: self.coin(),
                retention: self.pick(&[None, Some(Duration::ZERO), Some(Duration::MAX)]),
                offsets: self.many(4, |l| {
                    let (topic, partition) = l.partition();
                    let offset = l.pick(&[0, 5, -1, i64::MAX, i64::MIN]);
                    CommitOffset { topic, partition, offset, leader_epoch: l.number(), metadata: l.text() }
                }),
            }),
            10 => {
                let member = self.pick(&[None, Some(0)]).map(|_| (self.who().member, self.number()));
                let partitions = self.coin().then(|| self.many(4, Self::partition));
                Request::Fetch(Fetch { group, member, partitions })
            }
            11 => match self.random.below(5) {
                0 => Request::Describe { group },
                1 => Request::ConsumerDescribe { group },
                2 => Request::Delete { group },
                3 => Request::DeleteOffsets { group, partitions: self.many(4, Self::partition) },
                _ => Request::List(List { states: self.many(2, Self::text), types: self.many(2, Self::text) }),
            },
            _ => Request::ConsumerHeartbeat(ConsumerHeartbeat {
                group,
                who,
                epoch: self.number(),
                rack: self.coin().then(|| self.text()),
                client_id: self.text(),
                client_host: "/h".into(),
                rebalance_timeout: self.coin().then(|| self.time()),
                topics: self.coin().then(|| self.many(4, Self::text)),
                regex: self.pick(&[None, None, Some(String::new()), Some("t|(u".into()), Some("[tu]{1,9}".into())]),
                assignor: self.pick(&[None, Some("uniform".into()), Some("range".into()), Some("mine".into())]),
                owned: self.coin().then(|| self.owned()),
                fresh,
            }),
        }
    }

    /// What answers tell is used again.
    fn learn(&mut self, response: &Response) {
        let (id, epoch) = match response {
            Response::Join(Ok(joined)) => (joined.member.clone(), joined.generation),
            Response::Join(Err(refused)) => (refused.member.clone(), 0),
            Response::ConsumerHeartbeat(Ok(beat)) => (beat.member.clone(), beat.epoch),
            _ => return,
        };
        self.ids.push(id);
        self.ids.drain(..self.ids.len().saturating_sub(8));
        self.epochs.push(epoch);
        self.epochs.drain(..self.epochs.len().saturating_sub(4));
    }
}

/// Requests that wait for other members; all others are answered once what they rest on is committed.
fn may_wait(request: &Request) -> bool {
    matches!(request, Request::Join(_) | Request::Sync(_))
}

fn check_bounds(world: &World) {
    let (config, coordinator) = (&world.config, &world.coordinator);
    assert!(coordinator.groups.len() <= config.groups_max, "{} groups", coordinator.groups.len());
    // Whatever one request may bring is let in before the bound is seen to be passed.
    let slack = config.group_bytes_max + 16_000;
    let bytes: usize = coordinator.groups.values().map(|group| group.bytes()).sum();
    assert!(bytes <= config.state_bytes_max + slack, "{bytes} bytes of state");
}

/// Offsets and members of the consumer protocol, which do not depend on who waits for what.
fn shown(coordinator: &mut Coordinator, world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for (ticket, group) in (1..).zip(GROUPS) {
        let group = group.to_owned();
        let fetch = Request::Fetch(Fetch { group: group.clone(), member: None, partitions: None });
        for (ticket, request) in [(2 * ticket, fetch), (2 * ticket + 1, Request::ConsumerDescribe { group })] {
            coordinator.request(world.now, world.wall, &world.topics, ticket, request);
            while let Some(effect) = coordinator.poll() {
                match effect {
                    crate::groups::Effect::Answer { response, .. } => all.push(format!("{response:?}")),
                    // Of a snapshot that is due.
                    crate::groups::Effect::Append(append) => coordinator.on_committed(append.seq),
                    crate::groups::Effect::LogStart(_) => {}
                }
            }
        }
    }
    all
}

#[test]
fn hostile_requests_leave_the_coordinator_whole() {
    let mut answered = 0u64;
    rounds("hostile_requests", 300_000, |seed| {
        let mut world = World::new(config());
        world.prompt = false;
        let mut liar = Liar { random: Random(seed), ids: Vec::new(), epochs: Vec::new() };
        let mut waiting: Vec<(u64, bool)> = Vec::new();
        for _ in 0..REQUESTS {
            match liar.random.below(12) {
                0 => world.pass(Duration::from_millis(liar.random.below(40_000))),
                1..=3 => world.commit(liar.random.below(5) as usize),
                4 if liar.random.below(6) == 0 => {
                    let under_way = world.log.len() - world.committed;
                    world.crash(liar.random.below(under_way as u64 + 1) as usize);
                    waiting.clear();
                }
                4 if liar.random.below(3) == 0 => {
                    let count = world.topics.counts.entry("t".to_owned()).or_default();
                    *count = (*count + 1) % 9;
                    world.topics.revision += 1;
                }
                _ => {
                    let request = liar.request();
                    let waits = may_wait(&request);
                    waiting.push((world.send(request), waits));
                }
            }
            waiting.retain(|(ticket, _)| match world.answer(*ticket) {
                Some(response) => {
                    liar.learn(&response);
                    answered += 1;
                    false
                }
                None => true,
            });
            check_bounds(&world);
        }
        world.commit(usize::MAX / 2);
        waiting.retain(|(ticket, waits)| world.answer(*ticket).is_none() && !waits);
        assert!(waiting.is_empty(), "all is committed, and {} were not answered", waiting.len());
        let from_start = shown(&mut world.replayed(0), &world);
        let from_snapshot = shown(&mut world.replayed(world.log_start), &world);
        assert_eq!(from_start, from_snapshot, "a snapshot holds all");
        let mut live = std::mem::replace(&mut world.coordinator, Coordinator::new(config()));
        assert_eq!(shown(&mut live, &world), from_start, "the log holds all");
    });
    println!("{answered} answers");
    assert!(answered > 100, "the runs reach what they are for: {answered} answers");
}

/// A log of ordinary life.
fn some_log(liar: &mut Liar) -> Vec<(Bytes, Option<Bytes>)> {
    let mut world = World::new(config());
    for _ in 0..80 {
        let ticket = world.send(liar.request());
        if let Some(response) = world.answer(ticket) {
            liar.learn(&response);
        }
        if liar.random.below(8) == 0 {
            world.pass(Duration::from_millis(liar.random.below(20_000)));
        }
    }
    let records = world.log.into_iter().flat_map(|append| append.records);
    records.map(|record| (record.key, record.value)).collect()
}

#[test]
fn hostile_logs_are_refused_or_served() {
    rounds("hostile_logs", 150_000, |seed| {
        let mut liar = Liar { random: Random(seed), ids: Vec::new(), epochs: Vec::new() };
        let mut log = some_log(&mut liar);
        for _ in 0..=liar.random.below(6) {
            let at = liar.random.below(log.len().max(1) as u64) as usize;
            let Some((key, value)) = log.get_mut(at) else { continue };
            match liar.random.below(5) {
                0 => *key = mutated(key, &mut liar.random),
                1 => *value = None,
                2 => *value = Some(liar.bytes()),
                // Records of one group under the keys of another, too often, or in another order.
                3 => {
                    let other = liar.random.below(log.len() as u64) as usize;
                    log.swap(at, other);
                }
                _ => *value = value.as_ref().map(|value| mutated(value, &mut liar.random)),
            }
        }
        let mut world = World::new(config());
        let mut coordinator = Coordinator::new(config());
        if log.iter().any(|(key, value)| coordinator.replay(key, value.as_deref()).is_err()) {
            // Refused: nothing is served from it.
            return;
        }
        coordinator.start(world.now);
        world.coordinator = coordinator;
        for _ in 0..REQUESTS - 80 {
            world.send(liar.request());
            if liar.random.below(6) == 0 {
                world.pass(Duration::from_millis(liar.random.below(50_000)));
            }
        }
    });
}

fn mutated(bytes: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = bytes.to_vec();
    let at = random.below(bytes.len().max(1) as u64) as usize;
    match random.below(3) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at.min(bytes.len()), random.below(256) as u8),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
    }
    bytes.into()
}
