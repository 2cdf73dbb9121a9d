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

/// What is asked of names (`$2`): those that are functions of the database's own, with the functions of its own that these call;
/// whether they may change a session; the settings of the application's own that they set; and whether they may set others,
/// of names that they make themselves. 16384: what the server's own functions are numbered below. Of C nothing but
/// the names can be read, of other languages than SQL's nothing.
pub(super) fn question() -> String {
    let text = |pattern: &str| format!("E'{}'", pattern.replace('\\', "\\\\").replace('\'', "''"));
    let (code, unnamed) = (text(&CODE.replace("START", START)), text(&UNNAMED.replace("START", START)));
    let names = text(NAMES);
    let word = text(r"(\W)");
    let quoted = text(r"\\\1");
    let (begin, end) = (text(r"\m"), text(r#""?\s*\("#));
    format!(
        "SELECT * FROM (WITH RECURSIVE f(root, oid, source, lang, volatile, depth) AS ( \
         SELECT p.proname::pg_catalog.text, p.oid, COALESCE(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc), \
         l.lanname::pg_catalog.text, p.provolatile::pg_catalog.text, 0 \
         FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
         WHERE p.oid OPERATOR(pg_catalog.>=) 16384 \
         AND p.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]) \
         UNION SELECT f.root, q.oid, COALESCE(pg_catalog.pg_get_function_sqlbody(q.oid), q.prosrc), \
         l.lanname::pg_catalog.text, q.provolatile::pg_catalog.text, f.depth OPERATOR(pg_catalog.+) 1 \
         FROM f JOIN pg_catalog.pg_proc AS q ON q.oid OPERATOR(pg_catalog.>=) 16384 \
         AND f.lang OPERATOR(pg_catalog.=) ANY ('{{sql,plpgsql}}'::pg_catalog.text[]) \
         AND pg_catalog.strpos(pg_catalog.lower(f.source), pg_catalog.lower(q.proname::pg_catalog.text)) OPERATOR(pg_catalog.>) 0 \
         AND f.source OPERATOR(pg_catalog.~*) ({begin} OPERATOR(pg_catalog.||) pg_catalog.regexp_replace(q.proname::pg_catalog.text, \
         {word}, {quoted}, 'g') OPERATOR(pg_catalog.||) {end}) \
         JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) q.prolang \
         WHERE f.depth OPERATOR(pg_catalog.<) {DEPTH_MAX}) \
         SELECT 'function'::pg_catalog.text, root, CASE WHEN pg_catalog.bool_or(CASE \
         WHEN lang OPERATOR(pg_catalog.=) 'internal'::pg_catalog.text THEN false \
         WHEN lang OPERATOR(pg_catalog.=) 'c'::pg_catalog.text THEN volatile OPERATOR(pg_catalog.=) 'v'::pg_catalog.text \
         AND source OPERATOR(pg_catalog.~*) '(set|lock|connect|listen|temp|load|exec)' \
         WHEN lang OPERATOR(pg_catalog.=) ANY ('{{sql,plpgsql}}'::pg_catalog.text[]) THEN source OPERATOR(pg_catalog.~*) {code} \
         ELSE true END) THEN 'code'::pg_catalog.text END FROM f GROUP BY root \
         UNION ALL SELECT 'setting'::pg_catalog.text, name, pg_catalog.current_setting(name, true) FROM ( \
         SELECT DISTINCT m.n[1] FROM f, pg_catalog.regexp_matches(f.source, {names}, 'gi') AS m(n) \
         WHERE lang OPERATOR(pg_catalog.=) ANY ('{{sql,plpgsql}}'::pg_catalog.text[])) AS named(name) \
         UNION ALL SELECT 'opaque_code'::pg_catalog.text, NULL, NULL WHERE EXISTS (SELECT FROM f WHERE CASE \
         WHEN lang OPERATOR(pg_catalog.=) ANY ('{{sql,plpgsql}}'::pg_catalog.text[]) THEN source OPERATOR(pg_catalog.~*) {unnamed} \
         ELSE lang OPERATOR(pg_catalog.<>) ALL ('{{c,internal}}'::pg_catalog.text[]) END)) AS functions"
    )
}

/// How far down calls are followed.
const DEPTH_MAX: usize = 5;
/// Where a statement may begin, or a string that is one.
const START: &str = r"(^|[;$']|\mbegin|\mthen|\melse|\mloop|\*/|--[^\n]*\n)\s*";
/// What may change a session, or look at what it has.
const CODE: &str = r"STARTset\M|set_config|\mreset\M|listen|\mprepare\M|deallocate|discard|\mtemp(orary)?\M|pg_temp|advisory|\mhold\M|\mexecute\M|\mload\M|setseed|dblink|set_limit|\mcall\M|currval|lastval|to_xml|ts_stat|ts_rewrite|pg_settings|crosstab|connectby|xpath_table";
/// What may set a setting whose name is made as it runs.
const UNNAMED: &str =
    r#"set_config(?!\s*\(\s*'[\w$.]+'\s*,)|STARTset\s+(session\s+|local\s+)?([^a-z_[:space:]]|[\w$.]*['"%|])"#;
/// What sets one of the application's own.
const NAMES: &str = r"(?:set_config\s*\(\s*'|\mset\s+(?:session\s+|local\s+)?)([a-z_][\w$]*(?:\.[\w$]+)+)";

/// What is known of names on this connection.
#[derive(Debug, Default)]
pub(super) struct Functions {
    known: HashMap<Box<[u8]>, Known>,
    /// Called since it was last asked.
    new: BTreeSet<Box<[u8]>>,
    /// Code that was called since then.
    code: BTreeSet<Box<[u8]>>,
    /// Asked for.
    asked: BTreeSet<Box<[u8]>>,
    /// Not all that was called could be asked for.
    is_too_much: bool,
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

/// What makes another function of a name, in a text or in a tag.
const KINDS: &[&[u8]] = &[b"function", b"procedure", b"routine", b"extension", b"schema", b"aggregate", b"language"];

/// The text, of so many statements, may make another function of a name.
pub(super) fn redefines(text: &[u8], statements: usize) -> bool {
    let first = text.iter().position(|byte| !byte.is_ascii_whitespace()).and_then(|at| text.get(at..at + 4));
    let is_ddl = |word: &[u8]| {
        [&b"crea"[..], b"alte", b"drop", b"/*", b"--"]
            .iter()
            .any(|ddl| word.get(..ddl.len()).is_some_and(|start| start.eq_ignore_ascii_case(ddl)))
    };
    (statements > 1 || first.is_some_and(is_ddl)) && tells_redefinition(text)
}

/// A tag of what may have made one says so.
pub(super) fn tells_redefinition(text: &[u8]) -> bool {
    let is_there = |kind: &&[u8]| {
        let letters = [kind.first().map_or(0, u8::to_ascii_lowercase), kind.first().map_or(0, u8::to_ascii_uppercase)];
        memchr::memchr2_iter(letters[0], letters[1], text)
            .any(|at| text.get(at..at + kind.len()).is_some_and(|word| word.eq_ignore_ascii_case(kind)))
    };
    KINDS.iter().any(is_there)
}

impl Functions {
    /// A statement that calls this is being sent.
    pub(super) fn call(&mut self, name: &[u8]) -> Call {
        match self.known.get_mut(name).filter(|known| known.uses < USES_MAX) {
            Some(known) => {
                known.uses += 1;
                if !known.is_code {
                    return Call::Harmless;
                }
                self.is_too_much |= self.code.len() >= NAMES_MAX;
                if self.code.len() < NAMES_MAX {
                    self.code.insert(name.into());
                }
                Call::Code
            }
            None => {
                // What is not asked for stays unknown.
                let can_be_asked = self.new.len() < NAMES_MAX && std::str::from_utf8(name).is_ok();
                self.is_too_much |= !can_be_asked;
                if can_be_asked {
                    self.new.insert(name.into());
                }
                Call::Unknown
            }
        }
    }

    /// The names to be asked for: those that are new, and those of code that was called.
    pub(super) fn ask(&mut self) -> impl Iterator<Item = &str> {
        self.asked = std::mem::take(&mut self.new);
        self.asked.append(&mut self.code);
        self.asked.iter().filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// The server has answered: of what was asked for, these are code. True if none is, and nothing else was called.
    pub(super) fn learn(&mut self, code: &BTreeSet<Box<[u8]>>) -> bool {
        if self.known.len() >= NAMES_MAX {
            self.known.clear();
        }
        for name in std::mem::take(&mut self.asked) {
            let is_code = code.contains(&name);
            self.known.insert(name, Known { is_code, uses: 0 });
        }
        code.is_empty() && !std::mem::take(&mut self.is_too_much)
    }

    /// The server did not answer.
    pub(super) fn is_refused(&mut self) {
        self.new.append(&mut self.asked);
        self.known.retain(|name, _| !self.new.contains(name));
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
    fn texts_that_make_another_function_of_a_name() {
        for (text, statements, expected) in [
            ("CREATE OR REPLACE FUNCTION f() ...", 1, true),
            (" drop Procedure p", 1, true),
            ("/* */ ALTER FUNCTION f() RENAME TO g", 1, true),
            ("SELECT 1; CREATE FUNCTION f() ...", 2, true),
            ("CREATE EXTENSION x", 1, true),
            ("CREATE TEMP TABLE t (a int)", 1, false),
            ("SELECT 'function'", 1, false),
            ("", 0, false),
        ] {
            assert_eq!(redefines(text.as_bytes(), statements), expected, "{text}");
        }
        assert!(tells_redefinition(b"CREATE FUNCTION") && !tells_redefinition(b"CREATE TABLE"));
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
