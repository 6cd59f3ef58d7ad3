use std::time::Duration;

use prost::Message;

use super::super::out::Out;
use super::super::record::{ConsumerValue, Key, MemberValue, WRITTEN};
use super::{Consumer, Member};

impl Consumer {
    /// Encoded size of header and members.
    pub fn bytes(&self) -> usize {
        const HEADER: usize = 48;
        self.member_bytes + if self.stored { HEADER + self.name.len() } else { 0 }
    }

    /// Writes what has changed.
    pub fn store(&mut self, out: &mut Out) {
        for id in std::mem::take(&mut self.dirty_members) {
            let key = self.member_key(&id);
            let Some(member) = self.members.get_mut(&id) else {
                out.put::<MemberValue>(&key, None);
                continue;
            };
            let value = member.value();
            out.put(&key, Some(&value));
            member.bytes = id.len() + value.encoded_len();
        }
        self.member_bytes = self.members.values().map(|member| member.bytes).sum();
        if std::mem::take(&mut self.dirty) {
            self.store_header(out);
        }
    }

    pub fn store_all(&mut self, out: &mut Out) {
        self.dirty_members.extend(self.members.keys().cloned());
        self.dirty = true;
        self.store(out);
    }

    fn store_header(&mut self, out: &mut Out) {
        let value = ConsumerValue {
            version: WRITTEN,
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            since_ms: self.since_ms,
            topics_hash: self.topics_hash,
            assignor: self.assignor.clone(),
            session_ms: self.session.map(|session| u64::try_from(session.as_millis()).unwrap_or(u64::MAX)),
        };
        self.stored = true;
        out.put(&Key::Consumer { group: self.name.clone() }, Some(&value));
    }

    /// Deletes it from the log.
    pub fn forget(&mut self, out: &mut Out) {
        for id in self.members.keys() {
            out.put::<MemberValue>(&self.member_key(id), None);
        }
        if self.stored {
            out.put::<ConsumerValue>(&Key::Consumer { group: self.name.clone() }, None);
        }
    }

    fn member_key(&self, id: &str) -> Key {
        Key::Member { group: self.name.clone(), member: id.to_owned() }
    }

    /// Takes over a header from the log.
    pub fn load(&mut self, value: ConsumerValue) {
        self.stored = true;
        (self.epoch, self.target_epoch, self.since_ms) = (value.epoch, value.target_epoch, value.since_ms);
        self.session = value.session_ms.map(Duration::from_millis);
        (self.topics_hash, self.assignor) = (value.topics_hash, value.assignor);
    }

    /// Takes over a member from the log.
    pub fn load_member(&mut self, id: &str, value: MemberValue) {
        self.drop_member(id);
        let bytes = id.len() + value.encoded_len();
        let member = Member { bytes, ..Member::load(id, value) };
        self.member_bytes += bytes;
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.to_owned());
        }
        // It worked when the member brought it.
        let _ = self.learn_pattern(&member.regex);
        for (topic, held) in member.assigned.iter().chain(&member.revoking) {
            let holders = self.holders.entry(*topic).or_default();
            // Within one append a partition may show up at its new holder before it is gone from the old.
            held.iter().for_each(|p| _ = holders.insert(*p, id.to_owned()));
        }
        self.members.insert(id.to_owned(), member);
    }

    /// The log says that the member is gone, or what it is now follows.
    pub fn drop_member(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        self.member_bytes -= member.bytes;
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|current| current == id)
        {
            self.statics.remove(instance);
        }
        for (topic, held) in member.assigned.iter().chain(&member.revoking) {
            if let Some(holders) = self.holders.get_mut(topic) {
                holders.retain(|partition, holder| !(holder == id && held.contains(partition)));
            }
        }
        self.holders.retain(|_, holders| !holders.is_empty());
    }
}
