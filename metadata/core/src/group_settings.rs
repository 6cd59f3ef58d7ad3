//! Settings of consumer groups by Kafka's names.

use std::collections::BTreeSet;

use esker_types::ErrorCode;

use crate::command::Setting;
use crate::records::GroupSettings;
use crate::reply::Reject;

pub const SESSION_TIMEOUT: &str = "consumer.session.timeout.ms";
pub const HEARTBEAT_INTERVAL: &str = "consumer.heartbeat.interval.ms";

/// As for members of classic groups: shorter ones turn a pause into a rebalance, longer ones keep partitions of a dead member
/// from being read.
const SESSION_TIMEOUT_MS: (u32, u32) = (6_000, 1_800_000);
const HEARTBEAT_INTERVAL_MS: (u32, u32) = (1_000, 60_000);

impl GroupSettings {
    /// These settings with `changes` made, or the first reason why not. All or nothing.
    pub fn with(&self, changes: &[Setting]) -> Result<Self, Reject> {
        let mut new = self.clone();
        let mut seen = BTreeSet::new();
        for Setting { name, value } in changes {
            if !seen.insert(name.as_str()) {
                return Err(invalid(format!("{name} is set twice")));
            }
            let (place, bounds) = match name.as_str() {
                SESSION_TIMEOUT => (&mut new.consumer_session_timeout_ms, SESSION_TIMEOUT_MS),
                HEARTBEAT_INTERVAL => (&mut new.consumer_heartbeat_interval_ms, HEARTBEAT_INTERVAL_MS),
                other => {
                    let other: String = other.chars().take(64).collect();
                    return Err(invalid(format!(
                        "there is no group setting {other:?}: there are {HEARTBEAT_INTERVAL} and {SESSION_TIMEOUT}"
                    )));
                }
            };
            *place = value.as_deref().map(|value| number(name, value, bounds)).transpose()?;
        }
        match (new.consumer_session_timeout_ms, new.consumer_heartbeat_interval_ms) {
            (Some(session), Some(heartbeat)) if heartbeat >= session => Err(invalid(format!(
                "{HEARTBEAT_INTERVAL} {heartbeat} must be shorter than {SESSION_TIMEOUT} {session}"
            ))),
            _ => Ok(new),
        }
    }
}

fn number(name: &str, value: &str, (least, most): (u32, u32)) -> Result<u32, Reject> {
    let parsed = value.trim().parse::<u32>().ok().filter(|number| (least..=most).contains(number));
    parsed.ok_or_else(|| {
        let value: String = value.chars().take(64).collect();
        invalid(format!("{name} can't be {value:?}; it takes a whole number of {least} to {most}"))
    })
}

fn invalid(reason: String) -> Reject {
    Reject::new(ErrorCode::InvalidConfig, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(list: &[(&str, Option<&str>)]) -> Result<GroupSettings, Reject> {
        let change = |(name, value): &(&str, Option<&str>)| Setting {
            name: (*name).to_owned(),
            value: value.map(str::to_owned),
        };
        let changes: Vec<Setting> = list.iter().map(change).collect();
        GroupSettings::NONE.with(&changes)
    }

    #[test]
    fn settings_are_taken_by_name_and_given_back() {
        let set = with(&[(SESSION_TIMEOUT, Some("50000")), (HEARTBEAT_INTERVAL, Some("2000"))]).unwrap();
        assert_eq!((set.consumer_session_timeout_ms, set.consumer_heartbeat_interval_ms), (Some(50_000), Some(2_000)));
        let less = set.with(&[Setting { name: SESSION_TIMEOUT.to_owned(), value: None }]).unwrap();
        assert_eq!(less.consumer_session_timeout_ms, None);
    }

    #[test]
    fn nonsense_is_refused_with_the_name() {
        for list in [
            &[(SESSION_TIMEOUT, Some("10"))][..],
            &[(SESSION_TIMEOUT, Some("soon"))],
            &[(HEARTBEAT_INTERVAL, Some("-1"))],
            &[(SESSION_TIMEOUT, Some("6000")), (HEARTBEAT_INTERVAL, Some("6000"))],
            &[(SESSION_TIMEOUT, Some("7000")), (SESSION_TIMEOUT, Some("8000"))],
            &[("share.session.timeout.ms", Some("50000"))],
        ] {
            let reject = with(list).expect_err("refused");
            assert_eq!(reject.code, ErrorCode::InvalidConfig);
            assert!(reject.reason.contains(list[0].0), "{}", reject.reason);
        }
    }
}
