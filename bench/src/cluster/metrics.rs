//! What a process says of itself at `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);
/// More than any of our processes has to say.
const TEXT_MAX: u64 = 16 << 20;

/// The whole text.
///
/// # Errors
/// Nobody answers at this address.
pub async fn scrape(http: &str) -> Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.take(TEXT_MAX).read_to_string(&mut text).await?;
        Ok::<String, std::io::Error>(text)
    };
    let answer = tokio::time::timeout(PATIENCE, ask).await.with_context(|| format!("{http} does not answer"))?;
    answer.with_context(|| format!("no metrics from {http}"))
}

/// Labels and value of each series of a metric.
fn series<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let (left, value) = line.rsplit_once(' ')?;
        let (found, labels) = left.split_once('{').unwrap_or((left, ""));
        (found == name).then_some((labels, value.parse().ok()?))
    })
}

/// All series of a metric together; none if there is no such metric.
pub fn sum(text: &str, name: &str) -> Option<f64> {
    series(text, name).map(|(_, value)| value).reduce(|a, b| a + b)
}

/// A metric's values by one of its labels; series that have the same value of it are added up.
pub fn by_label(text: &str, name: &str, label: &str) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for (labels, value) in series(text, name) {
        let pairs = labels.trim_end_matches('}').split(',');
        let found = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == label);
        if let Some((_, of)) = found {
            *values.entry(of.trim_matches('"').to_owned()).or_insert(0.0) += value;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_label() {
        let text = "HTTP/1.0 200 OK\r\n\r\n# HELP a_b Help.\na_b{pool=\"scan\",tier=\"ssd\"} 3\na_b{pool=\"tail\",tier=\"ssd\"} 4\n\
                    a_b_total 9\nc 1.5\n# EOF\n";
        assert_eq!((sum(text, "a_b"), sum(text, "c"), sum(text, "d")), (Some(7.0), Some(1.5), None));
        let by = |label| by_label(text, "a_b", label).into_iter().collect::<Vec<_>>();
        assert_eq!(by("pool"), [("scan".to_owned(), 3.0), ("tail".to_owned(), 4.0)]);
        assert_eq!(by("tier"), [("ssd".to_owned(), 7.0)]);
        assert_eq!(by("part"), []);
    }
}
