//! `esker-bench replay` and `s3`.

use anyhow::{Context, Result};
use esker_bench::cluster::find_esker;
use esker_bench::history;
use esker_bench::replay::{self, Plan, Report};
use esker_s3stub::Stub;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{HistoryArgs, ReplayArgs, S3Args};

pub async fn replay(args: ReplayArgs) -> Result<()> {
    let plan = Plan {
        store: args.store,
        objects: args.objects,
        object_bytes: args.object_bytes,
        readers: args.readers,
        rounds: args.rounds,
        compressible: args.compressible,
        ssd_dir: args.ssd_dir,
    };
    let report = replay::run(&plan).await?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    let mb = |rate: f64| rate / 1e6;
    println!(
        "{} objects, {:.0} MB stored, {} readers",
        report.objects,
        report.stored_bytes as f64 / 1e6,
        report.readers
    );
    for ((bare, replay), ratio) in report.bare.iter().zip(&report.replay).zip(&report.ratios) {
        println!("bare GETs {:7.0} MB/s   replay {:7.0} MB/s   ratio {ratio:.2}", mb(*bare), mb(*replay));
    }
    println!(
        "median ratio {:.2}; entries {:.0} MB/s after decompression",
        report.ratio_median,
        mb(report.entry_bytes_per_second)
    );
    if let Some(warm) = report.warm_ssd {
        println!("warm from SSD {:.0} MB/s", mb(warm));
    }
}

pub async fn history(args: HistoryArgs) -> Result<()> {
    let folder = match args.folder {
        Some(folder) => folder,
        None => std::env::temp_dir().join(format!("esker-history-{}", std::process::id())),
    };
    let esker = find_esker(args.esker)?;
    let plan = history::Plan { segments: args.segments, fold: args.fold, lookups: args.lookups, folder, esker };
    let failed = history::run(&plan, |size| match args.json {
        true => println!("{}", serde_json::json!(size)),
        false => println!("{size}"),
    })
    .await;
    // What a million segments leave behind is nobody's to clean up but ours.
    let _ = std::fs::remove_dir_all(&plan.folder);
    failed
}

/// Serves until SIGINT or SIGTERM.
pub async fn s3(args: S3Args) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stub = Stub::start_at(&args.listen, &args.bucket, "")
        .await
        .with_context(|| format!("can't listen on {}: choose another --listen", args.listen))?;
    println!("{}", stub.url(""));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
