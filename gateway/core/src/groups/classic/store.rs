use std::time::Duration;

use esker_types::Time;
use prost::Message;

use super::super::config::Config;
use super::super::out::Out;
use super::super::record::{ClassicMemberValue, ClassicValue, Key, ProtocolValue, StoredPhase, WRITTEN};
use super::{Classic, Member, Phase};

impl Classic {
    /// Writes what has changed.
    pub fn store(&mut self, out: &mut Out) {
        if std::mem::take(&mut self.dirty) {
            self.store_all(out);
        }
    }

    /// Writes it, changed or not.
    pub fn store_all(&mut self, out: &mut Out) {
        let value = self.value();
        self.stored_bytes = value.encoded_len();
        self.stored = true;
        out.put(&Key::Classic { group: self.name.clone() }, Some(&value));
    }

    fn value(&self) -> ClassicValue {
        let phase = match self.phase {
            Phase::Empty => StoredPhase::Empty,
            Phase::Preparing { .. } => StoredPhase::Preparing,
            Phase::Completing { .. } => StoredPhase::Completing,
            Phase::Stable => StoredPhase::Stable,
        };
        // New members wait for an answer: after a crash they ask again.
        let members = self.members.values().filter(|member| !member.is_new).map(Member::value).collect();
        ClassicValue {
            version: WRITTEN,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            phase: phase as i32,
            members,
            since_ms: self.since_ms,
        }
    }

    pub fn load(name: &str, value: ClassicValue) -> Self {
        let mut group = Self::new(name, value.since_ms);
        group.stored_bytes = value.encoded_len();
        group.stored = true;
        let phase = value.phase();
        let ClassicValue { generation, protocol_type, protocol, leader, members, .. } = value;
        (group.generation, group.protocol_type, group.protocol, group.leader) =
            (generation, protocol_type, protocol, leader);
        for stored in members {
            if let Some(instance) = &stored.instance {
                group.statics.insert(instance.clone(), stored.member.clone());
            }
            let member = Member::load(stored);
            group.live_bytes += member.bytes();
            group.members.insert(member.id.clone(), member);
        }
        // The times come with `start`.
        group.phase = match phase {
            StoredPhase::Empty => Phase::Empty,
            StoredPhase::Preparing => Phase::Preparing { until: Time::ZERO, initial: None },
            StoredPhase::Completing => Phase::Completing { until: Time::ZERO },
            StoredPhase::Stable => Phase::Stable,
        };
        group
    }

    /// The coordinator begins to serve: everybody has all the time that there is.
    pub fn start(&mut self, now: Time, config: &Config) {
        for member in self.members.values_mut() {
            member.session = member.session.clamp(config.session_timeout_min, config.session_timeout_max);
            member.deadline = now + member.session;
        }
        let longest = self.rebalance_timeout();
        if let Phase::Preparing { until, .. } | Phase::Completing { until } = &mut self.phase {
            *until = now + longest;
        }
    }
}

impl Member {
    fn value(&self) -> ClassicMemberValue {
        let protocol = |(name, metadata): &(String, bytes::Bytes)| ProtocolValue {
            name: name.clone(),
            metadata: metadata.clone(),
        };
        ClassicMemberValue {
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            session_ms: millis(self.session),
            rebalance_ms: millis(self.rebalance),
            protocols: self.protocols.iter().map(protocol).collect(),
            assignment: self.assignment.clone(),
        }
    }

    fn load(stored: ClassicMemberValue) -> Self {
        Self {
            id: stored.member,
            instance: stored.instance,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session: Duration::from_millis(stored.session_ms),
            rebalance: Duration::from_millis(stored.rebalance_ms),
            protocols: stored.protocols.into_iter().map(|p| (p.name, p.metadata)).collect(),
            assignment: stored.assignment,
            deadline: Time::ZERO,
            is_new: false,
            join: None,
            sync: None,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
