//! From the common options to a connected client.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use esker_client::{Client, ClientConfig, Trust};

use crate::args::Connect;

/// Where `esker standalone` leaves its authority, seen from the folder it was started in.
const DEFAULT_CA: &str = "esker-data/tls/ca.pem";

pub async fn connect(options: &Connect) -> Result<Client> {
    let config = ClientConfig::new(options.server.clone(), trust(options)?);
    let connected = match Client::connect(config.clone()).await {
        // A machine that stood still for a moment is no reason to fail a script: everybody is asked once more.
        Err(esker_client::Error::Unreachable(_)) => Client::connect(config).await,
        other => other,
    };
    connected.map_err(|error| match error {
        esker_client::Error::Unreachable(_) => anyhow!("{error}; is it running there? name another with --server"),
        other => anyhow!(other),
    })
}

fn trust(options: &Connect) -> Result<Trust> {
    if options.insecure {
        return Ok(Trust::Insecure);
    }
    let path = options.ca.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CA));
    if !path.is_file() {
        match options.ca {
            Some(_) => bail!("{} is not a file; --ca takes the certificate of the cluster's authority", path.display()),
            None => bail!(
                "no certificate authority to trust: pass --ca FILE (standalone makes DATA/tls/ca.pem), or --insecure"
            ),
        }
    }
    Ok(Trust::CaFile(path))
}
