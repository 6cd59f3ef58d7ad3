//! Topic settings by Kafka's names: reading, checking, and showing them. The defaults are here and nowhere else.

use std::collections::BTreeSet;

use esker_types::{ErrorCode, Quorum};

use crate::command::Setting;
use crate::records::{CompressionType, TimestampType, TopicSettings};
use crate::reply::Reject;

/// Records are kept for ever.
pub const RETENTION_MS_DEFAULT: i64 = -1;
pub const RETENTION_BYTES_DEFAULT: i64 = -1;
/// Kafka's default: 1 MiB of records and a batch's overhead.
pub const MAX_MESSAGE_BYTES_DEFAULT: u32 = 1_048_588;
/// A batch must fit an entry of 8 MiB with its header.
pub const MAX_MESSAGE_BYTES_MAX: u32 = (8 << 20) - 4096;
/// Bookies keep a segment ten minutes after it is safe in the bucket.
pub const LOCAL_RETENTION_MS_DEFAULT: i64 = 600_000;
/// Kafka's defaults of what is only kept.
const DELETE_RETENTION_MS_SHOWN: i64 = 86_400_000;
const FLUSH_MS_SHOWN: i64 = i64::MAX;
/// By Kafka's names.
const COMPRESSION_TYPES: [(&str, CompressionType); 6] = [
    ("producer", CompressionType::Producer),
    ("uncompressed", CompressionType::Uncompressed),
    ("gzip", CompressionType::Gzip),
    ("snappy", CompressionType::Snappy),
    ("lz4", CompressionType::Lz4),
    ("zstd", CompressionType::Zstd),
];
/// Upper ends of what the owner chooses by itself when the topic does not say.
const SEGMENT_BYTES_SHOWN: u64 = 1 << 30;
const SEGMENT_MS_SHOWN: u64 = 3_600_000;

/// Settings with all defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveSettings {
    /// Milliseconds, -1 = for ever.
    pub retention_ms: i64,
    /// Bytes of a partition, -1 = no bound.
    pub retention_bytes: i64,
    /// None: 4 s of traffic, between 256 MiB and 1 GiB.
    pub segment_bytes: Option<u64>,
    /// None: 10 min once it holds 1 MiB, else 60 min.
    pub segment_ms: Option<u64>,
    /// Largest record batch, bytes.
    pub max_message_bytes: u32,
    pub timestamp_type: TimestampType,
    pub compression_type: CompressionType,
    /// Milliseconds; -1 = for ever, -2 = as `retention_ms`.
    pub local_retention_ms: i64,
    pub offload: bool,
    pub quorum: Quorum,
}

/// A setting as `describe` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingValue {
    pub name: &'static str,
    pub value: String,
    pub is_default: bool,
}

impl TopicSettings {
    /// Nothing chosen but the quorums.
    pub fn new(quorum: Quorum) -> Self {
        Self {
            retention_ms: None,
            retention_bytes: None,
            segment_bytes: None,
            segment_ms: None,
            max_message_bytes: None,
            timestamp_type: TimestampType::CreateTime,
            local_retention_ms: None,
            offload: None,
            quorum,
            compression_type: CompressionType::Producer,
            delete_retention_ms: None,
            flush_ms: None,
        }
    }

    pub fn effective(&self) -> EffectiveSettings {
        EffectiveSettings {
            retention_ms: self.retention_ms.unwrap_or(RETENTION_MS_DEFAULT),
            retention_bytes: self.retention_bytes.unwrap_or(RETENTION_BYTES_DEFAULT),
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            max_message_bytes: self.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES_DEFAULT),
            timestamp_type: self.timestamp_type,
            compression_type: self.compression_type,
            local_retention_ms: self.local_retention_ms.unwrap_or(LOCAL_RETENTION_MS_DEFAULT),
            offload: self.offload.unwrap_or(true),
            quorum: self.quorum,
        }
    }

    /// Every setting, in the order of names. `cluster` holds the quorums of a topic that asked for none.
    pub fn describe(&self, cluster: Quorum) -> Vec<SettingValue> {
        let e = self.effective();
        let show = |name, value: String, is_default| SettingValue { name, value, is_default };
        let timestamp = match e.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        let compression = COMPRESSION_TYPES.iter().find(|(_, kind)| *kind == e.compression_type);
        let compression = compression.map_or("producer", |(name, _)| name);
        let kept =
            |name, value: Option<i64>, default| show(name, value.unwrap_or(default).to_string(), value.is_none());
        vec![
            show("cleanup.policy", "delete".to_owned(), true),
            show("compression.type", compression.to_owned(), e.compression_type == CompressionType::Producer),
            kept("delete.retention.ms", self.delete_retention_ms, DELETE_RETENTION_MS_SHOWN),
            show("esker.ack.quorum", e.quorum.ack.to_string(), e.quorum.ack == cluster.ack),
            show("esker.offload", e.offload.to_string(), self.offload.is_none()),
            show("esker.write.quorum", e.quorum.write.to_string(), e.quorum.write == cluster.write),
            kept("flush.ms", self.flush_ms, FLUSH_MS_SHOWN),
            show("local.retention.ms", e.local_retention_ms.to_string(), self.local_retention_ms.is_none()),
            show("max.message.bytes", e.max_message_bytes.to_string(), self.max_message_bytes.is_none()),
            show("message.timestamp.type", timestamp.to_owned(), e.timestamp_type == TimestampType::CreateTime),
            show("min.insync.replicas", e.quorum.ack.to_string(), e.quorum.ack == cluster.ack),
            show("retention.bytes", e.retention_bytes.to_string(), self.retention_bytes.is_none()),
            show("retention.ms", e.retention_ms.to_string(), self.retention_ms.is_none()),
            show(
                "segment.bytes",
                e.segment_bytes.unwrap_or(SEGMENT_BYTES_SHOWN).to_string(),
                self.segment_bytes.is_none(),
            ),
            show("segment.ms", e.segment_ms.unwrap_or(SEGMENT_MS_SHOWN).to_string(), self.segment_ms.is_none()),
        ]
    }

    /// These settings with `changes` made, or the first reason why not. All or nothing.
    pub fn with(&self, changes: &[Setting], cluster: Quorum) -> Result<Self, Reject> {
        let mut new = self.clone();
        let mut asked = Asked::default();
        let mut seen = BTreeSet::new();
        for change in changes {
            if !seen.insert(change.name.as_str()) {
                return Err(invalid(format!("{} is set twice", change.name)));
            }
            set(&mut new, &mut asked, change, cluster)?;
        }
        new.quorum = asked.quorum(self.quorum, cluster)?;
        match asked.min_insync {
            Some(min) if min > new.quorum.ack => Err(invalid(format!(
                "min.insync.replicas {min} is over the ack quorum {}: raise esker.ack.quorum instead",
                new.quorum.ack
            ))),
            _ => Ok(new),
        }
    }
}

/// Quorum settings are judged together, whatever their order.
#[derive(Default)]
struct Asked {
    write: Option<u8>,
    ack: Option<u8>,
    min_insync: Option<u8>,
}

impl Asked {
    fn quorum(&self, old: Quorum, cluster: Quorum) -> Result<Quorum, Reject> {
        let write = self.write.unwrap_or(old.write);
        let ack = match (self.ack, self.write) {
            (Some(ack), _) => ack,
            (None, Some(write)) if write != old.write => ack_for(write, cluster),
            (None, _) => old.ack,
        };
        let quorum = Quorum { write, ack };
        match quorum.is_valid() {
            true => Ok(quorum),
            false => Err(invalid(format!(
                "esker.ack.quorum {ack} of esker.write.quorum {write}: needs 1 <= ack <= write <= {}",
                Quorum::WRITE_MAX
            ))),
        }
    }
}

/// The ack quorum of a write quorum that was asked for alone: the cluster's choice, else a majority.
pub fn ack_for(write: u8, cluster: Quorum) -> u8 {
    if write == cluster.write { cluster.ack } else { write / 2 + 1 }
}

fn set(new: &mut TopicSettings, asked: &mut Asked, change: &Setting, cluster: Quorum) -> Result<(), Reject> {
    let name = change.name.as_str();
    let value = change.value.as_deref();
    match name {
        "retention.ms" => new.retention_ms = number(name, value, -1, i64::MAX)?,
        "retention.bytes" => new.retention_bytes = number(name, value, -1, i64::MAX)?,
        "segment.bytes" => new.segment_bytes = number(name, value, 1_024, 1 << 40)?,
        "segment.ms" => new.segment_ms = number(name, value, 1, i64::MAX)?,
        "max.message.bytes" => {
            new.max_message_bytes = number(name, value, 1, i64::from(MAX_MESSAGE_BYTES_MAX))?;
        }
        "local.retention.ms" => new.local_retention_ms = number(name, value, -2, i64::MAX)?,
        "message.timestamp.type" => {
            new.timestamp_type = match value {
                None | Some("CreateTime") => TimestampType::CreateTime,
                Some("LogAppendTime") => TimestampType::LogAppendTime,
                Some(other) => return Err(not_one_of(name, other, "CreateTime or LogAppendTime")),
            }
        }
        "esker.offload" => {
            new.offload = match value {
                None => None,
                Some("true") => Some(true),
                Some("false") => Some(false),
                Some(other) => return Err(not_one_of(name, other, "true or false")),
            }
        }
        "cleanup.policy" => only(name, value, "delete")?,
        "compression.type" => {
            let wanted = value.unwrap_or("producer");
            let found = COMPRESSION_TYPES.iter().find(|(name, _)| *name == wanted).map(|(_, kind)| *kind);
            let names = "producer, uncompressed, gzip, snappy, lz4 or zstd";
            new.compression_type = found.ok_or_else(|| not_one_of(name, wanted, names))?;
        }
        "delete.retention.ms" => new.delete_retention_ms = number(name, value, 0, i64::MAX)?,
        "flush.ms" => new.flush_ms = number(name, value, 0, i64::MAX)?,
        "esker.write.quorum" => asked.write = Some(quorum_part(name, value)?.unwrap_or(cluster.write)),
        "esker.ack.quorum" => asked.ack = Some(quorum_part(name, value)?.unwrap_or(cluster.ack)),
        "min.insync.replicas" => asked.min_insync = quorum_part(name, value)?,
        _ => return Err(invalid(format!("there is no topic setting {:?}", name.chars().take(64).collect::<String>()))),
    }
    Ok(())
}

/// A whole number within bounds, in a type that holds them all.
fn number<T: TryFrom<i64>>(name: &str, value: Option<&str>, min: i64, max: i64) -> Result<Option<T>, Reject> {
    let Some(text) = value else { return Ok(None) };
    let parsed = text.trim().parse::<i64>().ok().filter(|n| (min..=max).contains(n));
    match parsed.map(T::try_from) {
        Some(Ok(number)) => Ok(Some(number)),
        _ => Err(not_one_of(name, text, &format!("a whole number of {min} to {max}"))),
    }
}

fn quorum_part(name: &str, value: Option<&str>) -> Result<Option<u8>, Reject> {
    number(name, value, 1, i64::from(Quorum::WRITE_MAX))
}

fn only(name: &str, value: Option<&str>, allowed: &str) -> Result<(), Reject> {
    match value {
        Some(other) if other != allowed => Err(not_one_of(name, other, &format!("{allowed}: nothing else exists yet"))),
        _ => Ok(()),
    }
}

fn not_one_of(name: &str, value: &str, wanted: &str) -> Reject {
    invalid(format!("{name} can't be {:?}; it takes {wanted}", value.chars().take(64).collect::<String>()))
}

fn invalid(reason: String) -> Reject {
    Reject::new(ErrorCode::InvalidConfig, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Quorum = Quorum { write: 3, ack: 2 };

    fn with(list: &[(&str, Option<&str>)]) -> Result<TopicSettings, Reject> {
        let changes: Vec<Setting> =
            list.iter().map(|(n, v)| Setting { name: (*n).to_owned(), value: v.map(str::to_owned) }).collect();
        TopicSettings::new(CLUSTER).with(&changes, CLUSTER)
    }

    #[test]
    fn every_shown_setting_can_be_set_to_what_is_shown() {
        let settings = TopicSettings::new(CLUSTER);
        for shown in settings.describe(CLUSTER) {
            assert!(shown.is_default, "{}", shown.name);
            let again = with(&[(shown.name, Some(&shown.value))]).unwrap_or_else(|e| panic!("{}: {e}", shown.name));
            let value = again.describe(CLUSTER).into_iter().find(|s| s.name == shown.name).unwrap();
            assert_eq!(value.value, shown.value);
            assert_eq!(with(&[(shown.name, None)]).unwrap(), settings);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_name() {
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("segment.bytes", "0"),
            ("max.message.bytes", "99999999"),
            ("cleanup.policy", "compact"),
            ("compression.type", "none"),
            ("delete.retention.ms", "-1"),
            ("flush.ms", "often"),
            ("message.timestamp.type", "Now"),
            ("esker.write.quorum", "8"),
            ("esker.ack.quorum", "4"),
            ("min.insync.replicas", "3"),
            ("no.such.setting", "1"),
        ] {
            let reject = with(&[(name, Some(value))]).expect_err(name);
            assert_eq!(reject.code, ErrorCode::InvalidConfig);
            assert!(reject.reason.contains(name) || name.contains("quorum"), "{}", reject.reason);
        }
        assert!(with(&[("retention.ms", Some("1")), ("retention.ms", Some("2"))]).is_err());
    }

    #[test]
    fn any_compression_can_be_chosen_and_given_up() {
        for (name, kind) in COMPRESSION_TYPES {
            let chosen = with(&[("compression.type", Some(name))]).unwrap();
            assert_eq!(chosen.effective().compression_type, kind);
            let shown = chosen.describe(CLUSTER).into_iter().find(|s| s.name == "compression.type").unwrap();
            assert_eq!((shown.value.as_str(), shown.is_default), (name, name == "producer"));
        }
    }

    #[test]
    fn quorums_are_judged_together() {
        let narrow = with(&[("esker.ack.quorum", Some("1")), ("esker.write.quorum", Some("1"))]).unwrap();
        assert_eq!(narrow.quorum, Quorum { write: 1, ack: 1 });
        assert_eq!(with(&[("esker.write.quorum", Some("5"))]).unwrap().quorum, Quorum { write: 5, ack: 3 });
        assert_eq!(with(&[("min.insync.replicas", Some("1"))]).unwrap().quorum, CLUSTER);
    }
}
