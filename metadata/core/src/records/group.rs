crate::messages! {
    /// What the owner of a consumer group chose. None = what the gateways' configuration says.
    pub struct GroupSettings {
        /// Of members of the consumer protocol, milliseconds.
        1 consumer_session_timeout_ms: Option<u32> = [uint32, optional],
        2 consumer_heartbeat_interval_ms: Option<u32> = [uint32, optional],
    }

    /// A group with settings of its own. Its members and offsets are not here: they are its coordinator's.
    pub struct GroupRecord {
        1 name: String = [string],
        2 settings: GroupSettings = [message, required],
    }
}

impl GroupSettings {
    pub const NONE: Self = Self { consumer_session_timeout_ms: None, consumer_heartbeat_interval_ms: None };
}
