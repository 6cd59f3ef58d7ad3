use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;

/// How a client decides that it talks to its cluster and not to somebody else.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The cluster's CA certificate, as PEM. `esker standalone` writes it to `DATA/tls/ca.pem`.
    CaFile(PathBuf),
    /// The same, already read.
    CaPem(Vec<u8>),
    /// Trust anyone. Whoever sits on the way reads and changes everything.
    Insecure,
}

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of the QUIC doors of any gateways. One that answers is enough: it knows the others.
    pub servers: Vec<String>,
    pub trust: Trust,
    /// Shown in the gateways' logs.
    pub name: String,
    /// Time for one connection to come up, 100 ms..=60 s.
    pub connect_timeout: Duration,
    /// Time for one call over all tries, 100 ms..=10 min.
    pub call_timeout: Duration,
    /// Connections to each gateway, 1..=16. One connection is encrypted by one core: partitions are spread over
    /// several so that a heavy producer can use more.
    pub connections_per_gateway: usize,
    /// Largest UDP payload that path discovery may try, 1200..=6500. Larger packets cost less; above 6500 a batch
    /// of ten no longer fits the 64 KiB of one segmentation offload.
    pub mtu_max: u16,
    /// Let the kernel cut large writes into packets. Some middleboxes lose such bursts: then turn it off.
    pub gso: bool,
}

impl ClientConfig {
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>, trust: Trust) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            trust,
            name: "esker-client".to_owned(),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(15),
            connections_per_gateway: 2,
            mtu_max: 6500,
            gso: true,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let within = |what: &str, value: Duration, min: Duration, max: Duration| match value {
            value if value < min || value > max => {
                Err(Error::Config(format!("{what} is {value:?}, but must be {min:?} to {max:?}")))
            }
            _ => Ok(()),
        };
        let (tick, minute) = (Duration::from_millis(100), Duration::from_secs(60));
        within("connect_timeout", self.connect_timeout, tick, minute)?;
        within("call_timeout", self.call_timeout, tick, 10 * minute)?;
        if self.servers.is_empty() {
            return Err(Error::Config("no server given: name the host:port of at least one gateway".to_owned()));
        }
        if !(1..=16).contains(&self.connections_per_gateway) {
            return Err(Error::Config("connections_per_gateway must be 1 to 16".to_owned()));
        }
        if !(1200..=6500).contains(&self.mtu_max) {
            return Err(Error::Config("mtu_max must be 1200 to 6500".to_owned()));
        }
        Ok(())
    }
}
