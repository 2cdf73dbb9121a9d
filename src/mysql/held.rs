//! What a client has on its connection that stays there, by name, so that its pin ends with its cause: temporary tables, locks, handlers,
//! and statements that SQL has prepared from texts that nobody knows.

use crate::protocol::{PinReason, Pins};
use crate::sql::mysql::holds::{Hold, Thing};
use crate::sql::mysql::mentions;
use std::collections::BTreeSet;

/// More are not told apart.
const THINGS_MAX: usize = 64;

/// What there is.
#[derive(Debug, Default)]
pub struct Held {
    things: BTreeSet<Thing>,
    /// For these reasons there may be more than has names.
    unknown: Pins,
    /// There may be locks of users without a name that is known.
    unnamed_locks: bool,
    /// Whether locks of users are there, only the server can say.
    asks: bool,
    /// A text was no statement, unless names are statements (Oracle's mode of MariaDB's): then it may be code that failed.
    pub asks_mode: bool,
}

impl Held {
    /// Reasons whose causes are told apart.
    pub const OWN: Pins = Pins::of(PinReason::TemporaryObject)
        .and(Pins::of(PinReason::SessionLock))
        .and(Pins::of(PinReason::HeldCursor))
        .and(Pins::of(PinReason::PreparedStatement));

    /// A statement with these reasons is sent, of which nobody knows what it leaves; `text`: as far as it is known.
    pub fn lose(&mut self, reasons: Pins, text: &[u8]) {
        let mut reasons = reasons.common(Self::OWN);
        if reasons.contains(PinReason::SessionLock) && takes_user_locks(text) {
            self.unnamed_locks = true;
            reasons = reasons.without(Pins::of(PinReason::SessionLock));
        }
        self.unknown = self.unknown.and(reasons);
    }

    /// Reasons that a statement like this does not lose.
    pub fn told_by(hold: &Hold) -> Pins {
        match hold {
            Hold::Begins(things) => things.iter().fold(Pins::NONE, |pins, thing| pins.and(Pins::of(thing.reason()))),
            Hold::UserLocks(_) => Pins::of(PinReason::SessionLock),
            Hold::Prepares { .. } | Hold::Executes(_) => Pins::of(PinReason::PreparedStatement),
            Hold::Unknown => Pins::of(PinReason::OpaqueCode),
            Hold::Ends(_) | Hold::NoUserLocks => Pins::NONE,
        }
    }

    /// A statement that may take or release these locks is sent.
    pub fn may_lock(&mut self, names: &[String]) {
        self.begin(names.iter().cloned().map(Thing::UserLock));
        self.asks = true;
    }

    /// A text that may give tables other names.
    pub fn may_rename(&self, text: &[u8]) -> bool {
        self.has_table() && (mentions::has(text, "alter") || mentions::has(text, "renam"))
    }

    /// Nobody knows the names of tables any more.
    pub fn lose_tables(&mut self) {
        self.unknown.add(PinReason::TemporaryObject);
    }

    /// There are some that may get other names.
    pub fn has_table(&self) -> bool {
        self.things.iter().any(|thing| matches!(thing, Thing::Table(..)))
    }

    /// They are there.
    pub fn begin(&mut self, things: impl IntoIterator<Item = Thing>) {
        for thing in things {
            if self.things.len() < THINGS_MAX {
                self.things.insert(thing);
            } else {
                self.unknown.add(thing.reason());
            }
        }
    }

    /// They are gone.
    pub fn end(&mut self, things: &[Thing]) {
        for thing in things {
            self.things.remove(thing);
        }
    }

    /// So are all locks of users.
    pub fn end_user_locks(&mut self) {
        self.things.retain(|thing| !matches!(thing, Thing::UserLock(_)));
        (self.unnamed_locks, self.asks) = (false, false);
    }

    /// The server has said which locks of users there are; `None`: nothing.
    pub fn is_answered(&mut self, gone: Option<&[String]>) {
        self.asks = false;
        match gone {
            Some(gone) => gone.iter().for_each(|name| _ = self.things.remove(&Thing::UserLock(name.clone()))),
            None => self.unnamed_locks = true,
        }
    }

    /// Locks of users that the server is to be asked for.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.things.iter().filter(|_| self.asks).filter_map(|thing| match thing {
            Thing::UserLock(name) => Some(name.as_str()),
            Thing::Table(..)
            | Thing::TableLocks
            | Thing::InstanceLock
            | Thing::Handler(_)
            | Thing::Statement(_)
            | Thing::NextTransaction => None,
        })
    }

    /// Something is said of the next transaction.
    pub fn awaits_transaction(&self) -> bool {
        self.things.contains(&Thing::NextTransaction)
    }

    /// Nothing but what the server is asked for keeps the connection.
    pub fn is_only_asked(&self) -> bool {
        self.unknown.is_empty() && !self.unnamed_locks && self.asked().count() == self.things.len()
    }

    /// A statement of this name may be there.
    pub fn has_statement(&self, name: &str) -> bool {
        self.unknown.contains(PinReason::PreparedStatement) || self.things.contains(&Thing::Statement(name.to_owned()))
    }

    /// What the client keeps its connection for.
    pub fn reasons(&self) -> Pins {
        let locks = if self.unnamed_locks { Pins::of(PinReason::SessionLock) } else { Pins::NONE };
        let code = if self.asks_mode { Pins::of(PinReason::OpaqueCode) } else { Pins::NONE };
        self.things.iter().fold(self.unknown.and(locks).and(code), |pins, thing| pins.and(Pins::of(thing.reason())))
    }
}

/// Whatever locks it takes, `RELEASE_ALL_LOCKS()` ends: it is one statement that takes them by functions alone.
fn takes_user_locks(text: &[u8]) -> bool {
    const BEGINNINGS: [&str; 7] = ["select", "do", "set", "insert", "replace", "update", "delete"];
    let text = text.trim_ascii().to_ascii_lowercase();
    let has = |word: &str| memchr::memmem::find(&text, word.as_bytes()).is_some();
    let is_one = BEGINNINGS.iter().any(|word| text.starts_with(word.as_bytes())) && !has(";");
    // `SET STATEMENT ... FOR` goes ahead of any.
    is_one && has("get_lock") && !["service_", "version_tokens", "statement"].iter().any(|other| has(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: Pins = Pins::of(PinReason::SessionLock);

    #[test]
    fn each_ends_with_its_cause() {
        let mut held = Held::default();
        held.begin([Thing::TableLocks, Thing::Handler("h".to_owned())]);
        assert_eq!(held.reasons(), LOCK.and(Pins::of(PinReason::HeldCursor)));
        held.end(&[Thing::Handler("h".to_owned()), Thing::InstanceLock]);
        assert_eq!(held.reasons(), LOCK);
        held.end(&[Thing::TableLocks]);
        assert_eq!(held.reasons(), Pins::NONE);
    }

    #[test]
    fn locks_of_users() {
        let mut held = Held::default();
        held.may_lock(&["a".to_owned(), "b".to_owned()]);
        assert!(held.is_only_asked());
        assert_eq!(held.asked().collect::<Vec<_>>(), ["a", "b"]);
        held.is_answered(Some(&["a".to_owned()]));
        assert_eq!((held.reasons(), held.asked().count()), (LOCK, 0));
        held.lose(LOCK, b"SELECT GET_LOCK(@a, 1)");
        held.end_user_locks();
        assert_eq!(held.reasons(), Pins::NONE);
        for text in [
            "LOCK TABLES get_lock READ",
            "/* get_lock */ LOCK TABLES t READ",
            "SELECT GET_LOCK('a', 1); LOCK TABLES t READ",
            "SET STATEMENT max_statement_time = 1 FOR LOCK TABLES get_lock READ",
            "SELECT GET_LOCK(@a, 1), service_get_read_locks('a', 'b', 1)",
        ] {
            let mut held = Held::default();
            held.lose(LOCK, text.as_bytes());
            held.end_user_locks();
            assert_eq!(held.reasons(), LOCK, "{text}");
        }
    }

    #[test]
    fn tables_that_may_have_another_name() {
        let mut held = Held::default();
        let table = Thing::Table(None, "a".to_owned());
        assert!(!held.may_rename(b"ALTER TABLE a RENAME b"));
        held.begin([table.clone()]);
        assert!(!held.may_rename(b"SELECT 1"));
        held.end(std::slice::from_ref(&table));
        assert_eq!(held.reasons(), Pins::NONE);
        held.begin([table.clone()]);
        assert!(held.may_rename(b"rename table a to b"));
        held.lose_tables();
        held.end(&[table]);
        assert_eq!(held.reasons(), Pins::of(PinReason::TemporaryObject));
    }

    #[test]
    fn too_many_are_not_told_apart() {
        let mut held = Held::default();
        let all: Vec<Thing> = (0..65).map(|number| Thing::Handler(number.to_string())).collect();
        held.begin(all.clone());
        held.end(&all);
        assert_eq!(held.reasons(), Pins::of(PinReason::HeldCursor));
    }
}
