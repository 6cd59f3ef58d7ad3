//! The metadata quorum as its users see it: one state machine, and commands that may be applied late, twice or
//! never while the proposer is told "unknown". What is applied is the real `State::apply`.

use std::marker::PhantomData;
use std::sync::Arc;

use esker_gateway_core::partition::{MemberChoice, ProposeOutcome, RecordRead, Tag};
use esker_metadata_core::{Applied, BookieRecord, Change, Command, CommandResult, PartitionRecord, State};
use esker_types::{BookieId, ErrorCode, InstanceId, Member, PartitionId, Quorum, Rules, SegmentId, SessionId};

use crate::network::Node;
use crate::oracle::Closed;
use crate::plan::Fault;
use crate::sometimes::Case;
use crate::world::{What, World};

/// Wall clock of the run's first moment, so that timestamps look like ones.
pub const WALL_START_MS: i64 = 1_700_000_000_000;

/// Who waits for the answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub gateway: usize,
    /// Of the hosted partition, so that an answer can't reach a later life.
    pub life: u64,
    pub partition: PartitionId,
    pub tag: Tag,
}

pub struct Metadata<R: Rules> {
    pub state: State,
    rules: PhantomData<R>,
}

impl<R: Rules> Default for Metadata<R> {
    fn default() -> Self {
        Self { state: State::default(), rules: PhantomData }
    }
}

impl<R: Rules> World<R> {
    /// A gateway proposes; the fates of command and answer are drawn here.
    pub fn propose(&mut self, asker: Asker, command: Command) {
        let from = Node::Gateway(asker.gateway as u16);
        let mean = self.plan.metadata_us;
        let there = self.rng.latency_ns(mean);
        let patience = self.plan.member_timeout_ms * 1_000_000 + mean * 8_000;
        let is_close = matches!(command, Command::Roll(_) | Command::Handover(_));
        let cut = self.network.is_cut(from, Node::Metadata);
        let deaf = self.network.is_cut(Node::Metadata, from);
        let faults = if self.healed { Default::default() } else { self.plan.faults };
        let rate = self.unknown_rate;
        let strikes = |fault: Fault, rng: &mut crate::rng::Rng| faults.has(fault) && rng.chance(rate);
        let apply = |answer: bool| What::Apply { commands: vec![command.clone()], asker: answer.then_some(asker) };
        let unknown = if cut {
            if self.rng.chance(500) {
                let outcome = ProposeOutcome::NotApplied;
                self.queue.after_ns(patience, What::Proposed { asker, outcome });
                return;
            }
            true
        } else if strikes(Fault::CommandNever, &mut self.rng) {
            self.cases.hit(Case::CommandNeverApplied);
            true
        } else if strikes(Fault::CommandLate, &mut self.rng) {
            self.cases.hit(Case::CommandAppliedLate);
            let late = patience + self.rng.latency_ns(mean * 20) * self.rng.range(1, 10);
            let late = late.min(self.latest_ns(&asker));
            self.queue.after_ns(late, apply(false));
            true
        } else if strikes(Fault::CommandUnknown, &mut self.rng) || deaf {
            self.queue.after_ns(there, apply(false));
            true
        } else {
            if strikes(Fault::CommandTwice, &mut self.rng) {
                self.cases.hit(Case::CommandAppliedTwice);
                let again = there + self.rng.latency_ns(mean * 20);
                self.queue.after_ns(again, apply(false));
            }
            self.queue.after_ns(there, apply(true));
            false
        };
        if unknown {
            self.cases.hit(Case::UnknownOutcome);
            if is_close {
                self.cases.hit(Case::UnknownRollOutcome);
            }
            // Sometimes the proposer gives up long before the command is decided.
            let after = if self.rng.chance(300) { there / 2 } else { patience };
            self.queue.after_ns(after, What::Proposed { asker, outcome: ProposeOutcome::Unknown });
        }
    }

    pub fn read_record(&mut self, asker: Asker) {
        let from = Node::Gateway(asker.gateway as u16);
        let cut = self.network.is_cut(from, Node::Metadata) || self.network.is_cut(Node::Metadata, from);
        let there = self.rng.latency_ns(self.plan.metadata_us);
        let lost = cut || (!self.healed && self.plan.faults.has(Fault::CommandUnknown) && self.rng.chance(100));
        if lost {
            let patience = self.plan.member_timeout_ms * 1_000_000 + there;
            self.queue.after_ns(patience, What::RecordRead { asker, result: RecordRead::Failed });
        } else {
            self.queue.after_ns(there, What::ReadPoint { asker });
        }
    }

    /// The point at which a linearizable read sees the state; its answer travels on.
    pub fn on_read_point(&mut self, asker: Asker) {
        let result = match self.metadata.state.partition_info(asker.partition) {
            Some(info) => RecordRead::Info { revision: self.metadata.state.revision(), info },
            None => RecordRead::Gone,
        };
        let back = self.rng.latency_ns(self.plan.metadata_us);
        self.queue.after_ns(back, What::RecordRead { asker, result });
    }

    pub fn on_apply(&mut self, commands: Vec<Command>, asker: Option<Asker>) {
        let results = self.apply_now(&commands);
        let Some(asker) = asker else { return };
        let revision = self.metadata.state.revision();
        let outcome = match results.into_iter().next() {
            Some(Ok(_)) => ProposeOutcome::Applied { revision },
            Some(Err(reject)) => ProposeOutcome::Rejected { code: reject.code, reason: reject.reason },
            None => ProposeOutcome::Rejected { code: ErrorCode::Internal, reason: "no result".into() },
        };
        let back = self.rng.latency_ns(self.plan.metadata_us);
        self.queue.after_ns(back, What::Proposed { asker, outcome });
    }

    /// Applies at once, checks what the state may never do, and lets watchers know.
    pub fn apply_now(&mut self, commands: &[Command]) -> Vec<CommandResult> {
        let wall = self.wall_ms();
        let open_before: Vec<bool> = commands.iter().map(|command| self.opens_beside_open(command)).collect();
        let Applied { revision, results, delta } = self.metadata.state.apply::<R>(wall, commands);
        for ((command, result), beside) in commands.iter().zip(&results).zip(open_before) {
            if result.is_ok() && beside && commands.len() == 1 {
                self.oracle.fail("I1", format!("{} made a second OPEN segment", command.name()));
            }
            if result.is_err() && matches!(command, Command::Roll(_) | Command::Open(_) | Command::Handover(_)) {
                self.cases.hit(Case::StaleCommandRejected);
            }
            if result.is_err() && matches!(command, Command::Handover(_)) {
                self.cases.hit(Case::HandoverRefused);
            }
            self.trace_command(command, result);
        }
        for change in &delta.changes {
            self.on_change(change);
        }
        self.tell_watchers(revision, &delta.changes);
        results
    }

    /// Gateways learn the new state of each partition that the command touched.
    fn tell_watchers(&mut self, revision: u64, changes: &[Change]) {
        let mut touched: Vec<PartitionId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Partition(record) => Some(record.id),
                Change::Segment(closed) => Some(closed.segment.partition),
                Change::SegmentGone(key) => Some(key.id.partition),
                _ => None,
            })
            .collect();
        touched.sort_unstable();
        touched.dedup();
        for partition in touched {
            self.note_root(partition);
            self.check_places(partition);
            let Some(info) = self.metadata.state.partition_info(partition) else { continue };
            for gateway in 0..self.gateways.len() {
                let delay = self.watch_delay(gateway);
                self.queue.after_ns(delay, What::Watch { gateway, revision, info: info.clone() });
            }
        }
    }

    fn trace_command(&mut self, command: &Command, result: &CommandResult) {
        let now = self.queue.now();
        let ok = u64::from(result.is_ok());
        self.trace.note(now, &[0x4d, ok], || format!("metadata applies {command:?}: {result:?}"));
    }

    fn opens_beside_open(&self, command: &Command) -> bool {
        let Command::Open(open) = command else { return false };
        self.metadata.state.partition(open.partition).is_some_and(|record| record.open.is_some())
    }

    fn on_change(&mut self, change: &Change) {
        match change {
            Change::Partition(record) => {
                self.oracle.log_start(record.id, record.log_start);
                self.note_deleted_tail(record);
                self.note_lost_copies(record.id);
            }
            Change::Segment(closed) => {
                let as_closed = Closed { last: closed.last, end_offset: closed.end_offset, digest: closed.digest };
                self.oracle.closed(closed.segment, as_closed);
                self.note_offload(closed);
            }
            Change::PartitionGone(key) => {
                for gateway in 0..self.gateways.len() {
                    let delay = self.watch_delay(gateway);
                    self.queue.after_ns(delay, What::WatchGone { gateway, partition: key.id });
                }
            }
            Change::SessionGone(key) => self.on_session_gone(key.id),
            _ => {}
        }
    }

    fn on_session_gone(&mut self, session: SessionId) {
        for gateway in 0..self.gateways.len() {
            if self.gateways[gateway].session == Some(session) {
                let delay = self.watch_delay(gateway);
                self.queue.after_ns(delay, What::SessionLost { gateway, session });
            }
        }
    }

    /// News reach a gateway in the order of their making, late if its link is bad.
    fn watch_delay(&mut self, gateway: usize) -> u64 {
        let now = self.queue.now().0;
        let mut at = now + self.rng.latency_ns(self.plan.metadata_us);
        if self.network.is_cut(Node::Metadata, Node::Gateway(gateway as u16)) {
            at += self.plan.nemesis_us * 4_000;
        }
        let floor = &mut self.gateways[gateway].watch_floor;
        *floor = at.max(*floor + 1);
        *floor - now
    }

    pub fn record(&self, partition: PartitionId) -> Option<Arc<PartitionRecord>> {
        self.metadata.state.partition(partition).cloned()
    }

    /// Segments of a partition with their members and ack quorum, the open one included.
    pub fn member_sets(&self, partition: PartitionId) -> Vec<(SegmentId, Vec<InstanceId>, usize)> {
        let state = &self.metadata.state;
        let instances = |members: &[Member]| members.iter().map(|m| m.instance).collect::<Vec<_>>();
        let mut sets: Vec<_> = state
            .chain(partition)
            .map(|closed| {
                let mut all = instances(&closed.members);
                all.extend(instances(&closed.holders));
                all.sort_unstable();
                all.dedup();
                (closed.segment, all, usize::from(closed.quorum.ack))
            })
            .collect();
        if let Some(record) = state.partition(partition)
            && let (Some(id), Some(open)) = (record.open_id(), &record.open)
        {
            sets.push((id, instances(&open.members), usize::from(open.quorum.ack)));
        }
        sets
    }

    /// Placement: live bookies that metadata would accept, fewer than wanted if there are no more.
    pub fn pick_members(&mut self, g: usize, wanted: Quorum, exclude: &[BookieId]) -> Option<MemberChoice> {
        let now = self.queue.now();
        let state = &self.metadata.state;
        let usable = |b: &&Arc<BookieRecord>| b.takes_segments() && !exclude.contains(&b.id);
        let (mut up, mut down): (Vec<Member>, Vec<Member>) =
            state.bookies().filter(usable).map(|record| record.member()).partition(|member| {
                let suspect = self.gateways[g].suspects.get(&member.bookie).is_some_and(|until| now < *until);
                !suspect && self.bookies.iter().any(|bookie| bookie.member() == *member && bookie.is_serving())
            });
        down.retain(|member| !self.is_dead(member.instance));
        self.rng.shuffle(&mut up);
        self.rng.shuffle(&mut down);
        // Placement knows who is down, but not always.
        if self.rng.chance(50) {
            up.append(&mut down);
            self.rng.shuffle(&mut up);
        } else if up.len() < usize::from(wanted.ack) {
            // Rather one under suspicion than none.
            down.retain(|member| self.bookies.iter().any(|b| b.member() == *member && b.is_serving()));
            up.append(&mut down);
        }
        up.truncate(usize::from(wanted.write));
        let write = u8::try_from(up.len()).ok()?;
        let quorum = Quorum { write, ack: wanted.ack };
        quorum.is_valid().then_some(MemberChoice { members: up, quorum })
    }
}
