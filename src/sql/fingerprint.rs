//! Names a statement without showing it: a 64-bit hash of its text, with every value in it left out.
//!
//! What two texts may differ in and still share it: strings, numbers and parameters (`'a'`, `1`, `$1`: so the text that
//! `pg_stat_statements` shows has it, too), how many of them stand in a list, blanks, comments, the case of words without quotes,
//! and semicolons at the end. It is the same in every version: FNV-1a over the tokens, each with a zero byte behind it.

use super::Dialect;
use super::lexer::{Kind, Lexer};

/// FNV-1a, 64 bits (draft-eastlake-fnv): short, and the same everywhere. Nothing hangs on its being hard to guess.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Words that a statement may begin with: nothing else of a text is ever shown.
const COMMANDS: &[&str] = &[
    "ALTER",
    "BEGIN",
    "CALL",
    "CLOSE",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "PREPARE",
    "RESET",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "UNLISTEN",
    "UPDATE",
    "VALUES",
    "WITH",
];

/// The fingerprint of a text of any number of statements.
pub fn fingerprint(sql: &[u8], dialect: Dialect) -> u64 {
    let mut hash = Hash { state: OFFSET, is_behind_value: false, due: None };
    let mut lexer = Lexer::new(sql, dialect);
    while let Some(token) = lexer.next() {
        let text = lexer.bytes(token);
        match token.kind {
            Kind::Literal | Kind::Number | Kind::Parameter | Kind::Unterminated => hash.value(),
            Kind::Other if text == b"," && hash.is_behind_value => hash.due = Some(b','),
            Kind::Semicolon => hash.due = Some(b';'),
            Kind::Word => hash.token(text.iter().map(u8::to_ascii_lowercase)),
            Kind::Quoted | Kind::QuotedEscapes | Kind::Operator | Kind::Open | Kind::Close | Kind::Other => {
                hash.token(text.iter().copied());
            }
        }
    }
    hash.state
}

/// The keyword that a text begins with; empty if that is none.
pub fn command(sql: &[u8], dialect: Dialect) -> &'static str {
    let mut lexer = Lexer::new(sql, dialect);
    let first = lexer.find(|token| !matches!(token.kind, Kind::Open | Kind::Semicolon));
    let word = first.map(|token| lexer.bytes(token)).unwrap_or_default();
    COMMANDS.iter().find(|command| command.as_bytes().eq_ignore_ascii_case(word)).copied().unwrap_or_default()
}

struct Hash {
    state: u64,
    /// The last token was a value.
    is_behind_value: bool,
    /// A comma behind a value, or a semicolon: it counts if something else follows.
    due: Option<u8>,
}

impl Hash {
    /// One more in a list of values says nothing.
    fn value(&mut self) {
        if self.is_behind_value && self.due == Some(b',') {
            self.due = None;
            return;
        }
        self.token([b'?']);
        self.is_behind_value = true;
    }

    fn token(&mut self, bytes: impl IntoIterator<Item = u8>) {
        if let Some(due) = self.due.take() {
            self.add([due]);
        }
        self.add(bytes);
        self.is_behind_value = false;
    }

    fn add(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes.into_iter().chain([0]) {
            self.state = (self.state ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> u64 {
        fingerprint(sql.as_bytes(), Dialect::default())
    }

    #[test]
    fn what_texts_may_differ_in() {
        for (one, other) in [
            ("SELECT pg_advisory_lock(1)", "select PG_ADVISORY_LOCK( 42 ) -- it's\n;;"),
            ("SELECT 'a', $$b$$, E'\\''", "SELECT 'xyz'"),
            ("SELECT * FROM t WHERE a IN (1, 2, 3)", "SELECT * FROM t WHERE a IN ($1 /*, ... */)"),
            ("INSERT INTO t VALUES (1.5e3, N'x')", "INSERT INTO t VALUES ($1, $2)"),
            ("LISTEN a", "listen/**/a;"),
            ("SELECT 'never ends", "SELECT 'nor this"),
        ] {
            assert_eq!(of(one), of(other), "{one} and {other}");
        }
    }

    #[test]
    fn what_they_may_not() {
        let texts = [
            "",
            "LISTEN a",
            "LISTEN b",
            "LISTEN \"A\"",
            "LISTEN \"a\"",
            "SELECT 1",
            "SELECT 1 a",
            "SELECT 1; SELECT 1",
            "SELECT (1)",
            "SELECT 1, a",
            "SELECT a, 1",
            "SELECT 1 + 1",
            "SELECT ab",
            "SELECT a b",
            "SELECT 1 1",
        ];
        let found: std::collections::BTreeSet<u64> = texts.iter().map(|text| of(text)).collect();
        assert_eq!(found.len(), texts.len());
    }

    /// Who keeps fingerprints finds them again in the next version.
    #[test]
    fn they_stay_the_same() {
        assert_eq!(of(""), OFFSET);
        // `listen`, 0, `a`, 0.
        let bytes = b"listen\0a\0";
        let expected = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        assert_eq!(of("LISTEN a"), expected);
        assert_eq!(format!("{:016x}", of("SELECT pg_advisory_lock(1)")), "766888454a93d044");
    }

    #[test]
    fn a_command_is_a_word_of_ours_or_nothing() {
        for (sql, expected) in [
            ("create temp table t (a int)", "CREATE"),
            ("  /* LOAD */ ;Listen x", "LISTEN"),
            ("(SELECT 1)", "SELECT"),
            ("hunter2", ""),
            ("'LOAD'", ""),
            ("", ""),
        ] {
            assert_eq!(command(sql.as_bytes(), Dialect::default()), expected, "{sql}");
        }
    }
}
