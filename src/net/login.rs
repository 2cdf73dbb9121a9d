//! Logins at a database: where it is, how it is spoken to, and the machine that speaks driven over a new stream to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::certificate::end_point_binding;
use super::tls::{self, ClientTls, TlsError};
use super::{ConnectError, Stream, connect};
use crate::config::TargetAddress;
use crate::protocol::{Answer, Handshake, HandshakeError, Secured, Step, Violation};

/// A database's greeting is short; more than this is not one.
const GREETING_BYTES_MAX: usize = 256 << 10;

/// The way to a database.
#[derive(Debug, Clone)]
pub struct Way {
    address: TargetAddress,
    tls: Option<(ClientTls, ServerName<'static>)>,
    timeout: Duration,
}

/// Why a login failed. Holds addresses: for the log, not for clients.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The database can't be reached.
    #[error(transparent)]
    Network(#[from] ConnectError),
    /// TLS could not be agreed on, or the connection was lost over it.
    #[error(transparent)]
    Tls(io::Error),
    /// The connection was lost in the middle.
    #[error(transparent)]
    Lost(#[from] io::Error),
    /// The login itself.
    #[error(transparent)]
    Login(#[from] HandshakeError),
}

impl Way {
    /// The address, whose name is resolved anew each time; TLS, unless the target goes without (a unix socket does in any
    /// case); the time for one login (`connect_timeout`), which who logs in keeps.
    pub fn new(address: TargetAddress, tls: Option<ClientTls>, timeout: Duration) -> Result<Self, TlsError> {
        let tls = match (&address, tls) {
            (TargetAddress::Tcp { .. }, Some(tls)) => Some((tls, tls::server_name(&address)?)),
            (TargetAddress::Tcp { .. }, None) | (TargetAddress::Unix(_), _) => None,
        };
        Ok(Self { address, tls, timeout })
    }

    /// The time for one login.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What the target is spoken to with over TLS.
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref().map(|(tls, _)| tls)
    }

    /// The target is spoken to over TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Over TLS, and whoever answers may be anybody: it gets no password as it is.
    pub fn is_to_anybody(&self) -> bool {
        self.tls.as_ref().is_some_and(|(tls, _)| !tls.verifies)
    }

    /// Nobody but this machine can listen.
    pub fn is_local_socket(&self) -> bool {
        matches!(self.address, TargetAddress::Unix(_))
    }

    /// Drives a machine of ours over a new stream until it is done; what it made, the stream, and what came behind. Only
    /// connecting has a time limit of its own.
    ///
    /// Cancel safe: the connection is closed.
    pub async fn log_in<H: Handshake>(&self, mut machine: H) -> Result<(H::Output, Stream, Vec<u8>), LoginError> {
        let mut stream = connect(&self.address, self.timeout).await?;
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
                    let Some((tls, name)) = &self.tls else {
                        return Err(HandshakeError::TlsDeclined.into());
                    };
                    let starting = stream.into_tls_client(Arc::clone(&tls.config), name.clone());
                    stream = starting.await.map_err(LoginError::Tls)?;
                    let end_point = stream.peer_certificate().and_then(end_point_binding);
                    machine.answer(Answer::TlsStarted(Secured { end_point, ..Secured::default() }));
                }
                Step::Ask(_) => return Err(HandshakeError::from(Violation::MalformedAuthentication).into()),
                Step::Done(made) => return Ok((made, stream, input)),
            }
        }
    }
}
