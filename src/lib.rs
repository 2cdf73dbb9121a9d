//! Sluicegate: a connection-pooling database proxy in the style of Amazon RDS Proxy.
//!
//! Modules in reading order; each imports only from those above it (see `docs/ARCHITECTURE.md`).

pub mod demo;
pub mod protocol;
