//! `esker segment list`: where each byte of a topic is.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use esker_wire::native::{SegmentInfo, SegmentState};
use serde_json::json;

use super::{connect, table};
use crate::args::Segment;

pub async fn run(command: Segment) -> Result<()> {
    let Segment::List { topic, partition, connect, output } = command;
    let segments = connect::connect(&connect).await?.admin().list_segments(&topic, partition).await?;
    if output.json {
        segments.iter().for_each(|segment| println!("{}", document(segment)));
        return Ok(());
    }
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    let rows: Vec<_> = segments.iter().map(|segment| row(segment, now)).collect();
    table::print(&["PARTITION", "SEGMENT", "STATE", "OFFSETS", "BYTES", "TIER", "MEMBERS", "AGE"], &rows);
    Ok(())
}

fn state(segment: &SegmentInfo) -> &'static str {
    match segment.state() {
        SegmentState::Open => "open",
        SegmentState::Closed => "closed",
        SegmentState::Lost => "lost",
    }
}

fn tier(segment: &SegmentInfo) -> &'static str {
    match (segment.bookies.is_empty(), segment.in_objects) {
        (false, false) => "bookies",
        (false, true) => "bookies, object",
        (true, true) => "object",
        (true, false) => "-",
    }
}

fn document(segment: &SegmentInfo) -> serde_json::Value {
    json!({
        "partition": segment.partition, "segment": segment.n, "state": state(segment), "epoch": segment.epoch,
        "base_offset": segment.base_offset, "end_offset": (segment.end_offset >= 0).then_some(segment.end_offset),
        "bytes": segment.bytes, "tier": tier(segment), "members": segment.bookies,
        "object": (!segment.object.is_empty()).then_some(&segment.object),
        "write_quorum": segment.write_quorum, "ack_quorum": segment.ack_quorum,
        "opened_ms": segment.opened_ms, "closed_ms": (segment.closed_ms > 0).then_some(segment.closed_ms),
    })
}

fn row(segment: &SegmentInfo, now_ms: i64) -> Vec<String> {
    let end = if segment.end_offset >= 0 { (segment.end_offset - 1).to_string() } else { String::new() };
    let age = match segment.opened_ms {
        0 => "-".to_owned(),
        opened => format!("{} s", (now_ms - opened).max(0) / 1000),
    };
    vec![
        segment.partition.to_string(),
        segment.n.to_string(),
        state(segment).to_owned(),
        format!("{}..{end}", segment.base_offset),
        table::bytes(segment.bytes),
        tier(segment).to_owned(),
        segment.bookies.join(" "),
        age,
    ]
}
