//! Any text, read in any dialect: no panic, tokens in order and in bounds, names where a token is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::sql::lexer::Lexer;
use sluicegate::sql::{Dialect, classify, identifier_value};

fuzz_target!(|input: &[u8]| {
    let [flags, sql @ ..] = input else { return };
    let dialect =
        Dialect { backslash_quotes: flags & 1 != 0, multibyte_unsafe: flags & 2 != 0, unsure: flags & 4 != 0 };
    let mut at = 0;
    for token in Lexer::new(sql, dialect) {
        assert!(at <= token.start && token.start < token.end && token.end <= sql.len());
        at = token.end;
    }
    let statement = classify(sql, dialect);
    assert!(statement.statements <= sql.len());
    if let Some(name) = statement.deallocates {
        assert_eq!(statement.statements, 1);
        assert!(identifier_value(&sql[name]).len() <= 63);
    }
});
