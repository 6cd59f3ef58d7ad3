//! Sizes and times in configuration files: `"64MiB"`, `"1GB"`, `"250ms"`, `"10m"`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl ByteCount {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    /// As a `usize`; a count that does not fit this machine's address space becomes the largest one that does.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a size: {0:?}; write bytes as a number or with B, kB, MB, GB, KiB, MiB, GiB, TiB, for example \"64MiB\"")]
pub struct BadByteCount(pub String);

impl FromStr for ByteCount {
    type Err = BadByteCount;
    fn from_str(text: &str) -> Result<Self, BadByteCount> {
        let bad = || BadByteCount(text.chars().take(64).collect());
        let trimmed = text.trim();
        let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let number: u64 = trimmed[..digits_end].parse().map_err(|_| bad())?;
        let unit = trimmed[digits_end..].trim();
        let scale = match unit {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1,
        };
        number.checked_mul(scale).map(ByteCount).ok_or_else(bad)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, scale) in [UNITS[3], UNITS[2], UNITS[1], UNITS[0]] {
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{name}", self.0 / scale);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = ByteCount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\", or a number of bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteCount, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<ByteCount, E> {
                Ok(ByteCount(n))
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<ByteCount, E> {
                u64::try_from(n).map(ByteCount).map_err(|_| E::custom("a size can't be negative"))
            }
        }
        from.deserialize_any(V).map_err(D::Error::custom)
    }
}

impl JsonSchema for ByteCount {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ByteCount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// A span of time in a configuration file: `"250ms"`, `"5s"`, `"10m"`, `"72h"`, `"7d"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(pub Duration);

const SPANS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Interval {
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
}

impl From<Interval> for Duration {
    fn from(interval: Interval) -> Duration {
        interval.0
    }
}

/// The text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a span of time: {0:?}; write a whole number with ms, s, m, h or d, for example \"250ms\"")]
pub struct BadInterval(pub String);

impl FromStr for Interval {
    type Err = BadInterval;
    fn from_str(text: &str) -> Result<Self, BadInterval> {
        let bad = || BadInterval(text.chars().take(64).collect());
        let trimmed = text.trim();
        let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = trimmed[..digits_end].parse().map_err(|_| bad())?;
        let unit = trimmed[digits_end..].trim();
        let scale = SPANS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1;
        number.checked_mul(scale).map(Interval::millis).ok_or_else(bad)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (name, scale) in [SPANS[5], SPANS[4], SPANS[2], SPANS[1]] {
            if ms >= u128::from(scale) && ms.is_multiple_of(u128::from(scale)) {
                return write!(f, "{}{name}", ms / u128::from(scale));
            }
        }
        write!(f, "{ms}ms")
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Interval {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_refuses_nonsense() {
        assert_eq!("64MiB".parse(), Ok(ByteCount::mib(64)));
        assert_eq!(" 5 kB ".parse(), Ok(ByteCount(5_000)));
        assert_eq!("17".parse(), Ok(ByteCount(17)));
        for bad in ["", "MiB", "-1", "1.5GiB", "99999999999TiB", "5 parsecs"] {
            assert!(bad.parse::<ByteCount>().is_err(), "{bad}");
        }
        assert_eq!(ByteCount::mib(64).to_string(), "64MiB");
        assert_eq!(ByteCount(1001).to_string(), "1001B");
    }

    #[test]
    fn reads_spans_and_refuses_nonsense() {
        assert_eq!("250ms".parse(), Ok(Interval::millis(250)));
        assert_eq!("10 m".parse(), Ok(Interval::secs(600)));
        for bad in ["", "5", "s", "-1s", "1.5s", "99999999999999999d"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
        assert_eq!(Interval::secs(7200).to_string(), "2h");
        assert_eq!(Interval::millis(1500).to_string(), "1500ms");
    }
}
