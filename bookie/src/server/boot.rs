//! From a directory to a journal that may serve: identity, scan, registration, epochs, and all of it durable before the
//! port opens.

use std::path::Path;
use std::sync::Arc;

use esker_bookie_core::bookie::{BookieState, BootFacts, Limits};
use esker_bookie_core::journal::restart::{Evidence, Restored, Verdict, restart};
use esker_bookie_core::journal::scan::newer_format;
use esker_bookie_core::journal::{JournalIds, Lsn};
use esker_metadata_core::BookieRecord;
use esker_types::{AllRules, BookieId, BootId, InstanceId};

use super::StartError;
use super::identity::{Decision, decide};
use super::register::{Directory, Registered, Registration};
use crate::config::Config;
use crate::cookie::Cookie;
use crate::disk::{DiskFile, DiskHooks, JournalFiles, OpenMode, dir};
use crate::journal::{Journal, JournalConfig, SuperblockFile};
use crate::metrics::Metrics;
use crate::random;

/// Checked against the cluster's records, nothing read from the journal yet.
pub(super) struct Identified {
    pub cookie: Cookie,
    pub replaces: Option<InstanceId>,
    /// The record's, if it is of this very instance.
    pub boot_no: u64,
    pub reported_lsn: Lsn,
    pub incarnation: u8,
}

/// Makes sure that the directory may speak for this bookie (R11). A fresh one gets its cookie.
pub(super) async fn identify(config: &Config, directory: &Directory) -> Result<Identified, StartError> {
    let cluster = directory.cluster().await?;
    let cookie = Cookie::read(&config.data_dir)?;
    let listing = JournalFiles::list(&config.data_dir).map_err(|error| StartError::io(config, error))?;
    let record = directory.bookie(&config.node_name).await?;
    let decision =
        decide(cookie.as_ref(), !listing.files.is_empty(), cluster.id, record.as_deref(), config.new_instance)?;
    let (cookie, replaces) = match (decision, cookie) {
        (Decision::Keep { replaces }, Some(cookie)) => (cookie, replaces),
        (Decision::Fresh { replaces } | Decision::Keep { replaces }, _) => {
            let random = random::bytes().map_err(|error| StartError::io(config, error))?;
            let cookie = Cookie::fresh(cluster.id, random);
            // Before the cluster hears of the instance: a crash in between leaves a cookie that is taken up again.
            cookie.write(&config.data_dir)?;
            (cookie, replaces)
        }
    };
    let same = |record: &&Arc<BookieRecord>| record.instance == cookie.instance;
    let (boot_no, lsn) = record.as_ref().filter(same).map_or((0, 0), |record| (record.boot_no, record.durable_lsn));
    Ok(Identified { cookie, replaces, boot_no, reported_lsn: Lsn(lsn), incarnation: cluster.incarnation })
}

/// What the disk holds. Everything that was found is on the disk itself, not only in its cache, when this returns.
pub(super) fn load(config: &Config, ids: JournalIds, evidence: &Evidence) -> Result<Restored, StartError> {
    let io = |error| StartError::io(config, error);
    let direct = config.journal.direct_io;
    let files = JournalFiles::list(&config.data_dir).map_err(io)?.files;
    let storage = JournalFiles::for_verifying(&config.data_dir, direct).listed(files.clone());
    // What a newer program wrote would be taken for damage.
    if let Some(format) = newer_format(&storage, ids) {
        return Err(StartError::NewerFormat(format));
    }
    // Files without a footer may hold writes of a process that died before its fsync returned.
    let began = std::time::Instant::now();
    for (id, _) in &files {
        let file = DiskFile::open(&config.data_dir.join(id.to_string()), OpenMode::Write, false);
        file.and_then(|file| file.sync()).map_err(io)?;
    }
    dir::sync(&config.data_dir).map_err(io)?;
    let restored = restart::<AllRules, _>(ids, &storage, evidence);
    report(&restored, began.elapsed());
    Ok(restored)
}

fn report(restored: &Restored, took: std::time::Duration) {
    let (files, segments, took) = (restored.files.len(), restored.runs.len(), took.as_millis() as u64);
    match &restored.verdict {
        Verdict::Fresh | Verdict::Clean | Verdict::Torn => {
            let verdict = format!("{:?}", restored.verdict);
            tracing::info!(verdict, files, segments, took_ms = took, "journal read");
        }
        Verdict::Loss { damaged, unknown } => {
            let damaged = damaged.len();
            tracing::error!(
                damaged,
                unknown,
                files,
                segments,
                "the journal has lost acknowledged data: what is not known for sure is repaired from other copies"
            );
        }
    }
}

/// Who this process is in the cluster.
pub(super) struct Registry<'a> {
    pub config: &'a Config,
    pub directory: &'a Directory,
    pub boot: BootId,
    pub address: String,
}

impl Registry<'_> {
    /// Claims the instance for this process; the older of two clones is evicted by its number.
    pub async fn register(&self, identified: &mut Identified, durable: Lsn) -> Result<Registered, StartError> {
        let registration = Registration {
            name: self.config.node_name.clone(),
            instance: identified.cookie.instance,
            boot: self.boot,
            durable_lsn: durable.0,
            address: self.address.clone(),
            zone: self.config.zone.clone(),
            replaces: identified.replaces,
        };
        let registered = self.directory.register(&registration, identified.boot_no).await?;
        if identified.cookie.bookie != registered.bookie {
            identified.cookie.bookie = registered.bookie;
            identified.cookie.write(&self.config.data_dir)?;
        }
        Ok(registered)
    }

    /// What this instance must know before it answers anything (2.6): the epochs of its open segments, and after a
    /// loss without a trace also the names of all segments that it should hold.
    pub async fn facts(&self, instance: InstanceId, needs_names: bool) -> Result<BootFacts, StartError> {
        let open = self.directory.open_segments(instance).await?;
        let open = open.into_iter().map(|on| (on.segment, on.epoch)).collect();
        let named = if needs_names { self.directory.segments(instance).await? } else { Vec::new() };
        Ok(BootFacts { open, named })
    }
}

/// Starts the journal and waits until everything that was decided is durable.
pub(super) async fn open_journal(
    config: &Config,
    identified: &Identified,
    bookie: BookieId,
    restored: Restored,
    facts: BootFacts,
    hooks: Arc<dyn DiskHooks>,
    metrics: Metrics,
) -> Result<Journal, StartError> {
    let ids = ids(&identified.cookie);
    let limits = Limits {
        group_bytes: config.journal.group_bytes.as_usize(),
        file_bytes: config.journal.file_bytes.0,
        ..Limits::default()
    };
    let state = BookieState::<AllRules>::boot(ids, limits, restored, facts);
    let superblock = SuperblockFile::new(&config.data_dir, identified.cookie.clone());
    let spares = JournalFiles::list(&config.data_dir).map_err(|error| StartError::io(config, error))?.spares;
    let journal_config = JournalConfig {
        dir: config.data_dir.clone(),
        bookie,
        file_bytes: config.journal.file_bytes.0,
        prepare_bytes: config.journal.prepare_bytes.0,
        group_bytes: config.journal.group_bytes.as_usize(),
        queue_bytes: config.journal.queue_bytes.0,
        direct: config.journal.direct_io,
        idle_epilogue: config.journal.idle_epilogue.0,
        reads_max: config.read.concurrency as usize,
        index_cache: config.read.index_cache.as_usize(),
    };
    let journal = Journal::start(journal_config, state, superblock, spares, hooks, metrics)
        .map_err(|error| StartError::io(config, error))?;
    journal.open().await?;
    Ok(journal)
}

pub(super) fn ids(cookie: &Cookie) -> JournalIds {
    JournalIds { cluster: cookie.cluster, instance: cookie.instance }
}

pub(super) fn evidence(config: &Config, identified: &Identified) -> Result<Evidence, StartError> {
    let superblock = SuperblockFile::new(&config.data_dir, identified.cookie.clone());
    let superblock = superblock.read().map_err(|error| StartError::io(config, error))?;
    Ok(Evidence { metadata_lsn: identified.reported_lsn, superblock })
}

/// The directory, made if missing, with its lock.
pub(super) fn take_directory(path: &Path) -> Result<dir::Lock, StartError> {
    let io = |source| StartError::Io { path: path.to_owned(), source };
    dir::create(path).map_err(io)?;
    dir::Lock::acquire(path).map_err(io)?.ok_or_else(|| StartError::InUse(path.to_owned()))
}
