//! esker-bench
