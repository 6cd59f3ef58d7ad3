//! Groups of the new consumer protocol (KIP-848): the broker assigns.

/// All that a member says and hears.
pub mod consumer_group_heartbeat {
    use crate::field::Uuid;
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            member_id: String = (0..),
            /// 0 = join, -1 = leave, -2 = leave for a while (static members).
            member_epoch: i32 = (0..),
            instance_id: Option<String> = (0..) null(0..),
            rack_id: Option<String> = (0..) null(0..),
            rebalance_timeout_ms: i32 = (0..) default(-1),
            /// None = as before.
            subscribed_topic_names: Option<Vec<String>> = (0..) null(0..),
            subscribed_topic_regex: Option<String> = (1..) null(1..),
            server_assignor: Option<String> = (0..) null(0..),
            /// None = as before.
            topic_partitions: Option<Vec<TopicPartitions>> = (0..) null(0..),
        }

        pub struct TopicPartitions {
            topic_id: Uuid = (0..),
            partitions: Vec<i32> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            member_id: Option<String> = (0..) null(0..),
            member_epoch: i32 = (0..),
            heartbeat_interval_ms: i32 = (0..),
            /// None = as before.
            assignment: Option<Assignment> = (0..) null(0..),
        }

        pub struct Assignment {
            topic_partitions: Vec<TopicPartitions> = (0..),
        }
    }
}

/// Groups in full.
pub mod consumer_group_describe {
    use crate::field::Uuid;
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_ids: Vec<String> = (0..),
            include_authorized_operations: bool = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            groups: Vec<Group> = (0..),
        }

        pub struct Group {
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            group_id: String = (0..),
            group_state: String = (0..),
            group_epoch: i32 = (0..),
            assignment_epoch: i32 = (0..),
            assignor_name: String = (0..),
            members: Vec<Member> = (0..),
            authorized_operations: i32 = (0..) default(i32::MIN),
        }

        pub struct Member {
            member_id: String = (0..),
            instance_id: Option<String> = (0..) null(0..),
            rack_id: Option<String> = (0..) null(0..),
            member_epoch: i32 = (0..),
            client_id: String = (0..),
            client_host: String = (0..),
            subscribed_topic_names: Vec<String> = (0..),
            subscribed_topic_regex: Option<String> = (0..) null(0..),
            assignment: Assignment = (0..),
            target_assignment: Assignment = (0..),
            /// 0 = classic, 1 = consumer, -1 = unknown.
            member_type: i8 = (1..) default(-1),
        }

        pub struct Assignment {
            topic_partitions: Vec<TopicPartitions> = (0..),
        }

        pub struct TopicPartitions {
            topic_id: Uuid = (0..),
            topic_name: String = (0..),
            partitions: Vec<i32> = (0..),
        }
    }
}
