//! esker-metadata-client
