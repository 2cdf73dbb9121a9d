//! The packets that are written and read here: greetings, logins, OK, ERR and EOF; commands by their numbers.
//!
//! What is read here is read with every length checked: it comes from strangers (`docs/decisions/0006`). What ends a reply comes out
//! again as another client can read it. <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>

use super::capabilities::{Capabilities, Extended};
use super::frame::{self, Reader};
use super::password::CHALLENGE_BYTES;
use crate::protocol::{ClientError, ServerError, Violation};

/// The first byte of what ends a reply.
pub mod mark {
    /// OK.
    pub const OK: u8 = 0x00;
    /// More of a login: AuthMoreData.
    pub const MORE: u8 = 0x01;
    /// The server wants a file of the client's.
    pub const LOCAL_FILE: u8 = 0xFB;
    /// EOF, or the OK in its place; in a login: another plugin.
    pub const EOF: u8 = 0xFE;
    /// ERR.
    pub const ERROR: u8 = 0xFF;
}

/// Commands: the first byte of what a client says.
pub mod command {
    /// Goodbye.
    pub const QUIT: u8 = 0x01;
    /// Another database.
    pub const INIT_DB: u8 = 0x02;
    /// A text.
    pub const QUERY: u8 = 0x03;
    /// The columns of a table.
    pub const FIELD_LIST: u8 = 0x04;
    /// A line of figures.
    pub const STATISTICS: u8 = 0x09;
    /// Another connection is ended, by its number.
    pub const PROCESS_KILL: u8 = 0x0C;
    /// Is anybody there?
    pub const PING: u8 = 0x0E;
    /// The binary log.
    pub const BINLOG_DUMP: u8 = 0x12;
    /// A replica says who it is.
    pub const REGISTER_REPLICA: u8 = 0x15;
    /// The binary log, from a GTID.
    pub const BINLOG_DUMP_GTID: u8 = 0x1E;
    /// Another user.
    pub const CHANGE_USER: u8 = 0x11;
    /// A statement is prepared.
    pub const STMT_PREPARE: u8 = 0x16;
    /// It is executed.
    pub const STMT_EXECUTE: u8 = 0x17;
    /// A piece of a long parameter; no reply.
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    /// It is closed; no reply.
    pub const STMT_CLOSE: u8 = 0x19;
    /// Its cursor and long parameters are dropped.
    pub const STMT_RESET: u8 = 0x1A;
    /// Several statements in one text, or not.
    pub const SET_OPTION: u8 = 0x1B;
    /// More rows of a cursor.
    pub const STMT_FETCH: u8 = 0x1C;
    /// As a new connection.
    pub const RESET_CONNECTION: u8 = 0x1F;
    /// MariaDB's: a statement is executed with many sets of parameters.
    pub const STMT_BULK_EXECUTE: u8 = 0xFA;
}

/// Status flags of OK and EOF packets.
pub mod status {
    /// A transaction is open.
    pub const IN_TRANSACTION: u16 = 0x0001;
    /// Statements commit themselves.
    pub const AUTOCOMMIT: u16 = 0x0002;
    /// Another result follows.
    pub const MORE_RESULTS: u16 = 0x0008;
    /// A cursor is open: no rows follow.
    pub const CURSOR_EXISTS: u16 = 0x0040;
    /// The cursor's last row was sent, and it is closed.
    pub const LAST_ROW_SENT: u16 = 0x0080;
    /// `NO_BACKSLASH_ESCAPES` is in `sql_mode`.
    pub const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
    /// The open transaction may not write.
    pub const IN_READ_ONLY_TRANSACTION: u16 = 0x2000;
    /// What has changed in the session is told.
    pub const STATE_CHANGED: u16 = 0x4000;
    /// MariaDB's: `ANSI_QUOTES` is in `sql_mode`.
    pub const ANSI_QUOTES: u16 = 0x8000;
    /// What holds until something changes it. All else is of one statement: that it used no index, was slow, has more results.
    pub const LASTING: u16 =
        IN_TRANSACTION | AUTOCOMMIT | NO_BACKSLASH_ESCAPES | IN_READ_ONLY_TRANSACTION | ANSI_QUOTES;
}

/// What a server greets with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerGreeting<'a> {
    /// In its own words.
    pub version: &'a str,
    /// By which the connection can be killed.
    pub connection_id: u32,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The same of what is MariaDB's own.
    pub extended: Extended,
    /// The first bytes of its challenge.
    pub challenge: [u8; CHALLENGE_BYTES],
    /// The plugin that the challenge is for; may be empty.
    pub plugin: &'a [u8],
}

impl<'a> ServerGreeting<'a> {
    /// Reads a greeting of version 10
    /// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html>).
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        if reader.byte()? != 10 {
            return None;
        }
        let version = std::str::from_utf8(reader.cstr()?).ok()?;
        let connection_id = reader.u32()?;
        let first = reader.bytes(8)?;
        reader.byte()?;
        let low = reader.u16()?;
        // The collation and the status: a login's reply says them again.
        reader.bytes(3)?;
        let capabilities = Capabilities::from_bits_retain(u32::from(reader.u16()?) << 16 | u32::from(low));
        let challenge_bytes = usize::from(reader.byte()?);
        reader.bytes(6)?;
        let extended = extended(capabilities, reader.u32()?);
        // With a zero byte behind it, which is counted.
        let second = reader.bytes(challenge_bytes.saturating_sub(8).max(13))?;
        let challenge = *[first, second].concat().first_chunk()?;
        let plugin = memchr::memchr(0, reader.0).and_then(|end| reader.0.get(..end)).unwrap_or(reader.0);
        Some(Self { version, connection_id, capabilities, extended, challenge, plugin })
    }
}

/// What a client answers to a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientResponse<'a> {
    /// What it can do, or would like to.
    pub capabilities: Capabilities,
    /// The same of what is MariaDB's own.
    pub extended: Extended,
    /// Its collation.
    pub collation: u16,
    /// Its user.
    pub user: &'a str,
    /// Its plugin's answer to the challenge.
    pub answer: &'a [u8],
    /// The database it asks for; may be empty.
    pub database: &'a str,
    /// Its plugin. `None`: it knows of none.
    pub plugin: Option<&'a [u8]>,
    /// What it says that its program is; may be empty.
    pub program: &'a str,
    /// How hard it wants zstd to try, if it wants that at all.
    pub zstd_level: u8,
}

impl<'a> ClientResponse<'a> {
    /// Reads a response of protocol 4.1
    /// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_response.html>).
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let capabilities = Capabilities::from_bits_retain(reader.u32()?);
        // The longest packet it takes.
        reader.u32()?;
        let collation = reader.byte()?.into();
        reader.bytes(19)?;
        let extended = extended(capabilities, reader.u32()?);
        let user = std::str::from_utf8(reader.cstr()?).ok()?;
        let answer = if capabilities.contains(Capabilities::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            reader.string()?
        } else if capabilities.contains(Capabilities::CLIENT_SECURE_CONNECTION) {
            let len = reader.byte()?;
            reader.bytes(usize::from(len))?
        } else {
            reader.cstr()?
        };
        let has_database = capabilities.contains(Capabilities::CLIENT_CONNECT_WITH_DB) && !reader.0.is_empty();
        let database = if has_database { std::str::from_utf8(reader.cstr()?).ok()? } else { "" };
        let (plugin, program) = plugin_and_program(&mut reader, capabilities)?;
        let zstd_level = reader.byte().unwrap_or_default();
        Some(Self { capabilities, extended, collation, user, answer, database, plugin, program, zstd_level })
    }

    /// Reads the same of COM_CHANGE_USER, by a client with these capabilities
    /// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_change_user.html>).
    pub fn read_again(payload: &'a [u8], capabilities: Capabilities, extended: Extended) -> Option<Self> {
        let mut reader = Reader(payload);
        reader.byte().filter(|command| *command == command::CHANGE_USER)?;
        let user = std::str::from_utf8(reader.cstr()?).ok()?;
        let len = reader.byte()?;
        let answer = reader.bytes(usize::from(len))?;
        let database = std::str::from_utf8(reader.cstr()?).ok()?;
        let collation = if reader.0.is_empty() { 0 } else { reader.u16()? };
        let (plugin, program) = plugin_and_program(&mut reader, capabilities)?;
        Some(Self { capabilities, extended, collation, user, answer, database, plugin, program, zstd_level: 0 })
    }
}

/// MariaDB's own capabilities are those of who leaves out MySQL's first.
fn extended(usual: Capabilities, bytes: u32) -> Extended {
    let is_mariadb = !usual.contains(Capabilities::CLIENT_LONG_PASSWORD);
    if is_mariadb { Extended::from_bits_retain(bytes) } else { Extended::empty() }
}

/// What a client's answer ends with: its plugin, and the name of its program.
fn plugin_and_program<'a>(reader: &mut Reader<'a>, capabilities: Capabilities) -> Option<(Option<&'a [u8]>, &'a str)> {
    let has_plugin = capabilities.contains(Capabilities::CLIENT_PLUGIN_AUTH) && !reader.0.is_empty();
    // The last string of a packet may go without its zero byte.
    let end = memchr::memchr(0, reader.0).unwrap_or(reader.0.len());
    let plugin = if has_plugin { reader.bytes(end) } else { None };
    if has_plugin && !reader.0.is_empty() {
        reader.byte()?;
    }
    let has_attributes = capabilities.contains(Capabilities::CLIENT_CONNECT_ATTRS) && !reader.0.is_empty();
    let mut attributes = Reader(if has_attributes { reader.string()? } else { b"" });
    let mut program = "";
    while !attributes.0.is_empty() {
        let (name, value) = (attributes.string()?, attributes.string()?);
        if name == b"program_name" {
            program = std::str::from_utf8(value).unwrap_or_default();
        }
    }
    Some((plugin, program))
}

/// Another plugin is to be used: its name, and its challenge, with whatever stands behind that.
pub fn read_switch(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(payload);
    if reader.byte()? != mark::EOF {
        return None;
    }
    let name = reader.cstr()?;
    Some((name, reader.0))
}

/// What session trackers tell of (<https://dev.mysql.com/doc/refman/9.7/en/session-state-tracking.html>).
pub mod tracker {
    /// That something has changed, without a word of what.
    pub const STATE: u8 = 2;
}

/// What an OK packet says, or what stands in its place at the end of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OkPacket<'a> {
    /// Rows changed.
    pub affected: u64,
    /// The first value generated.
    pub insert_id: u64,
    /// See [`status`].
    pub status: u16,
    /// Warnings of the statement.
    pub warnings: u16,
    /// Words for people.
    pub info: &'a [u8],
    /// What has changed in the session, as session trackers tell it.
    pub changes: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// Reads the payload, behind its first byte, as it is said to a client with `SESSION_TRACK`.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload.get(1..)?);
        let (affected, insert_id) = (reader.number()?, reader.number()?);
        let (status, warnings) = (reader.u16()?, reader.u16()?);
        let info = if reader.0.is_empty() { &b""[..] } else { reader.string()? };
        let has_changes = status & status::STATE_CHANGED != 0 && !reader.0.is_empty();
        let changes = if has_changes { reader.string()? } else { &b""[..] };
        Some(Self { affected, insert_id, status, warnings, info, changes })
    }

    /// Writes the payload; `tracks`: for a client with `SESSION_TRACK`.
    pub fn write(&self, mark: u8, tracks: bool, out: &mut Vec<u8>) {
        let status = if tracks { self.status } else { self.status & !status::STATE_CHANGED };
        out.push(mark);
        frame::put_number(out, self.affected);
        frame::put_number(out, self.insert_id);
        out.extend_from_slice(&status.to_le_bytes());
        out.extend_from_slice(&self.warnings.to_le_bytes());
        let has_changes = tracks && status & status::STATE_CHANGED != 0;
        if !self.info.is_empty() || has_changes {
            frame::put_string(out, self.info);
        }
        if has_changes {
            frame::put_string(out, self.changes);
        }
    }

    /// What has changed, but for [`tracker::STATE`]; and whether that was there.
    pub fn untold(&self) -> (Vec<u8>, bool) {
        let (mut kept, mut is_told) = (Vec::new(), false);
        let mut reader = Reader(self.changes);
        while let (Some(kind), Some(change)) = (reader.byte(), reader.string()) {
            if kind == tracker::STATE {
                is_told = true;
            } else {
                kept.push(kind);
                frame::put_string(&mut kept, change);
            }
        }
        (kept, is_told)
    }

    /// Writes an EOF packet's payload.
    pub fn write_eof(&self, out: &mut Vec<u8>) {
        out.push(mark::EOF);
        out.extend_from_slice(&self.warnings.to_le_bytes());
        out.extend_from_slice(&(self.status & !status::STATE_CHANGED).to_le_bytes());
    }
}

/// The payload of an EOF packet, or of an OK packet at the end of rows, by its length.
pub const EOF_BYTES: usize = 5;

/// MariaDB tells how far a long statement has come, in what looks like an error of this number
/// (<https://mariadb.com/kb/en/progress-reporting/>). The reply follows.
pub fn is_progress(payload: &[u8]) -> bool {
    payload.starts_with(&[mark::ERROR, 0xFF, 0xFF])
}

/// Writes an ERR packet's payload.
pub fn error(code: u16, state: &str, message: &str, out: &mut Vec<u8>) {
    out.push(mark::ERROR);
    out.extend_from_slice(&code.to_le_bytes());
    out.push(b'#');
    out.extend_from_slice(state.as_bytes());
    out.extend_from_slice(message.as_bytes());
}

/// A server's own error, told in its place.
pub fn as_server(code: u16, state: &str, message: String) -> ClientError {
    let mut frame = Vec::new();
    error(code, state, &message, &mut frame);
    ClientError::Server(ServerError { code: code.to_string(), message, is_fatal: false, frame })
}

/// What the proxy tells a client, as an ERR packet's payload.
pub fn client_error(error: &ClientError, out: &mut Vec<u8>) {
    if let ClientError::Server(own) = error
        && own.frame.first() == Some(&mark::ERROR)
    {
        out.extend_from_slice(&own.frame);
        return;
    }
    let (code, state) = code(error);
    self::error(code, state, &words(error), out);
}

/// What a client is told whose proof was wrong; whether it has shown a password at all.
pub fn login_refused(error: &ClientError, has_shown: bool, out: &mut Vec<u8>) {
    if !matches!(error, ClientError::LoginRefused { .. }) {
        return client_error(error, out);
    }
    let (code, state) = code(error);
    let used = if has_shown { "YES" } else { "NO" };
    self::error(code, state, &format!("{} (using password: {used})", words(error)), out);
}

/// Number and SQLSTATE of what the proxy tells a client (`docs/OPERATIONS.md`).
fn code(error: &ClientError) -> (u16, &'static str) {
    match error {
        ClientError::TlsRequired | ClientError::PasswordInClear => (3159, "HY000"),
        ClientError::LoginRefused { .. }
        | ClientError::TokenRefused { .. }
        | ClientError::CertificateRefused { .. }
        | ClientError::NoUserName => (1045, "28000"),
        ClientError::LoginTimeout => (1159, "08S01"),
        ClientError::TooManyClients { .. }
        | ClientError::TooManyUserClients { .. }
        | ClientError::TooManyLogins { .. }
        | ClientError::TooManyLoginsAtOnce { .. }
        | ClientError::TooManyFailedLogins => (1040, "08004"),
        ClientError::AddressNotAllowed { .. } => (1130, "HY000"),
        ClientError::Replication => (1227, "42000"),
        ClientError::LookupFailed { .. }
        | ClientError::BorrowTimeout { .. }
        | ClientError::UserBorrowTimeout { .. }
        | ClientError::LineFull { .. }
        | ClientError::NoWriter { .. }
        | ClientError::ConnectionsLost { .. }
        | ClientError::TooManyPools { .. }
        | ClientError::TargetLogin { .. }
        | ClientError::InitQuery { .. } => (9501, "HY000"),
        ClientError::Server(_) => (1105, "HY000"),
        ClientError::OutcomeUnknown => (1158, "08S01"),
        ClientError::StateLost
        | ClientError::TransactionIdle { .. }
        | ClientError::ClientIdle { .. }
        | ClientError::PinIdle { .. }
        | ClientError::GoingDown => (1053, "08S01"),
        ClientError::PinRefused { .. } | ClientError::PinLimit { .. } | ClientError::TooManyNames { .. } => {
            (1235, "42000")
        }
        ClientError::TooManyStatements { .. } => (1461, "42000"),
        ClientError::Unsupported { .. } => (1235, "42000"),
        ClientError::UnknownCommand => (1047, "08S01"),
        ClientError::TransactionRefused | ClientError::TransactionLost => (1213, "40001"),
        ClientError::Killed => (1927, "70100"),
        ClientError::Cancelled | ClientError::QueryTooLong { .. } | ClientError::TransactionTooLong { .. } => {
            (1317, "70100")
        }
        ClientError::Protocol(Violation::InvalidStartup) => (1043, "08S01"),
        ClientError::Protocol(_) => (1835, "HY000"),
        ClientError::Internal => (1105, "HY000"),
    }
}

/// The words, where they are not the same for all clients.
// Most are.
#[allow(clippy::wildcard_enum_match_arm)]
fn words(error: &ClientError) -> String {
    match error {
        ClientError::TlsRequired => {
            "this endpoint requires TLS: connect with --ssl-mode=REQUIRED or stricter".to_owned()
        }
        ClientError::PasswordInClear => {
            "this login needs TLS, a password or token would travel in the clear: connect with \
             --ssl-mode=REQUIRED or stricter"
                .to_owned()
        }
        ClientError::LoginRefused { user } => format!("Access denied for user '{user}'"),
        ClientError::NoUserName => "Access denied for user ''".to_owned(),
        ClientError::LoginTimeout => "the login took too long (login_timeout)".to_owned(),
        ClientError::Cancelled => "Query execution was interrupted".to_owned(),
        ClientError::TransactionRefused => {
            "the transaction has been rolled back: nothing is run until it is ended with ROLLBACK or COMMIT".to_owned()
        }
        other => other.to_string(),
    }
}

/// What an ERR packet says. `None`: it is none.
pub fn server_error(payload: &[u8]) -> Option<ServerError> {
    let mut reader = Reader(payload);
    if reader.byte()? != mark::ERROR {
        return None;
    }
    let code = reader.u16()?;
    let state = if reader.0.first() == Some(&b'#') { Some(reader.bytes(6)?) } else { None };
    let message = String::from_utf8_lossy(reader.0).into_owned();
    // Before a login there is no SQLSTATE, but clients expect one.
    let is_its_own = |own: &[u8]| state.is_none_or(|state| state.ends_with(own));
    let is_fatal = ENDING.iter().any(|(ending, own)| *ending == code && is_its_own(*own));
    Some(ServerError { code: code.to_string(), message, is_fatal, frame: payload.to_vec() })
}

/// Errors behind which a server closes: shutdown, killed, timed out, in the wrong order. Behind 1820, that the password has expired,
/// it does not, but the connection is good for nothing else, for whomever it is. With their states: a `SIGNAL` may say any number.
const ENDING: &[(u16, &[u8; 5])] = &[
    (1053, b"08S01"),
    (1156, b"08S01"),
    (1158, b"08S01"),
    (1159, b"08S01"),
    (1160, b"08S01"),
    (1161, b"08S01"),
    (1820, b"HY000"),
    (1927, b"70100"),
    (4031, b"HY000"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn errors_come_back() {
        let mut payload = Vec::new();
        client_error(&ClientError::OutcomeUnknown, &mut payload);
        let error = server_error(&payload).unwrap();
        assert_eq!((error.code.as_str(), error.message), ("1158", ClientError::OutcomeUnknown.to_string()));
        // What comes before a login has no SQLSTATE.
        assert_eq!(server_error(b"\xFF\x10\x04Too many connections").unwrap().code, "1040");
        assert_eq!(server_error(b"\0"), None);
        assert_eq!(server_error(b"\xFF\x10"), None);
    }

    proptest! {
        #[test]
        fn ok_packets_come_back(
            numbers: (u64, u64), status: u16, warnings: u16,
            info in proptest::collection::vec(any::<u8>(), 0..300), changes in proptest::collection::vec(any::<u8>(), 1..300),
        ) {
            let has_changes = status & status::STATE_CHANGED != 0;
            let changes = if has_changes { changes.as_slice() } else { b"" };
            let packet =
                OkPacket { affected: numbers.0, insert_id: numbers.1, status, warnings, info: &info, changes };
            let mut out = Vec::new();
            packet.write(mark::OK, true, &mut out);
            prop_assert_eq!(OkPacket::read(&out), Some(packet));
            let mut without = Vec::new();
            packet.write(mark::OK, false, &mut without);
            let read = OkPacket::read(&without).unwrap();
            prop_assert_eq!(read.changes, b"");
            prop_assert_eq!(read.status, status & !status::STATE_CHANGED);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (OkPacket::read(&bytes), server_error(&bytes), read_switch(&bytes));
            let _ = (ServerGreeting::read(&bytes), ClientResponse::read(&bytes));
        }
    }
}
