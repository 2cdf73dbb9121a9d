//! Sockets and TLS: one stream type for every way bytes come and go, and the TLS configurations behind it.
//!
//! Knows no protocol and no session; whoever holds a [`Stream`] decides when to read and write.

pub mod certificate;
pub mod proxy_protocol;
pub mod quiet;
pub mod rate;
pub mod sources;
mod stream;
pub mod tls;
mod whole;

pub use stream::{ConnectError, Detached, Peer, Stream, connect};
