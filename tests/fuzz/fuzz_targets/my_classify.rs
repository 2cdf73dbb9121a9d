//! Any text, read in any of MySQL's and MariaDB's dialects: no panic; what it begins with counts whatever follows; a
//! statement in front of it hides nothing of it; and of a text whose end is not known anything is expected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::protocol::{PinReason, Pins};
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
});

fn pins(statement: &Statement) -> Pins {
    statement.intent.pins_when_sent.and(statement.intent.pins_when_done)
}
