//! Administration of S3 buckets: what `object_store` has no call for. Everything else goes through `esker-cache`.

mod admin;
mod error;

pub use admin::{Admin, Step, StepResult, Target};
pub use error::Error;
