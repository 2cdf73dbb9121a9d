//! Messages: encoders of the few we write, typed views of the few we read.
//!
//! Bodies are as in <https://www.postgresql.org/docs/current/protocol-message-formats.html>. Encoders append whole
//! frames; a string of ours never holds more than up to its first NUL. Views take a body or a frame that is all
//! there, trust nothing in it, and say `None` to what does not have its kind's form.

use super::frame::{HEAD_BYTES, cstr, frame, packet, put_cstr};
use crate::protocol::{ClientError, PinReason, ServerError};
use crate::sql::settings::Parameter;
use std::borrow::Cow;

/// Types of the messages a server sends.
#[allow(missing_docs)] // Each has the manual's name.
pub mod from_server {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// Types of the messages a client sends.
#[allow(missing_docs)] // Each has the manual's name.
pub mod from_client {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Codes that stand where a packet without kind byte has its version.
#[allow(missing_docs)] // Each has the manual's name.
pub mod request_code {
    pub const CANCEL: u32 = 1234 << 16 | 5678;
    pub const SSL: u32 = 1234 << 16 | 5679;
    pub const GSS_ENCRYPTION: u32 = 1234 << 16 | 5680;
}

/// The severity of an error or a notice, as in fields S and V.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// A notice.
    Warning,
    /// A notice.
    Notice,
}

impl Severity {
    /// As on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }

    const fn of_error(fatal: bool) -> Self {
        if fatal { Self::Fatal } else { Self::Error }
    }
}

// --- what the proxy itself tells a client ---

/// Writes the ErrorResponse for what the proxy tells a client; the codes are `design.md`'s, "What clients are told".
///
/// `fatal`: the session ends with it. The database's own error is passed on as it came, only its severity follows
/// `fatal`: a session that goes on must not read FATAL, one that ends must.
pub fn client_error(error: &ClientError, fatal: bool, out: &mut Vec<u8>) {
    let severity = Severity::of_error(fatal);
    if let ClientError::Server(error) = error {
        return server_error_with(severity, error, out);
    }
    error_response(severity, sqlstate(error, fatal), &error.to_string(), hint(error), out);
}

/// The SQLSTATE of an error (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
fn sqlstate(error: &ClientError, fatal: bool) -> &str {
    match error {
        ClientError::TlsRequired
        | ClientError::PasswordInClear
        | ClientError::NoUserName
        | ClientError::TokenRefused { .. }
        | ClientError::CertificateRefused { .. }
        | ClientError::AddressNotAllowed { .. } => "28000",
        ClientError::LoginRefused { .. } => "28P01",
        // What PostgreSQL gives `authentication_timeout` in its log (it sends nothing then).
        ClientError::LoginTimeout => "57014",
        ClientError::Cancelled | ClientError::QueryTooLong { .. } | ClientError::TransactionTooLong { .. } => "57014",
        ClientError::Killed => "57P01",
        // For a login "cannot connect now"; a session goes on, and 57P03 would make its pool drop it.
        ClientError::LookupFailed { .. } => "57P03",
        ClientError::NoWriter { .. } | ClientError::ConnectionsLost { .. } if fatal => "57P03",
        ClientError::NoWriter { .. }
        | ClientError::ConnectionsLost { .. }
        | ClientError::TooManyPools { .. }
        | ClientError::TooManyClients { .. }
        | ClientError::TooManyUserClients { .. }
        | ClientError::TooManyLoginsAtOnce { .. }
        | ClientError::TooManyFailedLogins
        | ClientError::TooManyLogins { .. }
        | ClientError::BorrowTimeout { .. }
        | ClientError::UserBorrowTimeout { .. }
        | ClientError::LineFull { .. }
        | ClientError::TargetLogin { .. }
        | ClientError::InitQuery { .. } => "53300",
        ClientError::Replication => "0A000",
        ClientError::Server(error) => &error.code,
        ClientError::OutcomeUnknown => "08007",
        ClientError::StateLost | ClientError::GoingDown => "57P01",
        ClientError::TransactionIdle { .. } => "25P03",
        ClientError::ClientIdle { .. } | ClientError::PinIdle { .. } => "57P05",
        ClientError::PinRefused { .. } | ClientError::PinLimit { .. } => "55000",
        ClientError::TooManyStatements { .. } | ClientError::TooManyNames { .. } => "54000",
        ClientError::Unsupported { .. } => "0A000",
        ClientError::TransactionRefused => "25P02",
        ClientError::TransactionLost => "40001",
        ClientError::Protocol(_) | ClientError::UnknownCommand => "08P01",
        ClientError::Internal => "XX000",
    }
}

/// What to do about an error, where its message does not say so.
fn hint(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::TooManyClients { .. } => Some("Close connections, or raise max_clients of the endpoint."),
        ClientError::TooManyUserClients { .. } => Some("Close connections, or raise max_clients of the user."),
        ClientError::TooManyLogins { .. } => {
            Some("Let clients keep their connections, or raise max_logins_per_second of the endpoint.")
        }
        ClientError::BorrowTimeout { .. } => Some(
            "Shorten transactions, look for pinned clients, or raise the share of connections that the target group may use.",
        ),
        ClientError::UserBorrowTimeout { .. } => {
            Some("Shorten transactions, look for pinned clients, or raise max_connections of the user.")
        }
        ClientError::LineFull { .. } => {
            Some("Try again later with fewer clients at a time, or raise max_waiting of the target group.")
        }
        ClientError::OutcomeUnknown => Some("Check whether the change is there before you run the statement again."),
        ClientError::StateLost => {
            Some("Temporary tables, session locks and the like are gone: connect again and make them anew.")
        }
        ClientError::TransactionIdle { .. } => Some("End transactions soon, or raise transaction_idle_timeout."),
        ClientError::ClientIdle { .. } => {
            Some("Let the connection pool close idle connections sooner, or raise idle_client_timeout.")
        }
        ClientError::PinIdle { .. } => {
            Some("Drop temporary tables, unlock, close cursors and UNLISTEN when done, or raise pin_idle_timeout.")
        }
        ClientError::PinRefused { reason } | ClientError::PinLimit { reason, .. } => Some(without_pin(*reason)),
        ClientError::TooManyNames { .. } => Some("Send it in several queries."),
        ClientError::TransactionRefused => {
            Some("There is no such transaction at the database. Send ROLLBACK, and begin anew.")
        }
        ClientError::TransactionLost => Some("Send ROLLBACK, and run the transaction again from its beginning."),
        ClientError::TooManyStatements { .. } => Some("Close (DEALLOCATE) those that are no longer needed."),
        ClientError::QueryTooLong { .. } => Some("Make the query faster, or raise query_timeout of the target group."),
        ClientError::TransactionTooLong { .. } => {
            Some("Make transactions shorter, or raise transaction_max of the target group.")
        }
        ClientError::LoginTimeout => Some("Answer the password request in time, or raise login_timeout."),
        ClientError::TlsRequired
        | ClientError::PasswordInClear
        | ClientError::LoginRefused { .. }
        | ClientError::TokenRefused { .. }
        | ClientError::CertificateRefused { .. }
        | ClientError::NoUserName
        | ClientError::AddressNotAllowed { .. }
        | ClientError::Replication
        | ClientError::LookupFailed { .. }
        | ClientError::NoWriter { .. }
        | ClientError::ConnectionsLost { .. }
        | ClientError::TooManyPools { .. }
        | ClientError::TargetLogin { .. }
        | ClientError::InitQuery { .. }
        | ClientError::TooManyLoginsAtOnce { .. }
        | ClientError::TooManyFailedLogins
        | ClientError::Server(_)
        | ClientError::Unsupported { .. }
        | ClientError::UnknownCommand
        | ClientError::Cancelled
        | ClientError::Killed
        | ClientError::GoingDown
        | ClientError::Protocol(_)
        | ClientError::Internal => None,
    }
}

/// What can be done in place of what pins.
fn without_pin(reason: PinReason) -> &'static str {
    match reason {
        PinReason::TemporaryObject => "Make it in a transaction, ON COMMIT DROP; or connect to the database directly.",
        PinReason::SessionLock => "Use pg_advisory_xact_lock, in a transaction; or connect to the database directly.",
        PinReason::HeldCursor => {
            "Read the cursor in its transaction, without WITH HOLD; or connect to the database directly."
        }
        PinReason::PreparedStatement => "Prepare in the protocol, as drivers do; or connect to the database directly.",
        PinReason::Setting
        | PinReason::Listen
        | PinReason::Sequence
        | PinReason::OpaqueCode
        | PinReason::ServerProcess
        | PinReason::Unreadable
        | PinReason::LargeStatement
        | PinReason::UserVariable => "Connect to the database directly for it.",
    }
}

/// Writes the database's error field by field, with another severity.
fn server_error_with(severity: Severity, error: &ServerError, out: &mut Vec<u8>) {
    let body = error.frame.get(HEAD_BYTES..).unwrap_or_default();
    if severity == Severity::of_error(error.is_fatal) && !body.is_empty() {
        return out.extend_from_slice(&error.frame);
    }
    if body.is_empty() {
        return error_response(severity, &error.code, &error.message, None, out);
    }
    frame(out, from_server::ERROR_RESPONSE, |out| {
        for (kind, value) in fields(body) {
            out.push(kind);
            put_cstr(out, if matches!(kind, b'S' | b'V') { severity.name().as_bytes() } else { value });
        }
        out.push(0);
    });
}

// --- encoders: a server's messages ---

/// ErrorResponse: severity (S and V), SQLSTATE, message, hint.
pub fn error_response(severity: Severity, code: &str, message: &str, hint: Option<&str>, out: &mut Vec<u8>) {
    report(from_server::ERROR_RESPONSE, severity, code, message, hint, out);
}

/// NoticeResponse: the same fields as [`error_response`].
pub fn notice_response(severity: Severity, code: &str, message: &str, hint: Option<&str>, out: &mut Vec<u8>) {
    report(from_server::NOTICE_RESPONSE, severity, code, message, hint, out);
}

fn report(kind: u8, severity: Severity, code: &str, message: &str, hint: Option<&str>, out: &mut Vec<u8>) {
    frame(out, kind, |out| {
        let severity = severity.name();
        for (kind, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)] {
            out.push(kind);
            put_cstr(out, value.as_bytes());
        }
        if let Some(hint) = hint {
            out.push(b'H');
            put_cstr(out, hint.as_bytes());
        }
        out.push(0);
    });
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(0, out, |_| ());
}

/// AuthenticationCleartextPassword.
pub fn authentication_cleartext_password(out: &mut Vec<u8>) {
    authentication(3, out, |_| ());
}

/// AuthenticationMD5Password.
pub fn authentication_md5_password(salt: [u8; 4], out: &mut Vec<u8>) {
    authentication(5, out, |out| out.extend_from_slice(&salt));
}

/// AuthenticationSASL: the names of the mechanisms, the preferred one first.
pub fn authentication_sasl(mechanisms: &[&str], out: &mut Vec<u8>) {
    authentication(10, out, |out| {
        for name in mechanisms {
            put_cstr(out, name.as_bytes());
        }
        out.push(0);
    });
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(data: &[u8], out: &mut Vec<u8>) {
    authentication(11, out, |out| out.extend_from_slice(data));
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(data: &[u8], out: &mut Vec<u8>) {
    authentication(12, out, |out| out.extend_from_slice(data));
}

fn authentication(code: u32, out: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
    frame(out, from_server::AUTHENTICATION, |out| {
        out.extend_from_slice(&code.to_be_bytes());
        data(out);
    });
}

/// NegotiateProtocolVersion: the version we go on with, and the names of the options we don't know.
///
/// The version is the whole one (3.2 is 0x00030002), as PostgreSQL writes it; the manual reads like the minor alone.
pub fn negotiate_protocol_version<'a>(
    version: (u16, u16),
    unknown: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    frame(out, from_server::NEGOTIATE_PROTOCOL_VERSION, |out| {
        put_version(version, out);
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes());
        for name in unknown {
            put_cstr(out, name);
        }
    });
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str, out: &mut Vec<u8>) {
    frame(out, from_server::PARAMETER_STATUS, |out| {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value.as_bytes());
    });
}

/// BackendKeyData. A client on protocol 3.0 takes a secret of 4 bytes and no other.
pub fn backend_key_data(process_id: u32, secret: &[u8], out: &mut Vec<u8>) {
    frame(out, from_server::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// ReadyForQuery with the transaction's status: `I`, `T` or `E`.
pub fn ready_for_query(status: u8, out: &mut Vec<u8>) {
    frame(out, from_server::READY_FOR_QUERY, |out| out.push(status));
}

/// CommandComplete.
pub fn command_complete(tag: &str, out: &mut Vec<u8>) {
    frame(out, from_server::COMMAND_COMPLETE, |out| put_cstr(out, tag.as_bytes()));
}

/// ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    frame(out, from_server::PARSE_COMPLETE, |_| ());
}

/// BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    frame(out, from_server::BIND_COMPLETE, |_| ());
}

/// CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    frame(out, from_server::CLOSE_COMPLETE, |_| ());
}

/// NoData.
pub fn no_data(out: &mut Vec<u8>) {
    frame(out, from_server::NO_DATA, |_| ());
}

/// EmptyQueryResponse.
pub fn empty_query_response(out: &mut Vec<u8>) {
    frame(out, from_server::EMPTY_QUERY_RESPONSE, |_| ());
}

// --- encoders: a client's messages ---

/// StartupMessage.
pub fn startup_message<'a>(
    version: (u16, u16),
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    out: &mut Vec<u8>,
) {
    packet(out, |out| {
        put_version(version, out);
        for (name, value) in parameters {
            put_cstr(out, name.as_bytes());
            put_cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    packet(out, |out| out.extend_from_slice(&request_code::SSL.to_be_bytes()));
}

/// CancelRequest.
pub fn cancel_request(process_id: u32, secret: &[u8], out: &mut Vec<u8>) {
    packet(out, |out| {
        out.extend_from_slice(&request_code::CANCEL.to_be_bytes());
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// PasswordMessage.
pub fn password_message(password: &[u8], out: &mut Vec<u8>) {
    frame(out, from_client::PASSWORD, |out| put_cstr(out, password));
}

/// SASLInitialResponse.
pub fn sasl_initial_response(mechanism: &str, data: &[u8], out: &mut Vec<u8>) {
    frame(out, from_client::PASSWORD, |out| {
        put_cstr(out, mechanism.as_bytes());
        packet_without_itself(data, out);
    });
}

/// SASLResponse.
pub fn sasl_response(data: &[u8], out: &mut Vec<u8>) {
    frame(out, from_client::PASSWORD, |out| out.extend_from_slice(data));
}

/// Query.
pub fn query(sql: &[u8], out: &mut Vec<u8>) {
    frame(out, from_client::QUERY, |out| put_cstr(out, sql));
}

/// Close of a prepared statement.
pub fn close_statement(name: &[u8], out: &mut Vec<u8>) {
    frame(out, from_client::CLOSE, |out| {
        out.push(b'S');
        put_cstr(out, name);
    });
}

/// Sync.
pub fn sync(out: &mut Vec<u8>) {
    frame(out, from_client::SYNC, |_| ());
}

/// Terminate.
pub fn flush(out: &mut Vec<u8>) {
    frame(out, b'H', |_| ());
}

/// Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    frame(out, from_client::TERMINATE, |_| ());
}

fn put_version((major, minor): (u16, u16), out: &mut Vec<u8>) {
    out.extend_from_slice(&major.to_be_bytes());
    out.extend_from_slice(&minor.to_be_bytes());
}

/// A length that, unlike all others, does not count itself.
fn packet_without_itself(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&i32::try_from(data.len()).unwrap_or(-1).to_be_bytes());
    out.extend_from_slice(data);
}

// --- views ---

/// The fields of an ErrorResponse's or NoticeResponse's body: type and value, in the server's order. Ends at the
/// terminator or at the first thing that is not a field.
pub fn fields(mut body: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&kind, rest) = body.split_first()?;
        if kind == 0 {
            return None;
        }
        let (value, rest) = cstr(rest)?;
        body = rest;
        Some((kind, value))
    })
}

/// The values of a Bind, given what stands behind its names. `None`: it is malformed.
pub fn bind_values(body: &[u8]) -> Option<Vec<Parameter<'_>>> {
    let number = |body: &[u8]| body.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes)));
    let format_count = number(body)?;
    let formats: Vec<bool> = body.get(2..2 + 2 * format_count)?.chunks(2).map(|format| format != [0, 0]).collect();
    let rest = body.get(2 + 2 * format_count..)?;
    let count = number(rest)?;
    let mut rest = rest.get(2..)?;
    let mut values = Vec::new();
    for place in 0..count {
        let (length, behind) = rest.split_first_chunk()?;
        rest = behind;
        let value = match u32::from_be_bytes(*length) {
            u32::MAX => None,
            length => {
                let (value, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = behind;
                Some(value)
            }
        };
        // None: all are text; one: it is that of all.
        let is_binary = match formats.as_slice() {
            [] => false,
            [all] => *all,
            each => *each.get(place)?,
        };
        values.push(Parameter { value, is_binary });
    }
    Some(values)
}

/// Reads an ErrorResponse, given its whole frame. `None`: it lacks its code.
///
/// Severity is the field V, which is never translated; S stands in for it at servers before 9.6.
pub fn server_error(frame: &[u8]) -> Option<ServerError> {
    let body = frame.get(HEAD_BYTES..)?;
    let field = |wanted| fields(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let severity = field(b'V').or_else(|| field(b'S')).unwrap_or_default();
    Some(ServerError {
        code: String::from_utf8_lossy(field(b'C')?).into_owned(),
        message: String::from_utf8_lossy(field(b'M').unwrap_or_default()).into_owned(),
        is_fatal: matches!(severity, b"FATAL" | b"PANIC"),
        frame: frame.to_vec(),
    })
}

/// Reads the body of a ParameterStatus: name and value. What is not UTF-8 (a value in the session's own encoding) is
/// shown with replacement characters.
pub fn read_parameter_status(body: &[u8]) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let (name, rest) = cstr(body)?;
    let (value, rest) = cstr(rest)?;
    rest.is_empty().then(|| (String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
}

/// Reads the body of a DataRow: the columns, `None` for NULL.
pub fn data_row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (columns, mut rest) = body.split_first_chunk()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*columns) {
        let (length, behind) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        let value = usize::try_from(length).ok().map(|length| behind.split_at_checked(length));
        rest = match value {
            None => behind,
            Some(value) => value?.1,
        };
        row.push(value.flatten().map(|(value, _)| value));
    }
    rest.is_empty().then_some(row)
}

/// Writes an array of texts as the server reads one
/// (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).
pub fn text_array<'a>(items: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let quoted = |item: &str| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""));
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    format!("{{{}}}", items.join(",")).into_bytes()
}

/// Reads the body of a BackendKeyData: process id and secret. The secret's length is not looked at: 4 bytes on
/// protocol 3.0, up to 256 on 3.2, and whatever a proxy makes of it.
pub fn read_backend_key_data(body: &[u8]) -> Option<(u32, &[u8])> {
    let (process_id, secret) = body.split_first_chunk()?;
    Some((u32::from_be_bytes(*process_id), secret))
}

/// Reads the body of a ReadyForQuery: `I`, `T` or `E`.
pub fn read_ready_for_query(body: &[u8]) -> Option<u8> {
    match body {
        &[status @ (b'I' | b'T' | b'E')] => Some(status),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::protocol::Violation;
    use proptest::prelude::*;
    use std::time::Duration;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn bytes_of_what_we_write() {
        let check = |write: &dyn Fn(&mut Vec<u8>), expected: &[u8]| {
            let out = written(write);
            assert_eq!(out, expected, "{:?}", String::from_utf8_lossy(&out));
        };
        check(&authentication_ok, b"R\0\0\0\x08\0\0\0\0");
        check(&authentication_cleartext_password, b"R\0\0\0\x08\0\0\0\x03");
        check(&|out| authentication_sasl(&["SCRAM-SHA-256"], out), b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
        check(&|out| authentication_sasl_continue(b"r=x", out), b"R\0\0\0\x0b\0\0\0\x0br=x");
        check(&|out| authentication_sasl_final(b"v=x", out), b"R\0\0\0\x0b\0\0\0\x0cv=x");
        check(
            &|out| negotiate_protocol_version((3, 2), [&b"_pq_.a"[..], b"_pq_.b"].into_iter(), out),
            b"v\0\0\0\x1a\0\x03\0\x02\0\0\0\x02_pq_.a\0_pq_.b\0",
        );
        check(&|out| parameter_status("a", "b", out), b"S\0\0\0\x08a\0b\0");
        check(&|out| backend_key_data(7, b"\x01\x02\x03\x04", out), b"K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04");
        check(&|out| ready_for_query(b'I', out), b"Z\0\0\0\x05I");
        check(&|out| command_complete("SET", out), b"C\0\0\0\x08SET\0");
        check(&parse_complete, b"1\0\0\0\x04");
        check(&bind_complete, b"2\0\0\0\x04");
        check(&close_complete, b"3\0\0\0\x04");
        check(&no_data, b"n\0\0\0\x04");
        check(&empty_query_response, b"I\0\0\0\x04");
        check(&|out| startup_message((3, 0), [("user", "u")], out), b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
        check(&ssl_request, b"\0\0\0\x08\x04\xd2\x16\x2f");
        check(&|out| cancel_request(1, b"abcd", out), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd");
        check(&|out| password_message(b"pw", out), b"p\0\0\0\x07pw\0");
        check(&|out| sasl_initial_response("M", b"xy", out), b"p\0\0\0\x0cM\0\0\0\0\x02xy");
        check(&|out| sasl_response(b"xy", out), b"p\0\0\0\x06xy");
        check(&|out| query(b"select 1", out), b"Q\0\0\0\x0dselect 1\0");
        check(&|out| close_statement(b"s", out), b"C\0\0\0\x07Ss\0");
        check(&sync, b"S\0\0\0\x04");
        check(&terminate, b"X\0\0\0\x04");
        check(
            &|out| error_response(Severity::Fatal, "08P01", "no", Some("do"), out),
            b"E\0\0\0\x22SFATAL\0VFATAL\0C08P01\0Mno\0Hdo\0\0",
        );
        check(
            &|out| notice_response(Severity::Notice, "00000", "hm", None, out),
            b"N\0\0\0\x20SNOTICE\0VNOTICE\0C00000\0Mhm\0\0",
        );
    }

    #[test]
    fn clients_are_told_with_the_codes_of_the_table() {
        let group = || "g".to_owned();
        let limit = Duration::from_secs(5);
        let table = [
            (ClientError::TlsRequired, "28000"),
            (ClientError::PasswordInClear, "28000"),
            (ClientError::LoginRefused { user: "u".into() }, "28P01"),
            (ClientError::TokenRefused { user: "u".into() }, "28000"),
            (ClientError::CertificateRefused { user: "u".into() }, "28000"),
            (ClientError::NoUserName, "28000"),
            (ClientError::LoginTimeout, "57014"),
            (ClientError::TooManyClients { endpoint: "e".into(), limit: 1 }, "53300"),
            (ClientError::TooManyUserClients { user: "u".into(), limit: 1 }, "53300"),
            (ClientError::TooManyLogins { endpoint: "e".into(), limit: 1 }, "53300"),
            (ClientError::TooManyLoginsAtOnce { endpoint: "e".into(), limit: 1 }, "53300"),
            (ClientError::TooManyFailedLogins, "53300"),
            (ClientError::AddressNotAllowed { endpoint: "e".into() }, "28000"),
            (ClientError::Replication, "0A000"),
            (ClientError::BorrowTimeout { group: group(), waited: limit }, "53300"),
            (ClientError::UserBorrowTimeout { user: "u".into(), limit: 1, group: group(), waited: limit }, "53300"),
            (ClientError::LineFull { group: group(), limit: 1 }, "53300"),
            (ClientError::LookupFailed { group: group() }, "57P03"),
            (ClientError::NoWriter { group: group(), waited: limit }, "53300"),
            (ClientError::ConnectionsLost { group: group() }, "53300"),
            (ClientError::TooManyPools { user: "u".into(), limit: 1 }, "53300"),
            (ClientError::TargetLogin { group: group(), user: "u".into(), code: "28P01".into() }, "53300"),
            (ClientError::InitQuery { group: group(), code: "42601".into() }, "53300"),
            (ClientError::OutcomeUnknown, "08007"),
            (ClientError::StateLost, "57P01"),
            (ClientError::TransactionIdle { limit }, "25P03"),
            (ClientError::ClientIdle { limit }, "57P05"),
            (ClientError::GoingDown, "57P01"),
            (ClientError::Protocol(Violation::InvalidLength), "08P01"),
            (ClientError::Internal, "XX000"),
        ];
        for (error, code) in table {
            for fatal in [false, true] {
                let read = server_error(&written(|out| client_error(&error, fatal, out))).unwrap();
                let for_login =
                    matches!(error, ClientError::NoWriter { .. } | ClientError::ConnectionsLost { .. }) && fatal;
                assert_eq!(read.code, if for_login { "57P03" } else { code });
                assert_eq!(read.message, error.to_string());
                assert_eq!(read.is_fatal, fatal);
            }
        }
    }

    #[test]
    fn the_databases_words_pass_and_only_their_severity_follows() {
        let frame = written(|out| {
            frame(out, b'E', |out| out.extend_from_slice(b"SFEHLER\0VERROR\0C3D000\0Mwords\0Ddetail\0X?\0\0"));
        });
        let error = server_error(&frame).unwrap();
        assert_eq!((error.code.as_str(), error.message.as_str(), error.is_fatal), ("3D000", "words", false));
        let error = ClientError::Server(error);
        assert_eq!(written(|out| client_error(&error, false, out)), frame);
        let fatal = written(|out| client_error(&error, true, out));
        let read: Vec<_> = fields(&fatal[5..]).collect();
        let expected: [(u8, &[u8]); 6] =
            [(b'S', b"FATAL"), (b'V', b"FATAL"), (b'C', b"3D000"), (b'M', b"words"), (b'D', b"detail"), (b'X', b"?")];
        assert_eq!(read, expected);
        let bare = ServerError { code: "1".into(), message: "m".into(), is_fatal: false, frame: Vec::new() };
        let out = written(|out| client_error(&ClientError::Server(bare), false, out));
        assert_eq!(server_error(&out).unwrap().message, "m");
    }

    #[test]
    fn severity_without_v_is_s() {
        let frame = written(|out| frame(out, b'E', |out| out.extend_from_slice(b"SFATAL\0C08006\0\0")));
        assert!(server_error(&frame).unwrap().is_fatal);
        assert_eq!(server_error(b"E\0\0\0\x05\0"), None);
    }

    #[test]
    fn views() {
        assert_eq!(read_parameter_status(b"a\0b\0"), Some(("a".into(), "b".into())));
        for malformed in [&b""[..], b"a\0", b"a\0b", b"a\0b\0c"] {
            assert_eq!(read_parameter_status(malformed), None);
        }
        assert_eq!(read_backend_key_data(b"\0\0\0\x01abcd"), Some((1, &b"abcd"[..])));
        assert_eq!(read_backend_key_data(b"\0\0\0\x01"), Some((1, &b""[..])));
        assert_eq!(read_backend_key_data(b"\0\0\0"), None);
        assert_eq!(read_ready_for_query(b"T"), Some(b'T'));
        assert_eq!(read_ready_for_query(b"x"), None);
        assert_eq!(read_ready_for_query(b"II"), None);
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = fields(&body).count();
            let _ = server_error(&body);
            let _ = read_parameter_status(&body);
            let _ = read_backend_key_data(&body);
            let _ = read_ready_for_query(&body);
        }
    }
}
