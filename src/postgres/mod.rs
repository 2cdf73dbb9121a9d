//! PostgreSQL's wire protocol, versions 3.0 and 3.2, both sides of it. No I/O.
pub mod client;
pub mod connect;
pub mod frame;
pub mod message;
pub mod server;
mod statement;
