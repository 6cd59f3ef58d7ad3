use std::net::SocketAddr;
use std::path::PathBuf;

use esker_types::units::{ByteCount, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The door for Kafka clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct KafkaConfig {
    /// TCP address of the door. Port 0 takes a free one. Empty: this gateway has no door for Kafka clients.
    pub listen: String,
    /// `host:port` under which clients reach the door: they are told it and come back to it, so it must work from where they
    /// are. Empty: the address bound.
    pub advertised: String,
    /// Certificate chain, PEM. With it and `key` the door speaks TLS only; without both it is not encrypted.
    pub cert: PathBuf,
    /// Private key of the certificate, PEM.
    pub key: PathBuf,
    /// Connections at once. A client keeps one to each gateway, or a few.
    pub connections_max: u32,
    /// Connections at once from one address, so that one host that leaks connections does not lock out the others.
    pub connections_per_address: u32,
    /// Largest request. Kafka's own bound; a client that announces more is cut off before anything is kept for it.
    pub request_bytes_max: ByteCount,
    /// Bytes of requests of one connection that are read and not yet answered. When reached, the connection is not read,
    /// and TCP makes the client wait; one request may be larger.
    pub connection_inflight: ByteCount,
    /// The same for all connections together: bounds the memory that requests take.
    pub total_inflight: ByteCount,
    /// Requests of one connection that are read and not yet answered. Clients send up to 5; more only waits in memory.
    pub pipeline: u32,
    /// A new connection (its TLS handshake included) whose first request has not come by then is closed.
    pub first_request_timeout: Interval,
    /// A request of which a part has come must come whole by then: a client that stops in the middle holds memory.
    pub request_timeout: Interval,
    /// A client that takes no byte of an answer for so long is closed.
    pub write_timeout: Interval,
    /// A connection without requests is closed after so long, as Kafka does (`connections.max.idle.ms`).
    pub idle_timeout: Interval,
    /// Record bytes in one answer to a fetch, whatever the client asks for. Kafka's `fetch.max.bytes`.
    pub fetch_bytes_max: ByteCount,
    /// Record bytes in all answers to fetches that are being made or sent. When short, answers get smaller, down to one
    /// batch: slow readers cost the others speed, not memory.
    pub fetch_total: ByteCount,
    /// Longest wait of a fetch for data. Clients ask for half a second.
    pub fetch_wait_max: Interval,
    /// Replays from bookies that are kept open between fetches, each with up to twice `read.ahead-bytes`. Others look their
    /// place up anew at each fetch.
    pub replays: u32,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            advertised: String::new(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            connections_max: 16_384,
            connections_per_address: 4_096,
            request_bytes_max: ByteCount::mib(100),
            connection_inflight: ByteCount::mib(32),
            total_inflight: ByteCount::mib(512),
            pipeline: 128,
            first_request_timeout: Interval::secs(10),
            request_timeout: Interval::secs(30),
            write_timeout: Interval::secs(30),
            idle_timeout: Interval::secs(600),
            fetch_bytes_max: ByteCount::mib(55),
            fetch_total: ByteCount::mib(256),
            fetch_wait_max: Interval::secs(30),
            replays: 64,
        }
    }
}

/// Host and port of a `host:port`; brackets of an IPv6 address taken off.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

impl KafkaConfig {
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }

    pub fn validate(&self) -> Result<(), String> {
        if !self.is_on() {
            return Ok(());
        }
        let Ok(listen) = self.listen.parse::<SocketAddr>() else {
            return Err(format!("kafka.listen must be an address such as 127.0.0.1:9092, it is {:?}", self.listen));
        };
        if self.advertised.is_empty() && listen.ip().is_unspecified() {
            return Err(format!("kafka.advertised must be set: no client can connect to {}", listen.ip()));
        }
        if !self.advertised.is_empty() && host_and_port(&self.advertised).is_none() {
            return Err(format!("kafka.advertised must be host:port, it is {:?}", self.advertised));
        }
        if self.cert.as_os_str().is_empty() != self.key.as_os_str().is_empty() {
            return Err("kafka.cert and kafka.key must be set both or neither".to_owned());
        }
        let least = [
            ("kafka.connections-max", u64::from(self.connections_max), 1),
            ("kafka.connections-per-address", self.connections_per_address.into(), 1),
            ("kafka.pipeline", self.pipeline.into(), 1),
            ("kafka.request-bytes-max", self.request_bytes_max.0, 64 << 10),
            ("kafka.connection-inflight", self.connection_inflight.0, 1 << 20),
            ("kafka.total-inflight", self.total_inflight.0, self.request_bytes_max.0),
            ("kafka.fetch-bytes-max", self.fetch_bytes_max.0, 1 << 10),
            ("kafka.fetch-total", self.fetch_total.0, self.fetch_bytes_max.0),
        ];
        if let Some((key, value, least)) = least.into_iter().find(|(_, value, least)| value < least) {
            return Err(format!("{key} must be at least {least}, it is {value}"));
        }
        if self.request_bytes_max.0 > 1 << 30 || self.fetch_bytes_max.0 > 1 << 30 || self.total_inflight.0 > 1 << 36 {
            return Err("kafka.request-bytes-max and kafka.fetch-bytes-max must be at most 1GiB".to_owned());
        }
        if self.pipeline > 1 << 16 || self.replays > 1 << 16 {
            return Err("kafka.pipeline and kafka.replays must be at most 65536".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(host_and_port("broker:9092"), Some(("broker".to_owned(), 9092)));
        assert_eq!(host_and_port("[::1]:1"), Some(("::1".to_owned(), 1)));
        assert_eq!(host_and_port(":9092"), None);
        assert_eq!(host_and_port("broker:"), None);
    }

    #[test]
    fn what_can_not_work_is_named() {
        let on = KafkaConfig { listen: "127.0.0.1:0".to_owned(), ..KafkaConfig::default() };
        assert_eq!(on.validate(), Ok(()));
        let wrong = [
            ("kafka.advertised", KafkaConfig { listen: "0.0.0.0:9092".to_owned(), ..on.clone() }),
            ("kafka.listen", KafkaConfig { listen: "localhost".to_owned(), ..on.clone() }),
            ("kafka.key", KafkaConfig { cert: "cert.pem".into(), ..on.clone() }),
            ("kafka.fetch-total", KafkaConfig { fetch_total: ByteCount(1), ..on.clone() }),
        ];
        for (key, config) in wrong {
            assert!(config.validate().expect_err(key).contains(key));
        }
    }
}
