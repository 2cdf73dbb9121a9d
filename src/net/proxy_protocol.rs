//! The PROXY protocol header that a load balancer sends ahead of a client's bytes: who the client really is.
//!
//! Versions 1 and 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Reads the header and not a byte
//! more, so that the socket is the client's from there on; a header that is too long or not one is an error, never
//! guessed at. The caller limits the time.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::net::TcpStream;

/// The shortest header of version 1, and one byte less than the fixed part of version 2.
const LEAST_BYTES: usize = 15;
/// Version 1 with its line end.
const V1_BYTES_MAX: usize = 107;
/// Fixed part of version 2: signature, command, family, length.
const V2_HEAD_BYTES: usize = 16;
/// Version 2 with what balancers add to it (names, certificates' subjects).
const V2_BYTES_MAX: usize = 4096;
const V1_PREFIX: &[u8] = b"PROXY ";

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The balancer connected and left: a probe.
    #[error("left without a word")]
    Probe,
    /// It is gone.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// What came is something else.
    #[error(
        "no PROXY protocol header: an address in proxy_protocol_from must send one (version 1 or 2) ahead of every \
         connection"
    )]
    Missing,
    /// It began like one.
    #[error("a PROXY protocol header that can't be read")]
    Malformed,
}

/// Reads the header. `None`: the balancer speaks for itself (`LOCAL`, `UNKNOWN`), as for its health checks.
pub async fn read(socket: &TcpStream) -> Result<Option<SocketAddr>, HeaderError> {
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    loop {
        match missing(&header)? {
            Missing::Nothing => break,
            Missing::Bytes(bytes) => read_some(socket, &mut header, bytes).await?,
            Missing::Line { at_most } => {
                let mut ahead = [0; V1_BYTES_MAX];
                let seen = socket.peek(ahead.get_mut(..at_most).unwrap_or_default()).await?;
                let seen = ahead.get(..seen).unwrap_or_default();
                let line = seen.iter().position(|byte| *byte == b'\n').map_or(seen.len(), |end| end + 1);
                // Nothing to see is the end of the connection, which reading tells.
                read_some(socket, &mut header, line.max(1)).await?;
            }
        }
    }
    parse(&header)
}

/// Reads a header that [`missing`] says is whole.
pub fn parse(header: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let (parsed, length) = ProxyHeader::parse(header, ParseConfig::default()).map_err(|_| HeaderError::Malformed)?;
    if length != header.len() {
        return Err(HeaderError::Malformed);
    }
    Ok(parsed.proxied_address().map(|address| address.source))
}

/// What of a header is still to come.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is whole.
    Nothing,
    /// So many bytes at least.
    Bytes(usize),
    /// The rest of a line.
    Line {
        /// Its bytes, with the line's end.
        at_most: usize,
    },
}

/// What of a header that begins so is still to come, or why it is none.
pub fn missing(header: &[u8]) -> Result<Missing, HeaderError> {
    const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if !header.starts_with(V1_PREFIX) && !header.starts_with(V2_SIGNATURE) {
        let could_be =
            header.len() < LEAST_BYTES && (V1_PREFIX.starts_with(header) || V2_SIGNATURE.starts_with(header));
        return if could_be { Ok(Missing::Bytes(LEAST_BYTES - header.len())) } else { Err(HeaderError::Missing) };
    }
    if header.len() < LEAST_BYTES {
        return Ok(Missing::Bytes(LEAST_BYTES - header.len()));
    }
    if header.starts_with(V1_PREFIX) {
        return match (header.ends_with(b"\n"), V1_BYTES_MAX - header.len().min(V1_BYTES_MAX)) {
            (true, _) => Ok(Missing::Nothing),
            (false, 0) => Err(HeaderError::Malformed),
            (false, at_most) => Ok(Missing::Line { at_most }),
        };
    }
    let Some(length) = header.get(V2_HEAD_BYTES - 2..V2_HEAD_BYTES) else { return Ok(Missing::Bytes(1)) };
    let whole = V2_HEAD_BYTES + length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if whole > V2_BYTES_MAX {
        return Err(HeaderError::Malformed);
    }
    match whole - header.len().min(whole) {
        0 => Ok(Missing::Nothing),
        bytes => Ok(Missing::Bytes(bytes)),
    }
}

/// Appends up to so many bytes, at least one.
async fn read_some(socket: &TcpStream, header: &mut Vec<u8>, bytes: usize) -> Result<(), HeaderError> {
    let mut space = [0; 512];
    let bytes = bytes.min(space.len());
    loop {
        socket.readable().await?;
        match socket.try_read(space.get_mut(..bytes).unwrap_or_default()) {
            Ok(0) if header.is_empty() => return Err(HeaderError::Probe),
            Ok(0) => return Err(HeaderError::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => {
                header.extend_from_slice(space.get(..read).unwrap_or_default());
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Some of them close so.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && header.is_empty() => {
                return Err(HeaderError::Probe);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend_from_slice(&[0x20 | command, family]);
        header.extend_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    /// Sends the bytes in pieces of this size, then leaves; what was read, and what was left for the client.
    async fn read_from(bytes: &[u8], piece: usize) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        sender.set_nodelay(true).unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let sending = async move {
            for piece in bytes.chunks(piece) {
                // A reader that refuses closes early.
                if sender.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let reading = async {
            let read = read(&socket).await;
            let mut rest = Vec::new();
            if read.is_ok() {
                socket.read_to_end(&mut rest).await.unwrap();
            }
            (read, rest)
        };
        tokio::join!(sending, reading).1
    }

    #[tokio::test]
    async fn headers_of_both_versions_end_where_the_client_begins() {
        let four = [10, 1, 2, 3, 10, 0, 0, 1, 0x1f, 0x90, 0x15, 0x38];
        let mut with_extras = four.to_vec();
        with_extras.extend_from_slice(&[0x05, 0, 3, 1, 2, 3, 0x04, 0x03, 0xe8]);
        with_extras.extend_from_slice(&[0; 1000]);
        let mut six = [0; 36];
        six[15] = 1;
        six[32..34].copy_from_slice(&8080_u16.to_be_bytes());
        for (header, expected) in [
            (b"PROXY TCP4 10.1.2.3 10.0.0.1 8080 5432\r\n".to_vec(), Some("10.1.2.3:8080")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 8080 5432\r\n".to_vec(), Some("[2001:db8::1]:8080")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (v2(1, 0x11, &four), Some("10.1.2.3:8080")),
            (v2(1, 0x11, &with_extras), Some("10.1.2.3:8080")),
            (v2(1, 0x21, &six), Some("[::1]:8080")),
            (v2(0, 0x00, &[]), None),
            (v2(0, 0x11, &four), None),
        ] {
            // What looks like a header behind it is the client's own.
            let client = b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n\0\0\x08";
            for piece in [1, 7, usize::MAX] {
                let (read, rest) = read_from(&[&header[..], client].concat(), piece).await;
                let expected = expected.map(|address| address.parse::<SocketAddr>().unwrap());
                assert_eq!(read.unwrap(), expected, "{header:?}, pieces of {piece}");
                assert_eq!(rest, client, "{header:?}, pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        let startup = b"\0\0\0\x08\x04\xd2\x16\x2f";
        let long = [b"PROXY TCP4 10.1.2.3 ".to_vec(), vec![b'1'; 200]].concat();
        for (bytes, expected) in [
            (startup.to_vec(), "no PROXY protocol header"),
            (b"\x16\x03\x01\x02\0".to_vec(), "no PROXY protocol header"),
            (b"PROXX TCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), "no PROXY protocol header"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 x 1\r\n".to_vec(), "can't be read"),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n".to_vec(), "can't be read"),
            (long, "can't be read"),
            (v2(1, 0x11, &[1, 2, 3]), "can't be read"),
            (v2(7, 0x11, &[0; 12]), "can't be read"),
            (v2(1, 0x11, &[0; 5000]), "can't be read"),
            (b"PROXY TCP4".to_vec(), "lost"),
            (v2(1, 0x11, &[0; 12])[..20].to_vec(), "lost"),
            (Vec::new(), "left without a word"),
        ] {
            for piece in [1, usize::MAX] {
                let (read, _) = read_from(&bytes, piece).await;
                let error = read.unwrap_err().to_string();
                assert!(error.contains(expected), "{bytes:?}: {error}");
            }
        }
    }
}
