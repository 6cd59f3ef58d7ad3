use std::collections::BTreeMap;

use bytes::Bytes;
use esker_types::ErrorCode;

use super::super::api::{Response, SyncGroup, Synced};
use super::super::out::{Cx, Ticket};
use super::{Classic, Member, Phase};

impl Classic {
    pub fn sync(&mut self, cx: &mut Cx<'_>, ticket: Ticket, r: SyncGroup) {
        if let Err(code) = self.check_sync(&r) {
            return cx.answer(ticket, Response::Sync(Err(code)));
        }
        self.touch(cx, &r.who.member);
        match self.phase {
            Phase::Stable => {
                let synced = self.synced(&self.members[&r.who.member]);
                cx.answer(ticket, Response::Sync(Ok(synced)));
            }
            _ => self.wait_for_assignment(cx, ticket, r),
        }
    }

    fn check_sync(&mut self, r: &SyncGroup) -> Result<(), ErrorCode> {
        let (generation, phase) = (self.generation, self.phase.clone());
        self.find(&r.who)?;
        if r.generation != generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |told: &Option<String>, ours: &str| told.as_ref().is_some_and(|told| told != ours);
        if differs(&r.protocol_type, &self.protocol_type) || differs(&r.protocol, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match phase {
            Phase::Empty => Err(ErrorCode::UnknownMember),
            Phase::Preparing { .. } => Err(ErrorCode::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable => Ok(()),
        }
    }

    fn wait_for_assignment(&mut self, cx: &mut Cx<'_>, ticket: Ticket, r: SyncGroup) {
        let SyncGroup { who, assignments, .. } = r;
        if let Some(before) = self.members.get_mut(&who.member).and_then(|member| member.sync.replace(ticket)) {
            cx.answer(before, Response::Sync(Err(ErrorCode::RebalanceInProgress)));
        }
        if who.member != self.leader {
            return;
        }
        let bytes: usize = assignments.iter().map(|(member, bytes)| member.len() + bytes.len()).sum();
        if bytes > cx.config.group_bytes_max / 2 {
            // As Kafka does with a group that does not fit a record: the members try again.
            self.fail_syncs(cx, ErrorCode::Internal);
            return self.prepare(cx);
        }
        let mut assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        self.phase = Phase::Stable;
        self.since_ms = cx.wall;
        self.dirty = true;
        let waiting: Vec<(Ticket, Synced)> =
            self.members.values().filter_map(|member| Some((member.sync?, self.synced(member)))).collect();
        for member in self.members.values_mut().filter(|member| member.sync.is_some()) {
            member.sync = None;
            member.deadline = cx.now + member.session;
        }
        for (ticket, synced) in waiting {
            cx.answer(ticket, Response::Sync(Ok(synced)));
        }
    }

    fn synced(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }
    }

    /// Answers all who wait for an assignment.
    pub(super) fn fail_syncs(&mut self, cx: &mut Cx<'_>, code: ErrorCode) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.sync.take() {
                member.deadline = cx.now + member.session;
                cx.answer(ticket, Response::Sync(Err(code)));
            }
        }
    }
}
