//! Numbers that an `INSERT` writes out.
//!
//! The answer to an `INSERT` tells a number. Mostly the server has drawn it, and it is `LAST_INSERT_ID()` from then on; but where the
//! statement says itself what the column is to be, the answer tells that, and `LAST_INSERT_ID()` stays what it was
//! (<https://dev.mysql.com/doc/c-api/9.7/en/mysql-insert-id.html>). No answer says which of the two it is. What the statement does not write
//! out was drawn, unless a trigger has set it.

#![allow(clippy::wildcard_enum_match_arm, reason = "every other word of the language is the wildcard")]

use super::lexer::{Kind, Token, is_space, run};
use super::words::Word;

/// Those that begin here may be anything: negative ones, as the server tells them, and times of day on a day.
const MANY: u64 = 10_000_000_000_000;

/// What may stand in place of a value and is no number, or a greater one.
const NO_NUMBERS: [&str; 5] = ["null", "current_timestamp", "localtime", "localtimestamp", "utc_timestamp"];
/// The same with parentheses; without, they are names of columns.
const CALLED: [&str; 2] = ["now", "sysdate"];

/// A set of numbers, in which some may seem to be that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// A bit for so many numbers.
    bits: [u64; 2],
    /// There are parameters among them, whose values are still to come.
    pub has_parameters: bool,
    /// There is an `INSERT` or a `REPLACE`: where it fails, rows may have drawn numbers.
    pub inserts: bool,
}

impl Written {
    /// Nobody can say.
    pub const ANY: Self = Self { bits: [u64::MAX; 2], has_parameters: false, inserts: true };

    /// One or the other, or both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        let ([low, high], [more_low, more_high]) = (self.bits, other.bits);
        Self {
            bits: [low | more_low, high | more_high],
            has_parameters: self.has_parameters || other.has_parameters,
            inserts: self.inserts || other.inserts,
        }
    }

    /// This number may be among them.
    #[must_use]
    pub const fn may_have(self, number: u64) -> bool {
        let ([low, high], [bit_low, bit_high]) = (self.bits, bits(number));
        number >= MANY || low & bit_low != 0 || high & bit_high != 0
    }

    /// One of them.
    pub const fn put(&mut self, number: u64) {
        let ([low, high], [bit_low, bit_high]) = (self.bits, bits(number));
        self.bits = [low | bit_low, high | bit_high];
    }

    /// All of them: how it is written can't be told.
    pub const fn put_any(&mut self) {
        self.bits = [u64::MAX; 2];
    }

    /// What a column of whole numbers makes of this one.
    pub fn put_rounded(&mut self, number: f64) {
        #[allow(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is in range"
        )]
        if (0.0..MANY as f64).contains(&number) {
            let whole = number as u64;
            self.put(whole);
            self.put(whole + 1);
        }
    }

    /// What a column of whole numbers makes of a text: it looks at its beginning alone.
    pub fn put_text(&mut self, text: &[u8]) {
        let text = text.get(run(text, 0, is_space)..).unwrap_or_default();
        if let Some(0x80..=0xBF | 0xCA | 0xFF) = text.first() {
            // A blank in one of the character sets of single bytes (latin1, koi8r, macroman, cp850); no letter begins so in UTF-8, or few.
            self.put_any();
            return;
        }
        let text = text.strip_prefix(b"+").unwrap_or(text);
        let digits = |from: usize| run(text, from, |byte| byte.is_ascii_digit());
        let whole = digits(0);
        let mut end = whole;
        if text.get(end) == Some(&b'.') {
            end += 1 + digits(end + 1);
        }
        let mut goes_on = end;
        if let Some(b'e' | b'E') = text.get(end) {
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            goes_on = end + 1 + sign + exponent;
            end = if exponent > 0 { goes_on } else { end };
        }
        if let Some(b'\\' | b'\'' | b'"') = text.get(goes_on) {
            // More of it is written in another way.
            self.put_any();
            return;
        }
        if whole == 0 && end == 0 {
            return;
        }
        let Some(number) = text.get(..end).and_then(|number| std::str::from_utf8(number).ok()) else { return };
        match number.parse::<u64>() {
            Ok(number) if number < MANY => self.put(number),
            Ok(_) => {}
            Err(_) => number.parse().into_iter().for_each(|number| self.put_rounded(number)),
        }
    }
}

/// The one that a number has.
const fn bits(number: u64) -> [u64; 2] {
    // 2^64 divided by the golden ratio: neighbours lie apart.
    let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bit = 1 << (hash >> 58);
    if hash & 1 << 57 == 0 { [bit, 0] } else { [0, bit] }
}

/// Where in an `INSERT` or a `REPLACE` a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Inserting {
    /// It is none, or nobody can say.
    #[default]
    No,
    /// In front of the values.
    Head,
    Values,
    /// Behind the name of a function, which it is only with its parentheses.
    Call,
}

impl Inserting {
    /// The next token, behind a word, at this depth of parentheses. What is written out is added.
    pub(super) fn next(
        self,
        token: Token<'_>,
        (word, before): (Word, Word),
        depth: usize,
        written: &mut Written,
    ) -> Self {
        match (self, word) {
            (Self::No, _) => return self,
            (Self::Head, Word::Values | Word::Value) if depth == 0 => return Self::Values,
            (Self::Head, Word::Select | Word::Set | Word::Table | Word::With) => {}
            (Self::Head, _) => return Self::Head,
            (Self::Values, _) if is_value(token, word, before, written) => {
                let is_name = word == Word::Name && token.kind == Kind::Word;
                let is_call = is_name && CALLED.iter().any(|name| token.bytes.eq_ignore_ascii_case(name.as_bytes()));
                return if is_call { Self::Call } else { Self::Values };
            }
            (Self::Call, Word::Open) => return Self::Values,
            (Self::Call, _) => {}
            (Self::Values, _) => {}
        }
        *written = Written::ANY;
        Self::No
    }
}

/// Nothing else is among rows of plain values.
fn is_value(token: Token<'_>, word: Word, before: Word, written: &mut Written) -> bool {
    let begins = matches!(before, Word::Open | Word::Comma);
    match word {
        Word::Open => begins || matches!(before, Word::Values | Word::Value | Word::Name),
        Word::Close | Word::Comma => true,
        Word::Default => begins,
        // Behind a sign as well.
        Word::Number if begins || before == Word::Symbol => {
            written.put_text(token.bytes);
            true
        }
        Word::Literal if begins => {
            match token.bytes {
                [b'\'', inside @ .., b'\''] | [b'"', inside @ .., b'"'] => written.put_text(inside),
                _ => return false,
            }
            true
        }
        Word::Symbol if begins => {
            written.has_parameters |= token.bytes == b"?";
            matches!(token.bytes, b"?" | b"-" | b"+")
        }
        Word::Name if begins && token.kind == Kind::Word => {
            let is = |name: &str| token.bytes.eq_ignore_ascii_case(name.as_bytes());
            match (is("true"), is("false")) {
                (true, _) => written.put(1),
                (_, true) => {}
                _ => return NO_NUMBERS.into_iter().chain(CALLED).any(is),
            }
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Written;
    use crate::sql::mysql::{Dialect, classify};

    fn written(text: &str) -> Written {
        classify(text.as_bytes(), Dialect { utf8: true, ..Dialect::default() }).written
    }

    fn of(numbers: &[u64]) -> Written {
        let mut written = Written::default();
        numbers.iter().for_each(|number| written.put(*number));
        written
    }

    #[test]
    fn what_is_written_out() {
        for (text, numbers) in [
            ("INSERT INTO t (a, value) VALUES (500, 'x')", &[500][..]),
            ("insert t value (+500, -7, NULL, DEFAULT, NOW(), current_timestamp)", &[500, 7]),
            ("INSERT INTO t VALUES (10.4, 1e3, .5)", &[10, 11, 1000, 1001, 0, 1]),
            (
                "INSERT INTO t VALUES ('12 apples', ' +13', '14.6', '2e1x', '', 'x15', 'é15', '-3', '5e')",
                &[12, 13, 14, 15, 20, 21, 5],
            ),
            ("INSERT INTO t VALUES (TRUE, FALSE, (3))", &[1, 3]),
            ("INSERT INTO t VALUES (20000000000000, '99999999999999999999999', 1e300)", &[]),
            ("INSERT INTO t () VALUES ()", &[]),
            ("SELECT 5", &[]),
            ("UPDATE t SET a = 5", &[]),
        ] {
            let inserts = !text.starts_with(['S', 'U']);
            assert_eq!(written(text), Written { inserts, ..of(numbers) }, "{text}");
        }
        let parameters = Written { has_parameters: true, inserts: true, ..of(&[4]) };
        assert_eq!(written("INSERT INTO t (a, b, c) VALUES (?, 4, ?)"), parameters);
        // Each of several.
        let both = Written { inserts: true, ..of(&[1, 2]) };
        assert_eq!(written("INSERT INTO t VALUES (1), (NULL); DO 5; REPLACE t VALUES (2)"), both);
    }

    #[test]
    fn what_can_not_be_told() {
        for text in [
            "INSERT INTO t SELECT 5",
            "INSERT INTO t (a) (SELECT 5)",
            "INSERT INTO t TABLE u",
            "INSERT INTO t SET a = 5",
            "INSERT INTO t VALUES (2 + 3)",
            "INSERT INTO t VALUES (5 - 3)",
            "INSERT INTO t VALUES (- - 5)",
            "INSERT INTO t VALUES (0x05)",
            "INSERT INTO t VALUES (x'05')",
            "INSERT INTO t VALUES ('5' '0')",
            "INSERT INTO t VALUES ('5\\60')",
            "INSERT INTO t VALUES ('\\n5')",
            "INSERT INTO t VALUES ('1e\\5')",
            "INSERT INTO t VALUES (now)",
            "CREATE TABLE u (a INT AUTO_INCREMENT PRIMARY KEY) SELECT 5 AS a",
            "CREATE TEMPORARY TABLE u SELECT 5 AS a",
            "CREATE TABLE u (a INT AUTO_INCREMENT PRIMARY KEY) TABLE t",
            "CREATE TEMPORARY TABLE u (a INT AUTO_INCREMENT PRIMARY KEY) VALUES ROW(5)",
            "INSERT INTO t VALUES (@a)",
            "INSERT INTO t VALUES (@@server_id)",
            "INSERT INTO t (a, b) VALUES (5, a)",
            "INSERT INTO t VALUES (ROUND(5.2))",
            "INSERT INTO t VALUES ((SELECT 5))",
            "INSERT INTO t VALUES (1, 2) ON DUPLICATE KEY UPDATE b = 3",
            "INSERT INTO t VALUES ROW(5)",
            "REPLACE INTO t",
            "CALL p(5)",
        ] {
            assert!((0..1000).all(|number| written(text).may_have(number)), "{text}");
        }
        for blank in [0x85, 0x9A, 0xA0, 0xCA, 0xFF] {
            let mut written = Written::default();
            written.put_text(&[b' ', blank, b'5']);
            assert!(written.may_have(5), "{blank}");
        }
        // An administrator's ids, and what the server tells of negative ones.
        assert!(Written::default().may_have(1 << 44) && Written::default().may_have(u64::MAX));
        assert!(!Written::default().may_have(1) && !of(&[7]).may_have(8));
    }
}
