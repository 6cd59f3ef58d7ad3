//! Topics: made, deleted, grown, cut.

/// New topics.
pub mod create_topics {
    use crate::field::Uuid;
    use crate::message::structs;

    structs! {
        pub struct Request {
            topics: Vec<RequestTopic> = (0..),
            timeout_ms: i32 = (0..) default(60_000),
            validate_only: bool = (1..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            /// -1 = the cluster's default.
            num_partitions: i32 = (0..),
            /// -1 = the cluster's default.
            replication_factor: i16 = (0..),
            assignments: Vec<Assignment> = (0..),
            configs: Vec<RequestConfig> = (0..),
        }

        pub struct Assignment {
            partition_index: i32 = (0..),
            broker_ids: Vec<i32> = (0..),
        }

        pub struct RequestConfig {
            name: String = (0..),
            value: Option<String> = (0..) null(0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (2..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            topic_id: Uuid = (7..),
            error_code: i16 = (0..),
            error_message: Option<String> = (1..) null(1..),
            topic_config_error_code: i16 = (5..) tag(0),
            num_partitions: i32 = (5..) default(-1),
            replication_factor: i16 = (5..) default(-1),
            configs: Option<Vec<Config>> = (5..) null(5..) default(Some(Vec::new())),
        }

        pub struct Config {
            name: String = (5..),
            value: Option<String> = (5..) null(5..),
            read_only: bool = (5..),
            config_source: i8 = (5..) default(-1),
            is_sensitive: bool = (5..),
        }
    }
}

/// Topics that go, by name or by id.
pub mod delete_topics {
    use crate::field::Uuid;
    use crate::message::structs;

    structs! {
        pub struct Request {
            topics: Vec<RequestTopic> = (6..),
            topic_names: Vec<String> = (0..=5),
            timeout_ms: i32 = (0..),
        }

        pub struct RequestTopic {
            name: Option<String> = (6..) null(6..),
            topic_id: Uuid = (6..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            responses: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: Option<String> = (0..) null(6..) default(Some(String::new())),
            topic_id: Uuid = (6..),
            error_code: i16 = (0..),
            error_message: Option<String> = (5..) null(5..),
        }
    }
}

/// More partitions for topics.
pub mod create_partitions {
    use crate::message::structs;

    structs! {
        pub struct Request {
            topics: Vec<RequestTopic> = (0..),
            timeout_ms: i32 = (0..),
            validate_only: bool = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            /// New total.
            count: i32 = (0..),
            assignments: Option<Vec<Assignment>> = (0..) null(0..) default(Some(Vec::new())),
        }

        pub struct Assignment {
            broker_ids: Vec<i32> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            results: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
        }
    }
}

/// The log's start, moved forward.
pub mod delete_records {
    use crate::message::structs;

    structs! {
        pub struct Request {
            topics: Vec<RequestTopic> = (0..),
            timeout_ms: i32 = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition_index: i32 = (0..),
            /// Exclusive; -1 = the high watermark.
            offset: i64 = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            low_watermark: i64 = (0..),
            error_code: i16 = (0..),
        }
    }
}
