//! `esker partition`: who owns what, and moving it.

use anyhow::Result;
use serde_json::json;

use super::{connect, parse, table};
use crate::args::Partition;

pub async fn run(command: Partition) -> Result<()> {
    match command {
        Partition::List { topic, connect, output } => {
            let client = connect::connect(&connect).await?;
            let names: Vec<&str> = topic.iter().map(String::as_str).collect();
            let metadata = client.admin().metadata(&names, false).await?;
            if let Some(name) = names.first() {
                // The one question that says what is wrong with a name.
                client.admin().describe_topic(name).await?;
            }
            let owner = |id: u64| metadata.gateways.iter().find(|g| g.id == id).map(|g| g.name.clone());
            let mut rows = Vec::new();
            for topic in &metadata.topics {
                for p in &topic.partitions {
                    if output.json {
                        println!(
                            "{}",
                            json!({ "topic": topic.name, "partition": p.index, "owner": owner(p.owner), "epoch": p.epoch,
                                "log_start": p.log_start, "segments": p.segments })
                        );
                    }
                    let owner = owner(p.owner).unwrap_or_else(|| "nobody".to_owned());
                    rows.push(vec![topic.name.clone(), p.index.to_string(), owner, p.epoch.to_string()]);
                }
            }
            if !output.json {
                table::print(&["TOPIC", "PARTITION", "OWNER", "EPOCH"], &rows);
            }
        }
        Partition::Move { partition, to, connect, output } => {
            let (topic, index) = parse::partition(&partition)?;
            let moved = connect::connect(&connect).await?.admin().move_partition(&topic, index, &to).await?;
            let pause_ms = moved.pause_us as f64 / 1e3;
            if output.json {
                println!(
                    "{}",
                    json!({ "topic": topic, "partition": index, "from": moved.from, "to": moved.to,
                    "epoch": moved.epoch, "pause_ms": pause_ms })
                );
            } else {
                eprintln!(
                    "moved {topic}/{index} from {} to {}; it took no appends for {pause_ms:.1} ms",
                    moved.from, moved.to
                );
            }
        }
    }
    Ok(())
}
