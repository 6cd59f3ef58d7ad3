//! Tests with real processes of the real program, as a user would run it.

mod bad_input;
mod cluster;
mod standalone;
mod support;
