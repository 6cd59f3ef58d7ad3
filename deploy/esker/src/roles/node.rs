//! What every role's process is told beside its own settings: where metadata is, HTTP, certificates.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the process, whatever role it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeConfig {
    /// Internal addresses of the metadata nodes. One that answers is enough; more keep start-up independent of any one.
    pub metadata: Vec<String>,
    /// Address for `/healthz`, `/readyz` and `/metrics`. Plain HTTP: keep it inside.
    pub http: String,
    /// Certificates for the ports between nodes. Without them those ports bind loopback only.
    pub tls: Option<TlsPaths>,
    /// Let internal ports without certificates listen beyond loopback. Whoever reaches them can change everything.
    pub insecure_internal: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsPaths {
    /// Certificate of the cluster's authority, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM: `esker tls issue` makes one with role and name in it.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            metadata: vec!["127.0.0.1:4441".to_owned()],
            http: "127.0.0.1:8080".to_owned(),
            tls: None,
            insecure_internal: false,
        }
    }
}

impl NodeConfig {
    pub fn validate(&self) -> Result<(), String> {
        if self.metadata.is_empty() {
            return Err("`node.metadata` names no metadata node".to_owned());
        }
        Ok(())
    }
}
