//! Sluicegate: a connection-pooling database proxy in the style of Amazon RDS Proxy.
//!
//! Modules in reading order; each imports only from those above it (see `docs/ARCHITECTURE.md`).

pub mod admin;
pub mod auth;
pub mod config;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod topology;
