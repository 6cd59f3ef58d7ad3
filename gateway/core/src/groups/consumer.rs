//! Groups of the consumer protocol (KIP-848): members heartbeat, the coordinator assigns.
//!
//! ```text
//!   epoch          grows when a member comes or goes, or changes what it reads, or topics change
//!   target_epoch   the epoch that the target assignment was made for
//!   member.epoch   the target that the member has reached: it holds nothing that the target takes from it
//!
//!   assigned − target ──> revoking ── member no longer owns it ──> free ── heartbeat of its new owner ──> assigned
//! ```
//! A partition has at most one holder: whoever has it in `assigned` or in `revoking`. It goes to its next one only when
//! the holder has said that it let go, has left, or was fenced because it did not in time.

mod assign;
mod assignor;
mod describe;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
mod store;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use esker_types::{ErrorCode, Time, TopicId};

pub use self::assignor::{ASSIGNORS, AssignMember, range, uniform};
pub use self::member::{Assignment, Member};
use super::api::Commit;
use super::config::Config;
use super::out::Cx;

/// See the module.
#[derive(Debug)]
pub struct Consumer {
    pub name: String,
    pub epoch: i32,
    pub target_epoch: i32,
    pub since_ms: i64,
    /// Of the topics that the present epoch knows.
    topics_hash: u64,
    /// Session of each member as last given; None: as the configuration says. Stored, so that the next coordinator does not
    /// fence members that are told to be silent for longer.
    session: Option<Duration>,
    /// Name of the assignor that made the target.
    assignor: String,
    pub members: BTreeMap<String, Member>,
    /// Member ids of static members by instance id.
    statics: BTreeMap<String, String>,
    /// Patterns that members subscribe with, compiled.
    patterns: BTreeMap<String, regex_lite::Regex>,
    /// Patterns that nobody used before, and that came together with names: they count from the next heartbeat on.
    waiting: BTreeSet<String>,
    /// Who holds a partition; see the module.
    holders: BTreeMap<TopicId, BTreeMap<i32, String>>,
    /// When our copy of the metadata is compared with `topics_hash` next, and the revision seen last.
    look_at: Time,
    seen_revision: u64,
    /// The header, and members, whose stored value is not their state. Members that are gone are among them.
    dirty: bool,
    dirty_members: BTreeSet<String>,
    stored: bool,
    /// Encoded size of the members when last stored.
    member_bytes: usize,
}

impl Consumer {
    pub fn new(name: &str, wall: i64) -> Self {
        Self {
            name: name.to_owned(),
            epoch: 0,
            target_epoch: 0,
            since_ms: wall,
            topics_hash: 0,
            session: None,
            assignor: ASSIGNORS[0].to_owned(),
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            patterns: BTreeMap::new(),
            waiting: BTreeSet::new(),
            holders: BTreeMap::new(),
            look_at: Time::ZERO,
            seen_revision: 0,
            dirty: false,
            dirty_members: BTreeSet::new(),
            stored: false,
            member_bytes: 0,
        }
    }

    pub fn is_void(&self) -> bool {
        self.members.is_empty() && !self.stored
    }

    pub fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().any(|member| !member.is_stable(self.target_epoch)) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    /// Begins a new epoch: the target is made anew at the next heartbeat.
    fn bump(&mut self, cx: &Cx<'_>) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.since_ms = cx.wall;
        self.dirty = true;
    }

    /// May this client commit offsets?
    pub fn check_commit(&self, r: &Commit) -> Result<(), ErrorCode> {
        if r.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&r.who.member).ok_or(ErrorCode::UnknownMember)?;
        if !r.knows_epochs {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if member.epoch == r.generation { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    pub fn check_fetch(&self, member: &str, epoch: i32) -> Result<(), ErrorCode> {
        if epoch < 0 && member.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member).ok_or(ErrorCode::UnknownMember)?;
        if member.epoch == epoch { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    /// When something is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        let due = |member: &Member| member.deadline.min(member.revoke_by.unwrap_or(member.deadline));
        self.members.values().map(due).min()
    }

    /// Fences members that are silent, and those that keep what they were to give back.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        let over = |member: &&Member| member.deadline <= cx.now || member.revoke_by.is_some_and(|by| by <= cx.now);
        let gone: Vec<String> = self.members.values().filter(over).map(|member| member.id.clone()).collect();
        for id in &gone {
            self.remove(id);
        }
        if !gone.is_empty() {
            self.bump(cx);
        }
    }

    /// The coordinator begins to serve: everybody has all the time that there is.
    pub fn start(&mut self, now: Time, config: &Config) {
        let session = self.session.unwrap_or(config.consumer_session_timeout);
        for member in self.members.values_mut() {
            member.deadline = now + session;
            member.revoke_by = (!member.revoking.is_empty()).then(|| now + member.rebalance);
        }
    }
}
