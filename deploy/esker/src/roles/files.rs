//! What stands in a role's configuration file: a table for the process, and one for the role.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::node::NodeConfig;
use crate::config::RoleConfig;

/// Configuration of `esker metadata`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MetadataFile {
    pub node: NodeConfig,
    pub metadata: esker_metadata::Config,
}

/// Configuration of `esker bookie`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BookieFile {
    pub node: NodeConfig,
    pub bookie: esker_bookie::Config,
}

/// Configuration of `esker gateway`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GatewayFile {
    pub node: NodeConfig,
    pub gateway: esker_gateway::Config,
}

/// Configuration of `esker standalone`: what `--set` and the environment may change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StandaloneFile {
    pub metadata: esker_metadata::Config,
    pub bookie: esker_bookie::Config,
    pub gateway: esker_gateway::Config,
}

fn within(table: &str, checked: Result<(), String>) -> Result<(), String> {
    checked.map_err(|why| format!("[{table}] {why}"))
}

impl RoleConfig for MetadataFile {
    fn validate(&self) -> Result<(), String> {
        within("node", self.node.validate())?;
        within("metadata", self.metadata.validate())
    }
}

impl RoleConfig for BookieFile {
    fn validate(&self) -> Result<(), String> {
        within("node", self.node.validate())?;
        within("bookie", self.bookie.validate())
    }
}

impl RoleConfig for GatewayFile {
    fn validate(&self) -> Result<(), String> {
        within("node", self.node.validate())?;
        within("gateway", self.gateway.validate())
    }
}

impl RoleConfig for StandaloneFile {
    fn validate(&self) -> Result<(), String> {
        within("metadata", self.metadata.validate())?;
        within("bookie", self.bookie.validate())?;
        within("gateway", self.gateway.validate())
    }
}
