//! Requests and responses, one module per API, fields under Kafka's names.

mod basics;
mod cluster;
mod configs;
mod consumer_groups;

mod data;
mod groups;
mod offsets;
mod topics;

pub use basics::{api_versions, init_producer_id, list_offsets, metadata, offset_for_leader_epoch};
pub use cluster::{
    alter_partition_reassignments, alter_replica_log_dirs, describe_cluster, describe_log_dirs,
    describe_topic_partitions, elect_leaders, list_partition_reassignments,
};
pub use configs::{alter_configs, describe_configs, incremental_alter_configs, list_config_resources};
pub use consumer_groups::{consumer_group_describe, consumer_group_heartbeat};
pub use data::{fetch, produce};
pub use groups::{
    delete_groups, describe_groups, find_coordinator, heartbeat, join_group, leave_group, list_groups, sync_group,
};
pub use offsets::{offset_commit, offset_delete, offset_fetch};
pub use topics::{create_partitions, create_topics, delete_records, delete_topics};
