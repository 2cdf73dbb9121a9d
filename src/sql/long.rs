//! Reads a text that is too long to be kept, as it passes: the same tokens in the same order as from the whole.
//!
//! What is inside strings and comments is dropped as it comes; kept is at most a token that may go on, 64 KiB of it. What is longer than that, and no string or comment, makes the text unreadable.

use super::Verb;
use super::lexer::{Kind, Lexer, Quoting, Token, continues, is_space, string};
use super::postgres::{Scan, holds_pg_temp};
use super::{Dialect, Statement};
use crate::protocol::PinReason;

/// A name is 63 bytes; blanks between the parts of a string are few.
const CARRY_MAX: usize = 64 << 10;
/// Of the temporary schema's name.
const PG_TEMP_BYTES: usize = 7;
/// So much must be seen to tell what begins: `U&'`.
const PREFIX_BYTES: usize = 3;

/// A text of which more is to come.
#[derive(Debug)]
pub struct Long {
    scan: Scan,
    dialect: Dialect,
    /// What may go on.
    carry: Vec<u8>,
    inside: Inside,
    /// The server sees the text's end here.
    is_over: bool,
    has_non_ascii: bool,
    has_backslash: bool,
    /// The last bytes, in which the temporary schema's name may begin.
    tail: Vec<u8>,
    /// The last token, if it is a name; it may be a function's.
    before: Vec<u8>,
    before_kind: Kind,
    /// A dot stands before it.
    is_qualified: bool,
}

/// What the text is in the middle of.
#[derive(Debug, PartialEq)]
enum Inside {
    Nothing,
    LineComment,
    /// They nest.
    BlockComment(usize),
    String(Quoting),
    /// With its tag.
    Dollar(Vec<u8>),
}

impl Long {
    /// An empty text.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            scan: Scan::default(),
            dialect,
            carry: Vec::new(),
            inside: Inside::Nothing,
            is_over: false,
            has_non_ascii: false,
            has_backslash: false,
            tail: Vec::new(),
            before: Vec::new(),
            before_kind: Kind::Other,
            is_qualified: false,
        }
    }

    /// The next bytes of it.
    pub fn read(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        let bytes =
            bytes.split(|byte| *byte == 0).next().filter(|part| part.len() < bytes.len()).map_or(bytes, |part| {
                self.is_over = true;
                part
            });
        // Strings are not kept: it is looked for in all of the text.
        self.tail.extend_from_slice(bytes.get(..PG_TEMP_BYTES).unwrap_or(bytes));
        if holds_pg_temp(&self.tail) || holds_pg_temp(bytes) {
            self.scan.may_name_pg_temp();
        }
        if bytes.len() > PG_TEMP_BYTES {
            self.tail.clear();
            self.tail.extend_from_slice(bytes.get(bytes.len() - PG_TEMP_BYTES..).unwrap_or_default());
        }
        let kept = self.tail.len().saturating_sub(PG_TEMP_BYTES);
        self.tail.drain(..kept);
        self.has_non_ascii |= !bytes.is_ascii();
        self.has_backslash |= bytes.contains(&b'\\');
        let mut data = std::mem::take(&mut self.carry);
        data.extend_from_slice(bytes);
        let used = self.tokens(&data, false);
        data.drain(..used);
        if data.len() > CARRY_MAX {
            self.scan.is_unreadable();
            data.clear();
        }
        self.carry = data;
    }

    /// What the text is, now that all of it was read. What it says of prepared statements is not known by name.
    pub fn finish(mut self) -> Statement {
        let data = std::mem::take(&mut self.carry);
        let used = self.tokens(&data, true);
        if used < data.len() || !matches!(self.inside, Inside::Nothing | Inside::LineComment) {
            self.scan.token(Token { kind: Kind::Unterminated, start: 0, end: 0 }, b"");
        }
        let ambiguous = self.dialect.unsure && (self.has_non_ascii || self.has_backslash);
        if ambiguous || (self.dialect.multibyte_unsafe && self.has_non_ascii) {
            self.scan.is_ambiguous();
        }
        let mut statement = self.scan.finish();
        let references = std::mem::take(&mut statement.references);
        if references.iter().any(|reference| reference.verb != Verb::DeallocateAll) {
            statement.intent.pins_when_done.add(PinReason::PreparedStatement);
        }
        statement
    }

    /// Reads what can be read of it; how much that was. `last`: there is no more.
    fn tokens(&mut self, data: &[u8], last: bool) -> usize {
        let mut at = 0;
        loop {
            let rest = data.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            let (taken, goes_on) = match &mut self.inside {
                Inside::Nothing => self.outside(rest, last),
                Inside::LineComment => match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                    Some(end) => {
                        self.inside = Inside::Nothing;
                        (end, true)
                    }
                    None => (rest.len(), true),
                },
                Inside::BlockComment(depth) => {
                    let (taken, is_over) = block(rest, depth);
                    if is_over {
                        self.inside = Inside::Nothing;
                    }
                    (taken, is_over)
                }
                Inside::String(quoting) => {
                    let quoting = *quoting;
                    match string(rest, 0, quoting) {
                        Some(end) if !last && may_continue(rest, end) => (end - 1, false),
                        Some(end) => {
                            self.literal();
                            (end, true)
                        }
                        // An escape that is cut in two.
                        None if quoting == Quoting::Backslash && ends_in_escape(rest) => (rest.len() - 1, false),
                        None => (rest.len(), true),
                    }
                }
                Inside::Dollar(tag) => match rest.windows(tag.len()).position(|window| window == tag.as_slice()) {
                    Some(end) => {
                        let end = end + tag.len();
                        self.literal();
                        (end, true)
                    }
                    None => ((rest.len() + 1).saturating_sub(tag.len()), false),
                },
            };
            at += taken;
            if !goes_on {
                return at;
            }
        }
    }

    fn literal(&mut self) {
        self.inside = Inside::Nothing;
        self.before_kind = Kind::Literal;
        self.before.clear();
        self.scan.token(Token { kind: Kind::Literal, start: 0, end: 0 }, b"");
    }

    /// A blank, the beginning of a comment or string, or another token. How much is taken; false: more must be seen.
    fn outside(&mut self, rest: &[u8], last: bool) -> (usize, bool) {
        match rest {
            [byte, ..] if is_space(*byte) => {
                let blanks = rest.iter().position(|byte| !is_space(*byte));
                return (blanks.unwrap_or(rest.len()), true);
            }
            [b'-', b'-', ..] => {
                self.inside = Inside::LineComment;
                return (2, true);
            }
            [b'/', b'*', ..] => {
                self.inside = Inside::BlockComment(1);
                return (2, true);
            }
            _ if rest.len() < PREFIX_BYTES && !last => return (0, false),
            _other => {}
        }
        let mut lexer = Lexer::new(rest, self.dialect);
        let Some(token) = lexer.next() else { return (rest.len(), true) };
        if token.kind == Kind::Unterminated && !last {
            return self.begins(rest);
        }
        // A tag that is not there whole is taken for a dollar and a name.
        let tag = rest.first() == Some(&b'$') && !rest.iter().skip(1).any(|byte| !is_tag(*byte));
        // An exponent or a fraction may follow.
        let number = token.kind == Kind::Number && token.end + 3 > rest.len();
        let is_cut =
            token.end == rest.len() || tag || number || (token.kind == Kind::Literal && may_continue(rest, token.end));
        if is_cut && !last {
            // A long string need not be carried: what is left of it is its last quote.
            return if token.kind == Kind::Literal && token.end > CARRY_MAX { self.begins(rest) } else { (0, false) };
        }
        if token.kind == Kind::Open {
            self.scan.call(self.before_kind, &self.before, self.is_qualified);
        }
        self.is_qualified = self.before == b".";
        self.before.clear();
        self.before_kind = token.kind;
        if matches!(token.kind, Kind::Word | Kind::Quoted) || lexer.bytes(token) == b"." {
            self.before.extend_from_slice(lexer.bytes(token));
        }
        self.scan.token(token, lexer.bytes(token));
        (token.end, true)
    }

    /// A string begins whose end is not there.
    fn begins(&mut self, rest: &[u8]) -> (usize, bool) {
        let plain = if self.dialect.backslash_quotes { Quoting::Backslash } else { Quoting::Doubled };
        let (inside, opening) = match rest {
            [b'\'', ..] => (Inside::String(plain), 1),
            [b'e' | b'E', b'\'', ..] => (Inside::String(Quoting::Backslash), 2),
            [b'n' | b'N', b'\'', ..] => (Inside::String(plain), 2),
            [b'b' | b'B' | b'x' | b'X', b'\'', ..] => (Inside::String(Quoting::Never), 2),
            [b'u' | b'U', b'&', b'\'', ..] => (Inside::String(Quoting::Doubled), 3),
            [b'$', ..] => {
                let tag = 2 + rest.iter().skip(1).take_while(|byte| is_tag(**byte)).count();
                (Inside::Dollar(rest.get(..tag).unwrap_or_default().to_vec()), tag)
            }
            // A name in quotes is short.
            _other => return (0, false),
        };
        self.inside = inside;
        (opening, true)
    }
}

/// The inside of comments, as far as it can be told; true if they are over.
fn block(rest: &[u8], depth: &mut usize) -> (usize, bool) {
    let mut at = 0;
    loop {
        at += match rest.get(at..).unwrap_or_default() {
            [b'*', b'/', ..] => {
                *depth -= 1;
                if *depth == 0 {
                    return (at + 2, true);
                }
                2
            }
            [b'/', b'*', ..] => {
                *depth += 1;
                2
            }
            [b'*' | b'/'] | [] => return (at, false),
            [_, ..] => 1,
        };
    }
}

/// The string that ends here may go on behind what is there.
fn may_continue(rest: &[u8], end: usize) -> bool {
    end == rest.len() || continues(rest, end)
}

fn ends_in_escape(rest: &[u8]) -> bool {
    rest.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

fn is_tag(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | 0x80..)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::classify;
    use proptest::prelude::*;

    /// As the whole text, but for what is said of prepared statements by name, and of the temporary schema where it is no name.
    fn whole(sql: &[u8], dialect: Dialect) -> Statement {
        let text = sql.split(|byte| *byte == 0).next().unwrap();
        let mut statement = classify(text, dialect);
        let references = std::mem::take(&mut statement.references);
        if references.iter().any(|reference| reference.verb != Verb::DeallocateAll) {
            statement.intent.pins_when_done.add(PinReason::PreparedStatement);
        }
        if holds_pg_temp(text) {
            statement.intent.pins_when_done.add(PinReason::TemporaryObject);
            statement.intent.changes_settings = true;
        }
        statement
    }

    fn in_pieces(sql: &[u8], dialect: Dialect, cuts: &[usize]) -> Statement {
        let mut long = Long::new(dialect);
        let (mut rest, mut cuts) = (sql, cuts.iter().cycle());
        while !rest.is_empty() {
            let cut = (1 + cuts.next().copied().unwrap_or(0)).min(rest.len());
            let (piece, behind) = rest.split_at(cut);
            long.read(piece);
            rest = behind;
        }
        long.finish()
    }

    #[test]
    fn every_cut_of_what_is_awkward() {
        for sql in [
            "SET x = 'a''b'; SELECT 1",
            "SELECT 'a'\n  'b', E'\\'' || U&'x' /* SET /* */ ' */ -- it's\n; LISTEN x",
            "SELECT $t$ SET ' $t $t$; LOAD 'x'",
            "SELECT $1, $tag$ $tag$, pg_advisory_lock(1)",
            "SELECT U&\"a\", \"pg_advisory_lock\"(1)",
            "INSERT INTO t VALUES (1.5e10, b'01', x'1F', N'a\\'), ('x'); CREATE TEMP TABLE a (b int)",
            "DEALLOCATE a",
            "SELECT 1.5e3set_config, 1e+5lastval, 2.nextval, 3e-x",
            "DISCARD ALL",
            "DO $$ BEGIN END $$",
            "SELECT 'never ends",
            "SELECT /* never ends",
            "SELECT a - - b -- c",
            "SET a = 1\0LISTEN x",
            "-- only",
            "",
        ] {
            for dialect in [Dialect::default(), Dialect { backslash_quotes: true, ..Dialect::default() }] {
                for size in 0..8 {
                    assert_eq!(
                        in_pieces(sql.as_bytes(), dialect, &[size]),
                        whole(sql.as_bytes(), dialect),
                        "{sql} {size}"
                    );
                }
                for cut in 0..sql.len() {
                    let found = in_pieces(sql.as_bytes(), dialect, &[cut, sql.len()]);
                    assert_eq!(found, whole(sql.as_bytes(), dialect), "{sql} at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_long_string_is_not_kept() {
        for quotes in [("'", "'"), ("E'\\\\", "'"), ("$a$", "$a$"), ("/*", "*/"), ("--", "\n")] {
            let mut long = Long::new(Dialect::default());
            long.read(b"SELECT ");
            long.read(quotes.0.as_bytes());
            for _ in 0..100 {
                long.read(&[b'x'; 100_000]);
                assert!(long.carry.len() < 10);
            }
            long.read(quotes.1.as_bytes());
            long.read(b"; LISTEN y");
            let found = long.finish();
            assert!(found.intent.pins_when_done.contains(PinReason::Listen), "{quotes:?}");
            assert!(!found.intent.pins_when_sent.contains(PinReason::Unreadable), "{quotes:?}");
        }
        // A name can't be so long.
        let mut long = Long::new(Dialect::default());
        long.read(&[b'x'; 200_000]);
        assert!(long.carry.is_empty());
        assert!(long.finish().intent.pins_when_done.contains(PinReason::Unreadable));
    }

    proptest! {
        /// However it is cut, it reads as it does whole.
        #[test]
        fn cuts_make_no_difference(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "'", "\"", "$", "$$", "$a$", "\\", "--", "/*", "*/", "\n", " ", "E'", "U&'", "U&\"", "b'", ";", "(", ")",
                "SET", " LISTEN ", "x", "1", "e", "pg_advisory_lock", "DISCARD ALL", "pg_", "temp", "PG_TEMP", "ü", "\0", "''", "+", "-",
            ]), 0..24),
            cuts in proptest::collection::vec(0..6usize, 1..8),
            backslash_quotes: bool,
            unsure: bool,
            multibyte_unsafe: bool,
        ) {
            let dialect = Dialect { backslash_quotes, unsure, multibyte_unsafe };
            let sql = pieces.concat();
            prop_assert_eq!(in_pieces(sql.as_bytes(), dialect, &cuts), whole(sql.as_bytes(), dialect));
        }
    }
}
