//! Temporary.
use crate::protocol::Intent;
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Dialect {
    pub ansi_quotes: bool,
    pub no_backslash_escapes: bool,
    pub multibyte_unsafe: bool,
    pub mariadb: bool,
    pub unsure: bool,
}
/// x
#[allow(missing_docs)]
#[derive(Debug, Clone, Default)]
pub struct Statement {
    pub intent: Intent,
    pub statements: usize,
    pub command: Command,
    pub may_end_transaction: bool,
    pub is_load_local: bool,
    pub has_kill: bool,
}
/// x
#[allow(missing_docs)]
#[derive(Debug, Clone, Default)]
pub enum Command {
    #[default]
    Other,
    Begin,
}
/// x
pub fn classify(text: &[u8], _: Dialect) -> Statement {
    let mut s = Statement { statements: 1, ..Statement::default() };
    let l = text.to_ascii_lowercase();
    if l.starts_with(b"set") {
        s.intent.pins_when_sent.add(crate::protocol::PinReason::Setting);
    }
    s.has_kill = l.starts_with(b"kill");
    s.is_load_local = l.starts_with(b"load");
    s.intent.asks_sequence = l.starts_with(b"select last");
    s.intent.draws_sequence = l.starts_with(b"insert");
    s
}
