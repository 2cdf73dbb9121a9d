//! Everything that needs real databases: one binary, so that its tests share the servers the harness starts.
//!
//! Run with `cargo test --test it`. Every file is a feature; tests that stand in the scenario list of the project's
//! PostgreSQL page carry their number. `harness/mod.rs` says how they work and what can be set in the environment.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod harness;

mod arrival;
mod auth_query;
mod clients;
mod copy;
mod fairness;
mod flow;
mod init;
mod leaks;
mod limits;
mod login;
mod operations;
mod pool;
mod prepared;
mod query;
mod secrets;
mod servers;
mod state;
mod tidy;
mod tls;
mod tokens;
mod topology;
mod transaction;
