//! `esker-bench`: clusters to try things on, load, and the check that promises were kept.

mod args;
mod load_commands;
mod store_commands;
mod tier_commands;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use esker_bench::cluster::{self, Cluster, Request, Spec};
use tokio::signal::unix::{SignalKind, signal};

use args::{Cli, ClusterArgs, ClusterCommand, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().ok();
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("esker-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Cluster(args) => run_cluster(args).await,
        Command::Produce(args) => load_commands::produce(args).await,
        Command::Consume(args) => load_commands::consume(args).await,
        Command::Replay(args) => store_commands::replay(args).await,
        Command::History(args) => store_commands::history(args).await,
        Command::Tier(command) => tier_commands::run(command).await,
        Command::S3(args) => store_commands::s3(args).await,
    }
}

async fn run_cluster(args: ClusterArgs) -> Result<()> {
    let data = args.data;
    let described = match args.command {
        Some(ClusterCommand::Restart { id, data }) => cluster::ask(&data, &Request::Restart { id }).await?,
        Some(ClusterCommand::Stop { id, data }) => cluster::ask(&data, &Request::Stop { id }).await?,
        Some(ClusterCommand::Status { data }) => cluster::ask(&data, &Request::Status).await?,
        None => {
            let spec = Spec {
                metadata: args.metadata,
                bookies: args.bookies,
                gateways: args.gateways,
                data,
                esker: cluster::find_esker(args.esker)?,
                settings: args.sets,
            };
            return stay(spec, args.json).await;
        }
    };
    println!("{}", serde_json::to_string(&described)?);
    Ok(())
}

/// Starts the cluster and keeps it until SIGINT or SIGTERM. A role that dies stays dead until it is restarted.
async fn stay(spec: Spec, json: bool) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut cluster = Cluster::start(spec).await?;
    let described = cluster.describe();
    if json {
        println!("{}", serde_json::to_string(&described)?);
    } else {
        for role in &described.roles {
            println!("{:12} pid {:7} {}", role.id, role.pid, join(&role.addresses));
        }
        println!("\nexport ESKER_SERVER={} ESKER_CA={}", cluster.servers().join(","), described.ca.display());
    }
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    cluster::serve(&mut cluster, stopped).await?;
    cluster.stop_all().await
}

fn join(addresses: &std::collections::BTreeMap<String, String>) -> String {
    addresses.iter().map(|(door, address)| format!("{door} {address}")).collect::<Vec<_>>().join("  ")
}
