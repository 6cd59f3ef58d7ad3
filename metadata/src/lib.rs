//! esker-metadata
