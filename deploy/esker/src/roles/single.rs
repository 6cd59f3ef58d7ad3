//! One role in a process, from its configuration file.

use std::sync::Arc;

use anyhow::Result;
use esker_metadata_client::View;
use esker_types::Role as NodeRole;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::files::{BookieFile, GatewayFile, MetadataFile};
use super::metadata_client::{links, metadata_store};
use super::process::{serve_http, until_stopped};
use crate::args::Role;
use crate::config::{Layers, load};
use crate::{http, logging};

pub async fn metadata(args: Role) -> Result<()> {
    let file: MetadataFile = load(&Layers::new(args.config, args.sets))?;
    logging::start("info,openraft=warn");
    let http = http::bind(&file.node.http).await?;
    let network = links(NodeRole::Metadata, &file.metadata.node_name, &file.node)?;
    let (mut registry, cancel) = (Registry::default(), CancellationToken::new());
    let deps = esker_metadata::Deps { network, registry: &mut registry, cancel: cancel.clone(), birth: None };
    let server = Arc::new(esker_metadata::Server::start(file.metadata, deps).await?);
    let ready = server.clone();
    serve_http(http, registry, vec![("metadata", Box::new(move || ready.ready()))], &cancel);
    let ended = until_stopped(server.failed()).await;
    server.stop().await;
    ended
}

pub async fn bookie(args: Role) -> Result<()> {
    let file: BookieFile = load(&Layers::new(args.config, args.sets))?;
    logging::start("info,openraft=warn");
    let http = http::bind(&file.node.http).await?;
    let network = links(NodeRole::Bookie, &file.bookie.node_name, &file.node)?;
    let store = Arc::new(metadata_store(&network, &file.node.metadata)?);
    let (mut registry, cancel) = (Registry::default(), CancellationToken::new());
    let deps = esker_bookie::Deps { network, store, registry: &mut registry, cancel: cancel.clone(), hooks: None };
    // A bookie waits for the metadata quorum as long as it takes: a signal must end that wait too.
    let starting = esker_bookie::Server::start(file.bookie, deps);
    let Some(server) = started(starting, &cancel).await? else { return Ok(()) };
    let server = Arc::new(server);
    let ready = server.clone();
    serve_http(http, registry, vec![("bookie", Box::new(move || ready.ready()))], &cancel);
    let ended = until_stopped(server.failed()).await;
    server.stop().await;
    ended
}

pub async fn gateway(args: Role) -> Result<()> {
    let file: GatewayFile = load(&Layers::new(args.config, args.sets))?;
    logging::start("info,openraft=warn");
    let http = http::bind(&file.node.http).await?;
    let network = links(NodeRole::Gateway, &file.gateway.node_name, &file.node)?;
    let store = Arc::new(metadata_store(&network, &file.node.metadata)?);
    let (mut registry, cancel) = (Registry::default(), CancellationToken::new());
    let view = View::follow(store.as_ref(), cancel.clone());
    let deps = esker_gateway::Deps { network, store, view, registry: &mut registry, cancel: cancel.clone() };
    let starting = esker_gateway::Server::start(file.gateway, deps);
    let Some(server) = started(starting, &cancel).await? else { return Ok(()) };
    let ready = server.readiness();
    serve_http(http, registry, vec![("gateway", Box::new(ready))], &cancel);
    let ended = until_stopped(server.failed()).await;
    server.stop().await;
    cancel.cancel();
    ended
}

/// None: told to stop before it was up.
async fn started<S, E: Into<anyhow::Error>>(
    starting: impl Future<Output = Result<S, E>>,
    cancel: &CancellationToken,
) -> Result<Option<S>> {
    let never = std::future::pending();
    tokio::select! {
        biased;
        started = starting => Ok(Some(started.map_err(Into::into)?)),
        stopped = until_stopped(never) => {
            cancel.cancel();
            stopped.map(|()| None)
        }
    }
}
