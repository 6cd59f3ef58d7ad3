//! A partition with a long history, made by the commands and pages by which an owner makes it: Open, Roll,
//! OffloadCommit, manifest pages, SetRoot, DropBookieCopies. The objects are real and tiny.
//!
//! The commands go to a metadata node of its own process, and a gateway beside it reads what they made. The bars: what both
//! hold does not grow with the history; a lookup costs less than a millisecond when what it touches is at hand, and at
//! most four requests when nothing is but the root's place.

mod commands;
mod lookups;
mod maker;
mod nodes;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use esker_cache::Config;
use esker_metadata_core::encode_snapshot;
use serde::Serialize;

pub use lookups::Lookups;
pub use nodes::{Footprint, Through};

use commands::Commands;
use maker::Maker;
use nodes::Nodes;

/// The bars.
const GROWTH_MAX: f64 = 1.1;
const WARM_P99_MAX: Duration = Duration::from_millis(1);
const REQUESTS_MAX: u64 = 4;

pub struct Plan {
    pub segments: u64,
    /// Segments that are committed and folded together.
    pub fold: u64,
    /// Lookups of each kind at each size.
    pub lookups: usize,
    /// Empty, for the bucket and the processes.
    pub folder: PathBuf,
    /// The `esker` program.
    pub esker: PathBuf,
}

/// What a history of this length costs.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    pub segments: u64,
    /// Rows of the metadata: what a metadata node holds, and a gateway's copy of it.
    pub metadata_bytes: u64,
    pub snapshot_bytes: usize,
    /// Decoded pages and footers after the lookups, and the bound on them.
    pub index_bytes: usize,
    pub index_budget: u64,
    /// By their metrics. None: there are no processes.
    pub nodes: Option<Footprint>,
    pub by_offset: Lookups,
    pub by_time: Lookups,
    /// Reads of one record each through the gateway. None: there is no gateway.
    pub through_gateway: Option<Through>,
    /// Since the start.
    pub seconds: f64,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segments, metadata_bytes, snapshot_bytes, index_bytes, index_budget, seconds, .. } = self;
        writeln!(f, "{segments} segments after {seconds:.0} s")?;
        writeln!(f, "  metadata {metadata_bytes} bytes, snapshot {snapshot_bytes} bytes")?;
        if let Some(nodes) = &self.nodes {
            writeln!(f, "{nodes}")?;
        }
        writeln!(f, "  by offset: {}", self.by_offset)?;
        writeln!(f, "  by time:   {}", self.by_time)?;
        writeln!(f, "  pages and footers at hand: {index_bytes} of {index_budget} bytes")?;
        match &self.through_gateway {
            Some(through) => write!(f, "  through the gateway, any place: {through}"),
            None => Ok(()),
        }
    }
}

/// Makes the history, and measures at 1,000, 10,000, ... segments and at the end.
///
/// # Errors
/// When a step fails, or a bar is missed.
pub async fn run(plan: &Plan, show: impl FnMut(&Size)) -> Result<()> {
    std::fs::create_dir_all(&plan.folder).with_context(|| format!("can't create {}", plan.folder.display()))?;
    let folder = plan.folder.canonicalize()?;
    ensure!(std::fs::read_dir(&folder)?.next().is_none(), "{} is not empty", folder.display());
    let url = format!("file://{}", folder.join("bucket").display());
    let (mut nodes, commands) = Nodes::start(plan.esker.clone(), folder.join("cluster"), &url).await?;
    let measured = grow_and_measure(plan, &url, &commands, Some(&nodes), show).await;
    commands.stop().await;
    nodes.stop().await?;
    judge(&measured?)
}

async fn grow_and_measure(
    plan: &Plan,
    url: &str,
    commands: &Commands,
    nodes: Option<&Nodes>,
    mut show: impl FnMut(&Size),
) -> Result<Vec<Size>> {
    let mut maker = Maker::new(url, commands).await?;
    let began = Instant::now();
    let (mut at, mut sizes) = (1_000.min(plan.segments), Vec::new());
    loop {
        while maker.closed() < at {
            maker.grow(plan.fold.min(at - maker.closed())).await?;
        }
        let size = measure(plan, url, commands, &maker, nodes, began).await?;
        show(&size);
        sizes.push(size);
        if at == plan.segments {
            return Ok(sizes);
        }
        at = (at * 10).min(plan.segments);
    }
}

async fn measure(
    plan: &Plan,
    url: &str,
    commands: &Commands,
    maker: &Maker<'_>,
    nodes: Option<&Nodes>,
    began: Instant,
) -> Result<Size> {
    let (root, metadata_bytes, snapshot_bytes) = commands.view.read(|state| {
        let root = state.partition(commands.partition).and_then(|record| record.root.clone());
        (root, state.accounted_bytes(), encode_snapshot(state).len())
    });
    let root = root.context("nothing was folded")?;
    let looking = lookups::Looking::new(url, commands, root, maker.closed()).await?;
    let by_offset = looking.measure(plan.lookups, false).await?;
    let by_time = looking.measure(plan.lookups, true).await?;
    let (nodes, through_gateway) = match nodes {
        Some(nodes) => {
            let through = nodes.read(maker.closed(), plan.lookups).await?;
            (
                Some(nodes.footprint(|| commands.view.read(esker_metadata_core::State::accounted_bytes)).await?),
                Some(through),
            )
        }
        None => (None, None),
    };
    Ok(Size {
        segments: maker.closed(),
        metadata_bytes,
        snapshot_bytes,
        index_bytes: looking.index_bytes(),
        index_budget: Config::default().index_memory.0,
        nodes,
        by_offset,
        by_time,
        through_gateway,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn judge(sizes: &[Size]) -> Result<()> {
    let Some(first) = sizes.first() else { bail!("nothing was measured") };
    let flat = |what: &str, before: u64, now: u64, segments: u64| {
        let (growth, begin) = (now as f64 / before.max(1) as f64, first.segments);
        ensure!(growth <= GROWTH_MAX, "at {segments} segments {what} is {growth:.2} times what it was at {begin}");
        Ok(())
    };
    for size in sizes {
        flat("metadata", first.metadata_bytes, size.metadata_bytes, size.segments)?;
        flat("a snapshot", first.snapshot_bytes as u64, size.snapshot_bytes as u64, size.segments)?;
        if let (Some(begin), Some(now)) = (&first.nodes, &size.nodes) {
            flat("a metadata node", begin.metadata.state_bytes, now.metadata.state_bytes, size.segments)?;
            flat("a gateway", begin.gateway.live(), now.gateway.live(), size.segments)?;
            now.gateway.within_budgets()?;
        }
        for lookups in [&size.by_offset, &size.by_time] {
            let (p99, requests) = (lookups.warm_p99_us, lookups.cold_requests_max);
            let bar = WARM_P99_MAX.as_micros() as f64;
            ensure!(p99 < bar, "at {} segments a warm lookup took {p99:.0} us at p99", size.segments);
            ensure!(requests <= REQUESTS_MAX, "at {} segments a cold lookup took {requests} requests", size.segments);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_history_is_made_and_found_and_stays_within_its_bars() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (folder, esker) = (dir.path().to_owned(), PathBuf::new());
        let plan = Plan { segments: 2_100, fold: 700, lookups: 50, folder, esker };
        let url = format!("file://{}", dir.path().display());
        let commands = Commands::in_memory().await.expect("a topic");
        let sizes = grow_and_measure(&plan, &url, &commands, None, |_| {}).await.expect("made and found");
        assert_eq!(sizes.iter().map(|size| size.segments).collect::<Vec<_>>(), [1_000, 2_100]);
        // How long a lookup took is the machine's affair; all else must hold.
        let at_once = |size: &Size| {
            let mut size = size.clone();
            (size.by_offset.warm_p99_us, size.by_time.warm_p99_us) = (0.0, 0.0);
            size
        };
        let sizes: Vec<_> = sizes.iter().map(at_once).collect();
        judge(&sizes).expect("within its bars");
        let mut grown = sizes.clone();
        grown[1].metadata_bytes *= 2;
        assert!(judge(&grown).is_err_and(|error| error.to_string().contains("times what it was")));
        grown = sizes.clone();
        grown[1].by_offset.warm_p99_us = WARM_P99_MAX.as_micros() as f64;
        assert!(judge(&grown).is_err_and(|error| error.to_string().contains("a warm lookup")));
        grown = sizes;
        grown[1].by_time.cold_requests_max = REQUESTS_MAX + 1;
        assert!(judge(&grown).is_err());
    }
}
