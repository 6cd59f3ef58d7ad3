//! Bounds and deadlines of links.

use std::time::Duration;

use esker_types::{BootId, ByteCount, FrameLimits, Role};

use crate::tls::TlsConfig;

/// Who this side says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub role: Role,
    /// The configured node name.
    pub name: String,
    /// This run of the process.
    pub boot: BootId,
}

impl Identity {
    pub fn new(role: Role, name: impl Into<String>, boot: BootId) -> Self {
        Self { role, name: name.into(), boot }
    }
}

/// Every bound of a link. The worst case of memory per connection is about
/// `2 * queue_bytes + limits.frame_max + handlers_max` times what one handler holds.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Mutual TLS on TCP links. Links inside the process never use it.
    pub tls: Option<TlsConfig>,
    /// Allows a port without TLS to be bound to more than loopback.
    pub insecure_internal: bool,
    /// What a peer that has been let in may make us buffer in one frame.
    pub limits: FrameLimits,
    /// Frames queued to one peer. Small frames are some hundred bytes: 4,096 of them are below 1 MiB.
    pub queue_frames: usize,
    /// Bytes queued to one peer: about 10 ms of a 10 Gbit/s link, so a queue never adds more delay than that.
    pub queue_bytes: ByteCount,
    /// From the dial to the peer's Hello, TLS included.
    pub connect_timeout: Duration,
    /// A connection that has not said who it is by then is closed.
    pub hello_timeout: Duration,
    /// A link on which nothing has come in for so long is asked with a PING.
    pub ping_interval: Duration,
    /// Silent intervals after which the peer counts as gone.
    pub ping_misses: u32,
    /// A peer that takes no byte for so long is cut off.
    pub write_stall: Duration,
    /// Requests of one connection that are handled at the same time; beyond it nothing more is read from it.
    pub handlers_max: usize,
    /// Links that one listener serves at a time; further ones are closed after accept.
    pub connections_max: usize,
    /// First wait after a failed dial of a [`crate::Pool`]; doubles up to `reconnect_max`.
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    /// How long [`crate::serve`] lets running handlers finish once it is cancelled.
    pub drain_timeout: Duration,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            tls: None,
            insecure_internal: false,
            limits: FrameLimits::PEER,
            queue_frames: 4096,
            queue_bytes: ByteCount::mib(16),
            connect_timeout: Duration::from_secs(2),
            hello_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(1),
            ping_misses: 3,
            write_stall: Duration::from_secs(30),
            handlers_max: 256,
            connections_max: 4096,
            reconnect_min: Duration::from_millis(20),
            reconnect_max: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
