use esker_types::TopicId;

/// What groups need to know of topics, as this gateway's copy of the metadata has it.
pub trait Topics {
    /// Id and number of partitions.
    fn topic(&self, name: &str) -> Option<(TopicId, u32)>;
    fn name(&self, id: TopicId) -> Option<String>;
    /// Calls `f` with every topic that is not internal, in the order of names.
    fn each(&self, f: &mut dyn FnMut(&str, TopicId, u32));
    /// Grows whenever topics change.
    fn revision(&self) -> u64;
}

/// The partition of the internal topic that a group belongs to, as Kafka computes it: Java's `String.hashCode`, its
/// sign bit cleared, modulo the partition count.
///
/// # Panics
/// If there are no partitions.
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
    (hash & 0x7fff_ffff) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_as_in_java() {
        // "hello".hashCode() == 99162322, "polygenelubricants".hashCode() == Integer.MIN_VALUE.
        assert_eq!(partition_of("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("", 50), 0);
        // A character outside the basic plane counts as its two surrogates: 0xd83d * 31 + 0xde00.
        assert_eq!(partition_of("\u{1f600}", 1 << 30), 0xd83d * 31 + 0xde00);
    }
}
