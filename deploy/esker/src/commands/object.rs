//! `esker object`: what one object of a bucket holds, read without a cluster.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use esker_cache::{Inspect, StoreConfig, config};
use esker_cache_core::object::{BlockInfo, Codec, Footer, OBJECT_VERSION, VerifyError};
use esker_types::{Entry, EntryKind, Interval, Offset};
use esker_wire::batch::{BatchError, DecodeLimits, Record, split};
use serde_json::{Value, json};

use super::table::moment;
use crate::args::Object;

pub async fn run(command: Object) -> Result<()> {
    match command {
        Object::Dump { object, records, output } => dump(&object, records, output.json).await,
        Object::Verify { object, output } => verify(&object, output.json).await,
    }
}

async fn open(what: &str) -> Result<Inspect> {
    // Somebody waits at a terminal.
    let config = StoreConfig { deadline: Interval::secs(20), ..config::Config::default().store };
    Ok(Inspect::open(what, config).await?)
}

/// What came by, entry for entry.
#[derive(Default)]
struct Totals {
    blocks: u64,
    entries: u64,
    batches: u64,
    records: u64,
    bytes: u64,
}

async fn verify(what: &str, json: bool) -> Result<()> {
    let object = open(what).await?;
    let mut totals = Totals::default();
    for at in 0..object.directory().parts.len() {
        let footer = object.footer(at).await?;
        totals.blocks += footer.blocks.len() as u64;
        object.entries(at, footer, &mut |entry| check(entry, &mut totals, &mut |_| Ok(()))).await?;
    }
    let Totals { blocks, entries, batches, records, bytes } = totals;
    let (key, segments) = (object.identity().key.to_string(), object.directory().parts.len());
    if json {
        println!(
            "{}",
            json!({ "key": key, "ok": true, "size": object.size(), "segments": segments, "blocks": blocks,
            "entries": entries, "batches": batches, "records": records, "bytes": bytes })
        );
    } else {
        println!(
            "{key} is whole: {segments} segments, {blocks} blocks, {entries} entries, {batches} batches, {records} \
             records, {bytes} bytes in {}",
            object.size()
        );
    }
    Ok(())
}

/// Batches of an entry against their own checksums, and against the entry. Each record is shown; an error ends it.
fn check(
    entry: &Entry,
    totals: &mut Totals,
    show: &mut dyn FnMut(&Record) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let header = &entry.header;
    let bad = |why: String| VerifyError::Content { segment: header.segment, entry: header.entry, why };
    totals.entries += 1;
    totals.bytes += entry.bytes.len() as u64;
    if header.kind != EntryKind::Data {
        return Ok(());
    }
    let mut next: Offset = header.base_offset;
    for batch in split(entry.payload(), true) {
        let batch = batch.map_err(|e| bad(e.to_string()))?;
        if batch.header().base_offset != next || batch.header().end_offset() > header.end_offset() {
            return Err(bad(format!("a batch stands at offset {}, not {next}", batch.header().base_offset)));
        }
        next = batch.header().end_offset();
        totals.batches += 1;
        let decoded = |error: BatchError| bad(error.to_string());
        for record in batch.records(DecodeLimits::default()).map_err(decoded)? {
            totals.records += 1;
            show(&record.map_err(decoded)?)?;
        }
    }
    match next == header.end_offset() {
        true => Ok(()),
        false => Err(bad(format!("its batches end at offset {next}, not {}", header.end_offset()))),
    }
}

async fn dump(what: &str, records: bool, json: bool) -> Result<()> {
    let object = open(what).await?;
    let mut out = Out { to: std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock()), json };
    let (identity, parts) = (object.identity(), &object.directory().parts);
    let key = &identity.key;
    let head = json!({
        "type": "object", "version": OBJECT_VERSION, "cluster_id": identity.cluster.to_string(), "key": key.to_string(),
        "incarnation": key.incarnation, "epoch": key.epoch.0, "attempt": key.attempt, "shared": key.shared,
        "size": object.size(), "segments": parts.len(),
    });
    if !out.line(&head, || {
        let (size, count) = (object.size(), parts.len());
        let shared = if key.shared { ", shared" } else { "" };
        format!(
            "object {key} of cluster {}: version {OBJECT_VERSION}, {size} bytes, {count} segments{shared}",
            identity.cluster
        )
    })? {
        return Ok(());
    }
    for at in 0..parts.len() {
        let footer = object.footer(at).await?;
        if !segment(&mut out, &footer)? {
            return Ok(());
        }
        if records && !contents(&mut out, &object, at, footer).await? {
            return Ok(());
        }
    }
    out.flush()
}

fn segment<W: Write>(out: &mut Out<W>, footer: &Footer) -> Result<bool> {
    let facts = &footer.facts;
    let id = facts.segment;
    let document = json!({
        "type": "segment", "partition": id.partition.0, "segment": id.n, "epoch": facts.seg_epoch.0,
        "write_quorum": facts.quorum.write, "ack_quorum": facts.quorum.ack, "base_offset": facts.base_offset,
        "end_offset": facts.end_offset, "first_timestamp": facts.first_ts, "max_timestamp": facts.max_ts,
        "opened_ms": facts.opened.0, "closed_ms": facts.closed.0, "last_entry": facts.last,
        "digest": format!("{:016x}", facts.digest), "bytes": facts.bytes, "blocks": footer.blocks.len(),
    });
    let text = || {
        format!(
            "segment {id}: epoch {}, quorum {}/{}, offsets {}..{}, times {} to {}, opened {}, closed {}, entries \
             0..={}, digest {:016x}, {} bytes, {} blocks",
            facts.seg_epoch,
            facts.quorum.write,
            facts.quorum.ack,
            facts.base_offset,
            facts.end_offset,
            moment(facts.first_ts),
            moment(facts.max_ts),
            moment(facts.opened.0),
            moment(facts.closed.0),
            facts.last,
            facts.digest,
            facts.bytes,
            footer.blocks.len()
        )
    };
    if !out.line(&document, text)? {
        return Ok(false);
    }
    for (number, info) in footer.blocks.iter().enumerate() {
        if !block(out, number, info)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn block<W: Write>(out: &mut Out<W>, number: usize, info: &BlockInfo) -> Result<bool> {
    let codec = match info.codec {
        Codec::Raw => "raw",
        Codec::Zstd => "zstd",
    };
    let document = json!({
        "type": "block", "block": number, "position": info.position, "stored": info.stored, "raw": info.raw,
        "codec": codec, "crc": format!("{:08x}", info.crc), "first_entry": info.first_entry,
        "base_offset": info.base_offset, "max_timestamp": info.max_ts,
    });
    out.line(&document, || {
        format!(
            "  block {number}: at {}, {} bytes ({codec} of {}), crc {:08x}, from entry {}, offset {}, newest {}",
            info.position,
            info.stored,
            info.raw,
            info.crc,
            info.first_entry,
            info.base_offset,
            moment(info.max_ts)
        )
    })
}

/// False: whoever read our output has gone.
async fn contents<W: Write>(out: &mut Out<W>, object: &Inspect, at: usize, footer: Footer) -> Result<bool> {
    let (mut totals, mut gone, mut failed) = (Totals::default(), false, None);
    let segment = footer.facts.segment;
    let stopped = || VerifyError::Content { segment, entry: 0, why: "the output ended".to_owned() };
    let mut show = |entry: &Entry| {
        let header = &entry.header;
        let kind = match header.kind {
            EntryKind::Data => None,
            EntryKind::Snapshot => Some("producer state"),
            EntryKind::Marker => Some("marker"),
        };
        let mut print = |document: &Value, text: &dyn Fn() -> String| match out.line(document, text) {
            Ok(true) => Ok(()),
            Ok(false) => {
                gone = true;
                Err(stopped())
            }
            Err(error) => {
                failed = Some(error);
                Err(stopped())
            }
        };
        if let Some(kind) = kind {
            let document = json!({ "type": "entry", "entry": header.entry, "kind": kind, "bytes": header.len });
            print(&document, &|| format!("  entry {}: {kind}, {} bytes", header.entry, header.len))?;
        }
        check(entry, &mut totals, &mut |record| {
            let text = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
            let (key, value) = (text(&record.key), text(&record.value));
            let headers: Vec<_> =
                record.headers.iter().map(|h| json!([String::from_utf8_lossy(&h.key), text(&h.value)])).collect();
            let document = json!({ "type": "record", "partition": segment.partition.0, "segment": segment.n,
                "entry": header.entry, "offset": record.offset, "timestamp": record.timestamp_ms,
                "key": key, "value": value, "headers": headers });
            print(&document, &|| {
                let shown = |text: &Option<String>| text.as_ref().map_or("-".to_owned(), |text| format!("{text:?}"));
                let at = moment(record.timestamp_ms);
                format!("  {} {at} key {} value {}", record.offset, shown(&key), shown(&value))
            })
        })
    };
    let read = object.entries(at, footer, &mut show).await;
    match (gone, failed) {
        (true, _) => Ok(false),
        (_, Some(error)) => Err(error),
        _ => Ok(read.map(|()| true)?),
    }
}

struct Out<W> {
    to: W,
    json: bool,
}

impl<W: Write> Out<W> {
    /// False: whoever read our output has gone, which is no failure of ours.
    fn line(&mut self, document: &Value, text: impl Fn() -> String) -> Result<bool> {
        let written = match self.json {
            true => writeln!(self.to, "{document}"),
            false => writeln!(self.to, "{}", text()),
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("can't write to stdout"),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.to.flush() {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("can't write to stdout"),
            _ => Ok(()),
        }
    }
}
