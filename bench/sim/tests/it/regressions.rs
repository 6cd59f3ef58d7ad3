//! Seeds that once found a bug, each under the bug's name.
