//! Control connections to MySQL and MariaDB, by the driver mysql_async, which never meets the network.
//!
//! The driver panics at packets that make no sense and at plugins it was built without, and a panic ends the proxy; says the
//! password to whoever asks for it over TLS; and takes no TLS configuration of its user's. So the machine that logs in for
//! clients logs in here, by the same rules. Then the driver is given a unix socket. At its other end we let it in at once,
//! without a password, and pass on its questions and what the database answers, in whole packets of a length that it can bear:
//!
//! ```text
//!   driver                       here                        database
//!      |                          | <===== TLS, login =======> |
//!      | <---- greeting, OK ------|                            |
//!      |------ question --------->|------- question ---------> |
//!      | <---- whole packets -----| <------ answer ----------- |
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use mysql_common::constants::{CapabilityFlags as Capabilities, StatusFlags};
use mysql_common::packets::HandshakePacket;
use mysql_common::proto::MySerialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::{Account, Borrowed, Control, ControlError, Driver};
use crate::net::{self, LoginError, Stream, Way};
use crate::protocol::{ConnectOptions, HandshakeError, LoginSecret, Meaning, Password, Protocol, ServerError};

/// No answer to a question of ours comes near it.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The driver asks the server for what it is not told; this one it leaves alone.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// As the servers' own default: longer idle, the driver takes its connection for closed.
const WAIT_TIMEOUT_SECONDS: usize = 28_800;
/// Length and sequence.
const HEAD_BYTES: usize = 4;
/// What the driver and the database are agreed on: the machine has asked for these, and for none that changes how an answer
/// to a question looks.
const SPOKEN: Capabilities = Capabilities::CLIENT_LONG_PASSWORD
    .union(Capabilities::CLIENT_PROTOCOL_41)
    .union(Capabilities::CLIENT_SECURE_CONNECTION)
    .union(Capabilities::CLIENT_PLUGIN_AUTH)
    .union(Capabilities::CLIENT_TRANSACTIONS)
    .union(Capabilities::CLIENT_DEPRECATE_EOF);
/// To the driver's login: OK, autocommit.
const LET_IN: [u8; 11] = [7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0];

/// What an error begins with.
const ERROR: u8 = 0xFF;
/// The highest number that is written as one byte.
const MANY: u8 = 0xFA;
/// COM_QUIT.
const GOODBYE: [u8; 5] = [1, 0, 0, 0, 1];

/// How a MySQL or MariaDB is connected to.
pub struct MySql {
    way: Way,
    log_in: Box<dyn Fn(LoginSecret) -> LoggingIn + Send + Sync>,
}

type LoggingIn = Pin<Box<dyn Future<Output = Result<Stream, ControlError>> + Send>>;

/// Control connections to a database that `P`, which is MySQL's protocol, logs in at. Nothing is opened yet.
pub fn mysql_control<P>(way: Way, account: &Account<'_>) -> Result<Control<MySql>, ControlError>
where
    P: Protocol,
    P::Connect: Send,
    P::Server: Send,
{
    let options = ConnectOptions {
        user: account.user.to_owned(),
        database: account.database.to_owned(),
        fixed: Vec::new(),
        secret: None,
        tls: way.has_tls(),
        local_socket: way.is_local_socket(),
        nonce: rand::random(),
        // None is prepared here.
        max_prepared_statements: 0,
        statement_key: [0; 16],
        learned: Arc::default(),
    };
    let (timeout, log_in) = (way.timeout(), way.clone());
    let log_in = move |secret| -> LoggingIn {
        let machine = P::connect(ConnectOptions { secret: Some(secret), ..options.clone() });
        let way = log_in.clone();
        Box::pin(async move {
            let (_, stream, rest) = way.log_in(machine).await?;
            // Nothing was asked yet.
            if rest.is_empty() { Ok(stream) } else { Err(nonsense().into()) }
        })
    };
    Control::new(MySql { way, log_in: Box::new(log_in) }, account, timeout)
}

impl From<LoginError> for ControlError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Network(net::ConnectError::Timeout { limit, .. }) => Self::ConnectTimeout(limit),
            LoginError::Network(error) => Self::Network(io::Error::other(error)),
            LoginError::Tls(error) => Self::Tls(error),
            LoginError::Lost(error) => Self::Network(error),
            LoginError::Login(HandshakeError::Server(error)) => Self::Server(error),
            LoginError::Login(HandshakeError::Violation(_)) => nonsense().into(),
            LoginError::Login(error) => Self::Login(error),
        }
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what answers there does not speak MySQL's protocol as it should")
}

impl Driver for MySql {
    type Connection = Connection;

    async fn connect(&self, password: &str) -> Result<Connection, ControlError> {
        let password = Password::new(password);
        let anybody = self.way.is_to_anybody();
        let secret = if anybody { LoginSecret::Unsaid(password) } else { LoginSecret::Password(password) };
        hand_over((self.log_in)(secret).await?).await
    }

    fn is_about_the_password(error: &ControlError) -> bool {
        let ControlError::Server(error) = error else { return false };
        matches!(error.meaning(), Meaning::WrongPassword | Meaning::LoginRefused)
    }

    fn is_closed(connection: &Connection) -> bool {
        connection.relay.is_finished() || connection.driver.is_disconnected()
    }
}

/// The driver's, with what stands behind it.
pub struct Connection {
    driver: Conn,
    /// Ends when either side does, and says why if it was not the driver.
    relay: JoinHandle<io::Result<()>>,
    is_asked: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The driver would wait in the background for an answer that may never come.
        if self.is_asked {
            self.relay.abort();
        }
    }
}

/// Gives the driver a connection that is logged in.
///
/// Cancel safe: both ends are closed.
async fn hand_over(database: Stream) -> Result<Connection, ControlError> {
    // Of Linux's abstract names, which need no folder that can be written to.
    let name = format!("\0sluicegate-{:032x}", rand::random::<u128>());
    let listener = UnixListener::bind(&name)?;
    let options = OptsBuilder::default()
        .socket(Some(name))
        .prefer_socket(false)
        .stmt_cache_size(0)
        .max_allowed_packet(Some(PACKET_BYTES_MAX))
        .wait_timeout(Some(WAIT_TIMEOUT_SECONDS));
    let connecting = async { Conn::new(options).await.map_err(ControlError::MySql) };
    let letting_in = async { let_in(&listener).await.map_err(ControlError::Network) };
    let (driver, socket) = tokio::try_join!(connecting, letting_in)?;
    let relay = tokio::spawn(relay(socket, database));
    Ok(Connection { driver, relay, is_asked: false })
}

/// The driver's end, from this very process: /proc/net/unix shows such names to everybody.
async fn let_in(listener: &UnixListener) -> io::Result<UnixStream> {
    let mut driver = loop {
        let (peer, _) = listener.accept().await?;
        if peer.peer_cred()?.pid().is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id())) {
            break peer;
        }
    };
    let mut greeting = Vec::new();
    HandshakePacket::new(
        10,
        &b"8.0.0"[..],
        0,
        [1; 8],
        Some(&[1; 13][..]),
        SPOKEN,
        45,
        StatusFlags::SERVER_STATUS_AUTOCOMMIT,
        Some(&b"mysql_native_password"[..]),
    )
    .serialize(&mut greeting);
    // Its length, and the sequence, which is 0.
    driver.write_u32_le(u32::try_from(greeting.len()).unwrap_or_default()).await?;
    driver.write_all(&greeting).await?;
    let length = driver.read_u32_le().await? & 0xFF_FFFF;
    tokio::io::copy(&mut (&mut driver).take(u64::from(length)), &mut tokio::io::sink()).await?;
    driver.write_all(&LET_IN).await?;
    Ok(driver)
}

/// Passes questions on, and answers of which the driver can make something. Ends with the driver, or with an error.
async fn relay(mut driver: UnixStream, mut database: Stream) -> io::Result<()> {
    let (mut question, mut said, mut answer) = (Vec::new(), Vec::new(), Answer::default());
    loop {
        // Both are cancel safe, and what was read stays.
        tokio::select! {
            read = driver.read_buf(&mut question) => {
                if read? == 0 {
                    // The driver goes without a word, which the database would put into its log.
                    let _ = database.write_whole(&mut GOODBYE.to_vec()).await;
                    return Ok(());
                }
                answer = Answer::default();
                database.write_whole(&mut question).await?;
            }
            read = database.read_more(&mut said) => {
                if read? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the database has closed the connection"));
                }
                let whole = answer.whole_packets(&said)?;
                driver.write_all(said.get(..whole).unwrap_or_default()).await?;
                said.drain(..whole);
            }
        }
    }
}

/// What has come of one.
#[derive(Default)]
struct Answer {
    packets: usize,
    bytes: usize,
}

impl Answer {
    /// Bytes of the packets at the front that are all there, and that the driver does not panic at: it takes the first byte of any
    /// without a look at the length, and looks for columns wherever it is told of none.
    fn whole_packets(&mut self, said: &[u8]) -> io::Result<usize> {
        let mut end = 0;
        while let Some([a, b, c, _, ..]) = said.get(end..) {
            let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
            let next = end + HEAD_BYTES + length;
            if self.bytes + next > ANSWER_BYTES_MAX {
                return Err(nonsense());
            }
            let Some(payload) = said.get(end + HEAD_BYTES..next) else { break };
            match (self.packets, payload) {
                // An error, or the number of columns: all questions of ours ask for some, and for few.
                (0, [ERROR, ..] | [1..=MANY]) | (1.., [_, ..]) => {}
                _ => return Err(nonsense()),
            }
            self.packets += 1;
            end = next;
        }
        self.bytes += end;
        Ok(end)
    }
}

impl Borrowed<MySql> {
    /// Asks for one row; values come as text. One round trip.
    pub(in crate::topology) async fn ask(
        mut self,
        question: &'static str,
    ) -> Result<Vec<Option<String>>, ControlError> {
        let connection = self.connection()?;
        connection.is_asked = true;
        let row: Option<Row> = match connection.driver.query_first(question).await {
            Ok(row) => row,
            Err(error) => return Err(connection.failed(error).await),
        };
        connection.is_asked = false;
        self.answered();
        let text = |value| match value {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Value::NULL => None,
            // Not in answers to questions that are sent as text.
            Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Double(_) | Value::Date(..) | Value::Time(..) => {
                None
            }
        };
        Ok(row.ok_or(ControlError::NoRow)?.unwrap().into_iter().map(text).collect())
    }
}

impl Connection {
    /// What is behind an error of the driver's.
    async fn failed(&mut self, error: mysql_async::Error) -> ControlError {
        if let mysql_async::Error::Server(error) = error {
            let (code, message) = (error.code.to_string(), error.message);
            return ControlError::Server(ServerError { code, message, is_fatal: false, frame: Vec::new() });
        }
        // If it has ended before the driver has, it still says why.
        self.relay.abort();
        match (&mut self.relay).await {
            Ok(Err(error)) => ControlError::Network(error),
            Ok(Ok(())) | Err(_) => ControlError::MySql(error),
        }
    }
}

#[cfg(test)]
mod tests;
