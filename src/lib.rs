//! Sluicegate: a connection-pooling database proxy.

pub mod config;
