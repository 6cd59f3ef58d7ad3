//! Tests with real processes of the real program, as a user would run it.

mod bad_input;
mod bucket;
mod cluster;
mod object;
mod objects;
mod recover;
mod standalone;
mod support;
