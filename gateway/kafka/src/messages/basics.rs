//! Versions, metadata, producer ids, offsets of partitions.

/// Which APIs the broker has.
pub mod api_versions {
    use crate::message::structs;

    structs! {
        pub struct Request {
            client_software_name: String = (3..),
            client_software_version: String = (3..),
        }

        pub struct Response {
            error_code: i16 = (0..),
            api_keys: Vec<Api> = (0..),
            throttle_time_ms: i32 = (1..),
        }

        /// A range of versions, both ends inclusive.
        pub struct Api {
            api_key: i16 = (0..),
            min_version: i16 = (0..),
            max_version: i16 = (0..),
        }
    }
}

/// Brokers, topics, and who leads which partition.
pub mod metadata {
    use crate::field::Uuid;
    use crate::message::structs;

    structs! {
        pub struct Request {
            /// None = all; in version 0 an empty list means all as well.
            topics: Option<Vec<RequestTopic>> = (0..) null(1..) default(Some(Vec::new())),
            allow_auto_topic_creation: bool = (4..) default(true),
            include_cluster_authorized_operations: bool = (8..=10),
            include_topic_authorized_operations: bool = (8..),
        }

        pub struct RequestTopic {
            topic_id: Uuid = (10..),
            name: Option<String> = (0..) null(10..) default(Some(String::new())),
        }

        pub struct Response {
            throttle_time_ms: i32 = (3..),
            brokers: Vec<Broker> = (0..),
            cluster_id: Option<String> = (2..) null(2..),
            controller_id: i32 = (1..) default(-1),
            topics: Vec<Topic> = (0..),
            cluster_authorized_operations: i32 = (8..=10) default(i32::MIN),
            error_code: i16 = (13..),
        }

        pub struct Broker {
            node_id: i32 = (0..),
            host: String = (0..),
            port: i32 = (0..),
            rack: Option<String> = (1..) null(1..),
        }

        pub struct Topic {
            error_code: i16 = (0..),
            name: Option<String> = (0..) null(12..) default(Some(String::new())),
            topic_id: Uuid = (10..),
            is_internal: bool = (1..),
            partitions: Vec<Partition> = (0..),
            topic_authorized_operations: i32 = (8..) default(i32::MIN),
        }

        pub struct Partition {
            error_code: i16 = (0..),
            partition_index: i32 = (0..),
            leader_id: i32 = (0..),
            leader_epoch: i32 = (7..) default(-1),
            replica_nodes: Vec<i32> = (0..),
            isr_nodes: Vec<i32> = (0..),
            offline_replicas: Vec<i32> = (5..),
        }
    }
}

/// The id and epoch of an idempotent producer.
pub mod init_producer_id {
    use crate::message::structs;

    structs! {
        pub struct Request {
            transactional_id: Option<String> = (0..) null(0..),
            transaction_timeout_ms: i32 = (0..),
            producer_id: i64 = (3..) default(-1),
            producer_epoch: i16 = (3..) default(-1),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (0..),
            producer_id: i64 = (0..) default(-1),
            producer_epoch: i16 = (0..),
        }
    }
}

/// Offsets by time, and both ends of the log.
pub mod list_offsets {
    use crate::message::structs;

    structs! {
        pub struct Request {
            replica_id: i32 = (0..),
            isolation_level: i8 = (2..),
            topics: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition_index: i32 = (0..),
            current_leader_epoch: i32 = (4..) default(-1),
            /// Milliseconds, -1 = end, -2 = start, -3 = the largest timestamp, -4 = start of what is not in the bucket.
            timestamp: i64 = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (2..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            error_code: i16 = (0..),
            timestamp: i64 = (1..) default(-1),
            offset: i64 = (1..) default(-1),
            leader_epoch: i32 = (4..) default(-1),
        }
    }
}

/// Where a leader epoch ended: how consumers notice a log that was cut.
pub mod offset_for_leader_epoch {
    use crate::message::structs;

    structs! {
        pub struct Request {
            replica_id: i32 = (3..) default(-2),
            topics: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            topic: String = (0..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition: i32 = (0..),
            current_leader_epoch: i32 = (2..) default(-1),
            leader_epoch: i32 = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (2..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            topic: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            error_code: i16 = (0..),
            partition: i32 = (0..),
            leader_epoch: i32 = (1..) default(-1),
            end_offset: i64 = (0..) default(-1),
        }
    }
}
