//! Everything that needs real databases: one binary, so that its tests share the servers the harness starts.
//!
//! Run with `cargo test --test it`. Every file is a feature; tests that stand in the scenario list of the project's
//! PostgreSQL page carry their number. `harness/mod.rs` says how they work and what can be set in the environment.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod harness;

mod arrival;
mod auth_query;
mod burst;
mod cancel;
mod clients;
mod copy;
mod databases;
mod drivers;
mod fairness;
mod flow;
mod functions;
mod held;
mod init;
mod kills;
mod leaks;
mod levels;
mod limits;
mod login;
mod metrics;
mod mistrust;
mod model;
mod my_attributes;
mod my_binary;
mod my_burst;
mod my_compression;
mod my_deaths;
mod my_extended;
mod my_failures;
mod my_files;
mod my_full;
mod my_handshake;
mod my_held;
mod my_kill;
mod my_kills;
mod my_leftovers;
mod my_login;
mod my_long;
mod my_mistrust;
mod my_model;
mod my_packets;
mod my_prepared;
mod my_servers;
mod my_sessions;
mod my_settings;
mod my_sysbench;
mod my_transactions;
mod my_variables;
mod mysql;
mod mysql_tokens;
mod mysql_topology;
mod operations;
mod pins;
mod pool;
mod prepared;
mod query;
mod reload;
mod secrets;
mod servers;
mod settings;
mod sql_prepare;
mod state;
mod statements;
mod steady;
mod tidy;
mod timeouts;
mod tls;
mod tokens;
mod topology;
mod transaction;
