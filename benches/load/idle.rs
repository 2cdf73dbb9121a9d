//! Clients that log in, ask one thing, and then do nothing: for what a proxy holds in memory for each of them.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{Door, Result};
use sluicegate::demo::servers::APP;

/// Logins at the same time.
const LOGINS: usize = 64;
/// Files of ours beside the clients' sockets.
const FILES_BESIDE: u64 = 200;

/// Clients that are connected until this is dropped.
pub struct Idle {
    // In this order: sockets are closed on their runtime.
    clients: Vec<Box<dyn Send>>,
    _runtime: Runtime,
}

impl Idle {
    /// Logs them in, lets each run a query, and leaves them alone. `tls`: whom they trust, where the door has TLS.
    pub fn start(door: Door<'_>, clients: u32, tls: &Arc<ClientConfig>) -> Result<Self> {
        raise_file_limit(u64::from(clients) + FILES_BESIDE)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let connector = door.tls.then(|| TlsConnector::from(tls.clone()));
        let clients = runtime.block_on(async {
            let (logins, mut running) = (Arc::new(Semaphore::new(LOGINS)), JoinSet::new());
            for _ in 0..clients {
                let (logins, connector) = (logins.clone(), connector.clone());
                let (port, user, password) = (door.port, door.user.to_owned(), door.password.to_owned());
                running.spawn(async move {
                    let _permit = logins.acquire().await.map_err(io::Error::other)?;
                    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                    socket.set_nodelay(true)?;
                    match connector {
                        None => settle(socket, &user, &password).await,
                        Some(connector) => settle(start_tls(socket, &connector).await?, &user, &password).await,
                    }
                });
            }
            let mut clients = Vec::new();
            while let Some(client) = running.join_next().await {
                clients.push(client??);
            }
            Ok::<_, Box<dyn std::error::Error>>(clients)
        })?;
        Ok(Self { clients, _runtime: runtime })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }
}

async fn start_tls(mut socket: TcpStream, connector: &TlsConnector) -> io::Result<impl Carrier> {
    socket.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    if socket.read_u8().await? != b'S' {
        return Err(io::Error::other("no TLS here"));
    }
    connector.connect("localhost".try_into().map_err(io::Error::other)?, socket).await
}

trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carrier for T {}

async fn settle(mut carrier: impl Carrier, user: &str, password: &str) -> io::Result<Box<dyn Send>> {
    let mut out = BytesMut::new();
    frontend::startup_message([("user", user), ("database", APP)], &mut out)?;
    carrier.write_all(&out).await?;
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    loop {
        let (kind, body) = frame(&mut carrier).await?;
        out.clear();
        match (kind, body.as_slice()) {
            (b'Z', _) => break,
            (b'E', body) => return Err(io::Error::other(String::from_utf8_lossy(body).into_owned())),
            (b'R', [0, 0, 0, 10, ..]) => frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?,
            (b'R', [0, 0, 0, 11, challenge @ ..]) => {
                scram.update(challenge)?;
                frontend::sasl_response(scram.message(), &mut out)?;
            }
            (b'R', [0, 0, 0, 12, end @ ..]) => scram.finish(end)?,
            _ => continue,
        }
        carrier.write_all(&out).await?;
    }
    out.clear();
    frontend::query("SELECT 1", &mut out)?;
    carrier.write_all(&out).await?;
    while frame(&mut carrier).await?.0 != b'Z' {}
    Ok(Box::new(carrier))
}

async fn frame(carrier: &mut impl Carrier) -> io::Result<(u8, Vec<u8>)> {
    let kind = carrier.read_u8().await?;
    let length = carrier.read_u32().await?.checked_sub(4).ok_or(ErrorKind::InvalidData)?;
    let mut body = vec![0; length as usize];
    carrier.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn raise_file_limit(wanted: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    match maximum {
        Some(maximum) if maximum < wanted => {
            Err(format!("{wanted} files are needed here; `ulimit -Hn` allows {maximum}: raise it").into())
        }
        _ => Ok(()),
    }
}
