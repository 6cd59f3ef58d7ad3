//! A role's configuration: a TOML file, overridden by environment variables, then by `--set key=value`.

mod keys;
mod layers;
mod show;

pub use layers::{Layers, load};
pub use show::show;

/// What every role's configuration struct offers.
pub trait RoleConfig: Default + serde::Serialize + serde::de::DeserializeOwned + schemars::JsonSchema {
    /// Checks what a type can't say; the message names the key.
    fn validate(&self) -> Result<(), String>;
}
