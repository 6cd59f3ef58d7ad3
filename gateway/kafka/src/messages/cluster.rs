//! The cluster: brokers, partitions, disks, who leads.

/// Brokers.
pub mod describe_cluster {
    use crate::message::structs;

    structs! {
        pub struct Request {
            include_cluster_authorized_operations: bool = (0..),
            /// 1 = brokers, 2 = controllers.
            endpoint_type: i8 = (1..) default(1),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            endpoint_type: i8 = (1..) default(1),
            cluster_id: String = (0..),
            controller_id: i32 = (0..) default(-1),
            brokers: Vec<Broker> = (0..),
            cluster_authorized_operations: i32 = (0..) default(i32::MIN),
        }

        pub struct Broker {
            broker_id: i32 = (0..),
            host: String = (0..),
            port: i32 = (0..),
            rack: Option<String> = (0..) null(0..),
        }
    }
}

/// Partitions of topics, page by page.
pub mod describe_topic_partitions {
    use crate::field::Uuid;
    use crate::message::structs;

    structs! {
        pub struct Request {
            topics: Vec<RequestTopic> = (0..),
            response_partition_limit: i32 = (0..) default(2000),
            cursor: Option<Cursor> = (0..) null(0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
        }

        /// Where the next page begins.
        pub struct Cursor {
            topic_name: String = (0..),
            partition_index: i32 = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            topics: Vec<Topic> = (0..),
            next_cursor: Option<Cursor> = (0..) null(0..),
        }

        pub struct Topic {
            error_code: i16 = (0..),
            name: Option<String> = (0..) null(0..) default(Some(String::new())),
            topic_id: Uuid = (0..),
            is_internal: bool = (0..),
            partitions: Vec<Partition> = (0..),
            topic_authorized_operations: i32 = (0..) default(i32::MIN),
        }

        pub struct Partition {
            error_code: i16 = (0..),
            partition_index: i32 = (0..),
            leader_id: i32 = (0..),
            leader_epoch: i32 = (0..) default(-1),
            replica_nodes: Vec<i32> = (0..),
            isr_nodes: Vec<i32> = (0..),
            eligible_leader_replicas: Option<Vec<i32>> = (0..) null(0..),
            last_known_elr: Option<Vec<i32>> = (0..) null(0..),
            offline_replicas: Vec<i32> = (0..),
        }
    }
}

/// Bytes of partitions, by where they lie.
pub mod describe_log_dirs {
    use crate::message::structs;

    structs! {
        pub struct Request {
            /// None = all.
            topics: Option<Vec<RequestTopic>> = (0..) null(0..) default(Some(Vec::new())),
        }

        pub struct RequestTopic {
            topic: String = (0..),
            partitions: Vec<i32> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (3..),
            results: Vec<LogDir> = (0..),
        }

        pub struct LogDir {
            error_code: i16 = (0..),
            log_dir: String = (0..),
            topics: Vec<Topic> = (0..),
            total_bytes: i64 = (4..) default(-1),
            usable_bytes: i64 = (4..) default(-1),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            partition_size: i64 = (0..),
            offset_lag: i64 = (0..),
            is_future_key: bool = (0..),
        }
    }
}

/// Replicas moved to another directory of their broker.
pub mod alter_replica_log_dirs {
    use crate::message::structs;

    structs! {
        pub struct Request {
            dirs: Vec<RequestDir> = (0..),
        }

        pub struct RequestDir {
            path: String = (0..),
            topics: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partitions: Vec<i32> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            results: Vec<Topic> = (0..),
        }

        pub struct Topic {
            topic_name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            error_code: i16 = (0..),
        }
    }
}

/// Leaders by preference.
pub mod elect_leaders {
    use crate::message::structs;

    structs! {
        pub struct Request {
            /// 0 = preferred, 1 = unclean.
            election_type: i8 = (1..),
            /// None = all partitions.
            topic_partitions: Option<Vec<RequestTopic>> = (0..) null(0..) default(Some(Vec::new())),
            timeout_ms: i32 = (0..) default(60_000),
        }

        pub struct RequestTopic {
            topic: String = (0..),
            partitions: Vec<i32> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (1..),
            replica_election_results: Vec<Topic> = (0..),
        }

        pub struct Topic {
            topic: String = (0..),
            partition_result: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_id: i32 = (0..),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
        }
    }
}

/// Partitions moved: the first replica asked for becomes the owner.
pub mod alter_partition_reassignments {
    use crate::message::structs;

    structs! {
        pub struct Request {
            timeout_ms: i32 = (0..) default(60_000),
            allow_replication_factor_change: bool = (1..) default(true),
            topics: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition_index: i32 = (0..),
            /// None = give up a move that is under way.
            replicas: Option<Vec<i32>> = (0..) null(0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            allow_replication_factor_change: bool = (1..) default(true),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            responses: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
        }
    }
}

/// Moves that are under way.
pub mod list_partition_reassignments {
    use crate::message::structs;

    structs! {
        pub struct Request {
            timeout_ms: i32 = (0..) default(60_000),
            topics: Option<Vec<RequestTopic>> = (0..) null(0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partition_indexes: Vec<i32> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            replicas: Vec<i32> = (0..),
            adding_replicas: Vec<i32> = (0..),
            removing_replicas: Vec<i32> = (0..),
        }
    }
}
