//! PostgreSQL's wire protocol, version 3: logins, framing and messages.

pub mod accept;
pub mod connect;
pub mod frame;
pub mod message;
pub mod scram;
pub mod startup;
