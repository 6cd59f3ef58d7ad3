//! `esker bucket`: make a bucket ready, and prove that a store does what Esker needs.

use anyhow::{Context, Result, bail};
use esker_cache::store::{Location, S3, Store, StoreMetrics};
use esker_cache::{Kind, StoreConfig, config};
use esker_s3admin::{Admin, StepResult, Target};
use esker_types::Interval;
use serde_json::json;

use super::{connect, table};
use crate::args::{Bucket, Connect};

pub async fn run(command: Bucket) -> Result<()> {
    match command {
        Bucket::Setup { url, output } => setup(&url, output.json).await,
        Bucket::Check { url, output } => check(&url, output.json).await,
        Bucket::Sweep { dry_run, connect, output } => sweep(dry_run, &connect, output.json).await,
    }
}

fn open(url: &str) -> Result<Store> {
    // Somebody waits at a terminal.
    let config = StoreConfig { deadline: Interval::secs(10), ..config::Config::default().store };
    Ok(Store::open(url, config, StoreMetrics::default())?)
}

async fn setup(url: &str, json: bool) -> Result<()> {
    let store = open(url)?;
    let Location::S3(s3) = store.location() else {
        // Buckets of other clouds are made with their own tools; a folder is made by opening it.
        store.probe().await?;
        eprintln!("{} is there; only S3 buckets need setting up", store.location().describe());
        return Ok(());
    };
    let S3 { bucket, endpoint, region, path_style, .. } = s3.clone();
    let found = store.aws_credentials().await?.context("no credentials for S3: set them in the environment")?;
    let (key_id, secret_key, session_token) = (found.key_id, found.secret_key, found.session_token);
    let admin = Admin::new(Target { bucket, endpoint, region, path_style, key_id, secret_key, session_token });
    let steps = admin.setup().await?;
    let words = |result: &StepResult| match result {
        StepResult::Done(text) => ("done", text.clone()),
        StepResult::Already(text) => ("already", text.clone()),
        StepResult::Warning(text) => ("warning", text.clone()),
    };
    let rows = steps.iter().map(|step| {
        let (result, detail) = words(&step.result);
        [step.name.to_owned(), result.to_owned(), detail]
    });
    print(json, rows.collect());
    Ok(())
}

async fn check(url: &str, json: bool) -> Result<()> {
    let store = open(url)?;
    if let Err(error) = store.probe().await
        && !matches!(error.kind, Kind::Denied)
    {
        // Nothing else would work either, and this says why.
        return Err(error.into());
    }
    let checks = store.check().await;
    let failed = checks.iter().filter(|check| check.result.is_err()).count();
    let rows = checks.iter().map(|check| match &check.result {
        Ok(()) => [check.name.to_owned(), "ok".to_owned(), String::new()],
        Err(error) => [check.name.to_owned(), "failed".to_owned(), error.to_string()],
    });
    print(json, rows.collect());
    if failed > 0 {
        bail!("{failed} of {} checks failed for {}", checks.len(), store.location().describe());
    }
    Ok(())
}

async fn sweep(dry_run: bool, to: &Connect, json: bool) -> Result<()> {
    let admin = connect::connect(to).await?.admin();
    let (mut after, mut listed, mut leaked, mut bytes) = (String::new(), 0, 0, 0);
    loop {
        let page = admin.sweep_bucket(&after, dry_run).await?;
        listed += page.listed;
        leaked += page.leaked;
        bytes += page.leaked_bytes;
        if !json {
            page.names.iter().for_each(|name| println!("{name}"));
        }
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    if json {
        println!("{}", json!({ "listed": listed, "leaked": leaked, "leaked_bytes": bytes, "dry_run": dry_run }));
        return Ok(());
    }
    let done = if dry_run { "would be deleted" } else { "deleted" };
    eprintln!("{leaked} of {listed} objects, {}, {done}", table::bytes(bytes));
    Ok(())
}

fn print(json: bool, rows: Vec<[String; 3]>) {
    if json {
        for [step, result, detail] in rows {
            println!("{}", json!({ "step": step, "result": result, "detail": detail }));
        }
        return;
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    table::print(&["STEP", "RESULT", "DETAIL"], &rows);
}
