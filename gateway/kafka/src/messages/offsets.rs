//! Offsets that groups commit.

/// A group's progress, written.
pub mod offset_commit {
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            /// Generation of a classic group, epoch of a member of the new protocol; -1 = none.
            generation_id_or_member_epoch: i32 = (1..) default(-1),
            member_id: String = (1..),
            group_instance_id: Option<String> = (7..) null(7..),
            retention_time_ms: i64 = (2..=4) default(-1),
            topics: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition_index: i32 = (0..),
            committed_offset: i64 = (0..),
            committed_leader_epoch: i32 = (6..) default(-1),
            committed_metadata: Option<String> = (0..) null(0..) default(Some(String::new())),
        }

        pub struct Response {
            throttle_time_ms: i32 = (3..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            error_code: i16 = (0..),
        }
    }
}

/// A group's progress, read: one group up to version 7, any number after.
pub mod offset_fetch {
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..=7),
            /// None = all that the group has.
            topics: Option<Vec<RequestTopic>> = (0..=7) null(2..=7) default(Some(Vec::new())),
            groups: Vec<RequestGroup> = (8..),
            require_stable: bool = (7..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partition_indexes: Vec<i32> = (0..),
        }

        pub struct RequestGroup {
            group_id: String = (8..),
            member_id: Option<String> = (9..) null(9..),
            member_epoch: i32 = (9..) default(-1),
            /// None = all that the group has.
            topics: Option<Vec<RequestTopic>> = (8..) null(8..) default(Some(Vec::new())),
        }

        pub struct Response {
            throttle_time_ms: i32 = (3..),
            topics: Vec<Topic> = (0..=7),
            error_code: i16 = (2..=7),
            groups: Vec<Group> = (8..),
        }

        pub struct Group {
            group_id: String = (8..),
            topics: Vec<Topic> = (8..),
            error_code: i16 = (8..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            /// -1 = nothing was committed, which is no error.
            committed_offset: i64 = (0..),
            committed_leader_epoch: i32 = (5..) default(-1),
            metadata: Option<String> = (0..) null(0..) default(Some(String::new())),
            error_code: i16 = (0..),
        }
    }
}

/// A group's progress, forgotten.
pub mod offset_delete {
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            topics: Vec<RequestTopic> = (0..),
        }

        pub struct RequestTopic {
            name: String = (0..),
            partitions: Vec<RequestPartition> = (0..),
        }

        pub struct RequestPartition {
            partition_index: i32 = (0..),
        }

        pub struct Response {
            error_code: i16 = (0..),
            throttle_time_ms: i32 = (0..),
            topics: Vec<Topic> = (0..),
        }

        pub struct Topic {
            name: String = (0..),
            partitions: Vec<Partition> = (0..),
        }

        pub struct Partition {
            partition_index: i32 = (0..),
            error_code: i16 = (0..),
        }
    }
}
