use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use esker_cache::config::StoreConfig;
use esker_cache::store::{AwsCredentials, StoreMetrics};
use esker_cache::{Location, Store};
use esker_client::{Client, ClientConfig, Trust};

use crate::cluster::{Cluster, Spec, metrics};

/// Where to work, and on which bucket.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything but the bucket is below it. Empty or new.
    pub folder: PathBuf,
    /// The `esker` program.
    pub esker: PathBuf,
    pub bookies: usize,
    /// An empty place.
    pub store: String,
    /// Key id and secret key of an S3 server. None: from the environment.
    pub keys: Option<(String, String)>,
}

/// A cluster of processes that is stopped and started again with other settings.
pub(super) struct World {
    setup: Setup,
    cluster: Option<Cluster>,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        Self { setup, cluster: None }
    }

    /// Stops what runs and starts everything with these settings: what is in memory is gone.
    pub async fn restart(&mut self, settings: &[String]) -> Result<Client> {
        self.stop().await?;
        let Setup { folder, esker, bookies, store, keys } = &self.setup;
        let mut all = vec![
            format!("gateway.objects.url={store}"),
            // Nothing waits here, for its age or for others: an object is one segment.
            "gateway.objects.share-below=0".to_owned(),
            "gateway.objects.fold-age=5s".to_owned(),
            "gateway.objects.fold-segments=16".to_owned(),
        ];
        all.extend_from_slice(settings);
        let (data, esker) = (folder.join("cluster"), esker.clone());
        let spec = Spec { metadata: 1, bookies: *bookies, gateways: 1, data, esker, settings: all };
        let environment = keys.iter().flat_map(|(id, secret)| {
            [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)].map(|(k, v)| (k.to_owned(), v.clone()))
        });
        let cluster = Cluster::start_with(spec, &environment.collect::<Vec<_>>()).await?;
        let mut config = ClientConfig::new(cluster.servers(), Trust::CaFile(cluster.ca()));
        config.connections_per_gateway = 4;
        self.cluster = Some(cluster);
        Ok(Client::connect(config).await?)
    }

    pub async fn stop(&mut self) -> Result<()> {
        match self.cluster.take() {
            Some(mut cluster) => cluster.stop_all().await,
            None => Ok(()),
        }
    }

    /// The bucket, as a gateway reaches it.
    pub fn store(&self, config: StoreConfig) -> Result<Store> {
        let credentials = self.setup.keys.clone().map(|(key_id, secret_key)| AwsCredentials {
            key_id,
            secret_key,
            session_token: None,
        });
        Ok(Store::open_as(Location::parse(&self.setup.store)?, credentials, config, StoreMetrics::default())?)
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.setup.folder.join(name)
    }

    /// Address and authority for another client.
    pub fn doors(&self) -> Result<(String, PathBuf)> {
        let cluster = self.cluster.as_ref().context("nothing runs")?;
        Ok((cluster.servers().join(","), cluster.ca()))
    }

    /// What the gateway says of itself.
    pub async fn gateway(&self) -> Result<String> {
        let roles = self.cluster.as_ref().context("nothing runs")?.describe().roles;
        let gateway = roles.iter().find(|role| role.role == "gateway").context("a gateway")?;
        metrics::scrape(gateway.addresses.get("http").context("an HTTP door")?).await
    }

    /// Process ids by role.
    pub fn pids(&self) -> BTreeMap<String, Vec<u32>> {
        let mut pids: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for role in self.cluster.iter().flat_map(|cluster| cluster.describe().roles) {
            pids.entry(role.role).or_default().push(role.pid);
        }
        pids
    }
}

/// What the system keeps of files in memory is dropped, where it lets us (as root, on Linux): a folder that stands for a
/// bucket is on a disk then. What is not written yet is kept.
pub(super) fn drop_page_cache() -> bool {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}
