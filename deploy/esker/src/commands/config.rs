//! `esker config`: check a file before it is used, and show every key there is.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::args::{Config, RoleName};
use crate::config::{Layers, load, show};
use crate::roles::{BookieFile, GatewayFile, MetadataFile};

pub fn run(command: Config) -> Result<()> {
    match command {
        Config::Check { file, role, sets } => {
            let role = match role {
                Some(role) => role,
                None => role_of(&file)?,
            };
            let layers = Layers { file: Some(file.clone()), sets, ..Layers::default() };
            match role {
                RoleName::Metadata => drop(load::<MetadataFile>(&layers)?),
                RoleName::Bookie => drop(load::<BookieFile>(&layers)?),
                RoleName::Gateway => drop(load::<GatewayFile>(&layers)?),
            }
            eprintln!("{} is good", file.display());
        }
        Config::Show { role } => print!(
            "{}",
            match role {
                RoleName::Metadata => show::<MetadataFile>()?,
                RoleName::Bookie => show::<BookieFile>()?,
                RoleName::Gateway => show::<GatewayFile>()?,
            }
        ),
    }
    Ok(())
}

/// The role whose table the file has.
fn role_of(file: &Path) -> Result<RoleName> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| anyhow::anyhow!("{}: {}", file.display(), error.message()))?;
    let roles = [("metadata", RoleName::Metadata), ("bookie", RoleName::Bookie), ("gateway", RoleName::Gateway)];
    let mut found = roles.iter().filter(|(word, _)| table.contains_key(*word));
    match (found.next(), found.next()) {
        (Some((_, role)), None) => Ok(*role),
        _ => bail!("{}: say which role it is for with --role metadata, bookie or gateway", file.display()),
    }
}
