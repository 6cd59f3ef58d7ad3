use std::time::Duration;

use esker_types::ErrorCode;

use super::super::api::{ConsumerHeartbeat, ConsumerHeartbeated, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH, Refused};
use super::super::out::Cx;
use super::member::{Member, assignment, partitions, without};
use super::{ASSIGNORS, Consumer};

/// Longest pattern that a client may subscribe with.
const REGEX_BYTES_MAX: usize = 4096;

pub(super) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { code, message: message.into() })
}

impl Consumer {
    pub fn heartbeat(&mut self, cx: &mut Cx<'_>, r: &ConsumerHeartbeat) -> Result<ConsumerHeartbeated, Refused> {
        check(r)?;
        if r.epoch < JOIN_EPOCH {
            return self.leave(cx, r);
        }
        self.check_size(cx, r)?;
        let pattern = r.regex.as_deref().unwrap_or_default();
        let unused = !pattern.is_empty() && self.members.values().all(|member| member.regex != pattern);
        if let Err(error) = self.learn_pattern(pattern) {
            return refuse(ErrorCode::InvalidRegex, error);
        }
        let (id, is_new) = self.admit(cx, r)?;
        let due = !std::mem::take(&mut self.waiting).is_empty();
        let changed = self.listen(cx, &id, r);
        // Clients that name topics too expect those first, as Kafka answers them, and what the pattern finds one heartbeat later.
        if unused && !self.members[&id].topics.is_empty() {
            self.waiting.insert(pattern.to_owned());
        }
        if changed || is_new || due {
            self.bump(cx);
        }
        self.look_at_topics(cx);
        if self.epoch > self.target_epoch {
            self.assign(cx);
        }
        let owned = r.owned.as_ref().map(assignment);
        let changed = self.reconcile(cx, &id, owned.as_ref());
        // A client that sends everything has lost what it knew.
        let full = r.epoch == JOIN_EPOCH
            || (r.rebalance_timeout.is_some() && r.owned.is_some() && (r.topics.is_some() || r.regex.is_some()));
        let member = &self.members[&id];
        Ok(ConsumerHeartbeated {
            member: id,
            epoch: member.epoch,
            heartbeat_interval: self.heartbeat_interval(cx),
            assignment: (full || changed).then(|| partitions(&member.assigned)),
        })
    }

    pub(super) fn heartbeat_interval(&self, cx: &Cx<'_>) -> Duration {
        cx.topics.times(&self.name).heartbeat_interval.unwrap_or(cx.config.consumer_heartbeat_interval)
    }

    /// What a member brings must fit the group.
    fn check_size(&self, cx: &Cx<'_>, r: &ConsumerHeartbeat) -> Result<(), Refused> {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let topics: usize = r.topics.iter().flatten().map(|topic| topic.len() + 2).sum();
        let asked = topics
            + text(&r.regex)
            + text(&r.rack)
            + text(&r.who.instance)
            + r.client_id.len()
            + r.client_host.len()
            + r.who.member.len();
        if asked > cx.config.member_bytes_max {
            let message = format!("the subscription is larger than {} bytes", cx.config.member_bytes_max);
            return refuse(ErrorCode::InvalidRequest, message);
        }
        let now = self.members.get(&r.who.member).map_or(0, |member| member.bytes);
        if asked > now && self.member_bytes - now + asked > cx.config.group_bytes_max {
            return refuse(ErrorCode::GroupFull, "the group is as large as it may get");
        }
        Ok(())
    }

    /// Finds the member that the client is, or makes it one: then the second is true.
    fn admit(&mut self, cx: &Cx<'_>, r: &ConsumerHeartbeat) -> Result<(String, bool), Refused> {
        let id = match r.who.member.is_empty() {
            true => r.fresh.iter().map(|byte| format!("{byte:02x}")).collect(),
            false => r.who.member.clone(),
        };
        let of_instance = r.who.instance.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        match of_instance {
            Some(current) if r.epoch == JOIN_EPOCH && current != id => {
                if self.members.get(&current).is_some_and(|member| member.epoch != LEAVE_STATIC_EPOCH) {
                    let message = format!("member {current} with this instance id has not left");
                    return refuse(ErrorCode::UnreleasedInstance, message);
                }
                self.replace(&current, &id);
                return Ok((id, false));
            }
            Some(current) if current != id => {
                return refuse(ErrorCode::FencedInstance, "another member uses this instance id");
            }
            None if r.who.instance.is_some() && r.epoch != JOIN_EPOCH => {
                return refuse(ErrorCode::UnknownMember, "no member has this instance id");
            }
            _ => {}
        }
        if r.epoch != JOIN_EPOCH {
            self.check_epoch(&id, r)?;
            return Ok((id, false));
        }
        if let Some(member) = self.members.get_mut(&id) {
            if member.epoch == LEAVE_STATIC_EPOCH {
                (member.epoch, member.previous_epoch) = (0, 0);
                self.dirty_members.insert(id.clone());
            }
            return Ok((id, false));
        }
        if self.members.len() >= cx.config.members_max || self.member_bytes >= cx.config.group_bytes_max {
            let message = format!("the group has {} members, as many as it may", self.members.len());
            return refuse(ErrorCode::GroupFull, message);
        }
        if let Some(instance) = &r.who.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), Member::new(&id, r.who.instance.clone()));
        self.dirty_members.insert(id.clone());
        Ok((id, true))
    }

    fn check_epoch(&self, id: &str, r: &ConsumerHeartbeat) -> Result<(), Refused> {
        let Some(member) = self.members.get(id) else {
            return refuse(ErrorCode::UnknownMember, "the group has no such member: join again with epoch 0");
        };
        if r.epoch == member.epoch {
            return Ok(());
        }
        let nothing_else = |owned| without(&assignment(owned), &member.assigned).is_empty();
        let lost_answer = r.epoch == member.previous_epoch && r.owned.as_ref().is_some_and(nothing_else);
        match r.epoch < member.epoch && lost_answer {
            true => Ok(()),
            false => {
                let message = format!("the member's epoch is {}, not {}: join again", member.epoch, r.epoch);
                refuse(ErrorCode::FencedMemberEpoch, message)
            }
        }
    }

    /// A static member is back under another member id and takes over all that the old one had.
    fn replace(&mut self, old: &str, new: &str) {
        let Some(mut member) = self.members.remove(old) else { return };
        member.id = new.to_owned();
        (member.epoch, member.previous_epoch) = (0, 0);
        for (topic, held) in member.assigned.iter().chain(&member.revoking) {
            if let Some(holders) = self.holders.get_mut(topic) {
                held.iter().for_each(|p| _ = holders.insert(*p, new.to_owned()));
            }
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), new.to_owned());
        }
        self.members.insert(new.to_owned(), member);
        self.dirty_members.extend([old.to_owned(), new.to_owned()]);
    }

    /// Takes over what the member says of itself. True: the target must be made anew.
    fn listen(&mut self, cx: &Cx<'_>, id: &str, r: &ConsumerHeartbeat) -> bool {
        let session = cx.topics.times(&self.name).session_timeout;
        if self.session != session {
            self.session = session;
            self.dirty = true;
        }
        let Some(member) = self.members.get_mut(id) else { return false };
        member.deadline = cx.now + session.unwrap_or(cx.config.consumer_session_timeout);
        let before = member.value();
        if let Some(topics) = &r.topics {
            member.topics.clone_from(topics);
            member.topics.sort_unstable();
            member.topics.dedup();
        }
        if let Some(regex) = &r.regex {
            member.regex.clone_from(regex);
        }
        member.rebalance = r.rebalance_timeout.unwrap_or(member.rebalance);
        if r.assignor.is_some() {
            member.assignor.clone_from(&r.assignor);
        }
        if r.rack.is_some() {
            member.rack.clone_from(&r.rack);
        }
        if r.epoch == JOIN_EPOCH {
            member.client_id.clone_from(&r.client_id);
            member.client_host.clone_from(&r.client_host);
        }
        let after = member.value();
        if before != after {
            self.dirty_members.insert(id.to_owned());
        }
        before.topics != after.topics || before.regex != after.regex || before.assignor != after.assignor
    }
}

/// What can be wrong with a request by itself.
fn check(r: &ConsumerHeartbeat) -> Result<(), Refused> {
    let invalid = |message: &str| refuse(ErrorCode::InvalidRequest, message);
    if r.epoch < LEAVE_STATIC_EPOCH {
        return invalid("the member epoch is below -2");
    }
    if r.who.member.is_empty() && r.epoch != JOIN_EPOCH {
        return invalid("only a member that joins may have no id");
    }
    if r.who.instance.as_ref().is_some_and(String::is_empty) {
        return invalid("the instance id is empty");
    }
    if r.epoch == LEAVE_STATIC_EPOCH && r.who.instance.is_none() {
        return invalid("only a member with an instance id can leave for a while");
    }
    if r.epoch == LEAVE_EPOCH || r.epoch == LEAVE_STATIC_EPOCH {
        return Ok(());
    }
    if r.epoch == JOIN_EPOCH {
        if r.rebalance_timeout.is_none() {
            return invalid("a member that joins must tell its rebalance timeout");
        }
        if r.owned.as_ref().is_none_or(|owned| owned.values().any(|partitions| !partitions.is_empty())) {
            return invalid("a member that joins must own nothing, and say so");
        }
        if r.topics.is_none() && r.regex.is_none() {
            return invalid("a member that joins must subscribe");
        }
    }
    if let Some(assignor) = r.assignor.as_ref().filter(|assignor| !ASSIGNORS.contains(&assignor.as_str())) {
        let message = format!("there is no assignor {assignor:?}; there are {}", ASSIGNORS.join(", "));
        return refuse(ErrorCode::UnsupportedAssignor, message);
    }
    if r.regex.as_ref().is_some_and(|regex| regex.len() > REGEX_BYTES_MAX) {
        return refuse(ErrorCode::InvalidRegex, format!("the pattern is longer than {REGEX_BYTES_MAX} bytes"));
    }
    Ok(())
}
