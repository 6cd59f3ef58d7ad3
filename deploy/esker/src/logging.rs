//! Structured logs on stderr; stdout belongs to commands' results.

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// `ESKER_LOG` filters by level and target (`info`, `esker_bookie=debug,warn`); `ESKER_LOG_FORMAT=json` writes one JSON
/// document per line.
pub fn start(default: &str) {
    let asked = std::env::var("ESKER_LOG").ok().and_then(|filter| filter.parse().ok());
    let filter: Targets = asked.unwrap_or_else(|| default.parse().expect("our own filters parse"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let json = std::env::var("ESKER_LOG_FORMAT").is_ok_and(|format| format == "json");
    let lines = match json {
        true => lines.json().boxed(),
        false => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let started = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    // A second start in one process (tests) keeps the first subscriber.
    let _ = started;
}
