//! Server connections and their owners.
pub mod line;
