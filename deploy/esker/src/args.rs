//! The command line. Exit status: 0 success, 1 failure with one line that says what to do, 2 wrong usage.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{From, quorum_of_topics, starting_point};

#[derive(Parser)]
#[command(
    name = "esker",
    version,
    about = "A tiered broker: partitions move without copying, history is kept for ever"
)]
#[command(after_help = "Example: esker standalone          (in another shell) echo hello | esker produce greetings")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// All roles in one process, with data below one folder
    Standalone(Standalone),
    /// Metadata node: run one, or manage the quorum's members
    #[command(args_conflicts_with_subcommands = true)]
    Metadata(RoleOr<MetadataAdmin>),
    /// Storage node: run one, or look after the cluster's storage nodes
    #[command(args_conflicts_with_subcommands = true)]
    Bookie(RoleOr<BookieAdmin>),
    /// Broker: run one, or look after the cluster's brokers
    #[command(args_conflicts_with_subcommands = true)]
    Gateway(RoleOr<GatewayAdmin>),
    /// Birth and state of a cluster
    #[command(subcommand)]
    Cluster(Cluster),
    /// Create, list, change and delete topics
    #[command(subcommand)]
    Topic(Topic),
    /// Write records, one per line of the input
    Produce(Produce),
    /// Read records
    Consume(Consume),
    /// Where the bytes of a topic are
    #[command(subcommand)]
    Segment(Segment),
    /// Owners of partitions, and moving them
    #[command(subcommand)]
    Partition(Partition),
    /// Consumer groups: how far they are, and setting them back
    #[command(subcommand)]
    Group(Group),
    /// Buckets for old segments: make one ready, and check that it does what it must
    #[command(subcommand)]
    Bucket(Bucket),
    /// Objects of a bucket, read without a cluster
    #[command(subcommand)]
    Object(Object),
    /// Make a lost cluster's metadata anew from its bucket
    Recover(Recover),
    /// Certificates for a cluster
    #[command(subcommand)]
    Tls(Tls),
    /// Check configuration files and show all keys
    #[command(subcommand)]
    Config(Config),
}

#[derive(Args)]
pub struct Standalone {
    /// Folder for all data, certificates included
    #[arg(long, default_value = "esker-data")]
    pub data: PathBuf,
    /// Number of storage nodes in the process; with 3, records are written three times and acked after two fsyncs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub bookies: u8,
    /// Address for native clients (UDP)
    #[arg(long, default_value = "127.0.0.1:4433")]
    pub quic: String,
    /// Address for Kafka clients (TCP); `off` for none
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub kafka: String,
    /// Create topics when Kafka clients first name them, with four partitions. Decided when the data folder is made
    #[arg(long)]
    pub auto_create_topics: bool,
    /// Address for health and metrics
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub http: String,
    /// Where closed segments go: file:///dir, s3://bucket/prefix, gs://, az://; "none": they stay in the journals
    /// [default: the folder objects/ below --data]
    #[arg(long, value_name = "URL")]
    pub object_store: Option<String>,
    /// Override a setting, for example bookie.journal.group-bytes=1MiB
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// A role to run, or a command about that role.
#[derive(Args)]
pub struct RoleOr<T: Subcommand> {
    #[command(subcommand)]
    pub admin: Option<T>,
    #[command(flatten)]
    pub role: Role,
}

#[derive(Args)]
pub struct Role {
    /// TOML file with the settings; `esker config show --role ROLE` prints all keys
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override a setting; wins over the file and the environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// How to reach a cluster.
#[derive(Args, Clone)]
pub struct Connect {
    /// Any gateway of the cluster; several separated by commas
    #[arg(long, env = "ESKER_SERVER", default_value = "127.0.0.1:4433", value_delimiter = ',')]
    pub server: Vec<String>,
    /// Certificate of the authority that the gateways' certificates come from [default: ./esker-data/tls/ca.pem]
    #[arg(long, env = "ESKER_CA")]
    pub ca: Option<PathBuf>,
    /// Trust whoever answers. Anyone on the path can read and change what is sent
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Args, Clone)]
pub struct Output {
    /// Print facts as JSON on stdout, one document per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum MetadataAdmin {
    /// Add a running metadata node to the quorum. Example: esker metadata add metadata-4=10.0.0.4:4441
    Add {
        #[arg(value_name = "NAME=ADDRESS")]
        node: String,
        #[command(flatten)]
        quorum: Quorum,
    },
    /// Remove a node from the quorum. Example: esker metadata remove metadata-2
    Remove {
        name: String,
        #[command(flatten)]
        quorum: Quorum,
    },
    /// Members of the quorum. Example: esker metadata list
    List {
        #[command(flatten)]
        quorum: Quorum,
        #[command(flatten)]
        output: Output,
    },
}

/// How to reach the metadata quorum itself: its ports are for nodes, so it is asked with a node's certificate.
#[derive(Args, Clone)]
pub struct Quorum {
    /// Internal addresses of metadata nodes
    #[arg(long, env = "ESKER_METADATA", default_value = "127.0.0.1:4441", value_delimiter = ',')]
    pub metadata: Vec<String>,
    /// Certificate authority of the nodes
    #[arg(long)]
    pub tls_ca: Option<PathBuf>,
    /// A certificate with the role `admin`
    #[arg(long)]
    pub tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long)]
    pub tls_key: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum BookieAdmin {
    /// Storage nodes with state and space. Example: esker bookie list
    List {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Place no new segments on a node. Example: esker bookie drain bookie-2
    Drain {
        #[arg(value_name = "NAME")]
        id: String,
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

#[derive(Subcommand)]
pub enum GatewayAdmin {
    /// Brokers with the number of partitions each owns. Example: esker gateway list
    List {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Move all partitions away from a broker. Example: esker gateway drain gateway-2
    Drain {
        name: String,
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        connect: Connect,
    },
}

#[derive(Subcommand)]
pub enum Cluster {
    /// Give birth to a cluster, once. Example: esker cluster init --voters metadata-1=127.0.0.1:4441
    Init {
        #[arg(long, value_name = "NAME=ADDRESS", value_delimiter = ',', required = true)]
        voters: Vec<String>,
        /// Create topics when Kafka clients first name them (auto.create.topics.enable)
        #[arg(long)]
        auto_create_topics: bool,
        /// Partitions of a topic that is made without saying how many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        default_partitions: u32,
        #[command(flatten)]
        quorum: Quorum,
        #[command(flatten)]
        output: Output,
    },
    /// Roles, health, owners. Example: esker cluster status
    Status {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Allow the formats of the newest version, after every node runs it. Example: esker cluster finalize
    Finalize {
        #[command(flatten)]
        quorum: Quorum,
    },
}

#[derive(Subcommand)]
pub enum Topic {
    /// Example: esker topic create logs --partitions 4 --config retention.ms=86400000
    Create {
        name: String,
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        #[arg(long = "config", value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Example: esker topic list
    List {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Settings, partitions, owners, offsets. Example: esker topic describe logs
    Describe {
        name: String,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Example: esker topic alter logs --partitions 8 --config retention.ms=-1
    Alter {
        name: String,
        #[arg(long)]
        partitions: Option<u32>,
        #[arg(long = "config", value_name = "KEY=VALUE")]
        settings: Vec<String>,
        #[command(flatten)]
        connect: Connect,
    },
    /// Example: esker topic delete logs
    Delete {
        name: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove the records before an offset. Example: esker topic delete-records logs --partition 0 --before 1000
    DeleteRecords {
        name: String,
        #[arg(long)]
        partition: u32,
        #[arg(long)]
        before: i64,
        #[command(flatten)]
        connect: Connect,
    },
}

#[derive(Args)]
#[command(after_help = "Example: esker produce logs --file /var/log/dpkg.log --compression zstd")]
pub struct Produce {
    pub topic: String,
    /// Input; - is standard input
    #[arg(long, default_value = "-")]
    pub file: PathBuf,
    /// Split each line into key and value at the first one
    #[arg(long, value_name = "C")]
    pub key_delimiter: Option<String>,
    /// Write to this partition only
    #[arg(long)]
    pub partition: Option<u32>,
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub compression: Codec,
    /// Records per second
    #[arg(long)]
    pub rate: Option<u64>,
    /// all: wait until the ack quorum has fsynced; 0: don't wait (records can be lost)
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// Give up on a record after this long
    #[arg(long, default_value = "120s")]
    pub delivery_timeout: esker_types::Interval,
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    All,
    #[value(name = "0")]
    Zero,
}

#[derive(Args)]
#[command(after_help = "Example: esker consume logs --from earliest --to-end > copy.log")]
pub struct Consume {
    pub topic: String,
    /// Read this partition only
    #[arg(long)]
    pub partition: Option<u32>,
    /// earliest, latest, offset:N, time:RFC3339 or time:-2h
    #[arg(long, default_value = "latest", value_parser = starting_point)]
    pub from: From,
    /// Stop at the high watermark seen at start
    #[arg(long)]
    pub to_end: bool,
    /// Stop after this many records
    #[arg(long)]
    pub max: Option<u64>,
    /// value: the bytes and a newline; kv: key, tab, value; json: one document a record; raw: the bytes alone
    #[arg(long, value_enum, default_value_t = Format::Value)]
    pub format: Format,
    /// Go on behind records that are lost for good, after one line about each gap
    #[arg(long)]
    pub skip_lost: bool,
    #[command(flatten)]
    pub connect: Connect,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Value,
    Kv,
    Json,
    Raw,
}

#[derive(Subcommand)]
pub enum Segment {
    /// Offsets, bytes, place, age. Example: esker segment list logs
    List {
        topic: String,
        #[arg(long)]
        partition: Option<u32>,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum Partition {
    /// Owners and epochs. Example: esker partition list logs
    List {
        topic: Option<String>,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Give a partition to another gateway; copies nothing. Example: esker partition move logs/0 --to gateway-2
    Move {
        #[arg(value_name = "TOPIC/PARTITION")]
        partition: String,
        #[arg(long, value_name = "GATEWAY")]
        to: String,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum Group {
    /// All consumer groups, with their states. Example: esker group list
    List {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Members, offsets and how far they lag behind. Example: esker group describe billing
    Describe {
        group: String,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Set where a group without members goes on reading. Example: esker group reset-offsets billing --to time:-2h
    ResetOffsets {
        group: String,
        /// earliest, latest, offset:N, time:RFC3339 or time:-2h
        #[arg(long, value_name = "WHERE", value_parser = starting_point)]
        to: From,
        /// Only these topics or partitions, also if the group has not read them yet [default: all that it has offsets of]
        #[arg(long = "topic", value_name = "TOPIC[/PARTITION]")]
        topics: Vec<String>,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum Bucket {
    /// Create it if there is none, have abandoned uploads removed, look at versioning. Credentials come from the
    /// environment. Example: esker bucket setup s3://logs/prod?region=eu-central-1
    Setup {
        #[arg(value_name = "URL")]
        url: String,
        #[command(flatten)]
        output: Output,
    },
    /// Delete what nothing in the cluster's bucket reaches, such as objects of a gateway that died before it could commit
    /// them, once they are older than objects.sweep-age. Gateways do so by themselves every objects.sweep-interval.
    /// Example: esker bucket sweep --dry-run
    Sweep {
        /// Say what would be deleted
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        output: Output,
    },
    /// Try reading, writing, conditional creation, ranged reads, uploads in parts and deleting, each by name.
    /// Example: esker bucket check file:///srv/esker
    Check {
        #[arg(value_name = "URL")]
        url: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub enum Object {
    /// Print what an object holds: segments, offsets, times, block index, and the records if asked.
    /// Example: esker object dump s3://logs/prod/0/7/4/3-1?region=eu-central-1
    Dump {
        /// A file, or the URL of a store with the object's key behind it
        #[arg(value_name = "FILE-or-URL")]
        object: String,
        /// Read the blocks too, and print every record
        #[arg(long)]
        records: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Check every checksum, the order of entries and batches, and the digest. Example: esker object verify 3-1
    Verify {
        #[arg(value_name = "FILE-or-URL")]
        object: String,
        #[command(flatten)]
        output: Output,
    },
}

/// Topics, settings and all records that were in the bucket come back, at their offsets; what was on the lost storage nodes
/// alone is declared lost, and new records go on behind it. Stop what is left of the lost cluster before, its gateways
/// above all: from now on it deletes nothing in the bucket, but it would go on to serve its clients.
#[derive(Args)]
#[command(after_help = "Example: esker recover --from s3://logs/prod?region=eu-central-1 --dry-run
         esker recover --from s3://logs/prod?region=eu-central-1 --data esker-data --give-up-bookies")]
pub struct Recover {
    /// The bucket of the lost cluster
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// Folder of a new standalone broker; its metadata must not exist yet
    #[arg(long, default_value = "esker-data")]
    pub data: PathBuf,
    /// Instead of a folder: blank metadata nodes that run
    #[arg(long, value_name = "NAME=ADDRESS", value_delimiter = ',', conflicts_with = "data")]
    pub voters: Vec<String>,
    /// A certain copy of the metadata instead of the newest, as named in the bucket: metadata/...
    #[arg(long, value_name = "NAME")]
    pub backup: Option<String>,
    /// Copies and acks of all topics, for a cluster of another size than the lost one
    #[arg(long = "quorum", value_name = "W/A", value_parser = quorum_of_topics)]
    pub quorum_of_topics: Option<esker_types::Quorum>,
    /// The data of the lost cluster's storage nodes may go: what they hold and no object does is not asked for, even if
    /// their disks are there
    #[arg(long)]
    pub give_up_bookies: bool,
    /// Say what would come back, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub quorum: Quorum,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Subcommand)]
pub enum Tls {
    /// Make a certificate authority. Example: esker tls init --dir tls
    Init {
        #[arg(long, default_value = "tls")]
        dir: PathBuf,
        /// Word for the cluster in the names of nodes
        #[arg(long, default_value = "esker")]
        cluster: String,
    },
    /// Issue a certificate. Example: esker tls issue --dir tls --role bookie --name b-1 --san 10.0.0.5
    Issue {
        #[arg(long, default_value = "tls")]
        dir: PathBuf,
        #[arg(long, value_parser = ["gateway", "bookie", "metadata", "client", "admin"])]
        role: String,
        #[arg(long)]
        name: String,
        #[arg(long = "san", value_name = "HOST", required = true)]
        hosts: Vec<String>,
        /// Where to write NAME.pem and NAME.key [default: the folder of the authority]
        #[arg(long)]
        into: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub enum Config {
    /// Check a file. Example: esker config check --role bookie bookie.toml
    Check {
        file: PathBuf,
        #[arg(long, value_enum)]
        role: Option<RoleName>,
        #[arg(long = "set")]
        sets: Vec<String>,
    },
    /// Every key with its default and reason. Example: esker config show --role bookie
    Show {
        #[arg(long, value_enum)]
        role: RoleName,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    Metadata,
    Bookie,
    Gateway,
}
