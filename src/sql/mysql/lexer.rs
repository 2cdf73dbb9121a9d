//! Cuts a text into tokens where MySQL's and MariaDB's scanners (`sql_lex.cc`) would, blanks and comments left out.
//!
//! Exact for all that hides other text: strings, quoted names, comments, and numbers with a word right behind them
//! (`1e1union` is two tokens). Operators are single bytes but for `:=`. What an executable comment holds comes out as tokens
//! if the [`Reading`] runs it. Texts the server's scanner refuses come out as some tokens or other. Linear in the text; no
//! allocation.

use super::Dialect;

/// The oldest version that is spoken of here: comments for it and older ones run everywhere. What is older tells a client
/// nothing of its state (`SESSION_TRACK`); and MariaDB runs MySQL's comments up to here.
pub(super) const OLDEST_RELEASE: u32 = 50_700;

/// A token, quotes and prefix included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
    /// Its first byte's place.
    pub(super) start: usize,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// `` `name` ``, and `"name"` in ANSI mode.
    Quoted,
    /// `'..'`, `".."`, and `$tag$..$tag$` if the reading has those. What may stand in front (`x`, `N`, `_utf8`) is a word.
    Literal,
    /// `@a`, `@'a'`, `` @`a` ``
    UserVariable,
    /// `@@`; the name follows.
    SystemVariable,
    /// Digits, with fraction and exponent. `0x1F` is a word.
    Number,
    /// `:=`
    Assign,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `;`
    Semicolon,
    /// One byte of anything else.
    Other,
    /// A string, quoted name or comment that doesn't end; it reaches to the end of the text.
    Unterminated,
}

/// One of the ways in which servers of one dialect may read the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Executable comments run if they ask for this version or an older one, or for none.
    pub(super) version: u32,
    /// `$$..$$` is a string, as in MySQL since 8.1; else `$` is a letter.
    pub(super) dollar_strings: bool,
}

/// The tokens of a text, in order.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
    reading: Reading,
    /// Inside of an executable comment that runs.
    is_in_comment: bool,
    /// A name may begin with a digit here (`t.1a`).
    is_behind_dot: bool,
    /// A point here is no number's (`t.1a`).
    is_behind_word: bool,
    /// Something that not all servers read alike was passed.
    is_ambiguous: bool,
    /// A dollar quote begins somewhere.
    has_dollar_quote: bool,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a [u8], dialect: Dialect, reading: Reading) -> Self {
        Self {
            text,
            at: 0,
            dialect,
            reading,
            is_in_comment: false,
            is_behind_dot: false,
            is_behind_word: false,
            is_ambiguous: false,
            has_dollar_quote: false,
        }
    }

    /// Of what follows right behind a token of this kind, if there is one.
    pub(super) fn behind(kind: Option<Kind>, text: &'a [u8], dialect: Dialect, reading: Reading) -> Self {
        Self {
            is_behind_dot: kind == Some(Kind::Dot),
            is_behind_word: kind == Some(Kind::Word),
            ..Self::new(text, dialect, reading)
        }
    }

    /// What has been passed so far may be read otherwise than it came out.
    pub(super) const fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    /// What has been passed so far has a dollar quote, if the server has those.
    pub(super) const fn has_dollar_quote(&self) -> bool {
        self.has_dollar_quote
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Passes blanks and comments; `None` if a comment doesn't end.
    fn pass_blanks(&mut self) -> Option<()> {
        loop {
            let rest = self.rest();
            self.at += match rest {
                [byte, ..] if is_space(*byte) => 1,
                [b'#', ..] => self.line(rest),
                [b'-', b'-'] => 2,
                [b'-', b'-', byte, ..] if is_space(*byte) || byte.is_ascii_control() => self.line(rest),
                [b'-', b'-', byte, ..] if *byte >= 0x80 && !self.dialect.utf8 => {
                    // A blank or a control character in some character sets.
                    self.is_ambiguous = true;
                    return Some(());
                }
                [b'*', b'/', ..] if self.is_in_comment => {
                    self.is_in_comment = false;
                    2
                }
                [b'/', b'*', ..] => self.block(rest)?,
                [] if self.is_in_comment => return None,
                _ => return Some(()),
            };
        }
    }

    /// The length of a comment to the end of its line. A NUL ends it, too, and what follows is a syntax error.
    fn line(&mut self, rest: &[u8]) -> usize {
        let len = run(rest, 0, |byte| byte != b'\n' && byte != 0);
        self.is_ambiguous |= rest.get(len) == Some(&0);
        len
    }

    /// The length of a block comment, or of the head of one that runs.
    fn block(&mut self, rest: &[u8]) -> Option<usize> {
        let (head, is_mariadb) = match rest {
            [_, _, b'!', ..] => (3, false),
            [_, _, b'M', b'!', ..] if self.dialect.mariadb => (4, true),
            [_, _, b'+', ..] => {
                let len = comment(rest, 0)?;
                // A hint's quoted names may hold the comment's end.
                let hint = rest.get(..len).unwrap_or_default();
                let is_odd = |quote: u8| hint.iter().filter(|byte| **byte == quote).count() % 2 == 1;
                self.is_ambiguous |= [b'`', b'"', b'\''].into_iter().any(is_odd);
                return Some(len);
            }
            _ => return comment(rest, 0),
        };
        let (version, digits) = version(rest.get(head..).unwrap_or_default());
        if version <= self.reading.version && !(self.dialect.mariadb && !is_mariadb && is_mysql_only(version)) {
            self.is_in_comment = true;
            return Some(head + digits);
        }
        comment(rest, 1)
    }

    /// The quoting of what starts with a double quote.
    const fn double(&self) -> (Kind, bool) {
        if self.dialect.ansi_quotes { (Kind::Quoted, false) } else { (Kind::Literal, self.backslash()) }
    }

    const fn backslash(&self) -> bool {
        !self.dialect.no_backslash_escapes
    }

    fn at_sign(&self, rest: &[u8]) -> Option<(Kind, usize)> {
        Some(match rest.get(1) {
            Some(b'@') => (Kind::SystemVariable, 2),
            Some(b'`') => (Kind::UserVariable, 1 + quoted(rest.get(1..)?, b'`', false)?),
            Some(b'\'') => (Kind::UserVariable, 1 + quoted(rest.get(1..)?, b'\'', self.backslash())?),
            Some(b'"') => (Kind::UserVariable, 1 + quoted(rest.get(1..)?, b'"', self.double().1)?),
            _ => (Kind::UserVariable, 1 + run(rest, 1, |byte| is_word(byte) || byte == b'.')),
        })
    }

    /// A name that begins with a dollar sign, or what stands between two dollar quotes.
    fn dollar(&mut self, rest: &[u8]) -> Option<(Kind, usize)> {
        let tag = 2 + run(rest, 1, |byte| is_word(byte) && byte != b'$');
        if let Some(quote @ [.., b'$']) = rest.get(..tag)
            && !self.dialect.mariadb
        {
            self.has_dollar_quote = true;
            if self.reading.dollar_strings {
                let inside = rest.get(tag..)?;
                // One that does not end is an error of the server's, whatever stands there.
                let end = memchr::memmem::find(inside, quote).map(|len| tag + len + tag);
                return Some((Kind::Literal, end.unwrap_or(rest.len())));
            }
        }
        Some((Kind::Word, run(rest, 0, is_word)))
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let is_behind_dot = std::mem::take(&mut self.is_behind_dot);
        let is_behind_word = std::mem::take(&mut self.is_behind_word);
        let before = self.at;
        let is_open = self.pass_blanks().is_none();
        let is_behind_dot = is_behind_dot && self.at == before;
        let start = self.at;
        let rest = self.rest();
        let found = match rest {
            _ if is_open => None,
            [] => return None,
            [b'\'', ..] => quoted(rest, b'\'', self.backslash()).map(|len| (Kind::Literal, len)),
            [b'"', ..] => quoted(rest, b'"', self.double().1).map(|len| (self.double().0, len)),
            [b'`', ..] => quoted(rest, b'`', false).map(|len| (Kind::Quoted, len)),
            [b'$', ..] => self.dollar(rest),
            [b'0'..=b'9', ..] if !is_behind_dot => Some(number(rest)),
            [b'.', b'0'..=b'9', ..] if !(is_behind_word && self.at == before) => Some(fraction(rest)),
            [byte, ..] if is_word(*byte) => Some((Kind::Word, run(rest, 0, is_word))),
            [b'@', ..] => self.at_sign(rest),
            [b':', b'=', ..] => Some((Kind::Assign, 2)),
            [b'(', ..] => Some((Kind::Open, 1)),
            [b')', ..] => Some((Kind::Close, 1)),
            [b',', ..] => Some((Kind::Comma, 1)),
            [b';', ..] => Some((Kind::Semicolon, 1)),
            [b'.', ..] => Some((Kind::Dot, 1)),
            [byte, ..] => {
                // `[..]` quotes a name in MariaDB's mode `MSSQL`, and is a mistake in any other.
                self.is_ambiguous |= *byte == 0 || *byte == b'[' && self.dialect.mariadb;
                Some((Kind::Other, 1))
            }
        };
        let (kind, len) = found.unwrap_or((Kind::Unterminated, rest.len()));
        self.is_in_comment &= kind != Kind::Unterminated;
        self.is_behind_dot = kind == Kind::Dot;
        self.is_behind_word = kind == Kind::Word;
        self.at = start + len;
        Some(Token { kind, bytes: rest.get(..len).unwrap_or_default(), start })
    }
}

/// The versions that a text's executable comments ask for, wherever their first bytes stand, and that not all servers run.
pub(super) fn versions(text: &[u8], dialect: Dialect) -> impl Iterator<Item = u32> {
    memchr::memchr_iter(b'*', text).filter_map(move |star| {
        text.get(..star)?.last().filter(|before| **before == b'/')?;
        let (rest, is_mariadb) = match text.get(star + 1..)? {
            [b'!', rest @ ..] => (rest, false),
            [b'M', b'!', rest @ ..] if dialect.mariadb => (rest, true),
            _ => return None,
        };
        let (version, _) = version(rest);
        let is_fixed = version < OLDEST_RELEASE || dialect.mariadb && !is_mariadb && is_mysql_only(version);
        (!is_fixed).then_some(version)
    })
}

/// MariaDB passes over `/*!50700` up to `/*!99999`: there its numbers say nothing of MySQL's.
const fn is_mysql_only(version: u32) -> bool {
    version >= OLDEST_RELEASE && version <= 99_999
}

/// The version that an executable comment asks for, and its digits: five, or six if there are. Fewer are no version.
fn version(rest: &[u8]) -> (u32, usize) {
    let digits = run(rest, 0, |byte| byte.is_ascii_digit()).min(6);
    if digits < 5 {
        return (0, 0);
    }
    let value = |version, byte: &u8| version * 10 + u32::from(byte - b'0');
    (rest.get(..digits).unwrap_or_default().iter().fold(0, value), digits)
}

/// The length of a comment that does not run. Others may stand in it if it is an executable one.
fn comment(rest: &[u8], nesting: u8) -> Option<usize> {
    let mut at = 2;
    loop {
        at += run(rest, at, |byte| byte != b'*' && byte != b'/');
        match rest.get(at..)? {
            [b'*', b'/', ..] => return Some(at + 2),
            inner @ [b'/', b'*', ..] if nesting > 0 => at += comment(inner, nesting - 1)?,
            [_, ..] => at += 1,
            [] => return None,
        }
    }
}

/// The length of what is quoted, quotes included.
fn quoted(rest: &[u8], quote: u8, backslash: bool) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(quote, b'\\', rest.get(at..)?)?;
        at += match rest.get(at..)? {
            [b'\\', ..] if backslash => 2,
            [b'\\', ..] => 1,
            [_, again, ..] if *again == quote => 2,
            _ => return Some(at + 1),
        };
    }
}

/// A number, or a name that begins like one (`1a`, `0x1F`, `1e`).
fn number(rest: &[u8]) -> (Kind, usize) {
    let digits = run(rest, 0, |byte| byte.is_ascii_digit());
    match rest.get(digits..).unwrap_or_default() {
        [b'e' | b'E', b'0'..=b'9', ..] | [b'e' | b'E', b'+' | b'-', b'0'..=b'9', ..] => {
            (Kind::Number, digits + exponent(rest, digits))
        }
        [byte, ..] if is_word(*byte) => (Kind::Word, run(rest, 0, is_word)),
        [b'.', ..] => {
            let (kind, len) = fraction(rest.get(digits..).unwrap_or_default());
            (kind, digits + len)
        }
        _ => (Kind::Number, digits),
    }
}

/// The point and what follows.
fn fraction(rest: &[u8]) -> (Kind, usize) {
    let len = 1 + run(rest, 1, |byte| byte.is_ascii_digit());
    (Kind::Number, len + exponent(rest, len))
}

/// The length of the exponent at `at`, if there is one.
fn exponent(rest: &[u8], at: usize) -> usize {
    let sign = match rest.get(at..).unwrap_or_default() {
        [b'e' | b'E', b'+' | b'-', b'0'..=b'9', ..] => 1,
        [b'e' | b'E', b'0'..=b'9', ..] => 0,
        _ => return 0,
    };
    1 + sign + run(rest, at + 1 + sign, |byte| byte.is_ascii_digit())
}

/// How many bytes from `at` on are of a kind.
pub(super) fn run(text: &[u8], at: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().position(|byte| !is(*byte)).unwrap_or(rest.len())
}

/// Bytes above ASCII are taken for letters; the scan looks after those that may be blanks.
pub(super) const fn is_word(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'$' | 0x80..)
}

pub(super) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
