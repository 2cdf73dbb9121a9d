//! Any text, read in any of MySQL's and MariaDB's dialects: no panic; what it begins with counts whatever follows; a
//! statement in front of it hides nothing of it; of a text whose end is not known anything is expected; and in pieces it says
//! the same, or nothing that can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::protocol::{PinReason, Pins};
use sluicegate::sql::mysql::long::Long;
use sluicegate::sql::mysql::{Dialect, Statement, classify, classify_prefix};

/// Beginnings, and what each of them is known for.
const FIRST: [(&[u8], PinReason); 4] = [
    (b"SET @a = 1;", PinReason::UserVariable),
    (b"CREATE TEMPORARY TABLE a (b INT);", PinReason::TemporaryObject),
    (b"DO GET_LOCK('a', 1);", PinReason::SessionLock),
    (b"SET SESSION sql_mode = '';", PinReason::Setting),
];

fuzz_target!(|input: &[u8]| {
    let [flags, text @ ..] = input else { return };
    let is = |bit: u8| flags & 1 << bit != 0;
    let dialect = Dialect {
        ansi_quotes: is(0),
        no_backslash_escapes: is(1),
        multibyte_unsafe: is(2),
        utf8: is(3),
        mariadb: is(4),
        unsure: is(5),
    };
    let statement = classify(text, dialect);
    assert!(statement.statements <= text.len());
    for (first, reason) in FIRST {
        assert!(pins(&classify(&[first, text].concat(), dialect)).contains(reason), "hidden by what follows");
    }
    assert!(classify(&[b"KILL 5;", text].concat(), dialect).has_kill, "hidden by what follows");
    let behind = classify(&[b"DO 0;", text].concat(), dialect);
    assert!(pins(&statement).without(pins(&behind)).is_empty(), "hidden by what stands before it");
    assert!(behind.has_kill || !statement.has_kill, "hidden by what stands before it");
    assert!(behind.is_load_local || !statement.is_load_local, "hidden by what stands before it");
    let prefix = classify_prefix(text, dialect);
    assert!(pins(&prefix).contains(PinReason::Unreadable) && prefix.may_end_transaction);
    assert!(pins(&statement).without(pins(&prefix)).is_empty());
    in_pieces(text, dialect);
});

fn in_pieces(text: &[u8], dialect: Dialect) {
    let [one, other] = [false, true].map(|ansi_quotes| classify(text, Dialect { ansi_quotes, ..dialect }));
    let whole = if text.contains(&b'"') { one.or(other) } else { one };
    // More versions than are tried make only a text that is here unreadable.
    let has_many = text.windows(3).filter(|bytes| bytes == b"/*!" || bytes == b"/*M").count() > 8;
    for size in [1, 2, 3, 7, 64, usize::MAX] {
        let mut long = Long::new(dialect);
        text.chunks(size).for_each(|piece| long.read(piece));
        let found = long.finish();
        if pins(&found).contains(PinReason::Unreadable) {
            assert!(found.may_end_transaction && found.intent.asks_sequence && found.intent.draws_sequence);
        } else {
            assert!(found == whole || has_many, "in pieces of {size}: {found:?} {whole:?}");
        }
    }
}

fn pins(statement: &Statement) -> Pins {
    statement.intent.pins_when_sent.and(statement.intent.pins_when_done)
}
