//! Forgetting: offsets that nobody needs any more, then groups that hold nothing.

use super::group::{Group, Kind};
use super::out::Cx;
use super::record::OffsetValue;

/// A commit to a topic that is not in our copy of the metadata may be younger than that copy.
const UNKNOWN_TOPIC_MS: i64 = 600_000;

impl Group {
    /// Looks through the group once. True: nothing is left of it.
    pub fn expire(&mut self, cx: &mut Cx<'_>) -> bool {
        let gone: Vec<(String, i32)> = self
            .offsets
            .each()
            .filter(|(topic, _, value)| self.is_over(cx, topic, value))
            .map(|(topic, partition, _)| (topic.to_owned(), partition))
            .collect();
        for (topic, partition) in gone {
            self.offsets.delete(cx.out, &self.name, &topic, partition);
        }
        let over = self.is_empty() && self.offsets.is_empty() && self.deadline().is_none();
        if over {
            self.forget_members(cx.out);
        }
        over
    }

    fn is_over(&self, cx: &Cx<'_>, topic: &str, value: &OffsetValue) -> bool {
        let age = cx.wall.saturating_sub(value.committed_ms);
        if cx.topics.topic(topic).is_none() {
            return age >= UNKNOWN_TOPIC_MS;
        }
        let since = match &self.kind {
            _ if self.subscribes(topic) => return false,
            // Without members ever, the group lives by its commits.
            Kind::Classic(group) if group.protocol_type.is_empty() => value.committed_ms,
            Kind::Classic(group) if group.is_empty() => group.since_ms.max(value.committed_ms),
            Kind::Consumer(group) if group.members.is_empty() => group.since_ms.max(value.committed_ms),
            // Others of its topics are read; this one is not any more.
            _ => value.committed_ms,
        };
        match value.expires_ms {
            Some(expires) => cx.wall >= expires,
            None => {
                let keep = i64::try_from(cx.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
                cx.wall.saturating_sub(since) >= keep
            }
        }
    }
}
