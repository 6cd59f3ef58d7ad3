//! A partition with a long history, made by the commands and pages by which an owner makes it: Open, Roll,
//! OffloadCommit, manifest pages, SetRoot, DropBookieCopies. The objects are real and tiny.
//!
//! The bars: rows of the metadata do not grow with the history; a lookup costs less than a millisecond when what it
//! touches is at hand, and at most four requests when nothing is but the root's place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use esker_cache::pools::PoolMetrics;
use esker_cache::store::StoreMetrics;
use esker_cache::testing::{MadeSegment, segment};
use esker_cache::{Class, Config, For, Pools, Reader, Store};
use esker_cache_core::manifest::{Edit, Grave, LeafEntry, Need, Page, PageNames, PageRef, edit};
use esker_cache_core::object::{Encoder, EncoderOptions, Identity};
use esker_metadata_client::MemoryStore;
use esker_metadata_core::*;
use esker_types::{
    BookieId, BootId, ClusterId, Epoch, InstanceId, Member, ObjectKey, PageKey, PartitionId, Quorum, SegmentId, TopicId,
};
use serde::Serialize;

const CLUSTER: ClusterId = ClusterId([0xb1; 16]);
const QUORUM: Quorum = Quorum { write: 1, ack: 1 };
const MEMBER: Member = Member { bookie: BookieId(1), instance: InstanceId([7; 16]) };
const EPOCH: Epoch = Epoch(1);
/// Records of one segment.
const RECORDS: i64 = 10;
/// Places that warm lookups come back to.
const PLACES: usize = 64;
/// Cold lookups of each kind: each opens caches of its own.
const COLD: usize = 20;
/// The bars.
const GROWTH_MAX: f64 = 1.1;
const WARM_P99_MAX: Duration = Duration::from_millis(1);
const REQUESTS_MAX: u64 = 4;

pub struct Plan {
    pub segments: u64,
    pub fold: u64,
    pub lookups: usize,
    pub folder: PathBuf,
}

/// What a history of this length costs.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    pub segments: u64,
    /// Rows of the metadata: what a metadata node holds, and a gateway's copy of it.
    pub metadata_bytes: u64,
    pub snapshot_bytes: usize,
    /// Decoded pages and footers in a gateway after the lookups, and the bound on them.
    pub index_bytes: usize,
    pub index_budget: u64,
    pub resident_bytes: u64,
    pub by_offset: Lookups,
    pub by_time: Lookups,
    pub seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Lookups {
    /// The same few places again and again.
    pub warm_p50_us: f64,
    pub warm_p99_us: f64,
    /// Any place, with caches as they are by default.
    pub spread_p99_us: f64,
    pub cold_p50_us: f64,
    pub cold_requests_max: u64,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segments, metadata_bytes, snapshot_bytes, index_bytes, index_budget, .. } = self;
        writeln!(
            f,
            "{segments:>9} segments in {:.1} s: metadata {metadata_bytes} bytes, snapshot {snapshot_bytes}, index {index_bytes} of \
             {index_budget}, resident {:.0} MB",
            self.seconds,
            self.resident_bytes as f64 / 1e6
        )?;
        let line = |l: &Lookups| {
            format!(
                "warm p50 {:.0} us, p99 {:.0} us; spread p99 {:.0} us; cold p50 {:.0} us, {} requests at most",
                l.warm_p50_us, l.warm_p99_us, l.spread_p99_us, l.cold_p50_us, l.cold_requests_max
            )
        };
        write!(f, "          by offset: {}\n          by time:   {}", line(&self.by_offset), line(&self.by_time))
    }
}

/// Makes the history, and measures at 1,000, 10,000, ... segments and at the end.
///
/// # Errors
/// When a step fails, or a bar is missed.
pub async fn run(plan: &Plan, mut show: impl FnMut(&Size)) -> Result<()> {
    std::fs::create_dir_all(&plan.folder).with_context(|| format!("can't create {}", plan.folder.display()))?;
    let folder = plan.folder.canonicalize()?;
    ensure!(std::fs::read_dir(&folder)?.next().is_none(), "{} is not empty", folder.display());
    let mut history = History::new(&format!("file://{}", folder.display())).await?;
    let began = Instant::now();
    let (mut at, mut sizes) = (1_000.min(plan.segments), Vec::new());
    loop {
        while history.closed < at {
            history.grow(plan.fold.min(at - history.closed)).await?;
        }
        let size = history.measure(plan.lookups, began.elapsed()).await?;
        show(&size);
        sizes.push(size);
        if at == plan.segments {
            return judge(&sizes);
        }
        at = (at * 10).min(plan.segments);
    }
}

fn judge(sizes: &[Size]) -> Result<()> {
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else { bail!("nothing was measured") };
    let growth = last.metadata_bytes as f64 / first.metadata_bytes as f64;
    ensure!(growth <= GROWTH_MAX, "metadata grew to {growth:.2} times what {} segments took", first.segments);
    for size in sizes {
        for lookups in [&size.by_offset, &size.by_time] {
            let (p99, requests) = (lookups.warm_p99_us, lookups.cold_requests_max);
            let bar = WARM_P99_MAX.as_micros() as f64;
            ensure!(p99 < bar, "at {} segments a warm lookup took {p99:.0} us at p99", size.segments);
            ensure!(requests <= REQUESTS_MAX, "at {} segments a cold lookup took {requests} requests", size.segments);
        }
    }
    Ok(())
}

struct History {
    url: String,
    store: Store,
    reader: Reader,
    metadata: MemoryStore,
    partition: PartitionId,
    root: Option<RootPlace>,
    names: PageNames,
    /// Of the version before the current one: nobody reads them any more.
    graves: Vec<Grave>,
    closed: u64,
}

impl History {
    async fn new(url: &str) -> Result<Self> {
        let metadata = MemoryStore::new();
        let partition = begin(&metadata)?;
        let (store, reader) = open(url).await?;
        let names = PageNames { cluster: CLUSTER, incarnation: 0, partition, epoch: EPOCH, next_seq: 1 };
        let (root, graves) = (None, Vec::new());
        Ok(Self { url: url.to_owned(), store, reader, metadata, partition, root, names, graves, closed: 0 })
    }

    /// `count` more segments, from open to folded.
    async fn grow(&mut self, count: u64) -> Result<()> {
        let ns = self.closed + 1..=self.closed + count;
        let made: Vec<MadeSegment> =
            ns.clone().map(|n| segment(self.partition.0, n, (n as i64 - 1) * RECORDS, 1, 40, true)).collect();
        let mut commands = Vec::new();
        if self.closed == 0 {
            let next = next(1);
            commands.push(Open { partition: self.partition, epoch: EPOCH, prev: None, next }.into());
            apply(&self.metadata, std::mem::take(&mut commands))?;
        }
        commands.extend(made.iter().map(|made| self.roll(made).into()));
        apply(&self.metadata, commands)?;
        let entries = self.write(&made).await?;
        let commit = |entry: &LeafEntry| {
            let LeafEntry { n, digest, end_offset, place, .. } = entry.clone();
            OffloadCommit { partition: self.partition, epoch: EPOCH, n, digest, end_offset, place }.into()
        };
        apply(&self.metadata, entries.iter().map(commit).collect())?;
        let last = self.closed + count;
        self.fold(entries, last).await?;
        let drop = DropBookieCopies { partition: self.partition, epoch: EPOCH, upto_n: last };
        apply(&self.metadata, vec![drop.into()])?;
        self.closed = last;
        Ok(())
    }

    fn roll(&self, made: &MadeSegment) -> Roll {
        let facts = &made.facts;
        let close = Close {
            n: facts.segment.n,
            last: Some(facts.last),
            end_offset: facts.end_offset,
            digest: facts.digest,
            bytes: facts.bytes,
            first_ts: facts.first_ts,
            max_ts: facts.max_ts,
            holders: vec![MEMBER],
        };
        Roll { partition: self.partition, epoch: EPOCH, close, next: Some(next(facts.segment.n + 1)) }
    }

    /// One shared object for all of them.
    async fn write(&self, made: &[MadeSegment]) -> Result<Vec<LeafEntry>> {
        let n = made[0].facts.segment.n;
        let key = ObjectKey {
            incarnation: 0,
            partition: self.partition,
            n,
            epoch: EPOCH,
            attempt: 1,
            shared: made.len() > 1,
        };
        let mut encoder = Encoder::new(Identity { cluster: CLUSTER, key }, EncoderOptions::default());
        let mut upload = self.store.upload(&key.to_string(), Class::Offload)?;
        for segment in made {
            encoder.begin(segment.facts)?;
            for entry in &segment.entries {
                encoder.push(entry)?;
            }
            encoder.end()?;
        }
        let finished = encoder.finish();
        while let Some(piece) = encoder.take() {
            upload.write(piece).await?;
        }
        let size = upload.finish().await?;
        let entry = |(part, made): (&esker_cache_core::object::Part, &MadeSegment)| {
            let facts = &made.facts;
            let place = ObjectPlace {
                key,
                position: part.position,
                len: part.len,
                footer_position: part.footer_position,
                footer_len: part.footer_len,
                footer_crc: part.footer_crc,
                size,
            };
            LeafEntry {
                n: facts.segment.n,
                seg_epoch: facts.seg_epoch,
                base_offset: facts.base_offset,
                end_offset: facts.end_offset,
                last: facts.last,
                digest: facts.digest,
                bytes: facts.bytes,
                first_ts: facts.first_ts,
                max_ts: facts.max_ts,
                closed: facts.closed,
                place,
            }
        };
        Ok(finished.parts.iter().zip(made).map(entry).collect())
    }

    /// The manifest's next version: pages, root last, then the pointer.
    async fn fold(&mut self, append: Vec<LeafEntry>, folded_to: u64) -> Result<()> {
        let emptied = std::mem::take(&mut self.graves);
        let change = Edit { append, folded_to, emptied, ..Edit::default() };
        let mut at_hand: BTreeMap<PageKey, Arc<Page>> = BTreeMap::new();
        let edited = loop {
            let pages = |of: &PageRef| at_hand.get(&of.key).cloned();
            match edit(self.root.as_ref(), &change, &mut self.names, &pages) {
                Ok(edited) => break edited,
                Err(Need(of)) => {
                    let page = self.reader.page(&of, For::Scan).await?;
                    at_hand.insert(of.key, page);
                }
            }
        };
        for (key, bytes, _) in &edited.pages {
            self.store.put(&key.to_string(), bytes.clone(), Class::Offload).await?;
        }
        if let Some((_, _, page)) = edited.pages.last()
            && let Page::Root(root) = &**page
        {
            self.graves = root.graveyard.clone();
        }
        let expect_ver = self.root.as_ref().map_or(0, |root| root.ver);
        let root = edited.root;
        let set = SetRoot { partition: self.partition, epoch: EPOCH, expect_ver, root: root.clone(), log_start: None };
        apply(&self.metadata, vec![set.into()])?;
        self.root = Some(root);
        Ok(())
    }

    async fn measure(&self, lookups: usize, took: Duration) -> Result<Size> {
        let root = self.metadata.inspect(|state| state.partition(self.partition).and_then(|p| p.root.clone()));
        let root = root.context("nothing was folded")?;
        let (metadata_bytes, snapshot_bytes) =
            self.metadata.inspect(|state| (state.accounted_bytes(), encode_snapshot(state).len()));
        let (_, reader) = open(&self.url).await?;
        let by_offset = self.lookups(&reader, &root, lookups, false).await?;
        let by_time = self.lookups(&reader, &root, lookups, true).await?;
        Ok(Size {
            segments: self.closed,
            metadata_bytes,
            snapshot_bytes,
            index_bytes: reader.index_bytes(),
            index_budget: Config::default().index_memory.0,
            resident_bytes: crate::cpu::resident_bytes(std::process::id()).unwrap_or(0),
            by_offset,
            by_time,
            seconds: took.as_secs_f64(),
        })
    }

    async fn lookups(&self, reader: &Reader, root: &RootPlace, count: usize, by_time: bool) -> Result<Lookups> {
        let records = self.closed as i64 * RECORDS;
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ records.unsigned_abs();
        let mut place = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % records.unsigned_abs()) as i64
        };
        let (mut cold, mut requests) = (Vec::new(), 0);
        for _ in 0..COLD {
            let (store, fresh) = open(&self.url).await?;
            cold.push(self.look(&fresh, root, place(), by_time).await?);
            requests = requests.max(store.metrics().requests());
        }
        let mut spread = Vec::new();
        for _ in 0..count {
            spread.push(self.look(reader, root, place(), by_time).await?);
        }
        let places: Vec<i64> = (0..PLACES).map(|_| place()).collect();
        for at in &places {
            self.look(reader, root, *at, by_time).await?;
        }
        let mut warm = Vec::new();
        for at in places.iter().cycle().take(count.max(PLACES)) {
            warm.push(self.look(reader, root, *at, by_time).await?);
        }
        Ok(Lookups {
            warm_p50_us: percentile(&mut warm, 50),
            warm_p99_us: percentile(&mut warm, 99),
            spread_p99_us: percentile(&mut spread, 99),
            cold_p50_us: percentile(&mut cold, 50),
            cold_requests_max: requests,
        })
    }

    /// From an offset, or a time, to the entry that holds it. The segments' times are their offsets.
    async fn look(&self, reader: &Reader, root: &RootPlace, at: i64, by_time: bool) -> Result<Duration> {
        let began = Instant::now();
        let found = match by_time {
            true => reader.segment_at_time(root, at, 0, For::Tail).await?,
            false => reader.segment_at(root, at, For::Tail).await?,
        };
        let entry = found.with_context(|| format!("{at} was not found"))?;
        let segment = SegmentId { partition: self.partition, n: entry.n };
        let footer = reader.footer(segment, &entry.place, For::Tail).await?;
        let number = if by_time { footer.block_at(at) } else { footer.block_of(at) };
        let number = number.with_context(|| format!("segment {segment} does not hold {at}"))?;
        let block = reader.block(segment, &entry.place, &footer, number, For::Tail).await?;
        let took = began.elapsed();
        let held = block.entries().flatten().any(|e| (e.header.base_offset..e.header.end_offset()).contains(&at));
        ensure!(held, "block {number} of segment {segment} does not hold {at}");
        Ok(took)
    }
}

fn percentile(all: &mut [Duration], p: usize) -> f64 {
    all.sort_unstable();
    let at = (all.len() * p / 100).min(all.len().saturating_sub(1));
    all.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

/// Caches of their own, empty.
async fn open(url: &str) -> Result<(Store, Reader)> {
    let config = Config::default();
    let store = Store::open(url, config.store.clone(), StoreMetrics::default())?;
    let pools = Pools::open(&config, &PoolMetrics::default()).await?;
    let reader = Reader::new(store.clone(), pools, CLUSTER, config.index_memory);
    Ok((store, reader))
}

/// A cluster with a topic of one partition, owned by a gateway of ours.
fn begin(metadata: &MemoryStore) -> Result<PartitionId> {
    let boot = BootId([3; 16]);
    let bookie = RegisterBookie {
        name: "bookie-1".to_owned(),
        instance: MEMBER.instance,
        boot,
        expect_boot_no: 0,
        durable_lsn: 0,
        address: "127.0.0.1:1".to_owned(),
        zone: String::new(),
        version: VERSION_MAX,
        replaces: None,
    };
    let (quic, kafka, http, internal) = Default::default();
    let gateway = RegisterGateway {
        name: "gateway-1".to_owned(),
        boot,
        addresses: GatewayAddresses { quic, kafka, http, internal },
        zone: String::new(),
        version: VERSION_MAX,
    };
    let topic = CreateTopic {
        id: TopicId([5; 16]),
        name: "history".to_owned(),
        partitions: 1,
        replication: None,
        settings: Vec::new(),
        internal: false,
        validate_only: false,
    };
    let init = InitCluster { id: CLUSTER, quorum: QUORUM, auto_create_topics: false, default_partitions: 1 };
    apply(metadata, vec![init.into(), bookie.into(), gateway.into(), topic.into()])?;
    let (id, session) = metadata.inspect(|state| {
        let id = state.partition_of("history", 0).map(|partition| partition.id);
        let session = state.gateway_by_name("gateway-1").and_then(|gateway| gateway.session);
        (id, session)
    });
    let (partition, session) = (id.context("a partition")?, session.context("a session")?);
    apply(metadata, vec![Assign { partition, expect_epoch: Epoch::first(0), session }.into()])?;
    Ok(partition)
}

fn next(n: u64) -> NextSegment {
    NextSegment { n, quorum: QUORUM, members: vec![MEMBER] }
}

fn apply(metadata: &MemoryStore, commands: Vec<Command>) -> Result<()> {
    for (result, command) in metadata.apply(commands.clone()).results.into_iter().zip(&commands) {
        result.map_err(|reject| anyhow::anyhow!("{}: {}", command.name(), reject.reason))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_history_is_made_and_found_and_stays_within_its_bars() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let plan = Plan { segments: 2_100, fold: 700, lookups: 50, folder: dir.path().to_owned() };
        let mut sizes = Vec::new();
        // A busy machine may miss the millisecond; all else must hold.
        let judged = run(&plan, |size| sizes.push(size.clone())).await;
        assert_eq!(sizes.iter().map(|size| size.segments).collect::<Vec<_>>(), [1_000, 2_100]);
        assert!(judged.as_ref().err().is_none_or(|error| error.to_string().contains("warm lookup")), "{judged:?}");
        assert!(sizes[1].metadata_bytes < sizes[0].metadata_bytes * 11 / 10);
    }
}
