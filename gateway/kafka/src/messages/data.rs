//! Where records travel.

/// Batches to partitions.
pub mod produce {
    use crate::field::Records;
    use crate::message::structs;

    structs! {
        pub struct Request {
            transactional_id: Option<String> = (3..) null(3..),
            /// 0 = no answer at all, 1 or -1 = after the ack quorum.
            acks: i16 = (0..),
            timeout_ms: i32 = (0..),
            topic_data: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partition_data: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            index: i32 = (0..),
            /// A slice of what was received; null is decoded as empty.
            records: Records = (0..),
        }

        pub struct Response {
            responses: Vec<Topic> = (0..),
            throttle_time_ms: i32 = (1..),
            node_endpoints: Vec<NodeEndpoint> = (10..) tag(0),
        }

        pub struct Topic {
            name: String = (0..),
            partition_responses: Vec<Partition> = (0..),
        }

        pub struct Partition {
            index: i32 = (0..),
            error_code: i16 = (0..),
            base_offset: i64 = (0..),
            log_append_time_ms: i64 = (2..) default(-1),
            log_start_offset: i64 = (5..) default(-1),
            record_errors: Vec<RecordError> = (8..),
            error_message: Option<String> = (8..) null(8..),
            current_leader: Leader = (10..) tag(0),
        }

        pub struct RecordError {
            batch_index: i32 = (0..),
            batch_index_error_message: Option<String> = (0..) null(0..),
        }

        /// Who leads the partition now; -1 = not said.
        pub struct Leader {
            leader_id: i32 = (0..) default(-1),
            leader_epoch: i32 = (0..) default(-1),
        }

        pub struct NodeEndpoint {
            node_id: i32 = (0..),
            host: String = (0..),
            port: i32 = (0..),
            rack: Option<String> = (0..) null(0..),
        }
    }
}

/// Batches from partitions.
pub mod fetch {
    use crate::field::{Records, Uuid};
    use crate::message::structs;

    structs! {
        pub struct Request {
            cluster_id: Option<String> = (12..) null(12..) tag(0),
            replica_id: i32 = (0..=14) default(-1),
            max_wait_ms: i32 = (0..),
            min_bytes: i32 = (0..),
            max_bytes: i32 = (3..) default(i32::MAX),
            /// 1 = only what is committed.
            isolation_level: i8 = (4..),
            session_id: i32 = (7..),
            session_epoch: i32 = (7..) default(-1),
            topics: Vec<RequestTopic> = (0..),
            forgotten_topics_data: Vec<ForgottenTopic> = (7..),
            rack_id: String = (11..),
        }

        pub struct RequestTopic {
            topic: String = (0..=12),
            topic_id: Uuid = (13..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition: i32 = (0..),
            current_leader_epoch: i32 = (9..) default(-1),
            fetch_offset: i64 = (0..),
            last_fetched_epoch: i32 = (12..) default(-1),
            log_start_offset: i64 = (5..) default(-1),
            partition_max_bytes: i32 = (0..),
        }

        pub struct ForgottenTopic {
            topic: String = (7..=12),
            topic_id: Uuid = (13..),
            partitions: Vec<i32> = (7..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            error_code: i16 = (7..),
            session_id: i32 = (7..),
            responses: Vec<Topic> = (0..),
        }

        pub struct Topic {
            topic: String = (0..=12),
            topic_id: Uuid = (13..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            error_code: i16 = (0..),
            high_watermark: i64 = (0..),
            last_stable_offset: i64 = (4..) default(-1),
            log_start_offset: i64 = (5..) default(-1),
            diverging_epoch: EpochEndOffset = (12..) tag(0),
            current_leader: Leader = (12..) tag(1),
            aborted_transactions: Option<Vec<AbortedTransaction>> = (4..) null(4..) default(Some(Vec::new())),
            preferred_read_replica: i32 = (11..) default(-1),
            /// Never null, which clients take for an error.
            records: Records = (0..),
        }

        /// -1 = not said.
        pub struct EpochEndOffset {
            epoch: i32 = (0..) default(-1),
            end_offset: i64 = (0..) default(-1),
        }

        /// Who leads the partition now; -1 = not said.
        pub struct Leader {
            leader_id: i32 = (0..) default(-1),
            leader_epoch: i32 = (0..) default(-1),
        }

        pub struct AbortedTransaction {
            producer_id: i64 = (0..),
            first_offset: i64 = (0..),
        }
    }
}
