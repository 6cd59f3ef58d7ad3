//! A cluster of real `esker` processes on loopback ports: for tests, for load, and for trying things out.

mod control;
mod files;
pub mod metrics;
pub mod ports;
pub mod process;
mod start;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use esker_net::Network;
use esker_types::Role;
use serde::{Deserialize, Serialize};

pub use control::{Request, ask, serve};
pub use process::Signal;

use process::RoleProcess;

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    pub metadata: usize,
    pub bookies: usize,
    pub gateways: usize,
    /// Everything the cluster writes is below this folder. Taken up again if it holds a cluster already.
    pub data: PathBuf,
    /// The `esker` program; see [`find_esker`].
    pub esker: PathBuf,
    /// Extra `role.key=value` settings, for example `bookie.journal.group-bytes=1MiB`.
    pub settings: Vec<String>,
}

/// One role's process as others see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoleInfo {
    /// `gateway-1`, `bookie-2`, ...
    pub id: String,
    pub role: String,
    /// 0 while it is stopped.
    pub pid: u32,
    /// Door to `host:port`: `quic`, `kafka`, `http`, `internal`.
    pub addresses: BTreeMap<String, String>,
    pub data: PathBuf,
    pub config: PathBuf,
}

/// The document that `esker-bench cluster` prints when all roles are ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    pub cluster_id: String,
    pub data: PathBuf,
    /// CA that clients trust.
    pub ca: PathBuf,
    pub roles: Vec<RoleInfo>,
}

/// The processes. Dropping it kills those that still run.
pub struct Cluster {
    pub(crate) spec: Spec,
    pub(crate) cluster_id: String,
    pub(crate) roles: Vec<RoleProcess>,
}

impl Cluster {
    /// Starts all roles and waits until each says that it is ready.
    pub async fn start(spec: Spec) -> Result<Self> {
        start::start(spec, &[]).await
    }

    /// The same with more in the environment of the processes than this one has, such as credentials of a bucket.
    pub async fn start_with(spec: Spec, environment: &[(String, String)]) -> Result<Self> {
        start::start(spec, environment).await
    }

    pub fn describe(&self) -> Description {
        Description {
            cluster_id: self.cluster_id.clone(),
            data: self.spec.data.clone(),
            ca: self.ca(),
            roles: self.roles.iter().map(RoleProcess::info).collect(),
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.spec.data.join("tls").join("ca.pem")
    }

    /// QUIC addresses of all gateways, running or not.
    pub fn servers(&self) -> Vec<String> {
        self.roles.iter().filter_map(|role| role.addresses.get("quic").cloned()).collect()
    }

    pub fn ids(&self, role: &str) -> Vec<String> {
        self.roles.iter().filter(|process| process.role == role).map(|process| process.id.clone()).collect()
    }

    /// Links to the cluster's nodes for one more node of this role and name, with a certificate of its own.
    pub async fn network(&self, role: Role, name: &str) -> Result<Network> {
        files::network(&self.spec, role, name).await
    }

    /// Sends a signal to one role's process; `Kill` also waits until it is gone.
    pub async fn signal(&mut self, id: &str, signal: Signal) -> Result<()> {
        self.role(id)?.signal(signal).await
    }

    /// SIGTERM, and waits until the process has ended by itself.
    pub async fn stop(&mut self, id: &str) -> Result<()> {
        self.role(id)?.stop().await
    }

    /// Starts a role again that has ended: same id, ports and data. Returns when it is ready.
    pub async fn restart(&mut self, id: &str) -> Result<()> {
        let role = self.role(id)?;
        role.stop().await?;
        role.spawn()?;
        role.wait_ready().await
    }

    /// Gateways first, so that clients are told; then bookies; metadata last.
    pub async fn stop_all(&mut self) -> Result<()> {
        for role in self.roles.iter_mut().rev() {
            role.stop().await?;
        }
        Ok(())
    }

    fn role(&mut self, id: &str) -> Result<&mut RoleProcess> {
        let known = self.roles.iter().map(|role| role.id.clone()).collect::<Vec<_>>().join(", ");
        self.roles.iter_mut().find(|role| role.id == id).ok_or_else(|| anyhow!("no role {id}; there are {known}"))
    }
}

/// `--esker`, else `ESKER_BIN`, else the program beside this one.
pub fn find_esker(given: Option<PathBuf>) -> Result<PathBuf> {
    let beside = || {
        let mut folder = std::env::current_exe().ok()?;
        // Test programs stand in `deps`, one level below.
        while folder.pop() {
            let candidate = folder.join("esker");
            if candidate.is_file() {
                return Some(candidate);
            }
            if folder.ends_with("target") {
                break;
            }
        }
        None
    };
    given.or_else(|| std::env::var_os("ESKER_BIN").map(PathBuf::from)).or_else(beside).ok_or_else(|| {
        anyhow!("can't find the esker program: pass --esker PATH, or build it with `cargo build --release`")
    })
}
