//! Links to other nodes, and the metadata quorum behind them.

use std::path::Path;

use anyhow::{Context, Result};
use esker_metadata_client::{RemoteConfig, RemoteStore};
use esker_net::{Address, Identity, NetConfig, Network, TlsConfig};
use esker_types::{BootId, Role};
use ring::rand::{SecureRandom, SystemRandom};

use super::node::{NodeConfig, TlsPaths};

/// Who this process is to other nodes, with the certificates of its configuration.
pub fn links(role: Role, name: &str, node: &NodeConfig) -> Result<Network> {
    let tls = node.tls.as_ref().map(tls).transpose()?;
    let config = NetConfig { tls, insecure_internal: node.insecure_internal, ..NetConfig::default() };
    Ok(Network::new(Identity::new(role, name, boot_id()?), config))
}

pub fn metadata_store(network: &Network, servers: &[String]) -> Result<RemoteStore> {
    let parse = |text: &String| text.parse::<Address>().with_context(|| format!("metadata address {text:?}"));
    let servers = servers.iter().map(parse).collect::<Result<Vec<_>>>()?;
    Ok(RemoteStore::new(network.clone(), RemoteConfig::new(servers)))
}

pub fn boot_id() -> Result<BootId> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).ok().context("the system gives no random numbers")?;
    Ok(BootId::from_random(bytes))
}

fn tls(paths: &TlsPaths) -> Result<TlsConfig> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("can't read {}", path.display()));
    TlsConfig::from_pem(&read(&paths.ca)?, &read(&paths.cert)?, &read(&paths.key)?)
        .context("the certificates in [node.tls] can't be used")
}
