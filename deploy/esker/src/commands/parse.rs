//! Words that users write on the command line and that mean more than text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use esker_types::Interval;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Earliest,
    Latest,
    Offset(i64),
    /// Milliseconds since the Unix epoch.
    Time(i64),
}

/// `earliest`, `latest`, `offset:N`, `time:2026-01-31T12:00:00Z` or `time:-2h`.
pub fn from(text: &str, now: SystemTime) -> Result<From> {
    let wrong = || {
        anyhow!(
            "{text:?} is no place to start: write earliest, latest, offset:N, time:2026-01-31T12:00:00Z or time:-2h"
        )
    };
    match text.split_once(':') {
        None if text == "earliest" => Ok(From::Earliest),
        None if text == "latest" => Ok(From::Latest),
        Some(("offset", number)) => {
            let offset: i64 = number.parse().map_err(|_| wrong())?;
            if offset < 0 {
                bail!("{text}: offsets begin at 0");
            }
            Ok(From::Offset(offset))
        }
        Some(("time", moment)) => match moment.strip_prefix('-') {
            Some(ago) => {
                let ago: Interval = ago.parse().with_context(|| text.to_owned())?;
                let then = now.checked_sub(Duration::from(ago)).unwrap_or(UNIX_EPOCH);
                Ok(From::Time(since_epoch(then)))
            }
            None => {
                let moment = OffsetDateTime::parse(moment, &Rfc3339).map_err(|_| wrong())?;
                Ok(From::Time(i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).map_err(|_| wrong())?))
            }
        },
        _ => Err(wrong()),
    }
}

/// [`from`] as of now, for the command line.
pub fn starting_point(text: &str) -> Result<From> {
    from(text, SystemTime::now())
}

fn since_epoch(moment: SystemTime) -> i64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// `TOPIC/PARTITION`; the topic itself may not hold a slash.
pub fn partition(text: &str) -> Result<(String, u32)> {
    let parts = text.rsplit_once('/').and_then(|(topic, index)| Some((topic, index.parse().ok()?)));
    let (topic, index) = parts.ok_or_else(|| anyhow!("{text}: write TOPIC/PARTITION, for example logs/0"))?;
    Ok((topic.to_owned(), index))
}

/// `KEY=VALUE` pairs.
pub fn settings(pairs: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| anyhow!("--config {text}: write KEY=VALUE"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    pairs.iter().map(pair).collect()
}

/// `NAME=ADDRESS` of a metadata node.
pub fn node(text: &str) -> Result<(String, String)> {
    let (name, address) = text.split_once('=').ok_or_else(|| anyhow!("{text}: write NAME=HOST:PORT"))?;
    Ok((name.trim().to_owned(), address.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_points() {
        let now = UNIX_EPOCH + Duration::from_secs(10_000);
        assert_eq!(from("earliest", now).expect("known"), From::Earliest);
        assert_eq!(from("offset:17", now).expect("known"), From::Offset(17));
        assert_eq!(from("time:-1h", now).expect("known"), From::Time(6_400_000));
        assert_eq!(from("time:1970-01-01T00:00:01.5Z", now).expect("known"), From::Time(1_500));
        for bad in ["", "soon", "offset:x", "offset:-1", "time:yesterday", "time:-2", "earliest:1"] {
            assert!(from(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_partitions() {
        assert_eq!(partition("logs/3").expect("well formed"), ("logs".to_owned(), 3));
        for bad in ["logs", "logs/", "logs/x", "logs/-1"] {
            assert!(partition(bad).is_err(), "{bad}");
        }
    }
}
