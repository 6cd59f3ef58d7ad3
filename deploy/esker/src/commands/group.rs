//! `esker group`: consumer groups, how far they are, and setting them back.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use esker_client::{Admin, Start};
use esker_wire::native::{CommittedOffset, DescribedGroup, GroupInfo, GroupMember, ListedOffsets};
use serde_json::{Value, json};

use super::{connect, parse, table};
use crate::args::Group;

pub async fn run(command: Group) -> Result<()> {
    match command {
        Group::List { connect, output } => {
            list(&connect::connect(&connect).await?.admin().list_groups().await?, output.json);
            Ok(())
        }
        Group::Describe { group, connect, output } => {
            let admin = connect::connect(&connect).await?.admin();
            let described = admin.describe_group(&group).await?;
            let places = places(&admin, &described).await?;
            describe(&described, &places, output.json);
            Ok(())
        }
        Group::ResetOffsets { group, to, topics, dry_run, connect, output } => {
            let admin = connect::connect(&connect).await?.admin();
            let moves = moves(&admin, &group, to, &topics).await?;
            if !dry_run {
                let offsets = moves.iter().map(|m| CommittedOffset {
                    topic: m.topic.clone(),
                    partition: m.partition,
                    offset: m.to,
                    leader_epoch: -1,
                    metadata: String::new(),
                });
                admin.reset_offsets(&group, offsets.collect()).await?;
            }
            show_moves(&moves, output.json);
            let done = if dry_run { "would be set" } else { "set" };
            eprintln!("{} offsets of group {group} {done}", moves.len());
            Ok(())
        }
    }
}

fn list(groups: &[GroupInfo], json: bool) {
    if json {
        groups.iter().for_each(|group| println!("{}", head(group)));
        return;
    }
    let row = |group: &GroupInfo| vec![group.name.clone(), group.state.clone(), group.kind.clone()];
    table::print(&["GROUP", "STATE", "PROTOCOL"], &groups.iter().map(row).collect::<Vec<_>>());
}

fn head(group: &GroupInfo) -> Value {
    json!({ "group": group.name, "state": group.state, "protocol": group.kind, "type": group.protocol_type })
}

/// One partition that the group has to do with.
struct Place<'a> {
    topic: &'a str,
    partition: i32,
    committed: Option<&'a CommittedOffset>,
    /// Where the log begins and ends. None: the topic or partition is no more.
    log: Option<ListedOffsets>,
    member: Option<&'a GroupMember>,
}

impl Place<'_> {
    /// Records behind the committed offset, those that retention has deleted not counted. None: nothing is committed.
    fn lag(&self) -> Option<i64> {
        let (committed, log) = (self.committed?, self.log.as_ref()?);
        Some((log.high_watermark - committed.offset.max(log.log_start)).max(0))
    }
}

/// Partitions with offsets and those that members hold, in order.
async fn places<'a>(admin: &Admin, group: &'a DescribedGroup) -> Result<Vec<Place<'a>>> {
    let mut found: BTreeMap<(&str, i32), Place<'a>> = BTreeMap::new();
    let empty = |topic, partition| Place { topic, partition, committed: None, log: None, member: None };
    for at in &group.offsets {
        let key = (at.topic.as_str(), at.partition);
        found.entry(key).or_insert(empty(key.0, key.1)).committed = Some(at);
    }
    for member in &group.members {
        for held in &member.assigned {
            for partition in &held.partitions {
                let key = (held.topic.as_str(), *partition);
                found.entry(key).or_insert(empty(key.0, key.1)).member = Some(member);
            }
        }
    }
    let mut places: Vec<Place<'a>> = found.into_values().collect();
    for place in &mut places {
        place.log = ends(admin, place.topic, place.partition).await?;
    }
    Ok(places)
}

/// Where a partition begins and ends; None if it is no more.
async fn ends(admin: &Admin, topic: &str, partition: i32) -> Result<Option<ListedOffsets>> {
    use esker_client::ErrorCode::{UnknownPartition, UnknownTopic};
    let Ok(index) = u32::try_from(partition) else { return Ok(None) };
    match admin.list_offsets(topic, index, Start::Latest).await {
        Ok(listed) => Ok(Some(listed)),
        Err(error) if matches!(error.code(), Some(UnknownTopic | UnknownPartition)) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{topic}/{partition}")),
    }
}

fn describe(described: &DescribedGroup, places: &[Place<'_>], json: bool) {
    let group = described.group.clone().unwrap_or_default();
    if json {
        let member = |m: &GroupMember| {
            json!({ "member": m.id, "instance": m.instance, "client": m.client_id, "host": m.host,
                "partitions": m.assigned_count })
        };
        let place = |p: &Place<'_>| {
            json!({ "topic": p.topic, "partition": p.partition, "offset": p.committed.map(|at| at.offset),
                "log_start": p.log.as_ref().map(|log| log.log_start),
                "high_watermark": p.log.as_ref().map(|log| log.high_watermark), "lag": p.lag(),
                "metadata": p.committed.map(|at| at.metadata.as_str()), "member": p.member.map(|m| m.id.as_str()) })
        };
        let mut document = head(&group);
        document["assignor"] = described.assignor.as_str().into();
        document["lag"] = places.iter().filter_map(Place::lag).sum::<i64>().into();
        document["members"] = described.members.iter().map(member).collect();
        document["partitions"] = places.iter().map(place).collect();
        println!("{document}");
        return;
    }
    let assignor = if described.assignor.is_empty() { "-" } else { &described.assignor };
    let members = described.members.len();
    println!("{}: {}, {} protocol, assignor {assignor}, {members} members", group.name, group.state, group.kind);
    let text = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = |p: &Place<'_>| {
        vec![
            p.topic.to_owned(),
            p.partition.to_string(),
            text(p.committed.map(|at| at.offset)),
            text(p.log.as_ref().map(|log| log.high_watermark)),
            text(p.lag()),
            p.member.map_or("-", |m| m.instance.as_deref().unwrap_or(&m.client_id)).to_owned(),
            p.member.map_or("-", |m| &m.host).to_owned(),
        ]
    };
    let rows: Vec<_> = places.iter().map(row).collect();
    table::print(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER", "HOST"], &rows);
}

/// An offset that changes.
struct Move {
    topic: String,
    partition: i32,
    /// None: nothing was committed.
    from: Option<i64>,
    to: i64,
}

/// What a reset would do. Without topics, to all partitions that the group has offsets of.
async fn moves(admin: &Admin, group: &str, to: parse::From, topics: &[String]) -> Result<Vec<Move>> {
    let described = match admin.describe_group(group).await {
        Ok(described) => described,
        // With topics named, a group may be born of this.
        Err(error) if error.code() == Some(esker_client::ErrorCode::UnknownGroup) && !topics.is_empty() => {
            DescribedGroup::default()
        }
        Err(error) => return Err(error.into()),
    };
    if !described.members.is_empty() {
        bail!(
            "group {group} has {} members: stop them, or wait for their sessions to end, and try again",
            described.members.len()
        );
    }
    let mut wanted: Vec<(String, i32)> = Vec::new();
    for name in topics {
        match parse::partition(name) {
            Ok((topic, index)) => wanted.push((topic, i32::try_from(index).context("no such partition")?)),
            Err(_) => {
                let count = admin.describe_topic(name).await?.partition_count;
                wanted.extend((0..count).map(|index| (name.clone(), index.cast_signed())));
            }
        }
    }
    if topics.is_empty() {
        wanted.extend(described.offsets.iter().map(|at| (at.topic.clone(), at.partition)));
    }
    wanted.sort();
    wanted.dedup();
    if wanted.is_empty() {
        bail!("group {group} has no offsets yet: say with --topic which partitions are meant");
    }
    let mut moves = Vec::with_capacity(wanted.len());
    for (topic, partition) in wanted {
        let committed = described.offsets.iter().find(|at| at.topic == topic && at.partition == partition);
        let Some(to) = target(admin, &topic, partition, to).await? else {
            // Offsets of a topic that was deleted: there is nothing to go back to.
            if topics.is_empty() {
                eprintln!("{topic}/{partition} is no more: left out");
                continue;
            }
            bail!("there is no partition {topic}/{partition}");
        };
        moves.push(Move { topic, partition, from: committed.map(|at| at.offset), to });
    }
    if moves.is_empty() {
        bail!("none of the partitions of group {group} exists any more");
    }
    Ok(moves)
}

/// The offset that a starting point means in a partition, held within the log; None if there is no such partition.
async fn target(admin: &Admin, topic: &str, partition: i32, to: parse::From) -> Result<Option<i64>> {
    let Some(ends) = ends(admin, topic, partition).await? else { return Ok(None) };
    Ok(Some(match to {
        parse::From::Earliest => ends.log_start,
        parse::From::Latest => ends.high_watermark,
        parse::From::Offset(offset) => {
            let held = offset.clamp(ends.log_start, ends.high_watermark);
            if held != offset {
                eprintln!("{topic}/{partition}: offset {offset} is not in the log, {held} is the nearest");
            }
            held
        }
        parse::From::Time(ms) => {
            let at = admin.list_offsets(topic, partition.cast_unsigned(), Start::TimeMs(ms)).await;
            at.with_context(|| format!("{topic}/{partition}"))?.offset
        }
    }))
}

fn show_moves(moves: &[Move], json: bool) {
    if json {
        for m in moves {
            println!("{}", json!({ "topic": m.topic, "partition": m.partition, "from": m.from, "to": m.to }));
        }
        return;
    }
    let row = |m: &Move| {
        let from = m.from.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        vec![m.topic.clone(), m.partition.to_string(), from, m.to.to_string()]
    };
    table::print(&["TOPIC", "PARTITION", "FROM", "TO"], &moves.iter().map(row).collect::<Vec<_>>());
}
