//! Settings of topics and brokers.

/// What is set, and where it comes from.
pub mod describe_configs {
    use crate::message::structs;

    structs! {
        pub struct Request {
            resources: Vec<Resource> = (0..),
            include_synonyms: bool = (1..),
            include_documentation: bool = (3..),
        }

        pub struct Resource {
            resource_type: i8 = (0..),
            resource_name: String = (0..),
            /// None = all.
            configuration_keys: Option<Vec<String>> = (0..) null(0..) default(Some(Vec::new())),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            results: Vec<ResourceResult> = (0..),
        }

        pub struct ResourceResult {
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            resource_type: i8 = (0..),
            resource_name: String = (0..),
            configs: Vec<Config> = (0..),
        }

        pub struct Config {
            name: String = (0..),
            value: Option<String> = (0..) null(0..),
            read_only: bool = (0..),
            config_source: i8 = (1..) default(-1),
            is_sensitive: bool = (0..),
            synonyms: Vec<Synonym> = (1..),
            config_type: i8 = (3..),
            documentation: Option<String> = (3..) null(3..) default(Some(String::new())),
        }

        pub struct Synonym {
            name: String = (1..),
            value: Option<String> = (1..) null(1..),
            source: i8 = (1..),
        }
    }
}

/// All settings of a resource replaced.
pub mod alter_configs {
    use crate::message::structs;

    structs! {
        pub struct Request {
            resources: Vec<Resource> = (0..),
            validate_only: bool = (0..),
        }

        pub struct Resource {
            resource_type: i8 = (0..),
            resource_name: String = (0..),
            configs: Vec<Config> = (0..),
        }

        pub struct Config {
            name: String = (0..),
            value: Option<String> = (0..) null(0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            responses: Vec<ResourceResult> = (0..),
        }

        pub struct ResourceResult {
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            resource_type: i8 = (0..),
            resource_name: String = (0..),
        }
    }
}

/// Some settings of a resource changed.
pub mod incremental_alter_configs {
    use crate::message::structs;

    structs! {
        pub struct Request {
            resources: Vec<Resource> = (0..),
            validate_only: bool = (0..),
        }

        pub struct Resource {
            resource_type: i8 = (0..),
            resource_name: String = (0..),
            configs: Vec<Config> = (0..),
        }

        pub struct Config {
            name: String = (0..),
            /// 0 = set, 1 = delete, 2 = append, 3 = subtract.
            config_operation: i8 = (0..),
            value: Option<String> = (0..) null(0..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            responses: Vec<ResourceResult> = (0..),
        }

        pub struct ResourceResult {
            error_code: i16 = (0..),
            error_message: Option<String> = (0..) null(0..),
            resource_type: i8 = (0..),
            resource_name: String = (0..),
        }
    }
}

/// Which resources have settings of their own.
pub mod list_config_resources {
    use crate::message::structs;

    structs! {
        pub struct Request {
            resource_types: Vec<i8> = (1..),
        }

        pub struct Response {
            throttle_time_ms: i32 = (0..),
            error_code: i16 = (0..),
            config_resources: Vec<Resource> = (0..),
        }

        pub struct Resource {
            resource_name: String = (0..),
            resource_type: i8 = (1..) default(16),
        }
    }
}
