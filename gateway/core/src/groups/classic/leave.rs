use esker_types::ErrorCode;

use super::super::api::{Identity, Response};
use super::super::out::Cx;
use super::{Classic, Phase, refuse_join};

impl Classic {
    /// Takes members out, each on its own merits.
    pub fn leave(&mut self, cx: &mut Cx<'_>, members: &[Identity]) -> Vec<Result<(), ErrorCode>> {
        members.iter().map(|who| self.leave_one(cx, who)).collect()
    }

    fn leave_one(&mut self, cx: &mut Cx<'_>, who: &Identity) -> Result<(), ErrorCode> {
        let id = match &who.instance {
            // An operator may name a static member by its instance alone.
            Some(instance) => {
                let id = self.statics.get(instance).ok_or(ErrorCode::UnknownMember)?.clone();
                if !who.member.is_empty() && !self.is_current(who) {
                    return Err(ErrorCode::FencedInstance);
                }
                id
            }
            None if self.take_pending(&who.member) => {
                self.try_complete_join(cx);
                return Ok(());
            }
            None => who.member.clone(),
        };
        if !self.members.contains_key(&id) {
            return Err(ErrorCode::UnknownMember);
        }
        self.remove(cx, &id);
        Ok(())
    }

    /// A member is gone, on purpose or by silence: the others rebalance.
    pub(super) fn remove(&mut self, cx: &mut Cx<'_>, id: &str) {
        let Some(member) = self.take_out(id) else { return };
        if let Some(waiting) = member.join {
            refuse_join(cx, waiting, ErrorCode::UnknownMember, id);
        }
        if let Some(waiting) = member.sync {
            cx.answer(waiting, Response::Sync(Err(ErrorCode::UnknownMember)));
        }
        if self.phase != Phase::Empty {
            self.prepare(cx);
        }
        self.try_complete_join(cx);
    }

    pub(super) fn take_out(&mut self, id: &str) -> Option<super::Member> {
        let member = self.members.remove(id)?;
        self.live_bytes -= member.bytes();
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|current| current == id)
        {
            self.statics.remove(instance);
        }
        if self.leader == id {
            // The next generation has another one.
            self.leader.clear();
        }
        // Who was never part of a generation is not in the log.
        self.dirty |= !member.is_new;
        Some(member)
    }
}
