#![allow(clippy::unwrap_used)]

mod hostile;
mod manifest;
mod object;
mod recover;
mod samples;
mod steps;
