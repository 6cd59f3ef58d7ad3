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
