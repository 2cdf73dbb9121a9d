//! What a text does to the transaction, by the first words of its statements.

use super::Dialect;
use super::lexer::{Kind, Lexer};

/// What a text does to the transaction, if all of it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Boundaries {
    /// Statements that aren't empty.
    pub statements: usize,
    /// The first of them ends one, failed or not.
    pub begins_with_end: bool,
    /// The first of them asks for what was done to be kept.
    pub begins_with_commit: bool,
    /// Behind all of them one is open, or none is; `None`: as before.
    pub leaves_open: Option<bool>,
}

/// Reads the beginnings and ends of transactions in a text.
pub fn boundaries(sql: &[u8], dialect: Dialect) -> Boundaries {
    let mut found = Boundaries::default();
    let mut statement: Vec<Vec<u8>> = Vec::new();
    let mut lexer = Lexer::new(sql, dialect);
    let mut depth = 0_usize;
    while let Some(token) = lexer.next() {
        if token.kind == Kind::Semicolon && depth == 0 {
            found.take(&statement);
            statement.clear();
            continue;
        }
        depth = (depth + usize::from(token.kind == Kind::Open)).saturating_sub(usize::from(token.kind == Kind::Close));
        // `ROLLBACK WORK AND NO CHAIN`, `ROLLBACK TRANSACTION TO SAVEPOINT a`
        if statement.len() < 5 {
            statement.push(lexer.bytes(token).to_ascii_lowercase());
        }
    }
    found.take(&statement);
    found
}

impl Boundaries {
    fn take(&mut self, words: &[Vec<u8>]) {
        let words: Vec<&[u8]> =
            words.iter().map(Vec::as_slice).filter(|word| !matches!(*word, b"work" | b"transaction")).collect();
        let [first, rest @ ..] = words.as_slice() else { return };
        let open = match (*first, rest) {
            (b"begin", _) => Some(true),
            (b"start", []) | (b"start", [b"isolation" | b"read" | b"deferrable" | b"not", ..]) => Some(true),
            (b"commit" | b"rollback" | b"prepare", [b"prepared" | b"to", ..]) => None,
            (b"commit" | b"end" | b"rollback" | b"abort", [b"and", b"chain", ..]) => Some(true),
            (b"commit" | b"end" | b"rollback" | b"abort", _) => Some(false),
            _other => None,
        };
        self.begins_with_end |= self.statements == 0 && open == Some(false);
        let commits = match (*first, rest) {
            (b"commit" | b"end", rest) => rest.first() != Some(&&b"prepared"[..]),
            // `PREPARE TRANSACTION 'x'`
            (b"prepare", rest) => rest.len() == 1,
            _other => false,
        };
        self.begins_with_commit |= self.statements == 0 && commits;
        self.statements += 1;
        self.leaves_open = open.or(self.leaves_open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commits() {
        for (sql, commits) in [
            ("COMMIT", true),
            ("end work;", true),
            ("/* */ commit and chain; SELECT 1", true),
            ("PREPARE TRANSACTION 'x'", true),
            ("ROLLBACK", false),
            ("abort", false),
            ("COMMIT PREPARED 'x'", false),
            ("PREPARE a AS SELECT 1", false),
            ("SELECT 1; COMMIT", false),
            ("", false),
        ] {
            assert_eq!(boundaries(sql.as_bytes(), Dialect::default()).begins_with_commit, commits, "{sql}");
        }
    }

    #[test]
    fn what_begins_and_what_ends() {
        for (sql, statements, begins_with_end, leaves_open) in [
            ("", 0, false, None),
            ("SELECT 1; ;SELECT 'begin'", 2, false, None),
            ("begin", 1, false, Some(true)),
            ("/* */ BEGIN WORK; SELECT 1", 2, false, Some(true)),
            ("START TRANSACTION READ ONLY", 1, false, Some(true)),
            ("start transaction", 1, false, Some(true)),
            ("BEGIN; COMMIT", 2, false, Some(false)),
            ("COMMIT; BEGIN", 2, true, Some(true)),
            ("ROLLBACK", 1, true, Some(false)),
            ("ROLLBACK TO a", 1, false, None),
            ("ROLLBACK WORK TO SAVEPOINT a", 1, false, None),
            ("ROLLBACK AND CHAIN", 1, false, Some(true)),
            ("ROLLBACK AND NO CHAIN", 1, true, Some(false)),
            ("END", 1, true, Some(false)),
            ("abort work", 1, true, Some(false)),
            ("COMMIT PREPARED 'x'", 1, false, None),
            ("PREPARE TRANSACTION 'x'", 1, false, None),
            ("CREATE RULE r AS ON INSERT TO t DO (BEGIN; COMMIT)", 1, false, None),
        ] {
            let found = boundaries(sql.as_bytes(), Dialect::default());
            let begins_with_commit = found.begins_with_commit;
            assert_eq!(found, Boundaries { statements, begins_with_end, begins_with_commit, leaves_open }, "{sql}");
        }
    }
}
