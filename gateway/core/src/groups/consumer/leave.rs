use esker_types::ErrorCode;

use super::super::api::{ConsumerHeartbeat, ConsumerHeartbeated, LEAVE_STATIC_EPOCH, Refused};
use super::super::out::Cx;
use super::Consumer;
use super::heartbeat::refuse;
use super::member::{Assignment, Member};

impl Consumer {
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, r: &ConsumerHeartbeat) -> Result<ConsumerHeartbeated, Refused> {
        if let Some(instance) = &r.who.instance {
            match self.statics.get(instance) {
                None => return refuse(ErrorCode::UnknownMember, "no member has this instance id"),
                Some(current) if *current != r.who.member => {
                    return refuse(ErrorCode::FencedInstance, "another member uses this instance id");
                }
                Some(_) => {}
            }
        }
        let id = r.who.member.clone();
        let Some(member) = self.members.get_mut(&id) else {
            return refuse(ErrorCode::UnknownMember, "the group has no such member");
        };
        if r.epoch == LEAVE_STATIC_EPOCH {
            // It keeps its place and its session: whoever comes back with its instance id goes on with it.
            let back = std::mem::take(&mut member.revoking);
            member.revoke_by = None;
            member.epoch = LEAVE_STATIC_EPOCH;
            self.release(&back);
            self.dirty_members.insert(id.clone());
        } else {
            self.remove(&id);
            self.bump(cx);
        }
        Ok(ConsumerHeartbeated {
            member: id,
            epoch: r.epoch,
            heartbeat_interval: self.heartbeat_interval(cx),
            assignment: None,
        })
    }

    /// The member is no more, and holds nothing.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|current| current == id)
        {
            self.statics.remove(instance);
        }
        self.release(&member.assigned);
        self.release(&member.revoking);
        self.dirty_members.insert(id.to_owned());
        // What it was to have is free for a target that is made before the next one.
        Some(member)
    }

    pub(super) fn release(&mut self, back: &Assignment) {
        for (topic, held) in back {
            if let Some(holders) = self.holders.get_mut(topic) {
                holders.retain(|partition, _| !held.contains(partition));
                if holders.is_empty() {
                    self.holders.remove(topic);
                }
            }
        }
    }

    pub(super) fn hold(&mut self, id: &str, taken: &Assignment) {
        for (topic, held) in taken {
            let holders = self.holders.entry(*topic).or_default();
            for partition in held {
                let before = holders.insert(*partition, id.to_owned());
                assert!(before.is_none_or(|before| before == id), "a partition has one holder at a time");
            }
        }
    }
}
