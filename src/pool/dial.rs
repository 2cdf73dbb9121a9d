//! The way to a target: new streams to it, logins over them, and cancels, each within its time.
//!
//! A cancel goes over a connection of its own, which counts against no budget: the database closes it at once. How many
//! are on their way to one target is bounded; who waits for that too long is not sent at all.

use super::connect::ConnectError;
use crate::config::TargetAddress;
use crate::net::certificate::end_point_binding;
use crate::net::{self, Stream};
use crate::protocol::{Answer, Handshake, HandshakeError, Secured, Step, Violation};
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A database's greeting is short; more than this is not one.
const GREETING_BYTES_MAX: usize = 256 << 10;
/// Cancels on their way to one target at a time; each costs the database a process for a moment.
const CANCELS_MAX: usize = 8;

/// Where a target is, and how it is spoken to.
pub struct Dial {
    address: TargetAddress,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
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
    /// The address, whose name is resolved anew each time; TLS, unless the target goes without; the time for one login or
    /// cancel (`connect_timeout`).
    pub fn new(
        address: TargetAddress,
        tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
        timeout: Duration,
    ) -> Self {
        Self { address, tls, timeout, cancels: Semaphore::new(CANCELS_MAX) }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The target is spoken to over TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn is_local_socket(&self) -> bool {
        matches!(self.address, TargetAddress::Unix(_))
    }

    /// Drives a machine of ours over a new stream until it is done; what it made, the stream, and what came behind.
    pub(super) async fn drive<H: Handshake>(
        &self,
        mut machine: H,
    ) -> Result<(H::Output, Stream, Vec<u8>), ConnectError> {
        let mut stream = net::connect(&self.address, self.timeout).await?;
        let (mut input, mut out) = (Vec::new(), Vec::new());
        loop {
            let step = machine.step(&input, &mut out);
            stream.write_whole(&mut out).await?;
            let (taken, step) = step?;
            input.drain(..taken);
            match step {
                Step::NeedInput => {
                    if input.len() > GREETING_BYTES_MAX {
                        return Err(HandshakeError::from(Violation::FrameTooLong).into());
                    }
                    if stream.read_more(&mut input).await? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                }
                Step::StartTls => {
                    let Some((config, name)) = self.tls.clone() else {
                        return Err(HandshakeError::TlsDeclined.into());
                    };
                    stream = stream.into_tls_client(config, name).await?;
                    let end_point = stream.peer_certificate().and_then(end_point_binding);
                    machine.answer(Answer::TlsStarted(Secured { end_point, ..Secured::default() }));
                }
                Step::Ask(_) => return Err(HandshakeError::from(Violation::MalformedAuthentication).into()),
                Step::Done(made) => return Ok((made, stream, input)),
            }
        }
    }

    /// Asks the target to cancel what the connection of this machine does, and waits until it has: until it has closed the
    /// connection that asked. Each of three steps, to get a turn, to ask, to see it closed, takes at most `connect_timeout`.
    pub async fn cancel(&self, machine: impl Handshake) -> Cancelled {
        let turn = tokio::time::timeout(self.timeout, self.cancels.acquire());
        let Ok(Ok(_permit)) = turn.await else { return Cancelled::NotSent };
        let asked = tokio::time::timeout(self.timeout, self.drive(machine)).await;
        let mut stream = match asked {
            Ok(Ok((_, stream, _))) => stream,
            Ok(Err(ConnectError::Network(_) | ConnectError::Login(_))) => return Cancelled::NotSent,
            // It may have got so far as to have written the last word.
            Ok(Err(_)) | Err(_) => return Cancelled::Unsure,
        };
        let closed = async {
            let mut rest = Vec::new();
            while rest.len() <= GREETING_BYTES_MAX {
                if stream.read_more(&mut rest).await? == 0 {
                    return Ok(());
                }
            }
            Err(io::Error::from(io::ErrorKind::InvalidData))
        };
        match tokio::time::timeout(self.timeout, closed).await {
            Ok(Ok(())) => Cancelled::Done,
            Ok(Err(_)) | Err(_) => Cancelled::Unsure,
        }
    }
}
