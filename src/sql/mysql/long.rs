//! Reads a text that is too long to be kept, as it passes: it says the same of it as [`classify`](super::classify) does of a text that
//! is here, or that it can't be read.
//!
//! What is inside of strings, long names and comments is dropped as it comes; kept is at most a token that may go on, 1 KiB of it. A
//! double quote is read in both ways, from the first one on that stands outside of all these. What may be read in more ways than that
//! (executable comments, hints, dollar quotes) makes the text unreadable, and so do variables and numbers that are too long.

use super::lexer::{Kind, Lexer, OLDEST_RELEASE, Reading, Token, is_space, is_word, run};
use super::scan::{Scan, is_ambiguous};
use super::written::Written;
use super::{Dialect, Statement};

/// A name has 64 letters, a number less.
const CARRY_MAX: usize = 1 << 10;
/// So much of what follows is read together with what was kept.
const JOIN_BYTES: usize = 256;
/// So much of a name is looked at: more than any has that means something.
const NAME_BYTES: usize = 128;
/// So much must be seen to tell what begins (`/*M!`), and behind a token to tell that it ends (`1` `e+5`).
const BEGINNING_BYTES: usize = 4;
const BEHIND_BYTES: usize = 3;

/// There are no others, as what has several makes the text unreadable.
const READING: Reading = Reading { version: OLDEST_RELEASE - 1, dollar_strings: false };

/// A text of which more is to come.
#[derive(Debug)]
pub struct Long {
    one: Reader,
    /// The other reading of double quotes: they are a name's.
    other: Option<Reader>,
}

/// One reading.
#[derive(Debug, Clone)]
struct Reader {
    scan: Scan,
    dialect: Dialect,
    /// What may go on.
    carry: Vec<u8>,
    inside: Inside,
    /// Of the token that ends right here.
    behind: Option<Kind>,
    /// The last token, if it is a name; it may be a function's.
    before: Vec<u8>,
    quotes: Quotes,
}

/// What the text is in the middle of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Inside {
    Nothing,
    LineComment,
    BlockComment,
    /// Behind its opening quote.
    String(u8),
    /// The same of a name, with what it begins with.
    Name(u8, Vec<u8>),
    /// With what it begins with.
    Word(Vec<u8>),
}

/// Whether it matters how double quotes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// There have been none.
    Undecided,
    /// One comes next.
    Met,
    /// The dialect says it.
    Decided,
}

impl Long {
    /// An empty text. It is read with and without `ANSI_QUOTES`, whatever the dialect says.
    pub fn new(dialect: Dialect) -> Self {
        let dialect = Dialect { ansi_quotes: false, ..dialect };
        let one = Reader {
            scan: Scan::new(dialect),
            dialect,
            carry: Vec::new(),
            inside: Inside::Nothing,
            behind: None,
            before: Vec::new(),
            quotes: Quotes::Undecided,
        };
        Self { one, other: None }
    }

    /// The next bytes of it.
    pub fn read(&mut self, bytes: &[u8]) {
        self.advance(bytes, false);
    }

    /// What the text is, now that all of it was read.
    pub fn finish(mut self) -> Statement {
        self.advance(b"", true);
        let one = self.one.finish();
        let both = self.other.map_or(one, |other| one.or(other.finish()));
        // What stands in strings is not kept.
        Statement { written: Written::ANY, ..both }
    }

    /// What it would be if it ended with the last token that was read.
    pub fn so_far(&self) -> Statement {
        let one = self.one.scan.clone().finish();
        self.other.as_ref().map_or(one, |other| one.or(other.scan.clone().finish()))
    }

    /// It can't be read, whatever follows.
    pub fn is_unreadable(&self) -> bool {
        self.one.scan.is_unreadable() || self.other.as_ref().is_some_and(|other| other.scan.is_unreadable())
    }

    fn advance(&mut self, bytes: &[u8], last: bool) {
        if self.is_unreadable() {
            return;
        }
        if let Some(other) = &mut self.other {
            other.read(bytes, last);
        }
        let Some(rest) = self.one.read(bytes, last) else { return };
        self.one.quotes = Quotes::Decided;
        let mut other = self.one.clone();
        other.dialect.ansi_quotes = true;
        other.read(rest, last);
        self.other = Some(other);
        self.one.read(rest, last);
    }
}

impl Reader {
    /// Bytes that are left: how they are read must be decided first.
    fn read<'a>(&mut self, mut bytes: &'a [u8], last: bool) -> Option<&'a [u8]> {
        while !self.carry.is_empty() && (last || !bytes.is_empty()) {
            let (more, behind) = bytes.split_at(bytes.len().min(JOIN_BYTES));
            let mut data = std::mem::take(&mut self.carry);
            let kept = data.len();
            data.extend_from_slice(more);
            let used = self.tokens(&data, last && behind.is_empty());
            if self.quotes == Quotes::Met || used < kept {
                data.drain(..used);
                self.carry = data;
                bytes = behind;
                if self.quotes == Quotes::Met {
                    return Some(bytes);
                }
                if bytes.is_empty() {
                    return None;
                }
            } else {
                bytes = bytes.get(used - kept..).unwrap_or_default();
                data.clear();
                self.carry = data;
            }
        }
        let used = self.tokens(bytes, last);
        let rest = bytes.get(used..).unwrap_or_default();
        if self.quotes == Quotes::Met {
            return Some(rest);
        }
        self.carry.extend_from_slice(rest.get(..CARRY_MAX).unwrap_or(rest));
        None
    }

    fn finish(mut self) -> Statement {
        if let Inside::Word(first) = &mut self.inside {
            let first = std::mem::take(first);
            self.token(Token { kind: Kind::Word, bytes: &first, start: 0 });
            self.inside = Inside::Nothing;
        }
        if !self.carry.is_empty() || !matches!(self.inside, Inside::Nothing | Inside::LineComment) {
            self.token(Token { kind: Kind::Unterminated, bytes: b"", start: 0 });
        }
        self.scan.finish()
    }

    /// Reads what can be read of it; how much that was. `last`: there is no more.
    fn tokens(&mut self, data: &[u8], last: bool) -> usize {
        let mut at = 0;
        loop {
            let rest = data.get(at..).unwrap_or_default();
            if self.scan.is_unreadable() {
                return data.len();
            }
            if rest.is_empty() {
                return at;
            }
            let (taken, goes_on) = self.step(rest, last);
            at += taken;
            if !goes_on {
                return at;
            }
        }
    }

    /// How much is taken; false: more must be seen.
    fn step(&mut self, rest: &[u8], last: bool) -> (usize, bool) {
        match &mut self.inside {
            Inside::Nothing => self.outside(rest, last),
            Inside::LineComment => match memchr::memchr2(b'\n', 0, rest) {
                Some(end) => {
                    self.inside = Inside::Nothing;
                    (end, true)
                }
                None => (rest.len(), true),
            },
            Inside::BlockComment => match memchr::memmem::find(rest, b"*/") {
                Some(end) => {
                    self.inside = Inside::Nothing;
                    (end + 2, true)
                }
                None => (rest.len() - usize::from(rest.ends_with(b"*")), false),
            },
            Inside::String(quote) => {
                let (taken, ends) = quoted(rest, *quote, !self.dialect.no_backslash_escapes, last);
                self.look(Kind::Literal, rest.get(..taken).unwrap_or_default());
                if ends {
                    self.inside = Inside::Nothing;
                    self.token(Token { kind: Kind::Literal, bytes: b"", start: 0 });
                }
                (taken, ends)
            }
            Inside::Name(quote, first) => {
                let (taken, ends) = quoted(rest, *quote, false, last);
                let first = if ends { std::mem::take(first) } else { Vec::new() };
                self.look(Kind::Quoted, rest.get(..taken).unwrap_or_default());
                if ends {
                    self.inside = Inside::Nothing;
                    self.token(Token { kind: Kind::Quoted, bytes: &first, start: 0 });
                }
                (taken, ends)
            }
            Inside::Word(first) => {
                let taken = run(rest, 0, is_word);
                let ends = taken < rest.len();
                let first = if ends { std::mem::take(first) } else { Vec::new() };
                self.look(Kind::Word, rest.get(..taken).unwrap_or_default());
                if ends {
                    self.inside = Inside::Nothing;
                    self.token(Token { kind: Kind::Word, bytes: &first, start: 0 });
                }
                (taken, ends)
            }
        }
    }

    /// A blank, the beginning of a comment or string, or another token.
    fn outside(&mut self, rest: &[u8], last: bool) -> (usize, bool) {
        let (inside, taken) = match rest {
            [byte, ..] if is_space(*byte) => (Inside::Nothing, run(rest, 0, is_space)),
            _ if rest.len() < BEGINNING_BYTES && !last => return (0, false),
            [b'#', ..] => (Inside::LineComment, 1),
            [b'-', b'-'] => (Inside::LineComment, 2),
            [b'-', b'-', byte, ..] if is_space(*byte) || byte.is_ascii_control() => (Inside::LineComment, 2),
            [b'-', b'-', byte, ..] if *byte >= 0x80 && !self.dialect.utf8 => return self.gives_up(rest),
            [b'/', b'*', b'!' | b'+', ..] | [b'/', b'*', b'M', b'!', ..] => return self.gives_up(rest),
            [b'/', b'*', ..] => (Inside::BlockComment, 2),
            [b'"', ..] | [b'@', b'"', ..] if self.quotes == Quotes::Undecided => {
                self.quotes = Quotes::Met;
                return (0, false);
            }
            [b'"', ..] if self.dialect.ansi_quotes => return self.word(rest, last),
            // What there is most of.
            [b',', ..] => return self.sign(Kind::Comma, rest),
            [b'(', ..] => return self.sign(Kind::Open, rest),
            [b')', ..] => return self.sign(Kind::Close, rest),
            [quote @ (b'\'' | b'"'), ..] => {
                self.look(Kind::Literal, rest.get(..1).unwrap_or_default());
                self.inside = Inside::String(*quote);
                return (1, true);
            }
            _ => return self.word(rest, last),
        };
        self.inside = inside;
        self.behind = None;
        (taken, true)
    }

    fn sign(&mut self, kind: Kind, rest: &[u8]) -> (usize, bool) {
        self.token(Token { kind, bytes: rest.get(..1).unwrap_or_default(), start: 0 });
        (1, true)
    }

    /// A token that is no string.
    fn word(&mut self, rest: &[u8], last: bool) -> (usize, bool) {
        let mut lexer = Lexer::behind(self.behind, rest, self.dialect, READING);
        let Some(token) = lexer.next() else { return (rest.len(), true) };
        let len = token.bytes.len();
        if !last && (token.kind == Kind::Unterminated || len + BEHIND_BYTES > rest.len()) {
            return if rest.len() <= CARRY_MAX { (0, false) } else { self.goes_on(rest) };
        }
        if lexer.is_ambiguous() || lexer.has_dollar_quote() {
            return self.gives_up(rest);
        }
        self.token(token);
        (len, true)
    }

    /// A token begins that is longer than what can be kept.
    fn goes_on(&mut self, rest: &[u8]) -> (usize, bool) {
        let first = rest.get(..NAME_BYTES).unwrap_or(rest);
        match first {
            [quote @ (b'`' | b'"'), ..] => {
                self.look(Kind::Quoted, rest.get(..1).unwrap_or_default());
                self.inside = Inside::Name(*quote, [first, &[*quote]].concat());
                (1, true)
            }
            [b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.., ..] | [b'0', b'x' | b'X' | b'b' | b'B', ..] => {
                self.inside = Inside::Word(first.to_vec());
                (0, true)
            }
            _ => self.gives_up(rest),
        }
    }

    /// The next one.
    fn token(&mut self, token: Token<'_>) {
        self.scan.read(token, &self.before, self.behind.is_some());
        self.before.clear();
        if matches!(token.kind, Kind::Word | Kind::Quoted) {
            self.before.extend_from_slice(token.bytes.get(..NAME_BYTES).unwrap_or(token.bytes));
        }
        self.behind = Some(token.kind);
    }

    /// Bytes of a token that is not kept.
    fn look(&mut self, kind: Kind, bytes: &[u8]) {
        if is_ambiguous(kind, bytes, self.dialect) {
            self.scan.gives_up();
        }
    }

    fn gives_up(&mut self, rest: &[u8]) -> (usize, bool) {
        self.scan.gives_up();
        (rest.len(), false)
    }
}

/// How much can be passed of what is quoted, behind its opening quote; true: that is all of it.
fn quoted(rest: &[u8], quote: u8, backslash: bool, last: bool) -> (usize, bool) {
    let mut at = 0;
    loop {
        let inside = rest.get(at..).unwrap_or_default();
        let found = if backslash { memchr::memchr2(quote, b'\\', inside) } else { memchr::memchr(quote, inside) };
        let Some(found) = found else { return (rest.len(), false) };
        at += found;
        at += match rest.get(at..).unwrap_or_default() {
            [b'\\', _, ..] if backslash => 2,
            [b'\\'] if backslash => return (at, false),
            [_, again, ..] if again == &quote => 2,
            [_] if !last => return (at, false),
            _ => return (at + 1, true),
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
