use std::collections::{BTreeMap, BTreeSet};

use esker_types::{ErrorCode, Time};

use super::api::{Listed, Request, Response};
use super::classic::Classic;
use super::config::Config;
use super::consumer::Consumer;
use super::group::{Group, Kind};
use super::out::{Cx, Effect, Out, Seq, Ticket};
use super::record::{Key, ReplayError, decode};
use super::snapshot::Snapshot;
use super::topics::Topics;

/// All groups of one partition of the internal topic; see the module above.
///
/// First everything in the log is given to [`replay`](Self::replay), then [`start`](Self::start) opens it for
/// requests. After each call, [`poll`](Self::poll) tells what is to be done.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: Config,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) out: Out,
    pub(super) snapshot: Snapshot,
    /// Sum over the groups.
    pub(super) bytes: usize,
    /// At most one entry per group: the one it says in `armed`.
    timers: BTreeSet<(Time, String)>,
    next_expiry: Time,
}

impl Coordinator {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            out: Out::default(),
            snapshot: Snapshot::Idle,
            bytes: 0,
            timers: BTreeSet::new(),
            next_expiry: Time::ZERO,
        }
    }

    /// Takes over one record of the log; in the order of the log.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), ReplayError> {
        let key = Key::decode(key)?;
        self.out.since_snapshot += value.map_or(0, <[u8]>::len);
        let name = match &key {
            Key::Barrier => return Ok(()),
            Key::Classic { group } | Key::Consumer { group } => group,
            Key::Member { group, .. } | Key::Offset { group, .. } => group,
        };
        if value.is_none() && !self.groups.contains_key(name) {
            return Ok(());
        }
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group::new(name, 0));
        match (&key, value) {
            (Key::Classic { .. }, Some(value)) => group.kind = Kind::Classic(Classic::load(name, decode(value)?)),
            (Key::Classic { .. }, None) if matches!(group.kind, Kind::Classic(_)) => {
                group.kind = Kind::Classic(Classic::new(name, 0));
            }
            (Key::Consumer { .. }, Some(value)) => {
                let value = decode(value)?;
                consumer_of(group).load(value);
            }
            (Key::Consumer { .. }, None) if matches!(group.kind, Kind::Consumer(_)) => {
                group.kind = Kind::Classic(Classic::new(name, 0));
            }
            (Key::Member { member, .. }, Some(value)) => {
                let value = decode(value)?;
                consumer_of(group).load_member(member, value);
            }
            (Key::Member { member, .. }, None) => {
                if let Kind::Consumer(consumer) = &mut group.kind {
                    consumer.drop_member(member);
                }
            }
            (Key::Offset { group: name, topic, partition }, value) => {
                let value = value.map(decode).transpose()?;
                group.offsets.set(name, topic, *partition, value);
            }
            // Of a kind that the group was before.
            (Key::Classic { .. } | Key::Consumer { .. } | Key::Barrier, _) => {}
        }
        if group.is_void() {
            self.groups.remove(key_group(&key));
        }
        Ok(())
    }

    /// The log has been read to its end: from here on it serves. Every member has a full session from now.
    pub fn start(&mut self, now: Time) {
        self.next_expiry = now + self.config.expiry_interval;
        for (name, group) in &mut self.groups {
            group.start(now, &self.config);
            self.bytes += group.bytes();
            group.armed = group.deadline();
            self.timers.extend(group.armed.map(|at| (at, name.clone())));
        }
    }

    /// `wall` is in milliseconds since the epoch.
    pub fn request(&mut self, now: Time, wall: i64, topics: &dyn Topics, ticket: Ticket, request: Request) {
        match request.group().map(str::to_owned) {
            None => {
                let Request::List(filter) = &request else { return };
                let listed: Vec<Listed> = self.groups.values().filter_map(|group| group.list(filter)).collect();
                self.out.answer(ticket, Response::List(listed));
            }
            Some(name) => self.group_request(now, wall, topics, ticket, request, &name),
        }
        self.end();
    }

    fn group_request(
        &mut self,
        now: Time,
        wall: i64,
        topics: &dyn Topics,
        ticket: Ticket,
        request: Request,
        name: &str,
    ) {
        let creates = match &request {
            Request::Join(r) => r.who.member.is_empty(),
            Request::Commit(r) => r.generation < 0,
            Request::ConsumerHeartbeat(r) => r.epoch == super::JOIN_EPOCH,
            _ => false,
        };
        // Kafka lets offsets of a nameless group be kept, and nothing else.
        if name.is_empty() && !matches!(request, Request::Commit(_) | Request::Fetch(_)) {
            let code = match request {
                Request::ConsumerHeartbeat(_) => ErrorCode::InvalidRequest,
                _ => ErrorCode::InvalidGroupId,
            };
            return self.out.answer(ticket, request.refuse(code));
        }
        let grows = matches!(request, Request::Join(_) | Request::Commit(_) | Request::ConsumerHeartbeat(_));
        if grows && self.bytes >= self.config.state_bytes_max && creates {
            return self.out.answer(ticket, request.refuse(ErrorCode::CoordinatorUnavailable));
        }
        if !self.groups.contains_key(name) {
            if !creates {
                return self.out.answer(ticket, absent(&request));
            }
            if self.groups.len() >= self.config.groups_max {
                return self.out.answer(ticket, request.refuse(ErrorCode::CoordinatorUnavailable));
            }
            let group = Group::new(name, wall);
            self.bytes += group.bytes();
            self.groups.insert(name.to_owned(), group);
        }
        self.on_group(now, wall, topics, name, |group, cx| group.handle(cx, ticket, request));
    }

    /// Does something with a group, and keeps what is known about it up to date.
    fn on_group(
        &mut self,
        now: Time,
        wall: i64,
        topics: &dyn Topics,
        name: &str,
        act: impl FnOnce(&mut Group, &mut Cx<'_>),
    ) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let before = group.bytes();
        let mut cx = Cx { now, wall, config: &self.config, topics, out: &mut self.out };
        act(group, &mut cx);
        self.bytes = self.bytes + group.bytes() - before;
        let due = group.deadline();
        // A later deadline is found when the earlier one has come: most heartbeats move no timer.
        if due.is_some_and(|at| group.armed.is_none_or(|armed| at < armed)) {
            if let Some(armed) = group.armed.take() {
                self.timers.remove(&(armed, name.to_owned()));
            }
            group.armed = due;
            self.timers.extend(due.map(|at| (at, name.to_owned())));
        }
        if group.is_void() {
            self.drop_group(name);
        }
    }

    fn drop_group(&mut self, name: &str) {
        if let Some(group) = self.groups.remove(name) {
            self.bytes -= group.bytes();
            if let Some(armed) = group.armed {
                self.timers.remove(&(armed, group.name));
            }
        }
    }

    /// All appends up to `seq` are committed.
    pub fn on_committed(&mut self, seq: Seq) {
        self.out.on_committed(seq);
        self.end();
    }

    /// When [`tick`](Self::tick) is due.
    pub fn deadline(&self) -> Time {
        self.timers.first().map_or(self.next_expiry, |(at, _)| (*at).min(self.next_expiry))
    }

    pub fn tick(&mut self, now: Time, wall: i64, topics: &dyn Topics) {
        while let Some((at, name)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, name));
                break;
            }
            if let Some(group) = self.groups.get_mut(&name) {
                group.armed = None;
            }
            self.on_group(now, wall, topics, &name, |group, cx| group.tick(cx));
        }
        if self.next_expiry <= now {
            self.next_expiry = now + self.config.expiry_interval;
            self.expire(now, wall, topics);
        }
        self.end();
    }

    fn expire(&mut self, now: Time, wall: i64, topics: &dyn Topics) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            let mut over = false;
            self.on_group(now, wall, topics, &name, |group, cx| over = group.expire(cx));
            if over {
                self.drop_group(&name);
            }
            self.out.split(super::offsets::PIECE);
        }
    }

    fn end(&mut self) {
        self.out.flush();
        self.snapshot_step();
    }

    pub fn poll(&mut self) -> Option<Effect> {
        self.out.poll()
    }

    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Encoded size of the live state.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn consumer_of(group: &mut Group) -> &mut Consumer {
    if !matches!(group.kind, Kind::Consumer(_)) {
        group.kind = Kind::Consumer(Consumer::new(&group.name, 0));
    }
    match &mut group.kind {
        Kind::Consumer(consumer) => consumer,
        Kind::Classic(_) => unreachable!("just made"),
    }
}

fn key_group(key: &Key) -> &str {
    match key {
        Key::Classic { group } | Key::Consumer { group } => group,
        Key::Member { group, .. } | Key::Offset { group, .. } => group,
        Key::Barrier => "",
    }
}

/// The answer about a group that does not exist.
fn absent(request: &Request) -> Response {
    match request {
        Request::Leave(r) => Response::Leave(Ok(vec![Err(ErrorCode::UnknownMember); r.members.len()])),
        Request::Commit(r) if r.knows_epochs => request.refuse(ErrorCode::UnknownGroup),
        Request::Commit(_) => request.refuse(ErrorCode::IllegalGeneration),
        // Nothing is committed: no error, and no offset.
        Request::Fetch(r) => Response::Fetch(Ok(super::offsets::Offsets::default().fetch(r.partitions.as_deref()))),
        Request::Describe { group } => Response::Describe(super::Described::failed(group, None)),
        Request::Join(_) | Request::Sync(_) | Request::Heartbeat(_) => request.refuse(ErrorCode::UnknownMember),
        Request::ConsumerHeartbeat(r) => Response::ConsumerHeartbeat(Err(super::Refused {
            code: ErrorCode::UnknownGroup,
            message: format!("there is no group {:?}", r.group),
        })),
        _ => request.refuse(ErrorCode::UnknownGroup),
    }
}
