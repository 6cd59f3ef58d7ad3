//! Where a node listens: `host:port`, or `inproc:NAME` for a role in the same process.

use std::fmt;
use std::str::FromStr;

/// An address that can be dialled. Ordered and comparable as text, so that it can be a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Host name, IPv4 address or IPv6 address in brackets, and a port.
    Tcp { host: String, port: u16 },
    /// A name in the process's [`crate::Hub`].
    InProcess(String),
}

/// The text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address: {0:?}; write host:port, [ipv6]:port or inproc:name")]
pub struct BadAddress(pub String);

const HOST_LEN_MAX: usize = 255;

impl Address {
    /// True if only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::InProcess(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.chars().take(64).collect());
        if let Some(name) = text.strip_prefix("inproc:") {
            let fits = !name.is_empty() && name.len() <= HOST_LEN_MAX;
            return fits.then(|| Self::InProcess(name.to_owned())).ok_or_else(bad);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(bad)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                inner
            }
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let fits = !host.is_empty() && host.len() <= HOST_LEN_MAX && !host.contains(char::is_whitespace);
        fits.then(|| Self::Tcp { host: host.to_owned(), port }).ok_or_else(bad)
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::Tcp { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::InProcess(name) => write!(f, "inproc:{name}"),
        }
    }
}

impl serde::Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Address {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "host:port, [ipv6]:port, or inproc:name for a role in the same process"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["127.0.0.1:9000", "node-1.example:1", "[::1]:65535", "inproc:bookie-1"] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        assert!("[::1]:1".parse::<Address>().expect("ipv6").is_local());
        assert!(!"10.0.0.1:1".parse::<Address>().expect("ipv4").is_local());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", ":1", "host", "host:", "host:70000", "::1:5", "[zz]:1", "inproc:", "a b:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
