//! Sluicegate: a connection-pooling database proxy in the style of Amazon RDS Proxy.
//!
//! Modules in reading order; each imports only from those above it (see `docs/ARCHITECTURE.md`).

pub mod config;
pub mod metrics;
pub mod protocol;

pub mod sql;

pub mod mysql;
pub mod postgres;

pub mod auth;
pub mod net;

pub mod topology;

pub mod pool;

pub mod session;

pub mod listener;

pub mod admin;
pub mod logging;

mod run;

pub mod demo;

pub use run::{Addresses, RunError, check, run};
