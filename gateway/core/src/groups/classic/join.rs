use esker_types::{ErrorCode, Time};

use super::super::api::{Identity, Join, Response};
use super::super::out::{Cx, Ticket};
use super::{Classic, Initial, Member, Phase, protocol_bytes, refuse_join};

/// What an id that was given out takes beside its text.
const PENDING_BYTES: usize = 64;
/// A member id begins with what the client calls itself, so that people recognise it; this much of it will do.
const PREFIX_MAX: usize = 256;

fn shortened(prefix: &str) -> &str {
    let end = (0..=prefix.len().min(PREFIX_MAX)).rev().find(|end| prefix.is_char_boundary(*end));
    &prefix[..end.unwrap_or(0)]
}

impl Classic {
    pub fn join(&mut self, cx: &mut Cx<'_>, ticket: Ticket, r: Join) {
        let refusal = self.check_join(cx, &r).err();
        let accepted = match refusal {
            Some(code) => Err(code),
            None if r.who.member.is_empty() => return self.join_new(cx, ticket, r),
            None => self.join_known(cx, ticket, &r),
        };
        if let Err(code) = accepted {
            refuse_join(cx, ticket, code, &r.who.member);
        }
    }

    fn check_join(&mut self, cx: &Cx<'_>, r: &Join) -> Result<(), ErrorCode> {
        let config = cx.config;
        if !(config.session_timeout_min..=config.session_timeout_max).contains(&r.session_timeout) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        if !self.supports(r) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let (own, others) =
            self.members.values().fold((0, 0), |(own, others), member| match member.id == r.who.member {
                true => (own + member.bytes(), others),
                false => (own, others + member.bytes()),
            });
        let wanted = protocol_bytes(&r.protocols) + r.client_id.len() + r.who.instance.as_ref().map_or(0, String::len);
        if wanted > config.member_bytes_max || (wanted > own && others + wanted > config.group_bytes_max / 2) {
            return Err(ErrorCode::GroupFull);
        }
        let known = self.members.get(&r.who.member);
        let room = match self.phase {
            Phase::Empty => true,
            // Old members that will not come back must not keep new ones out.
            Phase::Preparing { .. } => {
                known.is_some_and(|member| member.join.is_some())
                    || self.members.values().filter(|member| member.join.is_some()).count() < config.members_max
            }
            Phase::Completing { .. } | Phase::Stable => known.is_some() || self.members.len() < config.members_max,
        };
        let replaces = r.who.instance.as_ref().is_some_and(|instance| self.statics.contains_key(instance));
        if room || replaces { Ok(()) } else { Err(ErrorCode::GroupFull) }
    }

    /// Every member must know at least one protocol that all know.
    fn supports(&self, r: &Join) -> bool {
        if r.protocol_type.is_empty() || r.protocols.is_empty() {
            return false;
        }
        let others = || self.members.values().filter(|member| member.id != r.who.member);
        match self.members.is_empty() {
            true => true,
            false => {
                self.protocol_type == r.protocol_type
                    && r.protocols.iter().any(|(name, _)| others().all(|m| m.protocols.iter().any(|(n, _)| n == name)))
            }
        }
    }

    fn join_new(&mut self, cx: &mut Cx<'_>, ticket: Ticket, r: Join) {
        let hex: String = r.fresh.iter().map(|byte| format!("{byte:02x}")).collect();
        let prefix = r.who.instance.as_deref().unwrap_or(&r.client_id);
        let id = format!("{}-{hex}", shortened(prefix));
        let old = r.who.instance.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        if let Some(old) = old {
            return self.replace_static(cx, ticket, &old, id, &r);
        }
        if r.who.instance.is_none() && r.knows_member_ids {
            if self.pending.len() >= cx.config.pending_max {
                return refuse_join(cx, ticket, ErrorCode::GroupFull, "");
            }
            self.live_bytes += id.len() + PENDING_BYTES;
            self.pending.insert(id.clone(), cx.now + r.session_timeout);
            return refuse_join(cx, ticket, ErrorCode::MemberIdRequired, &id);
        }
        self.add(cx, ticket, id, &r);
    }

    fn join_known(&mut self, cx: &mut Cx<'_>, ticket: Ticket, r: &Join) -> Result<(), ErrorCode> {
        let id = r.who.member.clone();
        if r.who.instance.is_none() && self.take_pending(&id) {
            self.add(cx, ticket, id, r);
            return Ok(());
        }
        let same = self.find(&r.who)?.protocols == r.protocols;
        let is_leader = self.leader == id;
        let settled = match self.phase {
            Phase::Empty => return Err(ErrorCode::UnknownMember),
            Phase::Preparing { .. } => false,
            // The answer to the join got lost.
            Phase::Completing { .. } => same,
            // A leader that joins again wants a rebalance: topics changed, for example.
            Phase::Stable => same && !is_leader,
        };
        if settled {
            self.touch(cx, &id);
            let joined = self.joined(&self.members[&id], is_leader);
            cx.answer(ticket, Response::Join(Ok(joined)));
            return Ok(());
        }
        self.update(cx, ticket, &id, r);
        self.prepare(cx);
        self.try_complete_join(cx);
        Ok(())
    }

    fn add(&mut self, cx: &mut Cx<'_>, ticket: Ticket, id: String, r: &Join) {
        let member = Member {
            id: id.clone(),
            instance: r.who.instance.clone(),
            client_id: r.client_id.clone(),
            client_host: r.client_host.clone(),
            session: r.session_timeout,
            rebalance: r.rebalance_timeout,
            protocols: r.protocols.clone(),
            assignment: bytes::Bytes::new(),
            deadline: cx.now + cx.config.new_member_timeout,
            is_new: true,
            join: Some(ticket),
            sync: None,
        };
        if self.members.is_empty() {
            self.protocol_type.clone_from(&r.protocol_type);
        }
        if self.leader.is_empty() {
            self.leader.clone_from(&id);
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.live_bytes += member.bytes();
        self.members.insert(id, member);
        if let Phase::Preparing { initial: Some(Initial { grown, .. }), .. } = &mut self.phase {
            *grown = true;
        }
        self.prepare(cx);
        self.try_complete_join(cx);
    }

    /// Takes over what a known member says now, and lets it wait for the next generation.
    fn update(&mut self, cx: &mut Cx<'_>, ticket: Ticket, id: &str, r: &Join) {
        self.counted(id, |group| group.update_member(cx, ticket, id, r));
    }

    fn update_member(&mut self, cx: &mut Cx<'_>, ticket: Ticket, id: &str, r: &Join) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols.clone_from(&r.protocols);
        (member.session, member.rebalance) = (r.session_timeout, r.rebalance_timeout);
        member.client_id.clone_from(&r.client_id);
        member.client_host.clone_from(&r.client_host);
        member.deadline = cx.now + r.session_timeout;
        let before = member.join.replace(ticket);
        if let Some(before) = before {
            // The client gave up on that one and asks anew.
            refuse_join(cx, before, ErrorCode::RebalanceInProgress, id);
        }
    }

    /// A static member is back under a new member id; the old one is fenced.
    fn replace_static(&mut self, cx: &mut Cx<'_>, ticket: Ticket, old: &str, id: String, r: &Join) {
        let Some(mut member) = self.members.remove(old) else { return };
        self.live_bytes -= member.bytes();
        let before = (member.protocols.clone(), self.leader == old);
        if let Some(waiting) = member.join.take() {
            refuse_join(cx, waiting, ErrorCode::FencedInstance, old);
        }
        if let Some(waiting) = member.sync.take() {
            cx.answer(waiting, Response::Sync(Err(ErrorCode::FencedInstance)));
        }
        member.id.clone_from(&id);
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.live_bytes += member.bytes();
        self.members.insert(id.clone(), member);
        let (old_protocols, was_leader) = before;
        if was_leader {
            self.leader.clone_from(&id);
        }
        self.dirty = true;
        let keeps = self.phase == Phase::Stable && {
            let kept = self.with_protocols(&id, &r.protocols).is_some_and(|protocol| protocol == self.protocol);
            let chosen = |protocols: &[(String, bytes::Bytes)]| {
                protocols.iter().find(|(name, _)| *name == self.protocol).map(|(_, bytes)| bytes.clone())
            };
            kept && chosen(&old_protocols) == chosen(&r.protocols)
        };
        self.update(cx, ticket, &id, r);
        if !keeps {
            self.prepare(cx);
            return self.try_complete_join(cx);
        }
        // Nothing that the assignment rests on has changed: nobody else need know.
        if let Some(member) = self.members.get_mut(&id) {
            member.join = None;
        }
        let mut joined = self.joined(&self.members[&id], was_leader && r.knows_skip);
        match r.knows_skip {
            true => joined.skip_assignment = was_leader,
            // An old client that thinks it leads would assign anew: it is told of a leader that is gone.
            false if was_leader => old.clone_into(&mut joined.leader),
            false => {}
        }
        cx.answer(ticket, Response::Join(Ok(joined)));
    }

    /// True if the id was given out and waited for its member.
    pub(super) fn take_pending(&mut self, id: &str) -> bool {
        let known = self.pending.remove(id).is_some();
        if known {
            self.live_bytes -= id.len() + PENDING_BYTES;
        }
        known
    }

    /// Forgets ids that nobody came back with.
    pub(super) fn drop_pending(&mut self, keep: impl Fn(Time) -> bool) {
        let over: Vec<String> =
            self.pending.iter().filter(|(_, until)| !keep(**until)).map(|(id, _)| id.clone()).collect();
        over.iter().for_each(|id| _ = self.take_pending(id));
    }

    /// What the group would choose if this member had these protocols.
    fn with_protocols(&self, id: &str, protocols: &[(String, bytes::Bytes)]) -> Option<String> {
        let lists = self.members.values().map(|member| match member.id == id {
            true => protocols,
            false => &member.protocols,
        });
        super::rebalance::choose(lists)
    }

    /// True if the client is the static member that it names, or names none.
    pub(super) fn is_current(&self, who: &Identity) -> bool {
        who.instance.as_ref().is_none_or(|instance| self.statics.get(instance) == Some(&who.member))
    }
}
