//! Sockets and TLS: one stream type for every way bytes come and go, and the TLS configurations behind it.
//!
//! Knows no protocol and no session; whoever holds a [`Stream`] decides when to read and write. Logins at databases are the
//! exception: [`Way::log_in`] drives whatever machine it is given.

pub mod certificate;
mod layers;
mod login;
pub mod packed;
pub mod proxy_protocol;
pub mod quiet;
pub mod rate;
pub mod sources;
mod stream;
pub mod tls;
mod whole;

pub use login::{LoginError, Way};
pub use stream::{ConnectError, Detached, Peer, Stream, connect};
