use super::super::out::Cx;
use super::Consumer;
use super::member::{Assignment, common, without};

impl Consumer {
    /// Brings the member one step nearer to its target. `owned` is what it says it holds. True: its assignment
    /// changed, and it must be told.
    pub(super) fn reconcile(&mut self, cx: &Cx<'_>, id: &str, owned: Option<&Assignment>) -> bool {
        let Some(member) = self.members.get(id) else { return false };
        let before = (member.epoch, member.assigned.clone(), member.revoking.clone());
        self.step(id, owned);
        let Some(member) = self.members.get_mut(id) else { return false };
        member.revoke_by = match member.revoking.is_empty() {
            true => None,
            // The time runs from the first heartbeat that asked for something back.
            false if before.2 == member.revoking => member.revoke_by,
            false => Some(cx.now + member.rebalance),
        };
        if (before.0, &before.2) != (member.epoch, &member.revoking) || before.1 != member.assigned {
            self.dirty_members.insert(id.to_owned());
        }
        before.1 != self.members[id].assigned
    }

    fn step(&mut self, id: &str, owned: Option<&Assignment>) {
        let gave_back = |what: &Assignment| owned.is_some_and(|owned| common(owned, what).is_empty());
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.revoking.is_empty() {
            if !gave_back(&member.revoking) {
                return;
            }
            let back = std::mem::take(&mut member.revoking);
            self.release(&back);
        }
        let Some(member) = self.members.get_mut(id) else { return };
        let keep = common(&member.assigned, &member.target);
        let revoke = without(&member.assigned, &keep);
        if !revoke.is_empty() {
            member.assigned.clone_from(&keep);
            if !gave_back(&revoke) {
                member.revoking = revoke;
                return;
            }
            self.release(&revoke);
        }
        let Some(member) = self.members.get(id) else { return };
        let wanted = without(&member.target, &keep);
        let taken = |topic, partition: &i32| self.holders.get(topic).is_some_and(|held| held.contains_key(partition));
        let free: Assignment = wanted
            .iter()
            .map(|(topic, held)| (*topic, held.iter().copied().filter(|p| !taken(topic, p)).collect()))
            .filter(|(_, held): &(_, std::collections::BTreeSet<i32>)| !held.is_empty())
            .collect();
        self.hold(id, &free);
        let target_epoch = self.target_epoch;
        let Some(member) = self.members.get_mut(id) else { return };
        for (topic, held) in free {
            member.assigned.entry(topic).or_default().extend(held);
        }
        if member.epoch != target_epoch {
            member.previous_epoch = member.epoch;
            member.epoch = target_epoch;
        }
    }
}
