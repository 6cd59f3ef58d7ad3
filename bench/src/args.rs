//! The command line of `esker-bench`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "esker-bench",
    version,
    about = "Clusters to try things on, load, and the check that promises were kept"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a cluster of real processes on free loopback ports and keep it until stopped.
    /// Example: esker-bench cluster --metadata 3 --bookies 3 --gateways 2
    #[command(args_conflicts_with_subcommands = true)]
    Cluster(ClusterArgs),
    /// Producers as fast as they go, or at a rate: throughput, latency, CPU seconds per GB.
    /// Example: esker-bench produce --data DIR --record-bytes 1024 --producers 4
    Produce(ProduceArgs),
    /// Readers as fast as they go. Example: esker-bench consume --data DIR --topic bench
    Consume(ConsumeArgs),
    /// History read back through the tier reader, against bare GETs of the same objects in the same run.
    /// Example: esker-bench replay --store 's3://bucket/bench?endpoint=http://127.0.0.1:9000&path_style=true'
    Replay(ReplayArgs),
    /// A topic with so many closed segments, made through the commit path of the object tier: what it costs a metadata node
    /// and a gateway in memory, and how long finding a record takes. Example: esker-bench history --segments 1000000
    History(HistoryArgs),
    /// The object tier of a whole cluster of processes: history that comes back from the bucket alone, and live traffic
    /// beside it. Example: esker-bench tier replay --store s3
    #[command(subcommand)]
    Tier(TierCommand),
    /// An S3 server with one bucket in memory, for trying things out. Any credentials will do.
    /// Example: esker-bench s3 --listen 127.0.0.1:9000 --bucket b
    S3(S3Args),
}

/// Which cluster, and how to reach it.
#[derive(Args)]
pub struct Target {
    /// Folder of a running `esker-bench cluster`: gives addresses, CA and the servers' CPU time
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Gateways, if not from --data
    #[arg(long, env = "ESKER_SERVER", default_value = "127.0.0.1:4433", value_delimiter = ',')]
    pub server: Vec<String>,
    /// Certificate authority to trust, if not from --data
    #[arg(long, env = "ESKER_CA", default_value = "esker-data/tls/ca.pem")]
    pub ca: PathBuf,
    /// Largest packet that path discovery may try
    #[arg(long, default_value_t = 6500)]
    pub mtu_max: u16,
    /// Connections to each gateway
    #[arg(long, default_value_t = 2)]
    pub connections: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    pub target: Target,
    /// Made if it does not exist
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// For a topic that is made
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Settings of a topic that is made
    #[arg(long = "config", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    #[arg(long, default_value_t = 4)]
    pub producers: u32,
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records per second of all producers together [default: as fast as it goes]
    #[arg(long)]
    pub rate: Option<u64>,
    /// Seconds measured
    #[arg(long, default_value_t = 10)]
    pub secs: u64,
    /// Seconds of the same load before
    #[arg(long, default_value_t = 2)]
    pub warm_up: u64,
    #[arg(long, default_value_t = 1 << 20)]
    pub batch_bytes: usize,
    #[arg(long, default_value = "1ms")]
    pub linger: esker_types::Interval,
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub compression: Codec,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    pub target: Target,
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Read what comes from now on instead of all there is
    #[arg(long)]
    pub tail: bool,
    /// At the end begin again, until --secs are over
    #[arg(long, conflicts_with = "tail")]
    pub again: bool,
    /// Seconds at most
    #[arg(long, default_value_t = 60)]
    pub secs: u64,
}

#[derive(Args)]
pub struct HistoryArgs {
    /// Closed segments of one partition; measured at 1,000, 10,000, ... up to this
    #[arg(long, default_value_t = 100_000)]
    pub segments: u64,
    /// Segments that are committed and folded together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub fold: u64,
    /// Lookups of each kind at each size
    #[arg(long, default_value_t = 2_000)]
    pub lookups: usize,
    /// Empty folder for bucket and processes; it is deleted at the end [default: a temporary one]
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// The `esker` program [default: ESKER_BIN, else the one beside this program]
    #[arg(long)]
    pub esker: Option<PathBuf>,
    /// Print JSON, one document for each size
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ReplayArgs {
    /// Where the objects are written and read; they are deleted at the end. Credentials come from the environment
    #[arg(long)]
    pub store: String,
    #[arg(long, default_value_t = 16)]
    pub objects: u64,
    #[arg(long, default_value = "64MiB")]
    pub object_bytes: esker_types::ByteCount,
    /// Readers at once, each with up to four requests under way
    #[arg(long, default_value_t = 8)]
    pub readers: usize,
    /// Pairs of measurements
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Payloads that zstd shortens to about half
    #[arg(long)]
    pub compressible: bool,
    /// Measure also from a warm SSD cache in this folder
    #[arg(long)]
    pub ssd_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum TierCommand {
    /// Write a history, let the bucket have it, drop the copies on bookies, start everything anew with empty caches, and
    /// read it all back: it is the same, at which fraction of bare GETs of the same objects. Example: esker-bench tier
    /// replay --store s3 --bytes 4GiB --warm
    Replay(TierReplayArgs),
    /// Latency of live traffic beside a replay from offset 0: as fast as it goes, and held by its IO budget to half of
    /// that. Example: esker-bench tier live --store s3
    Live(TierLiveArgs),
}

#[derive(Args)]
pub struct TierArgs {
    /// The bucket: `folder` (a local folder), `s3` (an S3 server of our own over HTTP, in memory), or the URL of an empty
    /// place, with credentials in the environment
    #[arg(long, default_value = "folder")]
    pub store: String,
    /// Partitions of the history
    #[arg(long, default_value_t = 8)]
    pub partitions: u32,
    #[arg(long, default_value = "64MiB")]
    pub segment_bytes: esker_types::ByteCount,
    /// Empty folder for everything; it is deleted at the end [default: a temporary one]
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// The `esker` program [default: ESKER_BIN, else the one beside this program]
    #[arg(long)]
    pub esker: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct TierReplayArgs {
    #[command(flatten)]
    pub tier: TierArgs,
    #[arg(long, default_value = "4GiB")]
    pub bytes: esker_types::ByteCount,
    /// Payloads that zstd shortens to about half
    #[arg(long)]
    pub compressible: bool,
    /// Pairs of measurements, bare GETs and a cold replay in turns
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Measure also from an SSD cache that holds it all
    #[arg(long)]
    pub warm: bool,
    #[arg(long, default_value_t = 1)]
    pub bookies: usize,
}

#[derive(Args)]
pub struct TierLiveArgs {
    #[command(flatten)]
    pub tier: TierArgs,
    /// Of history
    #[arg(long, default_value = "2GiB")]
    pub bytes: esker_types::ByteCount,
    /// Live records per second
    #[arg(long, default_value_t = 2_000)]
    pub rate: u64,
    #[arg(long, default_value_t = 1_000)]
    pub record_bytes: usize,
    /// Partitions of the live topic, with a producer and a reader each
    #[arg(long, default_value_t = 4)]
    pub live_partitions: u32,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 10)]
    pub window: u64,
    /// Pairs of measurements of each kind
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    #[arg(long, default_value_t = 3)]
    pub bookies: usize,
}

#[derive(Args)]
pub struct S3Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: String,
    #[arg(long, default_value = "esker")]
    pub bucket: String,
}

#[derive(Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    pub command: Option<ClusterCommand>,
    /// Metadata nodes
    #[arg(long, default_value_t = 1)]
    pub metadata: usize,
    /// Storage nodes
    #[arg(long, default_value_t = 3)]
    pub bookies: usize,
    /// Brokers
    #[arg(long, default_value_t = 1)]
    pub gateways: usize,
    /// Folder for everything; one that holds a cluster is taken up again with the same ports and data
    #[arg(long, default_value = "esker-data/cluster")]
    pub data: PathBuf,
    /// The `esker` program [default: ESKER_BIN, else the one beside this program]
    #[arg(long)]
    pub esker: Option<PathBuf>,
    /// Print one JSON document when all roles are ready
    #[arg(long)]
    pub json: bool,
    /// A setting for all nodes of a role, for example bookie.journal.group-bytes=1MiB
    #[arg(long = "set", value_name = "ROLE.KEY=VALUE")]
    pub sets: Vec<String>,
}

#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Start a role's process again. Example: esker-bench cluster restart bookie-2 --data DIR
    Restart {
        id: String,
        #[arg(long, default_value = "esker-data/cluster")]
        data: PathBuf,
    },
    /// End a role's process with SIGTERM
    Stop {
        id: String,
        #[arg(long, default_value = "esker-data/cluster")]
        data: PathBuf,
    },
    /// What runs, as JSON
    Status {
        #[arg(long, default_value = "esker-data/cluster")]
        data: PathBuf,
    },
}
