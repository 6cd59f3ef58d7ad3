use esker_types::TopicId;

use super::super::api::{ConsumerDescribed, ConsumerDescribedMember};
use super::super::topics::Topics;
use super::{Assignment, Consumer};

impl Consumer {
    pub fn describe(&self, topics: &dyn Topics) -> ConsumerDescribed {
        let named = |assignment: &Assignment| -> Vec<(TopicId, String, Vec<i32>)> {
            let name = |id: &TopicId| topics.name(*id).unwrap_or_default();
            assignment.iter().map(|(id, held)| (*id, name(id), held.iter().copied().collect())).collect()
        };
        let members = self.members.values().map(|member| ConsumerDescribedMember {
            who: member.who(),
            rack: member.rack.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.topics.clone(),
            regex: (!member.regex.is_empty()).then(|| member.regex.clone()),
            assigned: named(&member.assigned),
            target: named(&member.target),
        });
        ConsumerDescribed {
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: self.assignor.clone(),
            members: members.collect(),
        }
    }
}
