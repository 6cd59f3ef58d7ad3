//! `esker topic`.

use anyhow::{Result, bail};
use esker_wire::native::TopicInfo;
use serde_json::json;

use super::{connect, parse, table};
use crate::args::Topic;

pub async fn run(command: Topic) -> Result<()> {
    match command {
        Topic::Create { name, partitions, settings, connect } => {
            let pairs = parse::settings(&settings)?;
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let created = connect::connect(&connect).await?.admin().create_topic(&name, partitions, &pairs).await?;
            eprintln!("created {name} with {} partitions", created.partitions);
        }
        Topic::List { connect, output } => {
            list(&connect::connect(&connect).await?.admin().list_topics(false).await?, output.json)
        }
        Topic::Describe { name, connect, output } => {
            let client = connect::connect(&connect).await?;
            let metadata = client.admin().metadata(&[], false).await?;
            let topic = client.admin().describe_topic(&name).await?;
            let owner = |id: u64| metadata.gateways.iter().find(|g| g.id == id).map_or("nobody", |g| g.name.as_str());
            describe(&topic, owner, output.json);
        }
        Topic::Alter { name, partitions, settings, connect } => {
            if partitions.is_none() && settings.is_empty() {
                bail!("nothing to change: give --partitions or --config");
            }
            let pairs = parse::settings(&settings)?;
            // Kafka's tools know no other way to say "back to the default".
            let (reset, set): (Vec<_>, Vec<_>) = pairs.iter().partition(|(_, value)| value.is_empty());
            let set: Vec<(&str, &str)> = set.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let reset: Vec<&str> = reset.iter().map(|(k, _)| k.as_str()).collect();
            connect::connect(&connect).await?.admin().alter_topic(&name, partitions.unwrap_or(0), &set, &reset).await?;
            eprintln!("changed {name}");
        }
        Topic::Delete { name, connect } => {
            connect::connect(&connect).await?.admin().delete_topic(&name).await?;
            eprintln!("deleted {name}");
        }
        Topic::DeleteRecords { name, partition, before, connect } => {
            let admin = connect::connect(&connect).await?.admin();
            let start = admin.delete_records(&name, partition, Some(before)).await?;
            eprintln!("{name}/{partition} starts at offset {start} now");
        }
    }
    Ok(())
}

fn list(topics: &[TopicInfo], json: bool) {
    if json {
        for topic in topics {
            println!("{}", json!({ "name": topic.name, "id": id(topic), "partitions": topic.partition_count }));
        }
        return;
    }
    let rows: Vec<_> = topics.iter().map(|t| vec![t.name.clone(), t.partition_count.to_string()]).collect();
    table::print(&["TOPIC", "PARTITIONS"], &rows);
}

fn describe<'a>(topic: &TopicInfo, owner: impl Fn(u64) -> &'a str, json: bool) {
    let settings: serde_json::Map<String, serde_json::Value> =
        topic.settings.iter().map(|pair| (pair.key.clone(), pair.value.clone().into())).collect();
    if json {
        let partition = |p: &esker_wire::native::PartitionInfo| {
            json!({ "partition": p.index, "owner": owner(p.owner), "epoch": p.epoch, "log_start": p.log_start,
                "segments": p.segments })
        };
        let partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
        println!("{}", json!({ "name": topic.name, "id": id(topic), "settings": settings, "partitions": partitions }));
        return;
    }
    println!("{} ({})", topic.name, id(topic));
    for pair in &topic.settings {
        println!("  {} = {}", pair.key, pair.value);
    }
    let row = |p: &esker_wire::native::PartitionInfo| {
        [
            p.index.to_string(),
            owner(p.owner).to_owned(),
            p.epoch.to_string(),
            p.log_start.to_string(),
            p.segments.to_string(),
        ]
        .to_vec()
    };
    let rows: Vec<_> = topic.partitions.iter().map(row).collect();
    table::print(&["PARTITION", "OWNER", "EPOCH", "LOG START", "SEGMENTS"], &rows);
}

fn id(topic: &TopicInfo) -> String {
    esker_types::TopicId::from_slice(&topic.id).map(|id| id.to_string()).unwrap_or_default()
}
