//! Cuts a text into tokens where PostgreSQL's scanner (`src/backend/parser/scan.l`) would, blanks and comments left out.
//!
//! Exact for all that hides other text: strings, quoted names, dollar quotes, comments. Not exact where nothing hangs
//! on it: `1.` and `1_000` are more than one token, signs at an operator's end stay with it. Texts the server's scanner
//! refuses come out as some tokens or other. Linear in the text; no allocation.

use std::borrow::Cow;
use std::ffi::CStr;

use super::Dialect;

/// The longest name the server keeps, in bytes; it cuts longer ones (`NAMEDATALEN` - 1).
const NAME_BYTES_MAX: usize = 63;

/// A token and where it stands, quotes and prefix included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// `"name"`
    Quoted,
    /// `U&"name"`, whose escapes nobody here reads.
    QuotedEscapes,
    /// Any string: `'..'`, `E'..'`, `B'..'`, `X'..'`, `N'..'`, `U&'..'`, `$tag$..$tag$`, with its continuations.
    Literal,
    /// `$1`
    Parameter,
    /// Digits, with fraction and exponent.
    Number,
    /// A run of operator characters.
    Operator,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `;`
    Semicolon,
    /// One byte of anything else.
    Other,
    /// A string, quoted name or comment that doesn't end; it reaches to the end of the text.
    Unterminated,
}

/// The tokens of a text, in order.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    plain: Quoting,
}

/// What a quote in a string's inside may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// `''` is a quote.
    Doubled,
    /// `''` is one, and so is `\'`.
    Backslash,
    /// The first one ends it (`B'01'`, `X'1F'`).
    Never,
}

impl<'a> Lexer<'a> {
    /// The text ends at its first NUL, as it does for the server.
    pub fn new(sql: &'a [u8], dialect: Dialect) -> Self {
        let text = CStr::from_bytes_until_nul(sql).map_or(sql, CStr::to_bytes);
        let plain = if dialect.backslash_quotes { Quoting::Backslash } else { Quoting::Doubled };
        Self { text, at: 0, plain }
    }

    /// The bytes of a token.
    pub fn bytes(&self, token: Token) -> &'a [u8] {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// A word, or a string with a letter in front of it.
    fn word(&self, rest: &[u8]) -> Option<(Kind, usize)> {
        Some(match *rest {
            [b'e' | b'E', b'\'', ..] => (Kind::Literal, string(rest, 2, Quoting::Backslash)?),
            [b'n' | b'N', b'\'', ..] => (Kind::Literal, string(rest, 2, self.plain)?),
            [b'b' | b'B' | b'x' | b'X', b'\'', ..] => (Kind::Literal, string(rest, 2, Quoting::Never)?),
            [b'u' | b'U', b'&', b'\'', ..] => (Kind::Literal, string(rest, 3, Quoting::Doubled)?),
            [b'u' | b'U', b'&', b'"', ..] => (Kind::QuotedEscapes, quoted(rest, 3)?),
            _ => (Kind::Word, 1 + run(rest, 1, |byte| is_tag(byte) || byte == b'$')),
        })
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let (start, open_comment) = blanks(self.text, self.at);
        let rest = self.text.get(start..).unwrap_or_default();
        let first = *rest.first()?;
        let found = match first {
            _ if open_comment => None,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.word(rest),
            b'0'..=b'9' => Some((Kind::Number, number(rest))),
            b'\'' => string(rest, 1, self.plain).map(|len| (Kind::Literal, len)),
            b'"' => quoted(rest, 1).map(|len| (Kind::Quoted, len)),
            b'$' => dollar(rest),
            b'(' => Some((Kind::Open, 1)),
            b')' => Some((Kind::Close, 1)),
            b';' => Some((Kind::Semicolon, 1)),
            _ if is_operator(first) => Some((Kind::Operator, operator(rest))),
            _ => Some((Kind::Other, 1)),
        };
        let (kind, len) = found.unwrap_or((Kind::Unterminated, rest.len()));
        self.at = start + len;
        Some(Token { kind, start, end: self.at })
    }
}

/// The name that a word or quoted token stands for: folded or freed of its quotes, cut to what the server keeps.
///
/// It is cut between characters if the name is UTF-8. Two things only the server knows are left out: a single-byte
/// server encoding folds its own capital letters too, and the cut counts bytes in the server's encoding.
pub fn identifier_value(token: &[u8]) -> Cow<'_, [u8]> {
    let mut name = match token {
        [b'"', inside @ .., b'"'] if inside.contains(&b'"') => Cow::Owned(undoubled(inside)),
        [b'"', inside @ .., b'"'] => Cow::Borrowed(inside),
        word if word.iter().any(u8::is_ascii_uppercase) => Cow::Owned(word.to_ascii_lowercase()),
        word => Cow::Borrowed(word),
    };
    if name.len() > NAME_BYTES_MAX {
        let is_inside = |at: &usize| name.get(*at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
        // A UTF-8 character has at most three bytes after its first.
        let end = (NAME_BYTES_MAX - 3..=NAME_BYTES_MAX).rev().find(|at| !is_inside(at)).unwrap_or(NAME_BYTES_MAX);
        match &mut name {
            Cow::Borrowed(bytes) => *bytes = bytes.get(..end).unwrap_or_default(),
            Cow::Owned(bytes) => bytes.truncate(end),
        }
    }
    name
}

fn undoubled(inside: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        name.push(*byte);
        if *byte == b'"' {
            bytes.next();
        }
    }
    name
}

/// Where the blanks and comments from `at` on end; or where a comment starts that doesn't.
fn blanks(text: &[u8], mut at: usize) -> (usize, bool) {
    loop {
        at = match text.get(at..).unwrap_or_default() {
            [byte, ..] if is_space(*byte) => at + 1,
            [b'-', b'-', ..] => at + line(text, at),
            [b'/', b'*', rest @ ..] => match block(rest) {
                Some(len) => at + 2 + len,
                None => return (at, true),
            },
            _ => return (at, false),
        }
    }
}

/// The length of a line comment, without the newline.
fn line(text: &[u8], at: usize) -> usize {
    run(text, at, |byte| byte != b'\n' && byte != b'\r')
}

/// The length of a comment after its `/*`; they nest.
fn block(rest: &[u8]) -> Option<usize> {
    let mut depth = 1_usize;
    let mut at = 0;
    while depth > 0 {
        match rest.get(at..)? {
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [_, ..] => at += 1,
            [] => return None,
        }
    }
    Some(at)
}

/// The length of a string whose inside starts at `at`.
pub(super) fn string(rest: &[u8], mut at: usize, quoting: Quoting) -> Option<usize> {
    loop {
        at += run(rest, at, |byte| byte != b'\'' && byte != b'\\');
        match rest.get(at..)? {
            [b'\'', b'\'', ..] if quoting != Quoting::Never => at += 2,
            [b'\\', ..] if quoting == Quoting::Backslash => at += 2,
            [b'\\', ..] => at += 1,
            [_, ..] => match continuation(rest, at + 1) {
                Some(inside) => at = inside,
                None => return Some(at + 1),
            },
            [] => return None,
        }
    }
}

/// A string goes on, and is read in the same way, if only blanks with a newline among them stand before the next quote.
fn continuation(rest: &[u8], mut at: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match rest.get(at..)? {
            [b'\n' | b'\r', ..] => (newline, at) = (true, at + 1),
            [byte, ..] if is_space(*byte) => at += 1,
            [b'-', b'-', ..] => at += line(rest, at),
            [b'\'', ..] if newline => return Some(at + 1),
            _ => return None,
        }
    }
}

/// All that is there behind a string's end is what may stand between it and its continuation.
pub(super) fn continues(rest: &[u8], mut at: usize) -> bool {
    loop {
        match rest.get(at..).unwrap_or_default() {
            [byte, ..] if is_space(*byte) => at += 1,
            [b'-', b'-', ..] => at += line(rest, at),
            [] | [b'-'] => return true,
            _ => return false,
        }
    }
}

/// The length of a quoted name whose inside starts at `at`.
fn quoted(rest: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += run(rest, at, |byte| byte != b'"');
        match rest.get(at..)? {
            [b'"', b'"', ..] => at += 2,
            [_, ..] => return Some(at + 1),
            [] => return None,
        }
    }
}

/// A parameter, a dollar-quoted string, or just the dollar. A tag can't start with a digit: `$1$` is no quote.
fn dollar(rest: &[u8]) -> Option<(Kind, usize)> {
    let digits = run(rest, 1, |byte| byte.is_ascii_digit());
    if digits > 0 {
        return Some((Kind::Parameter, 1 + digits));
    }
    let mut at = 2 + run(rest, 1, is_tag);
    let quote = match rest.get(..at) {
        Some(quote @ [.., b'$']) => quote,
        _ => return Some((Kind::Other, 1)),
    };
    loop {
        at += run(rest, at, |byte| byte != b'$');
        let inside = rest.get(at..).filter(|inside| !inside.is_empty())?;
        if inside.starts_with(quote) {
            return Some((Kind::Literal, at + quote.len()));
        }
        at += 1;
    }
}

/// The length of a number. What can't be an exponent is left: `1e'..'` was a number and a string up to PostgreSQL 14.
fn number(rest: &[u8]) -> usize {
    let digits = |at| run(rest, at, |byte: u8| byte.is_ascii_digit());
    let mut at = digits(0);
    if rest.get(at) == Some(&b'.') {
        at += match digits(at + 1) {
            0 => 0,
            fraction => 1 + fraction,
        };
    }
    if let Some(b'e' | b'E') = rest.get(at) {
        let sign = usize::from(matches!(rest.get(at + 1), Some(b'+' | b'-')));
        at += match digits(at + 1 + sign) {
            0 => 0,
            exponent => 1 + sign + exponent,
        };
    }
    at
}

/// The length of an operator; a comment may start in the middle of the run.
fn operator(rest: &[u8]) -> usize {
    let mut at = 1;
    while let Some(after @ [byte, ..]) = rest.get(at..) {
        if !is_operator(*byte) || after.starts_with(b"--") || after.starts_with(b"/*") {
            break;
        }
        at += 1;
    }
    at
}

/// How many bytes from `at` on are of a kind.
fn run(text: &[u8], at: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().position(|byte| !is(*byte)).unwrap_or(rest.len())
}

/// Inside a dollar quote's tag; with `$` also inside a word. Bytes above ASCII are letters, whatever the encoding.
fn is_tag(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | 0x80..)
}

/// A vertical tab is one since PostgreSQL 16, and an error before.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
    )
}
