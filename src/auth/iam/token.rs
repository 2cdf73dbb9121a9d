//! The token as text: `HOST:PORT/?Action=connect&DBUser=...&X-Amz-...`, taken apart.
//!
//! Strict: every parameter exactly once, none that is unknown, no byte left over. Says nothing about whether the token
//! is right, which is `Iam::verify`'s part. No message holds a value of the token: its signature and security
//! token are secrets, and the rest is whatever a stranger has sent.

use std::fmt;

use super::TokenRefusal;

/// As long as a password may be.
pub(super) const TOKEN_BYTES_MAX: usize = 64 << 10;

/// A token's parts, decoded.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// As written.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) action: String,
    pub(super) user: String,
    pub(super) algorithm: String,
    pub(super) credential: String,
    /// As written: `yyyymmddThhmmssZ` if it is right.
    pub(super) date: String,
    /// As written: seconds if it is right.
    pub(super) expires: String,
    pub(super) signed_headers: String,
    pub(super) security_token: Option<String>,
    pub(super) signature: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// A password that is meant as a token, right or wrong: one with a signature's parameter behind a question mark.
pub(in crate::auth) fn is_token(password: &[u8]) -> bool {
    let behind = password.iter().position(|byte| *byte == b'?').and_then(|mark| password.get(mark..));
    behind.is_some_and(|query| query.windows(b"X-Amz-Signature=".len()).any(|window| window == b"X-Amz-Signature="))
}

impl Token {
    pub(super) fn parse(text: &[u8]) -> Result<Self, TokenRefusal> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Malformed("it is longer than 64 KiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| TokenRefusal::Malformed("it is not UTF-8 text"))?;
        let (address, query) = text.split_once('?').ok_or(TokenRefusal::Malformed("it has no query"))?;
        let (host, port) = address.rsplit_once(':').ok_or(TokenRefusal::Malformed("it has no host and port"))?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if host.is_empty() || host.len() > 255 || !host.bytes().all(is_host) {
            return Err(TokenRefusal::Malformed("its host is not a name"));
        }
        // Older signers left the slash out; what is signed is "/" either way.
        let (port, path) = port.split_once('/').unwrap_or((port, ""));
        if !path.is_empty() {
            return Err(TokenRefusal::Malformed("its path is not /"));
        }
        let port = decimal(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let port = port.ok_or(TokenRefusal::Malformed("its port is not a number from 1 to 65535"))?;
        let mut parameters = Parameters::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').ok_or(TokenRefusal::Malformed("a parameter has no value"))?;
            let (name, value) = (decoded(name)?, decoded(value)?);
            let (name, slot) = parameters.slot(&name).ok_or(TokenRefusal::UnknownParameter)?;
            if slot.replace(value).is_some() {
                return Err(TokenRefusal::Twice(name));
            }
        }
        parameters.token(host.to_owned(), port)
    }
}

#[derive(Default)]
struct Parameters {
    action: Option<String>,
    user: Option<String>,
    algorithm: Option<String>,
    credential: Option<String>,
    date: Option<String>,
    expires: Option<String>,
    signed_headers: Option<String>,
    security_token: Option<String>,
    signature: Option<String>,
}

impl Parameters {
    fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Option<String>)> {
        Some(match name {
            "Action" => ("Action", &mut self.action),
            "DBUser" => ("DBUser", &mut self.user),
            "X-Amz-Algorithm" => ("X-Amz-Algorithm", &mut self.algorithm),
            "X-Amz-Credential" => ("X-Amz-Credential", &mut self.credential),
            "X-Amz-Date" => ("X-Amz-Date", &mut self.date),
            "X-Amz-Expires" => ("X-Amz-Expires", &mut self.expires),
            "X-Amz-SignedHeaders" => ("X-Amz-SignedHeaders", &mut self.signed_headers),
            "X-Amz-Security-Token" => ("X-Amz-Security-Token", &mut self.security_token),
            "X-Amz-Signature" => ("X-Amz-Signature", &mut self.signature),
            _ => return None,
        })
    }

    fn token(self, host: String, port: u16) -> Result<Token, TokenRefusal> {
        let need = |value: Option<String>, name| value.ok_or(TokenRefusal::Missing(name));
        Ok(Token {
            host,
            port,
            action: need(self.action, "Action")?,
            user: need(self.user, "DBUser")?,
            algorithm: need(self.algorithm, "X-Amz-Algorithm")?,
            credential: need(self.credential, "X-Amz-Credential")?,
            date: need(self.date, "X-Amz-Date")?,
            expires: need(self.expires, "X-Amz-Expires")?,
            signed_headers: need(self.signed_headers, "X-Amz-SignedHeaders")?,
            security_token: self.security_token,
            signature: need(self.signature, "X-Amz-Signature")?,
        })
    }
}

/// Digits alone, none to spare in front.
pub(super) fn decimal(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

/// Percent-decoding (RFC 3986 §2.1). A plus sign is itself.
fn decoded(text: &str) -> Result<String, TokenRefusal> {
    const BROKEN: TokenRefusal = TokenRefusal::Malformed("its percent-encoding is broken");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or(BROKEN)?, digit().ok_or(BROKEN)?);
        bytes.push(u8::try_from(high << 4 | low).map_err(|_| BROKEN)?);
    }
    String::from_utf8(bytes).map_err(|_| BROKEN)
}

/// RFC 3986's unreserved characters stay, all else is encoded: SigV4's rule.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase();
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}
