//! Frames to write tests with, and words for frames to read failures with.

use crate::postgres::frame::{self, frame, put_cstr};
use crate::postgres::message::{self, Severity};

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

pub(crate) fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    written(|out| frame(out, kind, |out| out.extend_from_slice(body)))
}

// --- a client's ---

pub(crate) fn q(text: &str) -> Vec<u8> {
    written(|out| message::query(text.as_bytes(), out))
}

/// Body of a Parse behind the name.
pub(crate) fn parse_body(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0\0\0"].concat()
}

pub(crate) fn p(name: &str, text: &str) -> Vec<u8> {
    raw(b'P', &[name.as_bytes(), b"\0", &parse_body(text)].concat())
}

pub(crate) fn b(portal: &str, statement: &str) -> Vec<u8> {
    b_with(portal, statement, &[])
}

pub(crate) fn b_with(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    written(|out| {
        frame(out, b'B', |out| {
            put_cstr(out, portal.as_bytes());
            put_cstr(out, statement.as_bytes());
            out.extend([0, 0]);
            out.extend((parameters.len() as u16).to_be_bytes());
            for parameter in parameters {
                out.extend((parameter.len() as u32).to_be_bytes());
                out.extend(parameter.as_bytes());
            }
            out.extend([0, 0]);
        });
    })
}

fn named(kind: u8, of: u8, name: &str) -> Vec<u8> {
    raw(kind, &[&[of], name.as_bytes(), b"\0"].concat())
}

/// Describe of a statement.
pub(crate) fn ds(name: &str) -> Vec<u8> {
    named(b'D', b'S', name)
}

/// Describe of a portal.
pub(crate) fn dp(portal: &str) -> Vec<u8> {
    named(b'D', b'P', portal)
}

/// Close of a statement.
pub(crate) fn cs(name: &str) -> Vec<u8> {
    named(b'C', b'S', name)
}

/// Close of a portal.
pub(crate) fn cp(portal: &str) -> Vec<u8> {
    named(b'C', b'P', portal)
}

pub(crate) fn e(portal: &str) -> Vec<u8> {
    e_max(portal, 0)
}

pub(crate) fn e_max(portal: &str, rows: u32) -> Vec<u8> {
    raw(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
}

pub(crate) fn s() -> Vec<u8> {
    raw(b'S', b"")
}

pub(crate) fn h() -> Vec<u8> {
    raw(b'H', b"")
}

/// CopyData, either way.
pub(crate) fn d(data: &str) -> Vec<u8> {
    raw(b'd', data.as_bytes())
}

/// CopyDone, either way.
pub(crate) fn c() -> Vec<u8> {
    raw(b'c', b"")
}

pub(crate) fn f() -> Vec<u8> {
    raw(b'f', b"no\0")
}

pub(crate) fn x() -> Vec<u8> {
    raw(b'X', b"")
}

/// FunctionCall without arguments.
pub(crate) fn function(number: u32) -> Vec<u8> {
    raw(b'F', &[&number.to_be_bytes()[..], &[0; 6]].concat())
}

// --- a server's ---

/// ParseComplete.
pub(crate) fn pc() -> Vec<u8> {
    raw(b'1', b"")
}

/// BindComplete.
pub(crate) fn bc() -> Vec<u8> {
    raw(b'2', b"")
}

/// CloseComplete.
pub(crate) fn cc() -> Vec<u8> {
    raw(b'3', b"")
}

/// ReadyForQuery.
pub(crate) fn z(status: u8) -> Vec<u8> {
    raw(b'Z', &[status])
}

pub(crate) fn tag(tag: &str) -> Vec<u8> {
    written(|out| message::command_complete(tag, out))
}

/// RowDescription of one column of text.
pub(crate) fn t() -> Vec<u8> {
    raw(b'T', b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")
}

/// NoData.
pub(crate) fn n() -> Vec<u8> {
    raw(b'n', b"")
}

/// ParameterDescription without parameters.
pub(crate) fn pd() -> Vec<u8> {
    raw(b't', b"\0\0")
}

pub(crate) fn row(value: &str) -> Vec<u8> {
    raw(b'D', &[&b"\0\x01"[..], &(value.len() as u32).to_be_bytes(), value.as_bytes()].concat())
}

/// EmptyQueryResponse.
pub(crate) fn empty() -> Vec<u8> {
    raw(b'I', b"")
}

/// PortalSuspended.
pub(crate) fn suspended() -> Vec<u8> {
    raw(b's', b"")
}

/// FunctionCallResponse.
pub(crate) fn v(value: &str) -> Vec<u8> {
    raw(b'V', &[&(value.len() as u32).to_be_bytes()[..], value.as_bytes()].concat())
}

/// CopyInResponse.
pub(crate) fn copy_in() -> Vec<u8> {
    raw(b'G', &[0, 0, 0])
}

/// CopyOutResponse.
pub(crate) fn copy_out() -> Vec<u8> {
    raw(b'H', &[0, 0, 0])
}

pub(crate) fn err(code: &str, message: &str) -> Vec<u8> {
    written(|out| message::error_response(Severity::Error, code, message, None, out))
}

pub(crate) fn fatal(code: &str, message: &str) -> Vec<u8> {
    written(|out| message::error_response(Severity::Fatal, code, message, None, out))
}

pub(crate) fn notice(text: &str) -> Vec<u8> {
    written(|out| message::notice_response(Severity::Notice, "00000", text, None, out))
}

pub(crate) fn status(name: &str, value: &str) -> Vec<u8> {
    written(|out| message::parameter_status(name, value, out))
}

/// NotificationResponse.
pub(crate) fn notification(channel: &str) -> Vec<u8> {
    raw(b'A', &[&[0, 0, 0, 7], channel.as_bytes(), b"\0\0"].concat())
}

// --- to read failures with ---

/// The frames of `bytes`; what is left over at the end stands as it is.
pub(crate) fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = match frame::head(rest) {
            Ok(Some(head)) => head.len.min(rest.len()),
            Ok(None) | Err(_) => rest.len(),
        };
        let (first, more) = rest.split_at(len);
        frames.push(first);
        rest = more;
    }
    frames
}

/// Frames in words; long ones are cut.
pub(crate) fn show(bytes: &[u8]) -> Vec<String> {
    let words = |frame: &&[u8]| {
        let body = frame.get(5..).unwrap_or_default();
        let body = body.get(..200).unwrap_or(body);
        format!("{} {} ({})", char::from(frame[0]), body.escape_ascii(), frame.len())
    };
    frames(bytes).iter().map(words).collect()
}
