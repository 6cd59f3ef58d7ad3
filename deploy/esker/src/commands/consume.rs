//! `esker consume`: records to stdout. With several partitions, each is in order and they are interleaved.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};
use esker_client::{Client, Fetched, ReadError, Reader, ReaderConfig, Start};
use esker_wire::batch::Record;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{connect, parse};
use crate::args::{Consume, Format};

/// Batches read ahead of the output, all partitions together.
const AHEAD: usize = 8;

pub async fn run(args: Consume) -> Result<()> {
    let start = match args.from {
        parse::From::Earliest => Start::Earliest,
        parse::From::Latest => Start::Latest,
        parse::From::Offset(offset) => Start::Offset(offset),
        parse::From::Time(ms) => Start::TimeMs(ms),
    };
    let client = connect::connect(&args.connect).await?;
    let topic = client.admin().describe_topic(&args.topic).await?;
    let partitions = match args.partition {
        Some(partition) if partition >= topic.partition_count => {
            bail!("{} has no partition {partition}: it has {}", args.topic, topic.partition_count)
        }
        Some(partition) => vec![partition],
        None => (0..topic.partition_count).collect(),
    };
    let (to, from) = mpsc::channel(AHEAD);
    let bar = progress(args.to_end);
    let mut readers = JoinSet::new();
    for partition in partitions {
        let reader = open(&client, &args, partition, start).await?;
        if let (true, Some(next)) = (args.to_end, reader.next_offset()) {
            bar.inc_length((reader.high_watermark() - next).max(0).cast_unsigned());
        }
        readers.spawn(pump(reader, partition, to.clone()));
    }
    drop(to);
    let written = write_all(&args, from, &bar).await;
    bar.finish_and_clear();
    written
}

/// Opens a partition and learns where it ends, so that all partitions end at one moment.
async fn open(client: &Client, args: &Consume, partition: u32, start: Start) -> Result<Reader> {
    let config = ReaderConfig { skip_lost: args.skip_lost, ..ReaderConfig::new(start) };
    let mut reader = client.reader_with(&args.topic, partition, config);
    reader.open().await.with_context(|| format!("{}/{partition}", args.topic))?;
    if args.to_end {
        reader.set_end(Some(reader.high_watermark()));
    }
    Ok(reader)
}

type Item = (u32, Result<Fetched, ReadError>);

async fn pump(mut reader: Reader, partition: u32, to: mpsc::Sender<Item>) {
    while let Some(fetched) = reader.next().await {
        let failed = fetched.as_ref().is_err_and(|error| !error.retryable());
        for range in reader.take_lost() {
            eprintln!("partition {partition}: records {} to {} (exclusive) are lost for good", range.from, range.to);
        }
        if let Err(error) = &fetched
            && error.retryable()
        {
            eprintln!("partition {partition}: {error}; trying again");
            continue;
        }
        if to.send((partition, fetched)).await.is_err() || failed {
            return;
        }
    }
}

async fn write_all(args: &Consume, mut from: mpsc::Receiver<Item>, bar: &ProgressBar) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let mut left = args.max.unwrap_or(u64::MAX);
    'reading: while left > 0 {
        // A live tail must not sit in our buffer while nothing comes.
        let (partition, fetched) = match from.try_recv() {
            Ok(item) => item,
            Err(_) => {
                flush(&mut out)?;
                match from.recv().await {
                    Some(item) => item,
                    None => break,
                }
            }
        };
        let fetched = fetched.with_context(|| format!("{}/{partition}", args.topic))?;
        bar.inc(fetched.count());
        for record in fetched.records()? {
            if !write(&mut out, args, partition, &record?)? {
                break 'reading;
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    flush(&mut out)
}

/// False: whoever read our output has gone, which is no failure of ours (`esker consume t | head`).
fn write(out: &mut impl Write, args: &Consume, partition: u32, record: &Record) -> Result<bool> {
    let value = record.value.as_deref().unwrap_or_default();
    let written = match args.format {
        Format::Raw => out.write_all(value),
        Format::Value => out.write_all(value).and_then(|()| out.write_all(b"\n")),
        Format::Kv => {
            let key = record.key.as_deref().unwrap_or_default();
            [key, b"\t", value, b"\n"].iter().try_for_each(|part| out.write_all(part))
        }
        Format::Json => {
            let text = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
            let headers: Vec<_> =
                record.headers.iter().map(|h| json!([String::from_utf8_lossy(&h.key), text(&h.value)])).collect();
            let document = json!({ "partition": partition, "offset": record.offset, "timestamp": record.timestamp_ms,
                "key": text(&record.key), "value": text(&record.value), "headers": headers });
            writeln!(out, "{document}")
        }
    };
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("can't write to stdout"),
    }
}

fn flush(out: &mut impl Write) -> Result<()> {
    match out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("can't write to stdout"),
        _ => Ok(()),
    }
}

/// A bar only where it does not disturb: stderr is a terminal, stdout is not, and the end is known.
fn progress(to_end: bool) -> ProgressBar {
    if !to_end || !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {human_pos}/{human_len} records  {per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}
