//! Structured logs on stderr; stdout belongs to commands' results.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// `ESKER_LOG` filters as the `tracing` crates do (`info`, `esker_bookie=debug,warn`); `ESKER_LOG_FORMAT=json` writes
/// one JSON document per line.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env("ESKER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = std::env::var("ESKER_LOG_FORMAT").is_ok_and(|format| format == "json");
    let started = match json {
        true => builder.json().try_init(),
        false => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    // A second start in one process (tests) keeps the first subscriber.
    let _ = started;
}
