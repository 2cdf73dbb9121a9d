//! The way to a target, and cancels that go there, each within its time.
//!
//! A cancel goes over a connection of its own, which counts against no budget: the database closes it at once. How many
//! are on their way to one target is bounded; who waits for that too long is not sent at all.

use crate::net::{LoginError, Way};
use crate::protocol::Handshake;
use std::io;
use tokio::sync::Semaphore;

/// A database says nothing to who cancels; more than this is no end that is near.
const REST_BYTES_MAX: usize = 256 << 10;
/// Cancels on their way to one target at a time; each costs the database a process for a moment.
const CANCELS_MAX: usize = 8;

/// The way to a target.
pub struct Dial {
    way: Way,
    cancels: Semaphore,
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Nothing of it has reached the database.
    NotSent,
    /// The database has acted on it: what is sent on the connection from now on is not concerned.
    Done,
    /// It may still come to act.
    Unsure,
}

impl Dial {
    /// `connect_timeout` of the way is the time for one login, and for each step of a cancel.
    pub fn new(way: Way) -> Self {
        Self { way, cancels: Semaphore::new(CANCELS_MAX) }
    }

    /// Where the target is, and how it is spoken to.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Asks the target to cancel what the connection of this machine does, and waits until it has: until it has closed the
    /// connection that asked. Each of three steps, to get a turn, to ask, to see it closed, takes at most `connect_timeout`.
    pub async fn cancel(&self, machine: impl Handshake) -> Cancelled {
        let turn = tokio::time::timeout(self.way.timeout(), self.cancels.acquire());
        let Ok(Ok(_permit)) = turn.await else { return Cancelled::NotSent };
        let asked = tokio::time::timeout(self.way.timeout(), self.way.log_in(machine)).await;
        let mut stream = match asked {
            Ok(Ok((_, stream, _))) => stream,
            Ok(Err(LoginError::Network(_) | LoginError::Login(_))) => return Cancelled::NotSent,
            // It may have got so far as to have written the last word.
            Ok(Err(_)) | Err(_) => return Cancelled::Unsure,
        };
        let closed = async {
            let mut rest = Vec::new();
            while rest.len() <= REST_BYTES_MAX {
                if stream.read_more(&mut rest).await? == 0 {
                    return Ok(());
                }
            }
            Err(io::Error::from(io::ErrorKind::InvalidData))
        };
        match tokio::time::timeout(self.way.timeout(), closed).await {
            Ok(Ok(())) => Cancelled::Done,
            Ok(Err(_)) | Err(_) => Cancelled::Unsure,
        }
    }
}
