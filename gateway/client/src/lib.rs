//! Esker's native client: produce, read and administer over QUIC.
//!
//! ```no_run
//! use esker_client::{Client, ClientConfig, ProducerConfig, Record, Start, Trust};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let trust = Trust::CaFile("esker-data/tls/ca.pem".into());
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:4433"], trust)).await?;
//! client.admin().create_topic("greetings", 1, &[("retention.ms", "-1")]).await?;
//!
//! let producer = client.producer(ProducerConfig::default())?;
//! let delivery = producer.send("greetings", None, Record::value("hello")).await?;
//! println!("stored at offset {}", delivery.await?.offset);
//! producer.close().await;
//!
//! let mut reader = client.reader("greetings", 0, Start::Earliest);
//! while let Some(fetched) = reader.next().await {
//!     for record in fetched?.records()? {
//!         println!("{:?}", record?.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Every error tells by [`ErrorClass`] what to do next: repeat, look elsewhere, give up, or accept that the outcome is
//! unknown. The library does the first two by itself until a time-out is reached, so an error that comes out of it
//! is for the caller to decide. See [`Error`], [`SendError`] and [`ReadError`].

mod admin;
mod backoff;
mod call;
mod client;
mod cluster;
mod config;
mod connection;
mod error;
mod groups;
mod partitioner;
mod pool;
mod producer;
mod reader;
mod stream;
mod tls;

pub use admin::Admin;
pub use client::Client;
pub use config::{ClientConfig, Trust};
pub use error::{Error, ReadError, RemoteError, SendError};
pub use esker_types::{ErrorClass, ErrorCode, Offset};
pub use esker_wire::batch::{Compression, DecodeLimits, Header, Record as StoredRecord};
pub use esker_wire::native;
pub use partitioner::partition_of_key;
pub use producer::{Delivered, Delivery, Producer, ProducerConfig, Record};
pub use reader::{Fetched, FetchedRecords, Reader, ReaderConfig, Start};
