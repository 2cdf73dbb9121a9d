//! The startup packet: what a client says of itself before it has proven anything
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE>).
//!
//! Parses it as PostgreSQL's `ProcessStartupPacket` and `process_postgres_switches` do, and sorts what it sets: into the
//! baseline, which is replayed on any server connection, and into what can only be given at a database login. It
//! judges no setting's name or value: that is the database's to do.

use super::frame::cstr;
use std::collections::{BTreeMap, VecDeque};

/// Settings that a session can only be started with: PostgreSQL's contexts `backend` and `superuser-backend`, and two
/// that can be SET later but to no effect.
const STARTUP_ONLY: [&str; 8] = [
    "ignore_system_indexes",
    "jit_debugging_support",
    "jit_profiling_support",
    "local_preload_libraries",
    "log_connections",
    "log_disconnections",
    "post_auth_delay",
    "session_preload_libraries",
];

/// Switches of a server process that take a value, other than `-c` and `--`.
const SWITCHES_WITH_VALUE: &[u8] = b"BCDdfhkNprStvW";

/// What is wrong with a startup packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Names and values do not fill the packet up to its terminator.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A value for `replication` that PostgreSQL does not know.
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
    /// We hold names and settings as text. (PostgreSQL takes any bytes here and compares them as such.)
    #[error("invalid byte sequence for encoding \"UTF8\" in the startup packet")]
    NotText,
}

impl StartupError {
    /// Its SQLSTATE.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Layout => "08P01",
            Self::Replication(_) => "22023",
            Self::NotText => "22021",
        }
    }
}

/// What a startup packet says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// `user`; empty if there is none.
    pub user: String,
    /// `database`, or the user's name.
    pub database: String,
    /// Wants to be a replication connection.
    pub is_replication: bool,
    /// Settings in the order in which PostgreSQL applies them: `options` first, so that the packet's own win.
    pub settings: Vec<(String, String)>,
    /// What only a database login can set: [`STARTUP_ONLY`] settings, and as `options` the switches that are no settings.
    /// In the order of names, so that equal logins are equal.
    pub fixed: Vec<(String, String)>,
    /// Names of protocol options (`_pq_.`) in the packet's order; none is known.
    pub protocol_options: Vec<Vec<u8>>,
}

impl Startup {
    /// Reads what follows the version.
    pub fn parse(mut body: &[u8]) -> Result<Self, StartupError> {
        let mut startup = Self::default();
        let mut options = None;
        let mut own = Vec::new();
        loop {
            let (name, rest) = cstr(body).ok_or(StartupError::Layout)?;
            if name.is_empty() {
                // The terminator must be the last byte.
                if !rest.is_empty() {
                    return Err(StartupError::Layout);
                }
                break;
            }
            let (value, rest) = cstr(rest).ok_or(StartupError::Layout)?;
            body = rest;
            match name {
                b"user" => startup.user = text(value)?,
                b"database" => startup.database = text(value)?,
                b"options" => options = Some(text(value)?),
                b"replication" => startup.is_replication = is_replication(value)?,
                _ if name.starts_with(b"_pq_.") => startup.protocol_options.push(name.to_vec()),
                _ => own.push((text(name)?, text(value)?)),
            }
        }
        if startup.database.is_empty() {
            startup.database.clone_from(&startup.user);
        }
        let Switches { mut settings, rest } = options.as_deref().map(parse_options).unwrap_or_default();
        settings.append(&mut own);
        startup.sort(settings, rest);
        Ok(startup)
    }

    fn sort(&mut self, settings: Vec<(String, String)>, switches: Option<String>) {
        let mut fixed: BTreeMap<String, String> =
            switches.map(|switches| ("options".to_owned(), switches)).into_iter().collect();
        for (name, value) in settings {
            let folded = name.to_ascii_lowercase();
            if STARTUP_ONLY.contains(&folded.as_str()) {
                fixed.insert(folded, value);
            } else {
                self.settings.push((name, value));
            }
        }
        self.fixed = fixed.into_iter().collect();
    }
}

fn text(bytes: &[u8]) -> Result<String, StartupError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| StartupError::NotText)
}

/// `database`, or what PostgreSQL's `parse_bool` takes: any beginning of true, false, yes, no, on, off that is the only
/// one it can be; 1; 0.
fn is_replication(value: &[u8]) -> Result<bool, StartupError> {
    let begins = |word: &str, at_least: usize| {
        value.len() >= at_least
            && word.as_bytes().get(..value.len()).is_some_and(|word| word.eq_ignore_ascii_case(value))
    };
    if value == b"database" || value == b"1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Ok(true)
    } else if value == b"0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Ok(false)
    } else {
        Err(StartupError::Replication(String::from_utf8_lossy(value).into_owned()))
    }
}

/// What `options` says: settings, and the switches that are none, written as `options` again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Switches {
    settings: Vec<(String, String)>,
    rest: Option<String>,
}

/// Reads a string of switches as a server process does: `-c name=value`, `-cname=value`, `--name=value` are settings.
/// Everything else stays as it is, also what is wrong: the database says it better.
fn parse_options(options: &str) -> Switches {
    let mut words: VecDeque<String> = split(options).into();
    let mut settings = Vec::new();
    let mut rest: Vec<String> = Vec::new();
    while let Some(word) = words.pop_front() {
        if word == "--" || word == "-" || !word.starts_with('-') {
            // No switch follows any more.
            rest.push(word);
            rest.extend(words);
            break;
        }
        // `-c` and `--` differ in where the setting stands, and nothing else.
        let setting = if word == "-c" {
            words.front().and_then(|next| setting(next))
        } else {
            word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).and_then(setting)
        };
        if let Some(setting) = setting {
            if word == "-c" {
                words.pop_front();
            }
            settings.push(setting);
            continue;
        }
        let takes_next = takes_next(&word);
        rest.push(word);
        rest.extend(takes_next.then(|| words.pop_front()).flatten());
    }
    Switches { settings, rest: (!rest.is_empty()).then(|| join(&rest)) }
}

/// `name=value`, dashes in the name being underscores (`ParseLongOption`).
fn setting(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    (!name.is_empty()).then(|| (name.replace('-', "_"), value.to_owned()))
}

/// The value of a cluster of switches is the next word (as `getopt` has it): the first of them that takes one stands
/// last.
fn takes_next(word: &str) -> bool {
    let switches = word.as_bytes().get(1..).unwrap_or_default();
    let with_value = |switch: &u8| matches!(switch, b'c' | b'-') || SWITCHES_WITH_VALUE.contains(switch);
    switches.iter().position(with_value).is_some_and(|at| at + 1 == switches.len())
}

/// Splits at white space; a backslash keeps what follows it (`pg_split_opts`).
fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = options.chars().peekable();
    loop {
        while rest.next_if(|c| is_space(*c)).is_some() {}
        if rest.peek().is_none() {
            return words;
        }
        let mut word = String::new();
        while let Some(c) = rest.next_if(|c| !is_space(*c)) {
            if c == '\\' {
                word.extend(rest.next());
            } else {
                word.push(c);
            }
        }
        words.push(word);
    }
}

/// The reverse of [`split`]. (An empty word comes from a lone backslash at the end, and is written as one there.)
fn join(words: &[String]) -> String {
    let mut joined = String::new();
    for (number, word) in words.iter().enumerate() {
        if number > 0 {
            joined.push(' ');
        }
        if word.is_empty() {
            joined.push('\\');
        }
        for c in word.chars() {
            if is_space(c) || c == '\\' {
                joined.push('\\');
            }
            joined.push(c);
        }
    }
    joined
}

/// C's `isspace`: with the vertical tab, which Rust's ASCII white space leaves out.
const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn packets() {
        let startup = Startup::parse(
            b"user\0u\0DateStyle\0German\0options\0-c datestyle=ISO -c Log_Connections=on -e\0_pq_.a\0x\0replication\0off\0\0",
        )
        .unwrap();
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("u", "u"));
        assert_eq!(startup.settings, pairs(&[("datestyle", "ISO"), ("DateStyle", "German")]));
        assert_eq!(startup.fixed, pairs(&[("log_connections", "on"), ("options", "-e")]));
        assert_eq!(startup.protocol_options, [b"_pq_.a".to_vec()]);
        assert!(!startup.is_replication);

        let startup = Startup::parse(b"database\0d\0user\0a\0user\0b\0\0").unwrap();
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("b", "d"));
        assert_eq!(Startup::parse(b"\0").unwrap(), Startup::default());
        for layout in [&b""[..], b"user\0u\0", b"user\0u\0\0x", b"user\0u\0a\0", b"user\0u\0a\0\0", b"user", b"\0\0"] {
            assert_eq!(Startup::parse(layout), Err(StartupError::Layout), "{layout:?}");
        }
        assert_eq!(Startup::parse(b"user\0\xff\0\0"), Err(StartupError::NotText));
    }

    #[test]
    fn replication_is_a_hybrid_beast() {
        let check = |value: &str, expected: Option<bool>| {
            let packet = format!("user\0u\0replication\0{value}\0\0");
            let got = Startup::parse(packet.as_bytes()).map(|startup| startup.is_replication);
            assert_eq!(got, expected.ok_or_else(|| StartupError::Replication(value.into())), "{value}");
        };
        for value in ["database", "true", "TRUE", "t", "tr", "yes", "y", "on", "1"] {
            check(value, Some(true));
        }
        for value in ["false", "f", "no", "n", "off", "of", "0", "OFF"] {
            check(value, Some(false));
        }
        for value in ["", "o", "maybe", "Database", "truee", "2", "10"] {
            check(value, None);
        }
    }

    #[test]
    fn options() {
        let check = |options: &str, settings: &[(&str, &str)], rest: Option<&str>| {
            let expected = Switches { settings: pairs(settings), rest: rest.map(str::to_owned) };
            assert_eq!(parse_options(options), expected, "{options}");
        };
        check("", &[], None);
        check("  \t\x0b ", &[], None);
        check("-c a=1", &[("a", "1")], None);
        check("-ca=1", &[("a", "1")], None);
        check("--work-mem=9MB", &[("work_mem", "9MB")], None);
        check("-c work-mem=a=b", &[("work_mem", "a=b")], None);
        check("-c x.y=", &[("x.y", "")], None);
        check(r"-c my.x=a\ b\\c  --b=\d", &[("my.x", r"a b\c"), ("b", "d")], None);
        check("-c a=1 -d 3 -c b=2 -e", &[("a", "1"), ("b", "2")], Some("-d 3 -e"));
        check("-d3 -c b=2", &[("b", "2")], Some("-d3"));
        check("-ec a=1", &[], Some("-ec a=1"));
        check("-ed 3 -c a=1", &[("a", "1")], Some("-ed 3"));
        check("-c a -c b=1", &[("b", "1")], Some("-c a"));
        check("-c", &[], Some("-c"));
        check("-c =x", &[], Some("-c =x"));
        check("--a", &[], Some("--a"));
        check("-- -c a=1", &[], Some("-- -c a=1"));
        check("-c a=1 foo -c b=2", &[("a", "1")], Some("foo -c b=2"));
        check(r"-S 2048 -D /a\ b", &[], Some(r"-S 2048 -D /a\ b"));
        check("-", &[], Some("-"));
        check(r"a \", &[], Some(r"a \"));
        check("-c ä=ö", &[("ä", "ö")], None);
        // The value looks like a switch; getopt takes it all the same.
        check("-c -c a=1", &[], Some("-c -c a=1"));
    }

    proptest! {
        #[test]
        fn what_is_left_of_options_reads_the_same(options in "[-c=a1 \\\\\t-]{0,24}") {
            let once = parse_options(&options);
            let again = once.rest.as_deref().map(parse_options).unwrap_or_default();
            prop_assert!(again.settings.is_empty(), "{:?} -> {:?}", once, again);
            prop_assert_eq!(again.rest, once.rest);
        }

        #[test]
        fn no_packet_panics(body: Vec<u8>) {
            let _ = Startup::parse(&body);
        }
    }
}
