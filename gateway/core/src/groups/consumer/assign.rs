use std::collections::{BTreeMap, BTreeSet};

use esker_types::TopicId;

use super::super::out::Cx;
use super::{ASSIGNORS, AssignMember, Consumer, range, topics, uniform};

impl Consumer {
    /// Makes the target for the present epoch.
    pub(super) fn assign(&mut self, cx: &Cx<'_>) {
        self.forget_patterns();
        let (known, patterns) = self.known(cx.topics);
        let ids = |names: &mut dyn Iterator<Item = &String>| -> BTreeSet<TopicId> {
            names.filter_map(|name| known.get(name)).map(|(id, _)| *id).collect()
        };
        let members: Vec<AssignMember> = self
            .members
            .values()
            .map(|member| {
                let matched = patterns.get(&member.regex).into_iter().flatten();
                AssignMember {
                    id: member.id.clone(),
                    order: member.instance.clone().unwrap_or_else(|| member.id.clone()),
                    topics: ids(&mut member.topics.iter().chain(matched)),
                    current: member.target.clone(),
                }
            })
            .collect();
        let counts: BTreeMap<TopicId, u32> = known.values().copied().collect();
        self.assignor = self.preferred();
        let targets = match self.assignor.as_str() {
            "range" => range(members, &counts),
            _ => uniform(members, &counts),
        };
        for (id, target) in targets {
            let Some(member) = self.members.get_mut(&id) else { continue };
            if member.target != target {
                member.target = target;
                self.dirty_members.insert(id);
            }
        }
        self.topics_hash = topics::hash(&known);
        self.target_epoch = self.epoch;
        self.dirty = true;
    }

    /// The assignor that most members ask for. A tie goes to the first of the list.
    fn preferred(&self) -> String {
        let votes = |name: &&&str| self.members.values().filter(|m| m.assignor.as_deref() == Some(**name)).count();
        let best = ASSIGNORS.iter().rev().max_by_key(votes).unwrap_or(&ASSIGNORS[0]);
        (*best).to_owned()
    }
}
