//! The files of a cluster's folder: certificates, one configuration per role, and the ports it was born with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use esker_net::{Identity, NetConfig, Network, TlsConfig};
use esker_types::{BootId, Role};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use toml::{Table, Value};

use super::Spec;
use super::ports;
use super::process::RoleProcess;

/// `cluster.json`: what must be the same when the folder is taken up again.
#[derive(Serialize, Deserialize)]
pub struct Layout {
    pub cluster_id: String,
    pub roles: Vec<RoleLayout>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct RoleLayout {
    pub id: String,
    pub role: String,
    pub addresses: BTreeMap<String, String>,
}

const DOORS: [(&str, &[&str]); 3] = [
    ("metadata", &["internal", "http"]),
    ("bookie", &["internal", "http"]),
    ("gateway", &["quic", "kafka", "internal", "http"]),
];

impl Layout {
    pub fn load(data: &Path) -> Result<Option<Self>> {
        match fs::read(data.join("cluster.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).context("cluster.json does not parse")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("can't read cluster.json"),
        }
    }

    pub fn save(&self, data: &Path) -> Result<()> {
        fs::write(data.join("cluster.json"), serde_json::to_vec_pretty(self)?).context("can't write cluster.json")
    }

    /// A layout with fresh ports. Metadata first: that is also the order of start.
    pub fn new(spec: &Spec) -> Result<Self> {
        let counts = [spec.metadata, spec.bookies, spec.gateways];
        let wanted = DOORS.iter().zip(counts).map(|((_, doors), count)| doors.len() * count).sum();
        let mut free = ports::free(wanted)?.into_iter();
        let mut roles = Vec::new();
        for ((role, doors), count) in DOORS.iter().zip(counts) {
            for number in 1..=count {
                let addresses = doors
                    .iter()
                    .zip(&mut free)
                    .map(|(door, port)| (door.to_string(), format!("127.0.0.1:{port}")))
                    .collect();
                roles.push(RoleLayout { id: format!("{role}-{number}"), role: role.to_string(), addresses });
            }
        }
        Ok(Self { cluster_id: String::new(), roles })
    }

    pub fn of_role<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a RoleLayout> {
        self.roles.iter().filter(move |layout| layout.role == role)
    }
}

/// A certificate authority and one certificate per role, by the program's own command.
pub async fn certificates(spec: &Spec, layout: &Layout) -> Result<()> {
    let folder = spec.data.join("tls");
    if folder.join("ca.pem").exists() {
        return Ok(());
    }
    esker(spec, &["tls", "init", "--dir", &folder.to_string_lossy()]).await?;
    let mut nodes: Vec<(&str, &str)> = layout.roles.iter().map(|r| (r.role.as_str(), r.id.as_str())).collect();
    nodes.push(("admin", "admin"));
    for (role, name) in nodes {
        issue(spec, role, name).await?;
    }
    Ok(())
}

async fn issue(spec: &Spec, role: &str, name: &str) -> Result<()> {
    let folder = spec.data.join("tls");
    let dir = folder.to_string_lossy();
    let args =
        ["tls", "issue", "--dir", &dir, "--role", role, "--name", name, "--san", "127.0.0.1", "--san", "localhost"];
    esker(spec, &args).await.map(drop)
}

/// Links of this process as a node of its own.
pub async fn network(spec: &Spec, role: Role, name: &str) -> Result<Network> {
    issue(spec, role.as_str(), name).await?;
    let read = |file: &str| {
        let path = spec.data.join("tls").join(file);
        fs::read(&path).with_context(|| format!("can't read {}", path.display()))
    };
    let (ca, certificate, key) = (read("ca.pem")?, read(&format!("{name}.pem"))?, read(&format!("{name}.key"))?);
    let tls = Some(TlsConfig::from_pem(&ca, &certificate, &key)?);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let boot = BootId::from_random((now.as_nanos() ^ u128::from(std::process::id()) << 96).to_le_bytes());
    Ok(Network::new(Identity::new(role, name, boot), NetConfig { tls, ..NetConfig::default() }))
}

/// Runs the program to its end; gives its stdout.
pub async fn esker(spec: &Spec, args: &[&str]) -> Result<String> {
    let output = Command::new(&spec.esker)
        .args(args)
        .output()
        .await
        .with_context(|| format!("can't run {}", spec.esker.display()))?;
    if !output.status.success() {
        bail!("esker {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a role's configuration and makes its process (not started yet).
pub fn role(spec: &Spec, layout: &Layout, role: &RoleLayout) -> Result<RoleProcess> {
    let folder = spec.data.join(&role.id);
    let process =
        RoleProcess::new(role.id.clone(), &role.role, role.addresses.clone(), folder.clone(), spec.esker.clone());
    fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    let mut config = configuration(spec, layout, role, &process);
    for setting in &spec.settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("{setting}: write role.key=value"))?;
        let path: Vec<&str> = key.split('.').collect();
        if path[0] == role.role || path[0] == "node" {
            insert(&mut config, &path, value)?;
        }
    }
    fs::write(&process.config, toml::to_string(&config)?).context("can't write a role's configuration")?;
    Ok(process)
}

fn configuration(spec: &Spec, layout: &Layout, role: &RoleLayout, process: &RoleProcess) -> Table {
    let tls = spec.data.join("tls");
    let pem = |name: &str, kind: &str| Value::from(tls.join(format!("{name}.{kind}")).to_string_lossy().into_owned());
    let address = |door: &str| Value::from(role.addresses.get(door).cloned().unwrap_or_default());
    let table = |pairs: Vec<(&str, Value)>| Value::Table(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());

    let voters: Vec<Value> =
        layout.of_role("metadata").filter_map(|r| r.addresses.get("internal").cloned()).map(Value::from).collect();
    let node = table(vec![
        ("metadata", Value::Array(voters)),
        ("http", address("http")),
        ("tls", table(vec![("ca", pem("ca", "pem")), ("cert", pem(&role.id, "pem")), ("key", pem(&role.id, "key"))])),
    ]);
    let data = Value::from(process.data.to_string_lossy().into_owned());
    let own = match role.role.as_str() {
        "gateway" => table(vec![
            ("node-name", role.id.clone().into()),
            ("internal", table(vec![("listen", address("internal"))])),
            ("kafka", table(vec![("listen", address("kafka"))])),
            (
                "quic",
                table(vec![("listen", address("quic")), ("cert", pem(&role.id, "pem")), ("key", pem(&role.id, "key"))]),
            ),
        ]),
        _ => table(vec![("node-name", role.id.clone().into()), ("listen", address("internal")), ("data-dir", data)]),
    };
    Table::from_iter([("node".to_owned(), node), (role.role.clone(), own)])
}

fn insert(table: &mut Table, path: &[&str], value: &str) -> Result<()> {
    let [name, rest @ ..] = path else { bail!("empty key") };
    if rest.is_empty() {
        let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
        table.insert(name.to_string(), parsed.unwrap_or_else(|| Value::from(value)));
        return Ok(());
    }
    let below = table.entry(name.to_string()).or_insert_with(|| Value::Table(Table::new()));
    insert(below.as_table_mut().with_context(|| format!("{name} is not a table"))?, rest, value)
}
