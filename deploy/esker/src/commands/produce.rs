//! `esker produce`: one record per line.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use esker_client::{Compression, Delivery, Producer, ProducerConfig, Record};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{connect, lines};
use crate::args::{Acks, Codec, Produce};

/// Records whose outcome is not looked at yet. The producer's own buffer bounds their bytes.
const OUTSTANDING_MAX: usize = 100_000;

/// What was acknowledged, in the order of the input, up to the first record that was not.
#[derive(Default, Serialize)]
struct Report {
    topic: String,
    records: u64,
    bytes: u64,
    partitions: BTreeMap<u32, Span>,
    error: Option<String>,
}

/// Inclusive.
#[derive(Serialize)]
struct Span {
    first_offset: i64,
    last_offset: i64,
    records: u64,
}

pub async fn run(args: Produce) -> Result<()> {
    let (input, size) = open(&args.file)?;
    let client = connect::connect(&args.connect).await?;
    // Also an empty input tells whether the topic is there.
    let topic = client.admin().describe_topic(&args.topic).await?;
    if let Some(partition) = args.partition.filter(|partition| *partition >= topic.partition_count) {
        bail!("{} has no partition {partition}: it has {}", args.topic, topic.partition_count);
    }
    let producer = client.producer(config(&args))?;
    let mut report = Report { topic: args.topic.clone(), ..Report::default() };
    let sent = send_all(&args, &producer, input, size, &mut report).await;
    producer.close().await;
    report.error = sent.as_ref().err().map(|error| format!("{error:#}"));
    print(&report, args.output.json)?;
    sent
}

fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    let size = file.metadata().ok().map(|meta| meta.len());
    Ok((Box::new(file), size))
}

fn config(args: &Produce) -> ProducerConfig {
    let compression = match args.compression {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    };
    let acks = args.acks == Acks::All;
    ProducerConfig {
        compression,
        acks,
        idempotent: acks,
        delivery_timeout: args.delivery_timeout.0,
        ..ProducerConfig::default()
    }
}

async fn send_all(
    args: &Produce,
    producer: &Producer,
    input: Box<dyn Read + Send>,
    size: Option<u64>,
    report: &mut Report,
) -> Result<()> {
    let bar = progress(size);
    let mut pace = args.rate.map(Pace::new).transpose()?;
    let mut groups = lines::read(input);
    let mut outstanding: VecDeque<(Delivery, u64)> = VecDeque::new();
    while let Some(group) = groups.recv().await {
        for line in group? {
            if let Some(pace) = &mut pace {
                pace.next().await;
            }
            let bytes = line.len() as u64;
            let record = record(line, args.key_delimiter.as_deref());
            match producer.send(&args.topic, args.partition, record).await {
                Ok(delivery) => outstanding.push_back((delivery, bytes)),
                Err(error) => {
                    // What went before may still be acknowledged: the report tells the whole prefix.
                    settle(&mut outstanding, report, &bar, 0).await?;
                    return Err(anyhow!(error)).context(failed_at(report));
                }
            }
            settle(&mut outstanding, report, &bar, OUTSTANDING_MAX).await?;
        }
    }
    settle(&mut outstanding, report, &bar, 0).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Takes outcomes in order until at most `leave` are open; looks at those that are there without waiting.
async fn settle(
    open: &mut VecDeque<(Delivery, u64)>,
    report: &mut Report,
    bar: &ProgressBar,
    leave: usize,
) -> Result<()> {
    while let Some((delivery, bytes)) = open.pop_front() {
        if open.len() < leave && delivery.peek().is_none() {
            open.push_front((delivery, bytes));
            break;
        }
        let delivered = match delivery.await {
            Ok(delivered) => delivered,
            Err(error) => return Err(anyhow!(error)).context(failed_at(report)),
        };
        report.records += 1;
        report.bytes += bytes;
        bar.inc(bytes + 1);
        let span = report.partitions.entry(delivered.partition);
        let span = span.or_insert(Span { first_offset: delivered.offset, last_offset: 0, records: 0 });
        span.last_offset = delivered.offset;
        span.records += 1;
    }
    Ok(())
}

fn failed_at(report: &Report) -> String {
    format!("record {} of the input was not acknowledged; the {0} before it were", report.records)
}

fn record(line: Bytes, delimiter: Option<&str>) -> Record {
    let Some(delimiter) = delimiter.filter(|d| !d.is_empty()) else { return Record::value(line) };
    match line.windows(delimiter.len()).position(|window| window == delimiter.as_bytes()) {
        Some(at) => Record::key_value(line.slice(..at), line.slice(at + delimiter.len()..)),
        None => Record::value(line),
    }
}

/// Spreads records evenly over time.
struct Pace {
    start: Instant,
    rate: u64,
    sent: u64,
}

impl Pace {
    fn new(rate: u64) -> Result<Self> {
        if rate == 0 {
            bail!("--rate 0 would never send; leave it out for no limit");
        }
        Ok(Self { start: Instant::now(), rate, sent: 0 })
    }

    async fn next(&mut self) {
        sleep_until(self.start + Duration::from_secs_f64(self.sent as f64 / self.rate as f64)).await;
        self.sent += 1;
    }
}

fn progress(size: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {bytes} {binary_bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else if report.error.is_none() {
        eprintln!("{} records, {} bytes", report.records, report.bytes);
        for (partition, span) in &report.partitions {
            eprintln!(
                "  partition {partition}: {} records, offsets {} to {}",
                span.records, span.first_offset, span.last_offset
            );
        }
    }
    Ok(())
}
