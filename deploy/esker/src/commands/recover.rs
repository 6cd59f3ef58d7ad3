//! `esker recover`: a lost cluster's metadata, made anew from its bucket.

mod target;

use anyhow::{Context, Result, anyhow, bail};
use esker_cache::recover::{Base, Options, Outcome, Plan};
use esker_cache::store::StoreMetrics;
use esker_cache::{Class, Kind, Store, StoreConfig, config};
use esker_cache_core::backup::BackupName;
use esker_cache_core::claim::Claim;
use esker_metadata_core::LostRange;
use esker_types::{Interval, Quorum};
use serde_json::json;

use super::table::{self, moment};
use crate::args::Recover;
use crate::roles;
use target::Target;

const INCARNATION_MAX: u8 = u8::MAX;

pub async fn run(args: Recover) -> Result<()> {
    let config = StoreConfig { deadline: Interval::secs(30), ..config::Config::default().store };
    let store = Store::open(&args.from, config, StoreMetrics::default())?;
    store.probe().await?;
    let target = Target::of(&args)?;
    let backup = args.backup.as_deref().map(str::parse::<BackupName>).transpose()?;
    let incarnation = next_incarnation(&store).await?;
    eprintln!("reading {}", store.location().describe());
    let mut options = Options { backup, incarnation, quorum: args.quorum_of_topics };
    if args.dry_run {
        return print(&store.plan_recovery(&options).await?, args.output.json);
    }
    let base = store.recovery_base(options.backup).await?;
    consent(&args, &base, &store.lives_between(base.cluster.incarnation, incarnation).await?)?;
    let ready = target.ready().await?;
    // Only what is looked at behind the claim can be built on: from here on what is left of the former cluster deletes
    // nothing. What it may still write stands below its own life's number, where nothing is ever written over.
    let mut claim = Claim { cluster: base.cluster.id, incarnation, by: roles::boot_id()? };
    while !is_first(&store, &claim).await? {
        claim.incarnation = above(claim.incarnation)?;
    }
    options.incarnation = claim.incarnation;
    let plan = store.plan_recovery(&options).await?;
    ready.put(&plan.state).await?;
    print(&plan, args.output.json)?;
    eprintln!("{}", ready.next_step(&args.from));
    Ok(())
}

/// What can't be had back is given up by name only.
fn consent(args: &Recover, base: &Base, lives_without_backup: &[u8]) -> Result<()> {
    if let (Some(life), None) = (lives_without_backup.last(), &args.backup) {
        bail!(
            "life {life} of this cluster left objects, and no copy of its metadata that can be read: its records come \
             back as far as they are in objects, what it did to topics and settings does not; if that will do, name the \
             copy to begin with: --backup {}",
            base.backup
        );
    }
    let bookies = base.bookies();
    if !bookies.is_empty() && !args.give_up_bookies {
        bail!(
            "what storage nodes ({}) hold and no object does will not come back, even if their disks are there: see \
             --dry-run for what is in the bucket, stop all that is left of the cluster, and say --give-up-bookies",
            bookies.join(", ")
        );
    }
    Ok(())
}

fn above(incarnation: u8) -> Result<u8> {
    if incarnation == INCARNATION_MAX {
        bail!("this bucket was recovered {INCARNATION_MAX} times: no number is left for one more life");
    }
    Ok(incarnation + 1)
}

async fn next_incarnation(store: &Store) -> Result<u8> {
    let claimed = store.newest_claim().await?.map(|claim| claim.incarnation);
    let backed_up = store.backups().await?.first().map(|name| name.incarnation);
    above(claimed.max(backed_up).unwrap_or(0))
}

/// False: somebody else was first with this incarnation.
async fn is_first(store: &Store, claim: &Claim) -> Result<bool> {
    match store.create(&claim.key(), claim.to_string().into(), Class::Foreground).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Exists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn print(plan: &Plan, json: bool) -> Result<()> {
    let cluster = plan.state.cluster().context("the backup holds no cluster")?;
    let taken = moment(plan.taken.0);
    if json {
        let range = |range: &LostRange| json!([range.from, range.to]);
        let ranges = |ranges: &[LostRange]| ranges.iter().map(range).collect::<Vec<_>>();
        let partitions: Vec<_> = plan
            .partitions
            .iter()
            .map(|Outcome { topic, index, partition, report }| {
                json!({ "topic": topic.name, "partition": index, "id": partition.0, "log_start": report.log_start,
                    "in_bucket_to": report.in_bucket_to, "known_to": report.known_to, "open_from": report.open_from,
                    "missing": ranges(&report.missing), "retired": report.retired.as_ref().map(range),
                    "goes_on_at": report.goes_on_at,
                    "segments": report.segments, "newer_segments": report.newer })
            })
            .collect();
        let strange: Vec<_> = plan.strange.iter().map(|(id, n)| json!({ "id": id.0, "objects": n })).collect();
        println!(
            "{}",
            json!({ "cluster_id": cluster.id.to_string(), "incarnation": plan.incarnation,
            "backup": plan.backup.to_string(), "taken_ms": plan.taken.0, "partitions": partitions,
            "unknown_partitions": strange, "given_up": plan.bookies,
            "lives_without_backup": plan.lives_without_backup, "notes": plan.notes })
        );
        return Ok(());
    }
    println!("cluster {}, life {}, from backup {} of {taken}", cluster.id, plan.incarnation, plan.backup);
    let rows: Vec<Vec<String>> = plan
        .partitions
        .iter()
        .map(|Outcome { topic, index, report, .. }| {
            let missing: Vec<String> = report.missing.iter().map(|r| format!("{}..{}", r.from, r.to)).collect();
            vec![
                format!("{}/{index}", topic.name),
                format!("{}..{}", report.log_start, report.in_bucket_to),
                if missing.is_empty() { "-".to_owned() } else { missing.join(" ") },
                report.open_from.map_or("-".to_owned(), |from| from.max(report.in_bucket_to).to_string()),
                report.goes_on_at.to_string(),
            ]
        })
        .collect();
    table::print(&["PARTITION", "IN BUCKET", "KNOWN AND NOT THERE", "UNKNOWN FROM", "GOES ON AT"], &rows);
    for (id, objects) in &plan.strange {
        println!(
            "partition {id}: {objects} objects of a topic that was made after the backup; they stay in the bucket"
        );
    }
    for Outcome { topic, index, report, .. } in &plan.partitions {
        if let Some(LostRange { from, to }) = report.retired {
            println!(
                "{}/{index}: {from}..{to} were there when the backup was taken, and are gone: taken for retention",
                topic.name
            );
        }
    }
    for life in &plan.lives_without_backup {
        println!("life {life} left objects and no backup: what it did to topics and settings does not come back");
    }
    plan.notes.iter().for_each(|note| println!("note: {note}"));
    if !plan.bookies.is_empty() {
        println!("given up: what storage nodes ({}) hold and no object does", plan.bookies.join(", "));
    }
    println!(
        "what was written after {taken} and is in no object is lost, behind UNKNOWN FROM if a segment was being written"
    );
    Ok(())
}

/// `W/A`: copies, and how many must be on disk before the ack.
pub fn quorum_of_topics(text: &str) -> Result<Quorum> {
    let wrong = || anyhow!("{text}: write copies and acks, for example 3/2 or 1/1");
    let (write, ack) = text.split_once('/').ok_or_else(wrong)?;
    let quorum = Quorum { write: write.parse().map_err(|_| wrong())?, ack: ack.parse().map_err(|_| wrong())? };
    if quorum.is_valid() { Ok(quorum) } else { Err(wrong()) }
}
