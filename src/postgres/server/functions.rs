//! Functions that statements call, and what is known of them: whether they may change the session.
//!
//! A text shows the names that it calls. One that is new on a connection is taken for code that may do anything, once; with the
//! question of what the client has left goes the question of what the function is. If its source says nothing that could
//! change a session, calling it costs nothing from then on. Names are looked up again now and then, since functions are
//! replaced, and when DDL has passed on the connection. What statements call without naming it (triggers, views, defaults,
//! operators) is not seen.

use std::collections::{BTreeSet, HashMap};

/// Names that are remembered; one more, and all are learned anew.
const NAMES_MAX: usize = 2_000;
/// A name is good for so many statements.
const USES_MAX: u32 = 1_000;

/// What is asked of names (`$2`): those that are functions of the database's own, with all of that name together. 16384: what
/// the server's own functions are numbered below. Languages other than SQL's can't be read, and C only by its names; whatever
/// calls others of the database's is not read any further.
pub(super) const FUNCTIONS: &str = "SELECT 'function'::pg_catalog.text, p.proname::pg_catalog.text, \
     CASE WHEN pg_catalog.bool_or(CASE \
     WHEN l.lanname OPERATOR(pg_catalog.=) 'internal'::pg_catalog.name THEN false \
     WHEN l.lanname OPERATOR(pg_catalog.=) 'c'::pg_catalog.name THEN p.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog.\"char\" \
     AND p.prosrc OPERATOR(pg_catalog.~*) '(set|lock|connect|listen|temp|load|exec)' \
     WHEN l.lanname OPERATOR(pg_catalog.=) ANY ('{sql,plpgsql}'::pg_catalog.name[]) THEN s.source OPERATOR(pg_catalog.~*) \
     E'((^|[;$]|\\\\mbegin|\\\\mthen|\\\\melse|\\\\mloop|\\\\*/|\\\\n)\\\\s*set\\\\M|set_config|\\\\mreset\\\\M|listen|prepare|deallocate|discard|temp|advisory|\\\\mhold\\\\M|\\\\mexecute\\\\M|\\\\mload\\\\M|setseed|dblink|set_limit|\\\\mcall\\\\M|nextval|setval)' \
     OR EXISTS (SELECT FROM pg_catalog.pg_proc AS q WHERE q.oid OPERATOR(pg_catalog.>=) 16384 \
     AND q.proname OPERATOR(pg_catalog.<>) p.proname \
     AND pg_catalog.strpos(pg_catalog.lower(s.source), pg_catalog.lower(q.proname::pg_catalog.text)) OPERATOR(pg_catalog.>) 0) \
     ELSE true END) THEN 'code'::pg_catalog.text END \
     FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang, \
     LATERAL (SELECT COALESCE(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)) AS s(source) \
     WHERE p.oid OPERATOR(pg_catalog.>=) 16384 \
     AND p.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]) GROUP BY p.proname";

/// What is known of names on this connection.
#[derive(Debug, Default)]
pub(super) struct Functions {
    known: HashMap<Box<[u8]>, Known>,
    /// Called since it was last asked.
    new: BTreeSet<Box<[u8]>>,
    /// Asked for.
    asked: BTreeSet<Box<[u8]>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    is_code: bool,
    uses: u32,
}

/// What calling a function may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    /// Nothing.
    Harmless,
    /// Nobody knows yet.
    Unknown,
    /// A change of the session.
    Code,
}

impl Functions {
    /// A statement that calls this is being sent.
    pub(super) fn call(&mut self, name: &[u8]) -> Call {
        match self.known.get_mut(name).filter(|known| known.uses < USES_MAX) {
            Some(known) => {
                known.uses += 1;
                if known.is_code { Call::Code } else { Call::Harmless }
            }
            None => {
                // What is not asked for stays unknown.
                if self.new.len() < NAMES_MAX {
                    self.new.insert(name.into());
                }
                Call::Unknown
            }
        }
    }

    /// The names to be asked for, if there are any.
    pub(super) fn ask(&mut self) -> impl Iterator<Item = &str> {
        self.asked = std::mem::take(&mut self.new);
        // In another encoding than ours there is no asking: it stays unknown, and is code each time.
        self.asked.iter().filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// The server has answered: of what was asked for, these are code. True if none is.
    pub(super) fn learn(&mut self, code: &BTreeSet<Box<[u8]>>) -> bool {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        for name in std::mem::take(&mut self.asked) {
            let is_code = code.contains(&name) || std::str::from_utf8(&name).is_err();
            self.known.insert(name, Known { is_code, uses: 0 });
        }
        code.is_empty()
    }

    /// The server did not answer.
    pub(super) fn is_refused(&mut self) {
        self.new.append(&mut self.asked);
    }

    /// Functions may have been replaced.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_and_then_now_and_again() {
        let mut functions = Functions::default();
        let code: BTreeSet<Box<[u8]>> = [Box::from(&b"sets"[..])].into();
        assert_eq!((functions.call(b"sets"), functions.call(b"adds")), (Call::Unknown, Call::Unknown));
        assert_eq!(functions.ask().collect::<Vec<_>>(), ["adds", "sets"]);
        assert!(!functions.learn(&code));
        for _ in 0..USES_MAX {
            assert_eq!((functions.call(b"sets"), functions.call(b"adds")), (Call::Code, Call::Harmless));
        }
        assert_eq!((functions.call(b"sets"), functions.call(b"adds")), (Call::Unknown, Call::Unknown));
        // Not answered, it is asked for again.
        assert_eq!(functions.ask().count(), 2);
        functions.is_refused();
        assert_eq!(functions.ask().count(), 2);
        assert!(functions.learn(&BTreeSet::new()));
        assert_eq!(functions.call(b"sets"), Call::Harmless);
        functions.forget();
        assert_eq!(functions.call(b"sets"), Call::Unknown);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut functions = Functions::default();
        for number in 0..NAMES_MAX * 3 {
            functions.call(number.to_string().as_bytes());
            assert_eq!(functions.ask().count(), 1);
            functions.learn(&BTreeSet::new());
        }
        assert!(functions.known.len() <= NAMES_MAX);
    }
}
