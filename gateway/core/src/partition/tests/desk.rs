//! A table on which a test plays everything around one partition.

use esker_bookie_core::owner::{AddAnswer, AddAnswerKind};
use esker_metadata_core::{Command, PartitionInfo};
use esker_types::{AllRules, Member, PartitionId, Quorum, SegmentId, SessionId, Time};

use super::world::{Faults, World, batch, instance};
use crate::partition::*;

/// One partition under the test's own hands; metadata is real, bookies are played by the test.
pub struct Desk {
    pub world: World<AllRules>,
    pub partition: Partition<AllRules>,
    pub session: SessionId,
    pub now: Time,
    pub effects: Vec<Effect>,
    /// The last question to the shell.
    pub asked: Option<Tag>,
    pub proposed: Option<Command>,
    pub ticket: Ticket,
}

impl Desk {
    pub fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    pub fn with(config: impl Fn(&mut Config), settings: impl Fn(&mut Settings)) -> Self {
        let mut world = World::new(1, 4, 2, Quorum { write: 3, ack: 2 }, Faults::default());
        world.assign(0);
        let session = world.processes[0].session;
        let partition = Self::process(&world, session, config, settings, 0);
        let mut desk = Self {
            world,
            partition,
            session,
            now: Time::ZERO,
            effects: Vec::new(),
            asked: None,
            proposed: None,
            ticket: 0,
        };
        desk.news();
        desk
    }

    pub fn process(
        world: &World<AllRules>,
        session: SessionId,
        config: impl Fn(&mut Config),
        settings: impl Fn(&mut Settings),
        started_upto: u64,
    ) -> Partition<AllRules> {
        let gateway = world.state.gateways().find(|g| g.session == Some(session)).expect("registered").id;
        let mut own_config = Config::default();
        config(&mut own_config);
        let mut own_settings = Settings {
            quorum: Quorum { write: 3, ack: 2 },
            segment_bytes: 1 << 30,
            segment_ms: 600_000,
            retention_ms: None,
            retention_bytes: None,
        };
        settings(&mut own_settings);
        Partition::new(world.id, gateway, session, own_config, own_settings, started_upto)
    }

    pub fn id(&self) -> PartitionId {
        self.world.id
    }

    pub fn info(&self) -> PartitionInfo {
        self.world.state.partition_info(self.id()).expect("exists")
    }

    pub fn event(&mut self, event: Event) -> Vec<String> {
        self.partition.handle(self.now, event);
        self.effects.clear();
        while let Some(effect) = self.partition.poll() {
            match &effect {
                Effect::Propose { tag, command } => {
                    (self.asked, self.proposed) = (Some(*tag), Some(command.clone()));
                }
                Effect::ReadRecord { tag } | Effect::PickMembers { tag, .. } | Effect::ReadEntries { tag, .. } => {
                    self.asked = Some(*tag);
                }
                _ => {}
            }
            self.effects.push(effect);
        }
        self.effects.iter().map(short).collect()
    }

    pub fn news(&mut self) -> Vec<String> {
        let (revision, info) = (self.world.state.revision(), self.info());
        self.event(Event::Info { revision, info })
    }

    pub fn tick(&mut self, ms: u64) -> Vec<String> {
        self.now = Time::from_millis(ms);
        self.event(Event::Tick)
    }

    /// Ticket n carries client 0's batch of one record with sequence n - 1.
    pub fn append(&mut self) -> Vec<String> {
        self.ticket += 1;
        let (ticket, sequence) = (self.ticket, self.ticket as i32 - 1);
        self.event(Event::Append { ticket, batch: batch(0, sequence, 1) })
    }

    pub fn tag(&self) -> Tag {
        self.asked.expect("a question was asked")
    }

    pub fn command(&self) -> Command {
        self.proposed.clone().expect("a command was proposed")
    }

    pub fn members(&mut self, bookies: &[u8]) -> Vec<String> {
        let tag = self.tag();
        let member = |i: &u8| Member { bookie: u64::from(*i).into(), instance: instance(usize::from(*i) - 1) };
        let members: Vec<Member> = bookies.iter().map(member).collect();
        let quorum = Quorum { write: members.len() as u8, ack: 2 };
        let choice = (members.len() >= 2).then_some(MemberChoice { members, quorum });
        self.event(Event::Members { tag, choice })
    }

    /// Applies the proposed command and says so.
    pub fn applied(&mut self) -> Vec<String> {
        let (tag, command) = (self.tag(), self.command());
        let name = command.name();
        self.world.apply(command).unwrap_or_else(|reject| panic!("{name}: {reject:?}"));
        let outcome = ProposeOutcome::Applied { revision: self.world.state.revision() };
        self.event(Event::Proposed { tag, outcome })
    }

    pub fn read_record(&mut self) -> Vec<String> {
        let tag = self.tag();
        let (revision, info) = (self.world.state.revision(), self.info());
        self.event(Event::RecordRead { tag, result: RecordRead::Info { revision, info } })
    }

    pub fn ok(&mut self, bookie: u8, n: u64, durable: u64) -> Vec<String> {
        let segment = SegmentId { partition: self.id(), n };
        let req_epoch = self.partition.epoch().expect("owned");
        let instance = instance(usize::from(bookie) - 1);
        self.event(Event::AddAnswer(AddAnswer { segment, instance, req_epoch, kind: AddAnswerKind::Ok { durable } }))
    }

    /// Segment 1 is open on bookies 1, 2, 3 and `n` records are acked there.
    pub fn opened(mut self, n: u64) -> Self {
        self.append();
        self.members(&[1, 2, 3]);
        self.applied();
        self.news();
        for _ in 1..n {
            self.append();
        }
        for bookie in [1, 2] {
            let done = self.ok(bookie, 1, 1 + n);
            assert_eq!(done.is_empty(), bookie == 1, "{done:?}");
        }
        self
    }

    /// From a wanted roll to the proposed command: members, probe, and nothing in flight.
    pub fn proposed(&mut self, bookies: &[u8]) -> Vec<String> {
        assert_eq!(self.members(bookies), ["read record"]);
        self.read_record()
    }
}

pub fn short(effect: &Effect) -> String {
    match effect {
        Effect::SendAdd(add) => {
            let header = &add.entry.header;
            format!("add {} {}/{}", add.member.bookie, header.segment.n, header.entry)
        }
        Effect::SendFence { member, epoch, .. } => format!("fence {} {epoch}", member.bookie),
        Effect::ReadEntries { member, from, to, .. } => format!("read {} {from}..{to}", member.bookie),
        Effect::Propose { command, .. } => command.name().to_owned(),
        Effect::ReadRecord { .. } => "read record".to_owned(),
        Effect::PickMembers { wanted, exclude, .. } => format!("pick {} without {exclude:?}", wanted.write),
        Effect::Complete { ticket, result: Ok(done) } => {
            format!("{ticket} at {}{}", done.base_offset, if done.duplicate { " again" } else { "" })
        }
        Effect::Complete { ticket, result: Err(refusal) } => format!("{ticket} {}", refusal.code.name()),
        Effect::Committed(entry) => format!("committed {}", entry.header.base_offset),
        Effect::HighWatermark(at) => format!("high {at}"),
        Effect::LogStart(at) => format!("start {at}"),
        Effect::Flow { open } => format!("flow {open}"),
        Effect::Phase(phase) => format!("{phase:?}"),
        Effect::SendTransfer { to, transfer } => format!("transfer to {to} at {}", transfer.end_offset),
        Effect::Drained => "drained".to_owned(),
        Effect::NeedAssign => "need assign".to_owned(),
        Effect::Suspect(member) => format!("suspect {}", member.bookie),
        Effect::Alarm(alarm) => format!("{alarm:?}"),
    }
}
