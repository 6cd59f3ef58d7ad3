use std::time::Duration;

use esker_types::TopicId;

/// Settings of one group of the consumer protocol; None: as the coordinator's [`Config`](super::Config) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub session_timeout: Option<Duration>,
    pub heartbeat_interval: Option<Duration>,
}

/// What groups need to know of topics and settings, as this gateway's copy of the metadata has it.
pub trait Topics {
    /// Id and number of partitions.
    fn topic(&self, name: &str) -> Option<(TopicId, u32)>;
    fn name(&self, id: TopicId) -> Option<String>;
    /// Calls `f` with every topic that is not internal, in the order of names.
    fn each(&self, f: &mut dyn FnMut(&str, TopicId, u32));
    /// Grows whenever topics change.
    fn revision(&self) -> u64;
    /// What the owner of a group chose for it.
    fn times(&self, group: &str) -> Times;
}
