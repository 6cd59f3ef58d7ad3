//! Classic consumer groups.

/// Who coordinates a group.
pub mod find_coordinator {
    use crate::message::structs;

    structs! {
        pub struct Request {
            key: String = (0..=3),
            /// 0 = group, 1 = transaction, 2 = share group.
            key_type: i8 = (1..),
            coordinator_keys: Vec<String> = (4..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            error_code: i16 = (0..=3),
            error_message: Option<String> = (1..=3) null(1..=3) default(Some(String::new())),
            node_id: i32 = (0..=3),
            host: String = (0..=3),
            port: i32 = (0..=3),
            coordinators: Vec<Coordinator> = (4..),
        }

        pub struct Coordinator {
            key: String = (4..),
            node_id: i32 = (4..),
            host: String = (4..),
            port: i32 = (4..),
            error_code: i16 = (4..),
            error_message: Option<String> = (4..) null(4..) default(Some(String::new())),
        }
    }
}

/// A member comes, or comes again.
pub mod join_group {
    use bytes::Bytes;

    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            session_timeout_ms: i32 = (0..),
            rebalance_timeout_ms: i32 = (1..) default(-1),
            member_id: String = (0..),
            group_instance_id: Option<String> = (5..) null(5..),
            protocol_type: String = (0..),
            protocols: Vec<Protocol> = (0..),
            reason: Option<String> = (8..) null(8..),
        }

        pub struct Protocol {
            name: String = (0..),
            metadata: Bytes = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (2..),
            error_code: i16 = (0..),
            generation_id: i32 = (0..) default(-1),
            protocol_type: Option<String> = (7..) null(7..),
            /// May be null from version 7 on only.
            protocol_name: Option<String> = (0..) null(7..) default(Some(String::new())),
            leader: String = (0..),
            skip_assignment: bool = (9..),
            member_id: String = (0..),
            members: Vec<Member> = (0..),
        }

        pub struct Member {
            member_id: String = (0..),
            group_instance_id: Option<String> = (5..) null(5..),
            metadata: Bytes = (0..),
        }
    }
}

/// The leader hands in the assignment, every member takes its own.
pub mod sync_group {
    use bytes::Bytes;

    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            generation_id: i32 = (0..),
            member_id: String = (0..),
            group_instance_id: Option<String> = (3..) null(3..),
            protocol_type: Option<String> = (5..) null(5..),
            protocol_name: Option<String> = (5..) null(5..),
            assignments: Vec<Assignment> = (0..),
        }

        pub struct Assignment {
            member_id: String = (0..),
            assignment: Bytes = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            error_code: i16 = (0..),
            protocol_type: Option<String> = (5..) null(5..),
            protocol_name: Option<String> = (5..) null(5..),
            assignment: Bytes = (0..),
        }
    }
}

/// A member lives.
pub mod heartbeat {
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            generation_id: i32 = (0..),
            member_id: String = (0..),
            group_instance_id: Option<String> = (3..) null(3..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            error_code: i16 = (0..),
        }
    }
}

/// Members go: one up to version 2, any number after.
pub mod leave_group {
    use crate::message::structs;

    structs! {
        pub struct Request {
            group_id: String = (0..),
            member_id: String = (0..=2),
            members: Vec<RequestMember> = (3..),
        }

        pub struct RequestMember {
            member_id: String = (3..),
            group_instance_id: Option<String> = (3..) null(3..),
            reason: Option<String> = (5..) null(5..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            error_code: i16 = (0..),
            members: Vec<Member> = (3..),
        }

        pub struct Member {
            member_id: String = (3..),
            group_instance_id: Option<String> = (3..) null(3..),
            error_code: i16 = (3..),
        }
    }
}

/// Groups in full.
pub mod describe_groups {
    use bytes::Bytes;

    use crate::message::structs;

    structs! {
        pub struct Request {
            groups: Vec<String> = (0..),
            include_authorized_operations: bool = (3..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            groups: Vec<Group> = (0..),
        }

        pub struct Group {
            error_code: i16 = (0..),
            group_id: String = (0..),
            group_state: String = (0..),
            protocol_type: String = (0..),
            protocol_data: String = (0..),
            members: Vec<Member> = (0..),
            authorized_operations: i32 = (3..) default(i32::MIN),
        }

        pub struct Member {
            member_id: String = (0..),
            group_instance_id: Option<String> = (4..) null(4..),
            client_id: String = (0..),
            client_host: String = (0..),
            member_metadata: Bytes = (0..),
            member_assignment: Bytes = (0..),
        }
    }
}

/// Groups by name.
pub mod list_groups {
    use crate::message::structs;

    structs! {
        pub struct Request {
            states_filter: Vec<String> = (4..),
            types_filter: Vec<String> = (5..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (1..),
            error_code: i16 = (0..),
            groups: Vec<Group> = (0..),
        }

        pub struct Group {
            group_id: String = (0..),
            protocol_type: String = (0..),
            group_state: String = (4..),
            group_type: String = (5..),
        }
    }
}

/// Groups that go.
pub mod delete_groups {
    use crate::message::structs;

    structs! {
        pub struct Request {
            groups_names: Vec<String> = (0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            results: Vec<Group> = (0..),
        }

        pub struct Group {
            group_id: String = (0..),
            error_code: i16 = (0..),
        }
    }
}
