//! Messages of the proxy's own to the server.

use crate::postgres::frame;
use crate::postgres::message::from_client as kind;

/// Head of a frame with `body_bytes` of body that begins with a string.
pub(super) fn write_head(kind: u8, body_bytes: usize, string: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    let length = u32::try_from(body_bytes + 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    frame::put_cstr(out, string);
}

pub(super) fn write_parse(name: &[u8], body: &[u8], out: &mut Vec<u8>) {
    write_head(kind::PARSE, name.len() + 1 + body.len(), name, out);
    out.extend_from_slice(body);
}

/// Bind with all parameters and results as text.
pub(super) fn write_bind(portal: &[u8], statement: &[u8], parameters: &[&[u8]], out: &mut Vec<u8>) {
    frame::frame(out, kind::BIND, |body| {
        frame::put_cstr(body, portal);
        frame::put_cstr(body, statement);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&u16::try_from(parameters.len()).unwrap_or(0).to_be_bytes());
        for parameter in parameters {
            body.extend_from_slice(&u32::try_from(parameter.len()).unwrap_or(0).to_be_bytes());
            body.extend_from_slice(parameter);
        }
        body.extend_from_slice(&[0, 0]);
    });
}

/// Execute, all rows.
pub(super) fn write_execute(portal: &[u8], out: &mut Vec<u8>) {
    frame::frame(out, kind::EXECUTE, |body| {
        frame::put_cstr(body, portal);
        body.extend_from_slice(&[0; 4]);
    });
}

pub(super) fn write_close_portal(portal: &[u8], out: &mut Vec<u8>) {
    frame::frame(out, kind::CLOSE, |body| {
        body.push(b'P');
        frame::put_cstr(body, portal);
    });
}
