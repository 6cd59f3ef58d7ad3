//! Bringing a cluster up, in the order in which its roles need each other.

use anyhow::{Context, Result};

use super::files::{self, Layout};
use super::{Cluster, Spec};

pub async fn start(mut spec: Spec, environment: &[(String, String)]) -> Result<Cluster> {
    std::fs::create_dir_all(&spec.data).with_context(|| format!("can't create {}", spec.data.display()))?;
    spec.data = spec.data.canonicalize()?;
    let (mut layout, born) = match Layout::load(&spec.data)? {
        Some(layout) => (layout, true),
        None => (Layout::new(&spec)?, false),
    };
    files::certificates(&spec, &layout).await?;
    let mut roles = layout.roles.iter().map(|role| files::role(&spec, &layout, role)).collect::<Result<Vec<_>>>()?;
    roles.iter_mut().for_each(|role| role.env.extend(environment.iter().cloned()));
    let mut cluster = Cluster { spec, cluster_id: String::new(), roles };

    for role in cluster.roles.iter_mut().filter(|role| role.role == "metadata") {
        role.spawn()?;
    }
    if !born {
        layout.cluster_id = init(&cluster.spec, &layout).await?;
        layout.save(&cluster.spec.data)?;
    }
    cluster.cluster_id = layout.cluster_id;
    for role in cluster.roles.iter_mut().filter(|role| role.role != "metadata") {
        role.spawn()?;
    }
    for role in &mut cluster.roles {
        role.wait_ready().await?;
    }
    Ok(cluster)
}

/// `esker cluster init`; the command itself waits for the nodes to listen.
async fn init(spec: &Spec, layout: &Layout) -> Result<String> {
    let internal = |role: &files::RoleLayout| role.addresses.get("internal").cloned();
    let voters: Vec<String> =
        layout.of_role("metadata").filter_map(|role| Some(format!("{}={}", role.id, internal(role)?))).collect();
    let addresses: Vec<String> = layout.of_role("metadata").filter_map(internal).collect();
    let tls = spec.data.join("tls");
    let path = |name: &str| tls.join(name).to_string_lossy().into_owned();
    let mut args: Vec<String> = ["cluster", "init", "--json"].map(str::to_owned).to_vec();
    args.extend(["--voters".to_owned(), voters.join(","), "--metadata".to_owned(), addresses.join(",")]);
    args.extend(["--tls-ca".to_owned(), path("ca.pem"), "--tls-cert".to_owned(), path("admin.pem")]);
    args.extend(["--tls-key".to_owned(), path("admin.key")]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = files::esker(spec, &args).await?;
    let document: serde_json::Value = serde_json::from_str(&answer).context("cluster init printed no JSON")?;
    Ok(document["cluster_id"].as_str().context("cluster init printed no cluster_id")?.to_owned())
}
