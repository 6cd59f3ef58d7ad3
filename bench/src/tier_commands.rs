//! `esker-bench tier`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use esker_bench::cluster::find_esker;
use esker_bench::tier::{Setup, live, replay};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::args::{TierArgs, TierCommand, TierLiveArgs, TierReplayArgs};

/// What a replay should reach, and what it may cost the others.
const REPLAY_BAR: f64 = 0.7;
const LIVE_BAR: f64 = 1.25;

pub async fn run(command: TierCommand) -> Result<()> {
    match command {
        TierCommand::Replay(args) => replay(args).await,
        TierCommand::Live(args) => live(args).await,
    }
}

/// The folder, and the S3 server if it is ours.
struct Place {
    setup: Setup,
    _server: Option<Child>,
}

impl Place {
    async fn prepare(args: &TierArgs, bookies: usize) -> Result<Self> {
        let temporary = || std::env::temp_dir().join(format!("esker-tier-{}", std::process::id()));
        let folder = args.folder.clone().unwrap_or_else(temporary);
        std::fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        ensure!(std::fs::read_dir(&folder)?.next().is_none(), "{} is not empty", folder.display());
        let (store, keys, _server) = match args.store.as_str() {
            "folder" => (format!("file://{}", folder.join("bucket").display()), None, None),
            "s3" => {
                let (server, url) = serve().await?;
                (url, Some(("any".to_owned(), "any".to_owned())), Some(server))
            }
            url => (url.to_owned(), None, None),
        };
        let setup = Setup { folder, esker: find_esker(args.esker.clone())?, bookies, store, keys };
        Ok(Self { setup, _server })
    }

    fn clean_up(&self) {
        // Gigabytes, and nobody's to clean up but ours.
        let _ = std::fs::remove_dir_all(&self.setup.folder);
    }
}

/// `esker-bench s3` as a process of its own.
async fn serve() -> Result<(Child, String)> {
    let mut server = Command::new(program()?)
        .args(["s3", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = server.stdout.take().context("its output")?;
    let url = BufReader::new(output).lines().next_line().await?.context("the S3 server ended at once")?;
    Ok((server, url))
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("can't tell which program this is")
}

fn tell(what: &str) {
    eprintln!("{what} ...");
}

fn mb(rate: f64) -> f64 {
    rate / 1e6
}

async fn replay(args: TierReplayArgs) -> Result<()> {
    let place = Place::prepare(&args.tier, args.bookies).await?;
    let plan = replay::Plan {
        setup: place.setup.clone(),
        bytes: args.bytes,
        partitions: args.tier.partitions,
        segment_bytes: args.tier.segment_bytes,
        compressible: args.compressible,
        rounds: args.rounds,
        warm: args.warm,
        drop_page_cache: true,
    };
    let measured = replay::run(&plan, tell).await;
    place.clean_up();
    let report = measured?;
    if args.tier.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!(
        "{} records; {} objects of {:.0} MB in all; written and read back in {:.1} s, in the bucket {:.1} s later",
        report.records,
        report.objects,
        mb(report.stored_bytes as f64),
        report.written_seconds,
        report.offloaded_seconds
    );
    for round in &report.rounds {
        let cpu: Vec<String> = round.cpu_seconds_per_gb.iter().map(|(role, s)| format!("{role} {s:.2}")).collect();
        let (bare, replay, ratio) = (mb(round.bare), mb(round.replay), round.ratio);
        println!(
            "bare GETs {bare:7.0} MB/s   cold replay {replay:7.0} MB/s   {ratio:.2}   CPU s/GB: {}",
            cpu.join(", ")
        );
    }
    println!("every replay gave back what was written; the median is {:.2} (bar {REPLAY_BAR})", report.ratio_median);
    if !report.page_cache_dropped {
        println!("the system kept files in memory: run as root to read a local folder from its disk");
    }
    if let Some(warm) = report.warm {
        println!(
            "warm from SSD {:.0} MB/s: {} blocks from the SSD, {} from the store",
            mb(warm.rate),
            warm.blocks_from_ssd,
            warm.blocks_from_store
        );
    }
    Ok(())
}

async fn live(args: TierLiveArgs) -> Result<()> {
    let place = Place::prepare(&args.tier, args.bookies).await?;
    let plan = live::Plan {
        setup: place.setup.clone(),
        bytes: args.bytes,
        partitions: args.tier.partitions,
        segment_bytes: args.tier.segment_bytes,
        rate: args.rate,
        record_bytes: args.record_bytes,
        live_partitions: args.live_partitions,
        window: Duration::from_secs(args.window),
        rounds: args.rounds,
        program: program()?,
    };
    let measured = live::run(&plan, tell).await;
    place.clean_up();
    let report = measured?;
    if args.tier.json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    let show = |name: &str, pairs: &[live::Pair], ratios: &live::Ratios| {
        for live::Pair { alone, beside } in pairs {
            println!(
                "{name}: produce p99 {:6.2} -> {:6.2} ms   tail p99 {:6.2} -> {:6.2} ms",
                alone.produce.p99_ms, beside.produce.p99_ms, alone.tail.p99_ms, beside.tail.p99_ms
            );
        }
        println!("{name}: medians of the ratios: produce {:.2}, tail {:.2}", ratios.produce, ratios.tail);
    };
    println!("a free replay takes {:.0} MB/s from the store", mb(report.free_rate));
    show("free", &report.free, &report.free_ratios);
    println!("held to {:.0} MB/s it takes {:.0} MB/s", mb(report.budget as f64), mb(report.held_rate));
    show("held", &report.held, &report.held_ratios);
    println!("bar for the held one: {LIVE_BAR}");
    Ok(())
}
