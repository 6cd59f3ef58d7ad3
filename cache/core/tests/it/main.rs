#![allow(clippy::unwrap_used)]

mod create;
mod hostile;
mod lives;
mod manifest;
mod object;
mod recover;
mod samples;
mod shared;
mod steps;
