//! Settings of a gateway. Each default carries its reason; `validate` names the key that is wrong.

use std::net::SocketAddr;
use std::path::PathBuf;

use esker_types::units::{ByteCount, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::groups::GroupsConfig;
use crate::kafka::KafkaConfig;
use crate::offload::ObjectsConfig;

/// A broker: its doors, its identity, and the memory it may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Name of this node in the cluster. Metadata maps it to a number; a second process under one name is refused.
    pub node_name: String,
    /// Failure domain, such as an availability zone or a rack. Shown to clients. Empty: none.
    pub zone: String,
    /// The door for native clients.
    pub quic: QuicConfig,
    /// The door for Kafka clients.
    pub kafka: KafkaConfig,
    /// The port for other nodes: moves and state transfers.
    pub internal: InternalConfig,
    /// Tasks that own partitions; each partition belongs to one. 0 = one per core, which is what fits.
    pub shards: u32,
    /// Recent entries of all partitions kept for readers. Should hold the seconds by which tailing readers lag.
    pub tail_cache: ByteCount,
    /// How appends are bounded and timed.
    pub append: AppendConfig,
    /// How reads are bounded.
    pub read: ReadConfig,
    /// Consumer groups.
    pub groups: GroupsConfig,
    /// How long the session in the metadata quorum lasts without renewal. Shorter means a faster take-over after a
    /// hang (a crash is noticed at once) and less patience with a paused process.
    pub session_ttl: Interval,
    /// Longest time that a graceful stop spends on handing partitions to other gateways.
    pub drain_timeout: Interval,
    /// Old segments in a bucket.
    pub objects: ObjectsConfig,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuicConfig {
    /// UDP address of the door. Port 0 takes a free one.
    pub listen: String,
    /// `host:port` under which clients reach the door, in order of preference. Empty: the address bound.
    pub advertised: Vec<String>,
    /// Certificate chain, PEM. QUIC is always encrypted.
    pub cert: PathBuf,
    /// Private key of the certificate, PEM.
    pub key: PathBuf,
    /// Connections at once. Each may use up to `connection-window` + `ingress-per-connection` of memory when its
    /// client misbehaves, so the product is the worst case of the door.
    pub connections_max: u32,
    /// Streams that one connection may have open: one per partition produced to or read from, and a few calls.
    pub streams_max: u32,
    /// Bytes that a client may send on a stream before we have read them. 4 MiB keeps a fast stream busy over a
    /// network of a few milliseconds; larger windows only let queues build.
    pub stream_window: ByteCount,
    /// The same for all streams of a connection together: bounds what one client can make us buffer.
    pub connection_window: ByteCount,
    /// Bytes sent to one client and not yet acknowledged, all streams together: bounds what a slow reader costs.
    pub send_window: ByteCount,
    /// Bytes of frames and unanswered batches that one connection may hold beyond the windows of QUIC.
    pub ingress_per_connection: ByteCount,
    /// Handshakes that wait for us. More are refused by the stack without state.
    pub incoming_max: u32,
    /// Half-open connections above which a client must first prove its address, so that spoofed packets cost nothing.
    pub retry_above: u32,
    /// A handshake that takes longer is given up.
    pub handshake_timeout: Interval,
    /// A connection that has not said Hello by then is closed, and so is a stream without its first frame.
    pub hello_timeout: Interval,
    /// A connection that is silent this long is closed. Clients send keep-alives every 5 s.
    pub idle_timeout: Interval,
    /// Upper bound of path MTU discovery. Loopback and jumbo networks gain a factor of two from 6500; more would
    /// not fit ten packets into one system call.
    pub mtu_max: u16,
    /// Socket buffer of the door, each way. The system's own limit may be lower; then that is used.
    pub socket_buffer: ByteCount,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct InternalConfig {
    /// Address of the port for other nodes. Port 0 takes a free one.
    pub listen: String,
    /// Address under which other nodes reach it. Empty: the address bound.
    pub advertised: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AppendConfig {
    /// Bytes of one partition that may be unacknowledged. When reached, its producers' streams are not read:
    /// 16 MiB is 40 ms at 400 MB/s, many times what the bookies need.
    pub partition_inflight: ByteCount,
    /// The same for all partitions together: bounds the memory of the append path.
    pub total_inflight: ByteCount,
    /// An append that is not acknowledged by then is answered as timed out with unknown outcome.
    pub timeout: Interval,
    /// Batches that one stream may have unanswered; more are not read.
    pub stream_pipeline: u32,
    /// Batches that are compressed anew at once, in topics whose `compression.type` is not what the producer chose. Each takes a
    /// processor, and memory of up to 17 times the topic's `max.message.bytes`; others wait their turn.
    pub recompressions: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReadConfig {
    /// Payload of one push, unless a single batch is larger or the client asks for less.
    pub push_bytes: ByteCount,
    /// Bytes that a replay asks of a bookie at once and keeps ready ahead of its client.
    pub ahead_bytes: ByteCount,
    /// Reads from bookies under way at once, over all clients; more wait their turn.
    pub concurrency: u32,
    /// A bookie that has not answered a read by then is passed over for another copy.
    pub timeout: Interval,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: "gateway-1".to_owned(),
            zone: String::new(),
            quic: QuicConfig::default(),
            kafka: KafkaConfig::default(),
            internal: InternalConfig::default(),
            shards: 0,
            tail_cache: ByteCount::mib(256),
            append: AppendConfig::default(),
            read: ReadConfig::default(),
            groups: GroupsConfig::default(),
            session_ttl: Interval::secs(2),
            drain_timeout: Interval::secs(30),
            objects: ObjectsConfig::default(),
        }
    }
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4433".to_owned(),
            advertised: Vec::new(),
            cert: PathBuf::from("esker-data/tls/gateway.pem"),
            key: PathBuf::from("esker-data/tls/gateway.key"),
            connections_max: 4096,
            streams_max: 1024,
            stream_window: ByteCount::mib(4),
            connection_window: ByteCount::mib(16),
            send_window: ByteCount::mib(16),
            ingress_per_connection: ByteCount::mib(32),
            incoming_max: 1024,
            retry_above: 256,
            handshake_timeout: Interval::secs(10),
            hello_timeout: Interval::secs(5),
            idle_timeout: Interval::secs(30),
            mtu_max: 6500,
            socket_buffer: ByteCount::mib(4),
        }
    }
}

impl Default for InternalConfig {
    fn default() -> Self {
        Self { listen: "127.0.0.1:4434".to_owned(), advertised: String::new() }
    }
}

impl Default for AppendConfig {
    fn default() -> Self {
        Self {
            partition_inflight: ByteCount::mib(16),
            total_inflight: ByteCount::mib(256),
            timeout: Interval::secs(30),
            stream_pipeline: 1024,
            recompressions: 4,
        }
    }
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self {
            push_bytes: ByteCount::mib(1),
            ahead_bytes: ByteCount::mib(4),
            concurrency: 64,
            timeout: Interval::secs(5),
        }
    }
}

/// Largest record batch that any topic may allow; frames of clients are bounded by it.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;

impl Config {
    /// The first thing that is wrong, with the key it is under.
    pub fn validate(&self) -> Result<(), String> {
        if self.node_name.is_empty() || self.node_name.len() > 255 {
            return Err("node-name must have 1 to 255 characters".to_owned());
        }
        self.quic.validate()?;
        self.kafka.validate()?;
        self.groups.validate()?;
        let within = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{key} must be between {low} and {high}, it is {value}"))
            }
        };
        within("shards", self.shards.into(), 0, 1024)?;
        within("append.partition-inflight", self.append.partition_inflight.0, BATCH_BYTES_MAX, 1 << 30)?;
        within("append.total-inflight", self.append.total_inflight.0, self.append.partition_inflight.0, 1 << 34)?;
        within("append.timeout", millis(self.append.timeout), 100, 600_000)?;
        within("append.recompressions", self.append.recompressions.into(), 1, 1 << 10)?;
        within("append.stream-pipeline", self.append.stream_pipeline.into(), 1, 1 << 16)?;
        within("read.push-bytes", self.read.push_bytes.0, 1 << 10, BATCH_BYTES_MAX)?;
        within("read.ahead-bytes", self.read.ahead_bytes.0, self.read.push_bytes.0, 64 << 20)?;
        within("read.concurrency", self.read.concurrency.into(), 1, 1 << 16)?;
        within("read.timeout", millis(self.read.timeout), 10, 600_000)?;
        self.objects.validate()?;
        within("session-ttl", millis(self.session_ttl), 500, 60_000)
    }
}

impl QuicConfig {
    fn validate(&self) -> Result<(), String> {
        if self.listen.parse::<SocketAddr>().is_err() {
            return Err(format!("quic.listen must be an address such as 127.0.0.1:4433, it is {:?}", self.listen));
        }
        if let Some(bad) =
            self.advertised.iter().find(|a| a.rsplit_once(':').is_none_or(|(_, p)| p.parse::<u16>().is_err()))
        {
            return Err(format!("quic.advertised must hold host:port, it holds {bad:?}"));
        }
        if self.connections_max == 0 || self.incoming_max == 0 {
            return Err("quic.connections-max and quic.incoming-max must be at least 1".to_owned());
        }
        if !(4..=65_536).contains(&self.streams_max) {
            return Err(format!("quic.streams-max must be between 4 and 65536, it is {}", self.streams_max));
        }
        if !(1200..=6500).contains(&self.mtu_max) {
            return Err(format!(
                "quic.mtu-max must be between 1200 and 6500 (ten packets go into one call), it is {}",
                self.mtu_max
            ));
        }
        if self.stream_window.0 > self.connection_window.0 || self.connection_window.0 > 1 << 30 {
            return Err("quic.stream-window must be at most quic.connection-window, and that at most 1GiB".to_owned());
        }
        if self.ingress_per_connection.0 < 2 * BATCH_BYTES_MAX {
            return Err("quic.ingress-per-connection must be at least 16MiB: two of the largest batches".to_owned());
        }
        Ok(())
    }
}

fn millis(interval: Interval) -> u64 {
    u64::try_from(interval.0.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_errors_name_the_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        let mut config = Config::default();
        config.quic.mtu_max = 9000;
        assert!(config.validate().expect_err("too large").contains("quic.mtu-max"));
        let mut config = Config::default();
        config.append.total_inflight = ByteCount::mib(1);
        assert!(config.validate().expect_err("less than one partition").contains("append.total-inflight"));
    }
}
