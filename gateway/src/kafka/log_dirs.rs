//! Where bytes lie, for tools that look at the directories of brokers: each tier is shown as one. They are no directories, and
//! which of them a record is in is the cluster's own business.

use std::collections::{BTreeMap, BTreeSet};

use esker_kafka::{alter_replica_log_dirs as alter_api, bounded, code, describe_log_dirs};
use esker_metadata_core::{PartitionRecord, State};
use esker_types::PartitionId;

use super::partitions;
use super::session::Session;
use crate::auth::Action;

const BOOKIES: &str = "bookies";
const OBJECTS: &str = "objects";

/// Bytes of closed segments in each tier, of the partitions that this gateway owns: tools ask every broker and add up.
pub fn describe(session: &Session, request: describe_log_dirs::Request) -> describe_log_dirs::Response {
    if !session.allows(Action::DescribeCluster) {
        let error_code = code::CLUSTER_AUTHORIZATION_FAILED;
        return describe_log_dirs::Response { error_code, ..Default::default() };
    }
    let wanted: Option<BTreeSet<(String, i32)>> = request.topics.map(|topics| {
        let all =
            topics.into_iter().flat_map(|topic| topic.partitions.into_iter().map(move |p| (topic.topic.clone(), p)));
        all.collect()
    });
    let owned: BTreeSet<PartitionId> = session.gateway().handles.all().iter().map(|handle| handle.id).collect();
    let results = session.gateway().view.read(|state| {
        let asked: Vec<(&str, i32, &PartitionRecord)> = owned
            .iter()
            .filter_map(|id| state.partition(*id))
            .filter_map(|record| {
                let index = i32::try_from(record.index).unwrap_or(i32::MAX);
                Some((state.topic(record.topic)?.name.as_str(), index, &**record))
            })
            .filter(|(name, index, _)| wanted.as_ref().is_none_or(|all| all.contains(&((*name).to_owned(), *index))))
            .collect();
        // Tools add up over all brokers: each shows its share of the disks, which are everybody's.
        let brokers = state.gateways().filter(|gateway| gateway.session.is_some()).count().max(1) as u64;
        let (total, used) = state.bookies().fold((0u64, 0u64), |(total, used), bookie| {
            (total.saturating_add(bookie.disk_total), used.saturating_add(bookie.disk_used))
        });
        let bookies = describe_log_dirs::LogDir {
            // Bookies that do not say count as none.
            total_bytes: if total == 0 { -1 } else { shown(total / brokers) },
            usable_bytes: if total == 0 { -1 } else { shown(total.saturating_sub(used) / brokers) },
            ..tier(BOOKIES, &asked, |record| on_bookies(state, record))
        };
        // A bucket has no end.
        let objects = tier(OBJECTS, &asked, |record| in_objects(state, record));
        vec![bookies, objects]
    });
    describe_log_dirs::Response { results, ..Default::default() }
}

fn shown(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn tier(
    name: &str,
    asked: &[(&str, i32, &PartitionRecord)],
    bytes: impl Fn(&PartitionRecord) -> u64,
) -> describe_log_dirs::LogDir {
    let mut topics: BTreeMap<&str, Vec<describe_log_dirs::Partition>> = BTreeMap::new();
    for (topic, partition_index, record) in asked {
        topics.entry(topic).or_default().push(describe_log_dirs::Partition {
            partition_index: *partition_index,
            partition_size: shown(bytes(record)),
            offset_lag: 0,
            is_future_key: false,
        });
    }
    describe_log_dirs::LogDir {
        error_code: code::NONE,
        log_dir: name.to_owned(),
        topics: topics
            .into_iter()
            .map(|(name, partitions)| describe_log_dirs::Topic { name: name.to_owned(), partitions })
            .collect(),
        total_bytes: -1,
        usable_bytes: -1,
    }
}

/// Stored once, however many copies there are.
fn on_bookies(state: &State, record: &PartitionRecord) -> u64 {
    let kept = state.chain(record.id).filter(|s| !s.holders.is_empty() && s.segment.n >= record.copies_from);
    kept.map(|segment| segment.bytes).sum()
}

/// Bytes of entries, like those on bookies: in the bucket they are compressed.
fn in_objects(state: &State, record: &PartitionRecord) -> u64 {
    let folded_to = record.root.as_ref().map_or(0, |root| root.folded_to);
    let folded = record.root.as_ref().map_or(0, |root| root.bytes);
    let rows = state.chain(record.id).filter(|segment| segment.object.is_some() && segment.segment.n > folded_to);
    folded + rows.map(|segment| segment.bytes).sum::<u64>()
}

/// What is asked for is so already, or can't be: new records are on bookies, and no client moves them elsewhere.
pub fn alter(session: &Session, request: alter_api::Request) -> alter_api::Response {
    let allowed = session.allows(Action::AdministerCluster);
    let mut results: BTreeMap<String, Vec<alter_api::Partition>> = BTreeMap::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let outcome = |index| match partitions::record(session, &topic.name, index) {
                _ if !allowed => code::CLUSTER_AUTHORIZATION_FAILED,
                _ if dir.path != BOOKIES => code::LOG_DIR_NOT_FOUND,
                Ok(_) => code::NONE,
                Err(_) => code::UNKNOWN_TOPIC_OR_PARTITION,
            };
            let each = topic
                .partitions
                .iter()
                .map(|index| alter_api::Partition { partition_index: *index, error_code: outcome(*index) });
            let each: Vec<_> = each.collect();
            results.entry(topic.name).or_default().extend(each);
        }
    }
    let results = results
        .into_iter()
        .map(|(name, partitions)| alter_api::Topic { topic_name: bounded(name), partitions })
        .collect();
    alter_api::Response { throttle_time_ms: 0, results }
}
