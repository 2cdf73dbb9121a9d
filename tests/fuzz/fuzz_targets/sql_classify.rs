//! Any text, read in any dialect: no panic, tokens in order and in bounds, names where a token is; and the same text read in
//! pieces as it passes says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::sql::lexer::Lexer;
use sluicegate::sql::long::Long;
use sluicegate::sql::settings::{changes, mentioned};
use sluicegate::sql::{Dialect, Reference, classify, identifier_value};

fuzz_target!(|input: &[u8]| {
    let [flags, sql @ ..] = input else { return };
    let dialect =
        Dialect { backslash_quotes: flags & 1 != 0, multibyte_unsafe: flags & 2 != 0, unsure: flags & 4 != 0 };
    let mut at = 0;
    for token in Lexer::new(sql, dialect) {
        assert!(at <= token.start && token.start < token.end && token.end <= sql.len());
        at = token.end;
    }
    let found = changes(sql, dialect);
    assert!(found.list.len() <= sql.len() && mentioned(sql, dialect).changes.list.len() <= sql.len());
    let sql = sql.split(|byte| *byte == 0).next().unwrap_or_default();
    let statement = classify(sql, dialect);
    let mut long = Long::new(dialect);
    sql.chunks(1 + usize::from(flags >> 3)).for_each(|piece| long.read(piece));
    let (long, intent) = (long.finish(), statement.intent);
    assert_eq!((long.statements, long.intent.pins_when_sent), (statement.statements, intent.pins_when_sent));
    assert!(intent.pins_when_done.without(long.intent.pins_when_done).is_empty());
    assert!(statement.statements <= sql.len());
    for Reference { name, end, .. } in statement.references {
        assert!(end <= sql.len() && identifier_value(&sql[name]).len() <= 63);
    }
});
