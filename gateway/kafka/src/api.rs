//! The one table of APIs: key, versions served, and the first version with compact lengths and tagged fields.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::field::{Field, Form};
use crate::header::RequestHeader;
use crate::messages::*;
use crate::reader::{DecodeLimits, Reader};
use crate::writer::Writer;

macro_rules! apis {
    ($($name:ident $key:literal $module:ident $min:literal..=$max:literal flexible $flexible:literal;)*) => {
        /// An API by Kafka's number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum Api { $($name = $key,)* }

        impl Api {
            pub const ALL: &'static [Api] = &[$(Api::$name,)*];

            pub fn from_key(key: i16) -> Option<Self> {
                match key { $($key => Some(Self::$name),)* _ => None }
            }

            /// First and last version that can be decoded, both inclusive.
            pub fn versions(self) -> (i16, i16) {
                match self { $(Self::$name => ($min, $max),)* }
            }

            fn flexible_from(self) -> i16 {
                match self { $(Self::$name => $flexible,)* }
            }

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }

        #[derive(Clone, Debug, PartialEq)]
        pub enum Request { $($name($module::Request),)* }

        #[derive(Clone, Debug, PartialEq)]
        pub enum Response { $($name($module::Response),)* }

        impl Request {
            fn decode_body(api: Api, from: &mut Reader, form: Form) -> Result<Self, DecodeError> {
                match api { $(Api::$name => $module::Request::decode(from, form).map(Self::$name),)* }
            }

            pub fn api(&self) -> Api {
                match self { $(Self::$name(_) => Api::$name,)* }
            }

            pub(crate) fn encode_body(&self, into: &mut Writer, form: Form) {
                match self { $(Self::$name(body) => body.encode(into, form),)* }
            }

            #[cfg(test)]
            pub(crate) fn sample(api: Api, random: &mut crate::tests::Random, form: Form) -> Self {
                match api { $(Api::$name => Self::$name(crate::tests::Sample::sample(random, form)),)* }
            }

            #[cfg(test)]
            pub(crate) fn weigh(&self) -> usize {
                match self { $(Self::$name(body) => crate::tests::Weigh::weigh(body),)* }
            }
        }

        impl Response {
            pub(crate) fn decode_body(api: Api, from: &mut Reader, form: Form) -> Result<Self, DecodeError> {
                match api { $(Api::$name => $module::Response::decode(from, form).map(Self::$name),)* }
            }

            pub fn api(&self) -> Api {
                match self { $(Self::$name(_) => Api::$name,)* }
            }

            pub(crate) fn encode_body(&self, into: &mut Writer, form: Form) {
                match self { $(Self::$name(body) => body.encode(into, form),)* }
            }

            #[cfg(test)]
            pub(crate) fn sample(api: Api, random: &mut crate::tests::Random, form: Form) -> Self {
                match api { $(Api::$name => Self::$name(crate::tests::Sample::sample(random, form)),)* }
            }
        }
    };
}

apis! {
    Produce 0 produce 3..=11 flexible 9;
    Fetch 1 fetch 4..=13 flexible 12;
    ListOffsets 2 list_offsets 1..=8 flexible 6;
    Metadata 3 metadata 0..=12 flexible 9;
    OffsetCommit 8 offset_commit 2..=9 flexible 8;
    OffsetFetch 9 offset_fetch 1..=9 flexible 6;
    FindCoordinator 10 find_coordinator 0..=4 flexible 3;
    JoinGroup 11 join_group 0..=9 flexible 6;
    Heartbeat 12 heartbeat 0..=4 flexible 4;
    LeaveGroup 13 leave_group 0..=5 flexible 4;
    SyncGroup 14 sync_group 0..=5 flexible 4;
    DescribeGroups 15 describe_groups 0..=5 flexible 5;
    ListGroups 16 list_groups 0..=5 flexible 3;
    ApiVersions 18 api_versions 0..=3 flexible 3;
    CreateTopics 19 create_topics 2..=7 flexible 5;
    DeleteTopics 20 delete_topics 1..=6 flexible 4;
    DeleteRecords 21 delete_records 0..=2 flexible 2;
    InitProducerId 22 init_producer_id 0..=4 flexible 2;
    OffsetForLeaderEpoch 23 offset_for_leader_epoch 2..=4 flexible 4;
    DescribeConfigs 32 describe_configs 1..=4 flexible 4;
    AlterConfigs 33 alter_configs 0..=2 flexible 2;
    AlterReplicaLogDirs 34 alter_replica_log_dirs 1..=2 flexible 2;
    DescribeLogDirs 35 describe_log_dirs 1..=4 flexible 2;
    CreatePartitions 37 create_partitions 0..=3 flexible 2;
    DeleteGroups 42 delete_groups 0..=2 flexible 2;
    ElectLeaders 43 elect_leaders 0..=2 flexible 2;
    IncrementalAlterConfigs 44 incremental_alter_configs 0..=1 flexible 1;
    AlterPartitionReassignments 45 alter_partition_reassignments 0..=1 flexible 0;
    ListPartitionReassignments 46 list_partition_reassignments 0..=0 flexible 0;
    OffsetDelete 47 offset_delete 0..=0 flexible 1;
    DescribeCluster 60 describe_cluster 0..=1 flexible 0;
    ConsumerGroupHeartbeat 68 consumer_group_heartbeat 0..=1 flexible 0;
    ConsumerGroupDescribe 69 consumer_group_describe 0..=1 flexible 0;
    ListConfigResources 74 list_config_resources 0..=1 flexible 0;
    DescribeTopicPartitions 75 describe_topic_partitions 0..=0 flexible 0;
}

impl Api {
    /// First version to advertise. Produce 0 to 2 are refused like Kafka refuses them, but advertised as Kafka does: older
    /// librdkafka takes their absence for a broker that can't decompress.
    pub fn advertised_min(self) -> i16 {
        match self {
            Self::Produce => 0,
            _ => self.versions().0,
        }
    }

    pub fn has(self, version: i16) -> bool {
        let (min, max) = self.versions();
        (min..=max).contains(&version)
    }

    pub fn form(self, version: i16) -> Form {
        Form { version, flexible: version >= self.flexible_from() }
    }
}

impl Request {
    /// Decodes the body behind a header. Bytes behind the last field are passed over, as Kafka does: librdkafka sends
    /// some when it asks for all topics. Record data shares the memory of `from`.
    pub fn decode(header: &RequestHeader, from: &mut Reader) -> Result<Self, DecodeError> {
        let unknown = DecodeError::UnknownApi { key: header.api_key, version: header.version };
        let api = Api::from_key(header.api_key).filter(|api| api.has(header.version)).ok_or(unknown)?;
        Self::decode_body(api, from, api.form(header.version))
    }

    /// A request as a client sends it, without the length in front. For tests and tools.
    pub fn encode(&self, version: i16, correlation_id: i32, client_id: Option<&str>) -> Vec<Bytes> {
        let mut out = Writer::new();
        let form = self.api().form(version);
        let client_id = client_id.map(str::to_owned);
        RequestHeader { api_key: self.api() as i16, version, correlation_id, client_id }.encode(&mut out, form);
        self.encode_body(&mut out, form);
        out.finish(false)
    }
}

impl Response {
    /// The whole answer with its length in front, in pieces to be sent one behind the other; record data is not copied.
    pub fn encode(&self, version: i16, correlation_id: i32) -> Vec<Bytes> {
        let form = self.api().form(version);
        let mut out = Writer::new();
        out.i32(correlation_id);
        // Clients read the answer to ApiVersions before they know what the broker understands.
        if form.flexible && self.api() != Api::ApiVersions {
            out.uvarint(0);
        }
        self.encode_body(&mut out, form);
        out.finish(true)
    }

    /// Decodes an answer without its length. Returns the correlation id too. For tests and tools.
    pub fn decode(api: Api, version: i16, from: Bytes) -> Result<(i32, Self), DecodeError> {
        let form = api.form(version);
        let mut from = Reader::new(from, DecodeLimits::default());
        let correlation_id = from.i32()?;
        if form.flexible && api != Api::ApiVersions {
            from.skip_tags()?;
        }
        let response = Self::decode_body(api, &mut from, form)?;
        from.finish()?;
        Ok((correlation_id, response))
    }
}
