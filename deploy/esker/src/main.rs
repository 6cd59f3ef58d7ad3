//! `esker`: every role of the broker and the commands that talk to one.

mod args;
mod commands;
mod config;
mod http;
mod logging;
mod roles;
mod tls;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use args::{Cli, Command};

/// Also keeps allocation failures errors instead of aborts where lengths come from outside.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("esker: {}", told_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes on one line. Many errors already tell their cause: that one is not told again.
fn told_once(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line
}

fn start(cli: Cli) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start worker threads")?;
    let done = runtime.block_on(run(cli));
    // Blocking reads of stdin and the like may not hold up the end of the process.
    runtime.shutdown_background();
    done
}

async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Standalone(args) => roles::standalone(args).await,
        Command::Metadata(args) => match args.admin {
            Some(command) => commands::quorum::metadata(command).await,
            None => roles::metadata(args.role).await,
        },
        Command::Bookie(args) => match args.admin {
            Some(command) => commands::nodes::bookie(command).await,
            None => roles::bookie(args.role).await,
        },
        Command::Gateway(args) => match args.admin {
            Some(command) => commands::nodes::gateway(command).await,
            None => roles::gateway(args.role).await,
        },
        Command::Cluster(command) => commands::quorum::cluster(command).await,
        Command::Topic(command) => commands::topic::run(command).await,
        Command::Produce(args) => commands::produce::run(args).await,
        Command::Consume(args) => commands::consume::run(args).await,
        Command::Segment(command) => commands::segment::run(command).await,
        Command::Partition(command) => commands::partition::run(command).await,
        Command::Group(command) => commands::group::run(command).await,
        Command::Bucket(command) => commands::bucket::run(command).await,
        Command::Object(command) => commands::object::run(command).await,
        Command::Recover(args) => commands::recover::run(args).await,
        Command::Tls(command) => commands::tls::run(command),
        Command::Config(command) => commands::config::run(command),
    }
}

#[cfg(test)]
mod tests {
    use super::told_once;

    #[test]
    fn a_cause_is_told_once() {
        let refused = std::io::Error::other("address in use");
        let bind = anyhow::Error::new(refused).context("can't listen: address in use; stop what uses it");
        assert_eq!(told_once(&bind), "can't listen: address in use; stop what uses it");
        let outer = bind.context("the gateway did not start");
        assert_eq!(told_once(&outer), "the gateway did not start: can't listen: address in use; stop what uses it");
    }
}
