//! esker-metadata-core
