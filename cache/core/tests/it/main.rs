#![allow(clippy::unwrap_used)]

mod hostile;
mod manifest;
mod object;
mod samples;
mod steps;
