//! The house rules of the whole workspace, as tests: they live here because this crate builds in seconds.

mod dependencies;
mod layout;
mod sources;
mod workspace;
