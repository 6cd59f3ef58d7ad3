use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use esker_types::{Time, TopicId};

use crate::groups::{
    Append, Commit, CommitOffset, Config, ConsumerHeartbeat, Coordinator, Effect, Fetch, Heartbeat, Identity, Join,
    KeyedRecord, Partitions, Request, Response, SyncGroup, Ticket, Times, Topics,
};

/// Topics by name; the id is made of the name.
#[derive(Default)]
pub struct FakeTopics {
    pub counts: BTreeMap<String, u32>,
    pub revision: u64,
    /// Of all groups.
    pub times: Times,
}

pub fn topic_id(name: &str) -> TopicId {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    TopicId(id)
}

impl Topics for FakeTopics {
    fn topic(&self, name: &str) -> Option<(TopicId, u32)> {
        self.counts.get(name).map(|count| (topic_id(name), *count))
    }

    fn name(&self, id: TopicId) -> Option<String> {
        self.counts.keys().find(|name| topic_id(name) == id).cloned()
    }

    fn each(&self, f: &mut dyn FnMut(&str, TopicId, u32)) {
        self.counts.iter().for_each(|(name, count)| f(name, topic_id(name), *count));
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn times(&self, _: &str) -> Times {
        self.times
    }
}

/// A coordinator with a log that commits when it is told to, and that may be cut and read again.
pub struct World {
    pub coordinator: Coordinator,
    pub config: Config,
    pub topics: FakeTopics,
    pub now: Time,
    pub wall: i64,
    /// Committed appends, then those under way.
    pub log: Vec<Append>,
    pub committed: usize,
    /// Where the log starts, in appends.
    pub log_start: usize,
    /// Appends of the present coordinator begin here.
    first: usize,
    /// Commit at once.
    pub prompt: bool,
    answers: BTreeMap<Ticket, Response>,
    tickets: Ticket,
}

impl World {
    pub fn new(config: Config) -> Self {
        let mut topics = FakeTopics::default();
        topics.counts.insert("t".to_owned(), 6);
        topics.counts.insert("u".to_owned(), 3);
        let mut coordinator = Coordinator::new(config.clone());
        coordinator.start(Time::ZERO);
        Self {
            coordinator,
            config,
            topics,
            now: Time::ZERO,
            wall: 1_000_000,
            log: Vec::new(),
            committed: 0,
            log_start: 0,
            first: 0,
            prompt: true,
            answers: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Without the wait before a group's first generation.
    pub fn eager() -> Self {
        Self::new(Config { initial_rebalance_delay: Duration::ZERO, ..Config::default() })
    }

    pub fn send(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = self.tickets;
        self.coordinator.request(self.now, self.wall, &self.topics, ticket, request);
        self.settle();
        ticket
    }

    pub fn answer(&mut self, ticket: Ticket) -> Option<Response> {
        self.answers.remove(&ticket)
    }

    /// The answer of a request that is answered at once.
    pub fn ask(&mut self, request: Request) -> Response {
        let ticket = self.send(request);
        self.answer(ticket).expect("answered at once")
    }

    /// The same when commits are held back.
    pub fn ask_committed(&mut self, request: Request) -> Response {
        let ticket = self.send(request);
        while self.committed < self.log.len() {
            self.commit(1);
        }
        self.answer(ticket).expect("answered when all is committed")
    }

    /// Lets time pass, timers included.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let due = self.coordinator.deadline().max(self.now);
            let next = due.min(until);
            self.wall += next.since(self.now).as_millis() as i64;
            self.now = next;
            if due > until {
                return;
            }
            self.coordinator.tick(self.now, self.wall, &self.topics);
            self.settle();
            assert!(self.coordinator.deadline() > self.now, "a tick leaves nothing that is due");
        }
    }

    /// Commits the next `count` appends.
    pub fn commit(&mut self, count: usize) {
        let upto = (self.committed + count).min(self.log.len());
        while self.committed < upto {
            self.committed += 1;
            self.coordinator.on_committed((self.committed - self.first) as u64);
            self.collect();
        }
    }

    fn settle(&mut self) {
        self.collect();
        while self.prompt && self.committed < self.log.len() {
            self.commit(1);
        }
    }

    fn collect(&mut self) {
        while let Some(effect) = self.coordinator.poll() {
            match effect {
                Effect::Append(append) => {
                    assert_eq!(append.seq as usize, self.log.len() - self.first + 1, "appends are numbered in order");
                    assert!(!append.records.is_empty());
                    self.log.push(append);
                }
                Effect::Answer { ticket, response } => {
                    assert!(self.answers.insert(ticket, response).is_none(), "one answer per request");
                }
                Effect::LogStart(seq) => self.log_start = self.first + seq as usize - 1,
            }
        }
    }

    /// The coordinator is gone, with all that was not committed but `survivors` of the appends under way.
    pub fn crash(&mut self, survivors: usize) {
        self.log.truncate(self.committed + survivors);
        self.committed = self.log.len();
        self.first = self.log.len();
        self.answers.clear();
        self.coordinator = self.replayed(self.log_start);
        self.coordinator.start(self.now);
    }

    /// What a reader of the log from `from` on has.
    pub fn replayed(&self, from: usize) -> Coordinator {
        let mut coordinator = Coordinator::new(self.config.clone());
        for KeyedRecord { key, value } in self.log[from..].iter().flat_map(|append| &append.records) {
            coordinator.replay(key, value.as_deref()).expect("readable");
        }
        coordinator
    }
}

pub fn member(id: &str) -> Identity {
    Identity { member: id.to_owned(), instance: None }
}

pub fn instance(id: &str, instance: &str) -> Identity {
    Identity { member: id.to_owned(), instance: Some(instance.to_owned()) }
}

/// A join of an old client, which is given its id and its place in one go.
pub fn join(group: &str, who: Identity) -> Join {
    static FRESH: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let mut fresh = [0; 16];
    fresh[..8].copy_from_slice(&FRESH.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes());
    Join {
        group: group.to_owned(),
        who,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(60),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"))],
        knows_member_ids: false,
        knows_skip: false,
        fresh,
    }
}

pub fn sync(group: &str, who: Identity, generation: i32, assignments: Vec<(String, Bytes)>) -> Request {
    let group = group.to_owned();
    Request::Sync(SyncGroup { group, who, generation, protocol_type: None, protocol: None, assignments })
}

pub fn heartbeat(group: &str, who: Identity, generation: i32) -> Request {
    Request::Heartbeat(Heartbeat { group: group.to_owned(), who, generation })
}

pub fn commit(group: &str, who: Identity, generation: i32, partition: i32, offset: i64) -> Request {
    Request::Commit(Commit {
        group: group.to_owned(),
        who,
        generation,
        knows_epochs: true,
        retention: None,
        offsets: vec![CommitOffset {
            topic: "t".to_owned(),
            partition,
            offset,
            leader_epoch: 3,
            metadata: "m\u{e9}".to_owned(),
        }],
    })
}

pub fn fetch(group: &str, partition: i32) -> Request {
    let partitions = Some(vec![("t".to_owned(), partition)]);
    Request::Fetch(Fetch { group: group.to_owned(), member: None, partitions })
}

/// The offset in the answer to [`fetch`].
pub fn fetched(response: Response) -> i64 {
    match response {
        Response::Fetch(Ok(found)) => found[0].offset,
        other => panic!("{other:?}"),
    }
}

pub fn beat(group: &str, who: Identity, epoch: i32) -> ConsumerHeartbeat {
    let joins = epoch == 0;
    ConsumerHeartbeat {
        group: group.to_owned(),
        who,
        epoch,
        rack: None,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        rebalance_timeout: joins.then_some(Duration::from_secs(30)),
        topics: joins.then(|| vec!["t".to_owned()]),
        regex: None,
        assignor: None,
        owned: joins.then(Partitions::new),
        fresh: [9; 16],
    }
}
