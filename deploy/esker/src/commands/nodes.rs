//! `esker bookie` and `esker gateway`: looking after the nodes of a running cluster.

use anyhow::{Result, anyhow};
use serde_json::json;

use super::{connect, table};
use crate::args::{BookieAdmin, GatewayAdmin};

pub async fn bookie(command: BookieAdmin) -> Result<()> {
    match command {
        BookieAdmin::List { connect, output } => {
            let status = connect::connect(&connect).await?.admin().cluster_status().await?;
            let mut rows = Vec::new();
            for b in &status.bookies {
                if output.json {
                    println!(
                        "{}",
                        json!({ "id": b.id, "name": b.name, "address": b.address, "zone": b.zone,
                        "state": b.state, "segments": b.segments })
                    );
                }
                rows.push(vec![
                    b.id.to_string(),
                    b.name.clone(),
                    b.address.clone(),
                    b.state.clone(),
                    b.segments.to_string(),
                ]);
            }
            if !output.json {
                table::print(&["ID", "NAME", "ADDRESS", "STATE", "SEGMENTS"], &rows);
            }
        }
        BookieAdmin::Drain { id, undo, connect } => {
            let admin = connect::connect(&connect).await?.admin();
            let status = admin.cluster_status().await?;
            // By number or by name.
            let known = status.bookies.iter().find(|b| b.name == id || b.id.to_string() == id);
            let name = &known.ok_or_else(|| anyhow!("no bookie {id}; `esker bookie list` shows them"))?.name;
            let drained = admin.drain_bookie(name, undo).await?;
            match undo {
                true => eprintln!("{name} takes new segments again"),
                false => eprintln!("{name} takes no new segments; {} segments are still on it", drained.remaining),
            }
        }
    }
    Ok(())
}

pub async fn gateway(command: GatewayAdmin) -> Result<()> {
    match command {
        GatewayAdmin::List { connect, output } => {
            let status = connect::connect(&connect).await?.admin().cluster_status().await?;
            let mut rows = Vec::new();
            for g in &status.gateways {
                let state = if !g.live {
                    "down"
                } else if g.draining {
                    "draining"
                } else {
                    "live"
                };
                if output.json {
                    println!(
                        "{}",
                        json!({ "id": g.id, "name": g.name, "addresses": g.addresses, "kafka": g.kafka,
                        "zone": g.zone, "state": state, "partitions": g.partitions })
                    );
                }
                rows.push(vec![
                    g.id.to_string(),
                    g.name.clone(),
                    g.addresses.join(" "),
                    g.kafka.clone(),
                    state.to_owned(),
                    g.partitions.to_string(),
                ]);
            }
            if !output.json {
                table::print(&["ID", "NAME", "ADDRESSES", "KAFKA", "STATE", "PARTITIONS"], &rows);
            }
        }
        GatewayAdmin::Drain { name, undo, connect } => {
            let drained = connect::connect(&connect).await?.admin().drain_gateway(&name, undo).await?;
            match undo {
                true => eprintln!("{name} takes partitions again"),
                false => eprintln!("{name} gives its partitions away; {} are still there", drained.remaining),
            }
        }
    }
    Ok(())
}
