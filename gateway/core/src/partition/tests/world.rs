//! A small cluster in memory: the real metadata state machine, toy bookies without disks, real partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_bookie_core::owner::{Add, AddAnswer, FenceAnswer};
use esker_metadata_core::{
    Assign, Command, CreateTopic, ExpireSession, GatewayAddresses, InitCluster, RegisterBookie, RegisterGateway, Reply,
    State,
};
use esker_types::{
    BootId, ClusterId, Epoch, InstanceId, Member, Offset, PartitionId, Quorum, Rules, SegmentId, SessionId, Time,
    TopicId,
};
use esker_wire::batch::{Batch, BatchBuilder, Compression, ProducerStamp};

use super::bookie::Bookie;
use crate::partition::*;

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub fn instance(i: usize) -> InstanceId {
    InstanceId([i as u8 + 1; 16])
}

pub enum Job {
    Add {
        life: u64,
        add: Add,
    },
    Fence {
        life: u64,
        member: Member,
        segment: SegmentId,
        epoch: Epoch,
    },
    Read {
        life: u64,
        tag: Tag,
        member: Member,
        segment: SegmentId,
        from: u64,
        to: u64,
    },
    /// `answer`: whom to tell, if the outcome comes through.
    Apply {
        answer: Option<(u64, Tag)>,
        command: Command,
    },
    ReadRecord {
        life: u64,
        tag: Tag,
    },
    Event {
        life: u64,
        event: Event,
    },
    Tick {
        life: u64,
    },
    /// Void if the client has sent since.
    Client {
        client: usize,
        attempt: u64,
    },
    Nemesis,
    Controller,
}

pub struct Process<R: Rules> {
    pub life: u64,
    pub session: SessionId,
    pub partition: Partition<R>,
    pub ticking: Option<Time>,
}

/// Sends one batch at a time, again and again until it is acked.
#[derive(Default)]
pub struct Client {
    pub sequence: i32,
    pub size: u32,
    pub attempt: u64,
    pub acked: Vec<(i32, u32, Offset)>,
    pub done: bool,
}

#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub loss: u64,
    pub unknown: u64,
    pub crash: u64,
    pub storm: u64,
    pub moves: u64,
    pub bookie_down: u64,
    pub delay_ms: u64,
}

pub struct World<R: Rules> {
    pub rng: Rng,
    pub now: Time,
    pub queue: BTreeMap<(Time, u64), Job>,
    seq: u64,
    pub state: State,
    pub id: PartitionId,
    pub bookies: Vec<Bookie>,
    pub processes: Vec<Process<R>>,
    pub next_life: u64,
    pub clients: Vec<Client>,
    /// Open questions of a client, all about its present batch.
    pub tickets: BTreeMap<Ticket, usize>,
    pub next_ticket: Ticket,
    pub faults: Faults,
    pub healed: bool,
    pub quorum: Quorum,
    pub alarms: Vec<Alarm>,
    pub seen: BTreeSet<&'static str>,
    pub config: Config,
    pub segment_bytes: u64,
}

impl<R: Rules> World<R> {
    pub fn new(seed: u64, bookies: usize, gateways: usize, quorum: Quorum, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let ms = Duration::from_millis;
        let mut config =
            Config { metadata_retry: ms(20), roll_retry: ms(100), drain: ms(rng.below(50)), ..Config::default() };
        config.snapshot_bytes = 200 + rng.below(4000);
        config.entry_bytes = 200 + rng.below(1000) as usize;
        config.owner.member_timeout = ms(100 + rng.below(400));
        config.recovery.retry = ms(60);
        config.recovery.substitute_after = ms(300);
        let segment_bytes = 500 + rng.below(10_000);
        let mut world = Self {
            rng,
            now: Time::ZERO,
            queue: BTreeMap::new(),
            seq: 0,
            state: State::default(),
            id: PartitionId(1),
            bookies: Vec::new(),
            processes: Vec::new(),
            next_life: 1,
            clients: Vec::new(),
            tickets: BTreeMap::new(),
            next_ticket: 1,
            faults,
            healed: false,
            quorum,
            alarms: Vec::new(),
            seen: BTreeSet::new(),
            config,
            segment_bytes,
        };
        let id = ClusterId([7; 16]);
        world.must(InitCluster { id, quorum, auto_create_topics: false, default_partitions: 1 }.into());
        for i in 0..bookies {
            world.bookies.push(Bookie { up: true, ..Bookie::default() });
            world.must(
                RegisterBookie {
                    name: format!("b{i}"),
                    instance: instance(i),
                    boot: BootId([i as u8 + 1; 16]),
                    expect_boot_no: 0,
                    durable_lsn: 0,
                    address: format!("b{i}:1"),
                    zone: String::new(),
                    version: 1,
                    replaces: None,
                }
                .into(),
            );
        }
        for i in 0..gateways {
            world.boot(i);
        }
        let topic = CreateTopic {
            id: TopicId([9; 16]),
            name: "t".to_owned(),
            partitions: 1,
            replication: Some(quorum.write.into()),
            settings: Vec::new(),
            internal: false,
            validate_only: false,
        };
        let Reply::Topic(reply) = world.must(topic.into()) else { panic!("topic") };
        world.id = reply.partitions[0];
        world.processes.clear();
        for i in 0..gateways {
            world.boot(i);
        }
        world
    }

    pub fn must(&mut self, command: Command) -> Reply {
        let name = command.name();
        self.apply(command).unwrap_or_else(|reject| panic!("{name}: {reject:?}"))
    }

    pub fn apply(&mut self, command: Command) -> Result<Reply, esker_metadata_core::Reject> {
        let wall = (self.now.0 / 1_000_000) as i64 + 1_000_000;
        let mut applied = self.state.apply::<R>(wall, &[command]);
        if let Some(info) = self.state.partition_info(self.id) {
            for i in 0..self.processes.len() {
                let (life, revision, info) = (self.processes[i].life, applied.revision, info.clone());
                self.send(Job::Event { life, event: Event::Info { revision, info } });
            }
        }
        applied.results.pop().expect("one result")
    }

    /// A new process under gateway name `i`; the old one is gone.
    pub fn boot(&mut self, i: usize) {
        let name = format!("g{i}");
        if let Some(session) = self.state.gateway_by_name(&name).and_then(|g| g.session) {
            self.must(ExpireSession { session }.into());
        }
        let life = self.next_life;
        self.next_life += 1;
        let register = RegisterGateway {
            name,
            boot: BootId((life as u128 + 1000).to_le_bytes()),
            addresses: GatewayAddresses {
                quic: String::new(),
                kafka: String::new(),
                http: String::new(),
                internal: String::new(),
            },
            zone: String::new(),
            version: 1,
        };
        let Reply::Gateway(reply) = self.must(register.into()) else { panic!("gateway") };
        let settings = Settings {
            quorum: self.quorum,
            segment_bytes: self.segment_bytes,
            segment_ms: 1_000_000,
            retention_ms: None,
            retention_bytes: None,
        };
        let partition = Partition::new(self.id, reply.gateway, reply.session, self.config.clone(), settings, 0);
        let process = Process { life, session: reply.session, partition, ticking: None };
        match self.processes.get_mut(i) {
            Some(old) => *old = process,
            None => self.processes.push(process),
        }
        if let Some(info) = self.state.partition_info(self.id) {
            let revision = self.state.revision();
            self.handle(life, Event::Info { revision, info });
        }
    }

    pub fn assign(&mut self, i: usize) {
        let expect_epoch = self.state.partition(self.id).expect("exists").epoch;
        let session = self.processes[i].session;
        self.apply(Assign { partition: self.id, expect_epoch, session }.into()).ok();
    }

    pub fn at(&mut self, delay: Duration, job: Job) {
        self.seq += 1;
        self.queue.insert((self.now + delay, self.seq), job);
    }

    /// With a random delay.
    pub fn send(&mut self, job: Job) {
        let delay = if self.healed { 1_000 } else { self.rng.below(self.faults.delay_ms * 1000 + 1) };
        self.at(Duration::from_micros(delay), job);
    }

    fn send_or_lose(&mut self, job: Job) {
        if !self.lost() {
            self.send(job);
        }
    }

    fn lost(&mut self) -> bool {
        let percent = self.faults.loss;
        !self.healed && self.rng.chance(percent)
    }

    pub fn handle(&mut self, life: u64, event: Event) {
        let Some(i) = self.processes.iter().position(|p| p.life == life) else { return };
        let now = self.now;
        self.processes[i].partition.handle(now, event);
        while let Some(effect) = self.processes[i].partition.poll() {
            self.effect(life, effect);
        }
        let process = &mut self.processes[i];
        if let Some(at) = process.partition.deadline().map(|at| at.max(now + Duration::from_millis(1)))
            && process.ticking.is_none_or(|t| at < t || t <= now)
        {
            process.ticking = Some(at);
            self.at(at.since(now), Job::Tick { life });
        }
    }

    fn effect(&mut self, life: u64, effect: Effect) {
        match effect {
            Effect::SendAdd(add) => {
                if add.recovery {
                    self.seen.insert("write back");
                }
                self.send_or_lose(Job::Add { life, add });
            }
            Effect::SendFence { member, segment, epoch } => {
                let job = Job::Fence { life, member, segment, epoch };
                self.send_or_lose(job);
            }
            Effect::ReadEntries { tag, member, segment, from, to, .. } => {
                if self.lost() {
                    let event = Event::Entries { tag, result: EntriesRead::Failed };
                    return self.at(Duration::from_millis(50), Job::Event { life, event });
                }
                self.send(Job::Read { life, tag, member, segment, from, to });
            }
            Effect::Propose { tag, command } => self.propose(life, tag, command),
            Effect::ReadRecord { tag } => match self.lost() {
                true => {
                    let event = Event::RecordRead { tag, result: RecordRead::Failed };
                    self.at(Duration::from_millis(50), Job::Event { life, event });
                }
                false => self.send(Job::ReadRecord { life, tag }),
            },
            Effect::PickMembers { tag, wanted, exclude } => {
                let choice = self.pick(wanted, &exclude);
                self.send(Job::Event { life, event: Event::Members { tag, choice } });
            }
            Effect::Complete { ticket, result } => self.complete(ticket, result),
            Effect::SendTransfer { to, transfer } => {
                self.seen.insert("transfer");
                if let Some(life) = self.processes.iter().find(|p| p.session == to).map(|p| p.life) {
                    self.send(Job::Event { life, event: Event::Transfer(transfer) });
                }
            }
            Effect::NeedAssign => {
                self.seen.insert("need assign");
                let i = self.processes.iter().position(|p| p.life == life).expect("alive");
                self.assign(i);
            }
            Effect::Alarm(alarm) => self.alarms.push(alarm),
            _ => {}
        }
    }

    fn propose(&mut self, life: u64, tag: Tag, command: Command) {
        self.seen.insert(command.name());
        let percent = self.faults.unknown;
        if self.healed || !self.rng.chance(percent) {
            return self.send(Job::Apply { answer: Some((life, tag)), command });
        }
        self.seen.insert("unknown outcome");
        let event = Event::Proposed { tag, outcome: ProposeOutcome::Unknown };
        self.at(Duration::from_millis(20), Job::Event { life, event });
        if self.rng.chance(70) {
            // Applied, perhaps long after the time-out.
            let delay = self.rng.below(1000);
            self.at(Duration::from_millis(delay), Job::Apply { answer: None, command });
        }
    }

    fn pick(&mut self, wanted: Quorum, exclude: &[esker_types::BookieId]) -> Option<MemberChoice> {
        let usable = self.state.bookies().map(|b| b.member()).collect::<Vec<_>>();
        let noise = !self.healed && self.rng.chance(5);
        let mut members: Vec<Member> = usable
            .into_iter()
            .filter(|m| !exclude.contains(&m.bookie))
            .filter(|m| noise || (0..self.bookies.len()).any(|i| instance(i) == m.instance && self.bookies[i].up))
            .collect();
        for i in (1..members.len()).rev() {
            let j = self.rng.below(i as u64 + 1) as usize;
            members.swap(i, j);
        }
        members.truncate(wanted.write.into());
        let write = members.len() as u8;
        (write >= wanted.ack).then_some(MemberChoice { members, quorum: Quorum { write, ack: wanted.ack } })
    }

    pub fn bookie_of(&mut self, member: Member) -> Option<&mut Bookie> {
        let i = (0..self.bookies.len()).find(|i| instance(*i) == member.instance)?;
        Some(&mut self.bookies[i]).filter(|b| b.up)
    }

    pub fn run_job(&mut self, job: Job) {
        match job {
            Job::Add { life, add } => {
                let Some(kind) = self.bookie_of(add.member).map(|b| b.add(&add)) else { return };
                let (segment, instance, req_epoch) = (add.segment, add.member.instance, add.req_epoch);
                if !self.lost() {
                    let answer = AddAnswer { segment, instance, req_epoch, kind };
                    self.send(Job::Event { life, event: Event::AddAnswer(answer) });
                }
            }
            Job::Fence { life, member, segment, epoch } => {
                let Some(kind) = self.bookie_of(member).map(|b| b.fence(segment, epoch)) else { return };
                if !self.lost() {
                    let answer = FenceAnswer { segment, instance: member.instance, req_epoch: epoch, kind };
                    self.send(Job::Event { life, event: Event::FenceAnswer(answer) });
                }
            }
            Job::Read { life, tag, member, segment, from, to } => {
                let at_most = self.rng.below(5) as usize + 1;
                let result = self.bookie_of(member).map(|b| b.read(segment, from, to, at_most));
                let result = result.unwrap_or(EntriesRead::Failed);
                self.send(Job::Event { life, event: Event::Entries { tag, result } });
            }
            Job::Apply { answer, command } => {
                let outcome = match self.apply(command) {
                    Ok(_) => ProposeOutcome::Applied { revision: self.state.revision() },
                    Err(reject) => ProposeOutcome::Rejected { code: reject.code, reason: reject.reason },
                };
                if let Some((life, tag)) = answer {
                    self.send(Job::Event { life, event: Event::Proposed { tag, outcome } });
                }
            }
            Job::ReadRecord { life, tag } => {
                let info = self.state.partition_info(self.id).expect("exists");
                let result = RecordRead::Info { revision: self.state.revision(), info };
                self.send(Job::Event { life, event: Event::RecordRead { tag, result } });
            }
            Job::Event { life, event } => self.handle(life, event),
            Job::Tick { life } => {
                if let Some(process) = self.processes.iter_mut().find(|p| p.life == life)
                    && process.ticking == Some(self.now)
                {
                    process.ticking = None;
                    self.handle(life, Event::Tick);
                }
            }
            Job::Client { client, attempt } if self.clients[client].attempt == attempt => self.client_sends(client),
            Job::Client { .. } => {}
            Job::Nemesis => self.nemesis(),
            Job::Controller => self.controller(),
        }
    }

    /// Runs until `until`, or nothing is left to do.
    pub fn run(&mut self, until: Time) {
        while let Some(((at, _), _)) =
            self.queue.first_key_value().filter(|((at, _), _)| *at <= until).map(|(k, _)| (*k, ()))
        {
            let Some((_, job)) = self.queue.pop_first() else { break };
            self.now = at;
            self.run_job(job);
        }
        self.now = until;
    }

    fn client_sends(&mut self, client: usize) {
        let state = &mut self.clients[client];
        if state.done {
            return;
        }
        state.attempt += 1;
        let attempt = state.attempt;
        let (sequence, size) = (state.sequence, state.size);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(ticket, client);
        let target = self.rng.below(self.processes.len() as u64) as usize;
        let owner = self.state.partition(self.id).and_then(|p| p.owner.as_ref().map(|o| o.session));
        let target = self.processes.iter().position(|p| Some(p.session) == owner).unwrap_or(target);
        let life = self.processes[target].life;
        self.handle(life, Event::Append { ticket, batch: batch(client, sequence, size) });
        // Without an answer in time it sends again.
        let retry = Duration::from_millis(100 + self.rng.below(500));
        self.at(retry, Job::Client { client, attempt });
    }

    fn complete(&mut self, ticket: Ticket, result: Result<Completed, Refusal>) {
        let Some(client) = self.tickets.remove(&ticket) else { return };
        let state = &mut self.clients[client];
        match result {
            Ok(completed) => {
                if completed.duplicate {
                    self.seen.insert("duplicate");
                }
                state.acked.push((state.sequence, state.size, completed.base_offset));
                state.sequence += state.size as i32;
                state.size = self.rng.below(3) as u32 + 1;
                state.done = self.healed;
                let attempt = state.attempt;
                self.tickets.retain(|_, c| *c != client);
                self.send(Job::Client { client, attempt });
            }
            Err(refusal) => {
                let fatal = refusal.code.class() == esker_types::ErrorClass::Fatal;
                assert!(!fatal, "client {client} was told {refusal:?}");
            }
        }
    }

    fn nemesis(&mut self) {
        if self.healed {
            return;
        }
        let faults = self.faults;
        if self.rng.chance(faults.crash) {
            let i = self.rng.below(self.processes.len() as u64) as usize;
            self.seen.insert("crash");
            self.boot(i);
        }
        if self.rng.chance(faults.storm) {
            let i = self.rng.below(self.processes.len() as u64) as usize;
            self.assign(i);
        }
        if self.rng.chance(faults.moves) {
            let from = self.rng.below(self.processes.len() as u64) as usize;
            let to = self.rng.below(self.processes.len() as u64) as usize;
            let (life, to) = (self.processes[from].life, self.processes[to].session);
            self.send(Job::Event { life, event: Event::MoveTo { to } });
        }
        if self.rng.chance(faults.bookie_down) {
            let i = self.rng.below(self.bookies.len() as u64) as usize;
            self.bookies[i].up = !self.bookies[i].up;
        }
        let wait = 20 + self.rng.below(100);
        self.at(Duration::from_millis(wait), Job::Nemesis);
    }

    fn controller(&mut self) {
        let partition = self.state.partition(self.id).expect("exists").clone();
        if !self.state.has_live_owner(&partition) {
            let i = self.rng.below(self.processes.len() as u64) as usize;
            self.assign(i);
        }
        self.at(Duration::from_millis(30), Job::Controller);
    }
}

pub fn batch(client: usize, sequence: i32, size: u32) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 64);
    for i in 0..size {
        builder.push(
            1_000 + i64::from(sequence),
            None,
            Some(format!("{client}/{}", sequence + i as i32).as_bytes()),
            &[],
        );
    }
    builder.build(Some(ProducerStamp { id: client as i64 + 1, epoch: 0, base_sequence: sequence }))
}
