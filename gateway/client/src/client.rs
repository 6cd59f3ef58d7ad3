use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use esker_types::BootId;

use crate::cluster::Cluster;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::pool::Pool;
use crate::tls;

/// A connection to a cluster; cheap to clone. Producers, readers and admin calls share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

impl Client {
    /// Connects to the first of the servers that answers and learns the map of the cluster.
    ///
    /// # Errors
    /// [`Error::Certificate`] names the CA file to pass, [`Error::Unreachable`] tells what each server said.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        config.validate()?;
        let tls = tls::config(&config.trust)?;
        let pool = Pool::new(config, tls, BootId::from_random(random_bytes()));
        let cluster = Arc::new(Cluster::new(pool));
        cluster.first_contact().await?;
        Ok(Self { cluster })
    }

    /// Closes all connections. Producers should be closed first: what they have not sent yet fails.
    pub async fn close(&self) {
        self.cluster.pool.close().await;
    }

    pub(crate) fn random_id(&self) -> [u8; 16] {
        esker_types::TopicId::from_random(random_bytes()).0
    }
}

/// From the operating system, by way of the standard library's hash seeds. For names and spreading only: nothing
/// secret comes from here.
pub(crate) fn random_bytes() -> [u8; 16] {
    let (a, b) = (random_u64(), random_u64());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&b.to_le_bytes());
    bytes
}

pub(crate) fn random_u64() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.finish()
}
