//! Groups of the classic protocol: members join, one of them assigns, all sync.
//!
//! ```text
//!              first member                    all joined, or too late            leader's assignment
//!   Empty ───────────────────► Preparing ─────────────────────────────► Completing ──────────────────► Stable
//!     ▲                         ▲  │ nobody is left                         │  a member comes, goes,     │
//!     └─────────────────────────┼──┘                                        │  or changes its mind       │
//!                               └───────────────────────────────────────────┴────────────────────────────┘
//! ```
//! Stored at each step that members are told of: the generation with its members, the assignment, and that members
//! are gone. What is not stored (who waits in `Preparing`) the clients repeat by themselves.

mod join;
mod leave;
mod rebalance;
mod store;
mod sync;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use esker_types::{ErrorCode, Time};

use super::api::{Described, DescribedMember, Identity, Joined, JoinedMember, Response};
use super::out::{Cx, Ticket};

/// See the module.
#[derive(Debug)]
pub struct Classic {
    pub name: String,
    pub phase: Phase,
    /// When it came into the phase, milliseconds since the epoch.
    pub since_ms: i64,
    /// 0: there was none yet. Grows by one with each completed join.
    pub generation: i32,
    /// Empty: a group that only keeps offsets.
    pub protocol_type: String,
    pub protocol: String,
    /// Empty: none.
    pub leader: String,
    pub members: BTreeMap<String, Member>,
    /// Member ids of static members by instance id.
    statics: BTreeMap<String, String>,
    /// Member ids that were given out, and how long they are good for.
    pending: BTreeMap<String, Time>,
    /// The stored value is not this state.
    dirty: bool,
    /// There is a value in the log.
    pub stored: bool,
    /// Encoded size when last stored.
    stored_bytes: usize,
    /// What members and ids that were given out take in memory.
    live_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Empty,
    Preparing {
        /// Who has not joined by then is out.
        until: Time,
        initial: Option<Initial>,
    },
    Completing {
        /// Who has not synced by then is out.
        until: Time,
    },
    Stable,
}

/// The first rebalance of a group waits a little longer as long as members come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initial {
    last: Time,
    grown: bool,
}

#[derive(Debug)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    session: Duration,
    rebalance: Duration,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// When the session ends.
    deadline: Time,
    /// Not part of a generation yet.
    is_new: bool,
    /// Waits for the next generation.
    join: Option<Ticket>,
    /// Waits for the assignment.
    sync: Option<Ticket>,
}

impl Member {
    /// The metadata of one protocol.
    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map_or_else(Bytes::new, |(_, bytes)| bytes.clone())
    }

    fn who(&self) -> Identity {
        Identity { member: self.id.clone(), instance: self.instance.clone() }
    }

    fn bytes(&self) -> usize {
        let texts = self.id.len() + self.client_id.len() + self.instance.as_ref().map_or(0, String::len);
        texts + protocol_bytes(&self.protocols)
    }
}

fn protocol_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}

impl Classic {
    pub fn new(name: &str, wall: i64) -> Self {
        Self {
            name: name.to_owned(),
            phase: Phase::Empty,
            since_ms: wall,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            dirty: false,
            stored: false,
            stored_bytes: 0,
            live_bytes: 0,
        }
    }

    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    pub fn bytes(&self) -> usize {
        self.stored_bytes + self.live_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.phase == Phase::Empty && self.members.is_empty()
    }

    /// Nobody would miss it.
    pub fn is_void(&self) -> bool {
        self.is_empty() && self.pending.is_empty() && !self.stored
    }

    /// Counts what changed while `act` ran.
    fn counted<T>(&mut self, member: &str, act: impl FnOnce(&mut Self) -> T) -> T {
        let size = |group: &Self| group.members.get(member).map_or(0, Member::bytes);
        let before = size(self);
        let done = act(self);
        self.live_bytes = self.live_bytes + size(self) - before;
        done
    }

    /// Finds the member, or the reason why the client is not it.
    fn find(&mut self, who: &Identity) -> Result<&mut Member, ErrorCode> {
        if let Some(instance) = &who.instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMember),
                Some(member) if *member != who.member => return Err(ErrorCode::FencedInstance),
                Some(_) => {}
            }
        }
        self.members.get_mut(&who.member).ok_or(ErrorCode::UnknownMember)
    }

    /// A sign of life.
    fn touch(&mut self, cx: &Cx<'_>, member: &str) {
        if let Some(member) = self.members.get_mut(member) {
            member.deadline = cx.now + member.session;
        }
    }

    pub fn heartbeat(&mut self, cx: &mut Cx<'_>, who: &Identity, generation: i32) -> Result<(), ErrorCode> {
        let current = self.generation;
        let member = self.find(who)?;
        if generation != current {
            return Err(ErrorCode::IllegalGeneration);
        }
        member.deadline = cx.now + member.session;
        match self.phase {
            Phase::Empty => Err(ErrorCode::UnknownMember),
            Phase::Preparing { .. } => Err(ErrorCode::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable => Ok(()),
        }
    }

    /// May this client commit offsets?
    pub fn check_commit(&mut self, cx: &Cx<'_>, who: &Identity, generation: i32) -> Result<(), ErrorCode> {
        let anonymous = who.member.is_empty() && who.instance.is_none();
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation < 0 && anonymous {
            return Err(ErrorCode::UnknownMember);
        }
        let current = self.generation;
        self.find(who)?;
        if generation != current {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.phase {
            Phase::Completing { .. } => Err(ErrorCode::RebalanceInProgress),
            _ => {
                self.touch(cx, &who.member);
                Ok(())
            }
        }
    }

    /// The answer to a member whose join is over.
    fn joined(&self, member: &Member, with_members: bool) -> Joined {
        let members = self.members.values().filter(|_| with_members);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: member.id.clone(),
            skip_assignment: false,
            members: members
                .map(|other| JoinedMember { who: other.who(), metadata: other.metadata(&self.protocol) })
                .collect(),
        }
    }

    pub fn describe(&self) -> Described {
        let settled = self.phase == Phase::Stable;
        let metadata = |member: &Member| if settled { member.metadata(&self.protocol) } else { Bytes::new() };
        let members = self.members.values().map(|member| DescribedMember {
            who: member.who(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: metadata(member),
            assignment: if settled { member.assignment.clone() } else { Bytes::new() },
        });
        Described {
            error: None,
            group: self.name.clone(),
            state: self.state(),
            protocol_type: self.protocol_type.clone(),
            protocol: if settled { self.protocol.clone() } else { String::new() },
            members: members.collect(),
        }
    }

    /// True if a member reads the topic. Groups whose protocol is not the consumers' own read everything, for all we
    /// know.
    pub fn subscribes(&self, topic: &str) -> bool {
        !self.members.is_empty()
            && (self.protocol_type != "consumer"
                || self.members.values().any(|member| {
                    let metadata = match member.protocols.iter().find(|(name, _)| *name == self.protocol) {
                        Some((_, metadata)) => Some(metadata),
                        None => member.protocols.first().map(|(_, metadata)| metadata),
                    };
                    metadata.is_none_or(|metadata| subscription_has(metadata, topic))
                }))
    }
}

/// Looks for a topic in the consumers' own metadata: version i16, then an array of strings. What does not parse may
/// hold any topic.
fn subscription_has(metadata: &[u8], topic: &str) -> bool {
    let mut rest = metadata.get(2..).unwrap_or_default();
    let mut take = |len: usize| {
        let (front, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(front)
    };
    let Some(count) = take(4).and_then(|b| b.try_into().ok()).map(i32::from_be_bytes) else { return true };
    for _ in 0..count {
        let len = take(2).and_then(|b| b.try_into().ok()).map(i16::from_be_bytes);
        let Some(name) = len.and_then(|len| usize::try_from(len).ok()).and_then(&mut take) else { return true };
        if name == topic.as_bytes() {
            return true;
        }
    }
    false
}

fn refuse_join(cx: &mut Cx<'_>, ticket: Ticket, code: ErrorCode, member: &str) {
    let refused = super::api::JoinRefused { code, member: member.to_owned() };
    cx.answer(ticket, Response::Join(Err(refused)));
}

#[cfg(test)]
mod tests {
    use super::subscription_has;

    #[test]
    fn subscriptions_are_read_within_their_bounds() {
        let two = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert!(subscription_has(two, "a") && subscription_has(two, "bc"));
        assert!(!subscription_has(two, "b"));
        for (cut, broken) in [(3, "no count"), (7, "no name")] {
            assert!(subscription_has(&two[..cut], "z"), "{broken}: it may hold anything");
        }
        assert!(subscription_has(b"\0\x01\x7f\xff\xff\xff\0\x01a", "z"), "a count that lies");
        assert!(!subscription_has(b"\0\x01\xff\xff\xff\xff", "z"), "no topics");
    }
}
