//! A prepared statement as a client made it, and the name it has on every server connection.
//!
//! The name is a keyed 128-bit hash of everything that decides what the server makes of the text: the text, the
//! declared parameter types, and the session's settings. Equal statements of different clients share one server
//! statement; unequal ones never do. The key is secret, so nobody can search for two texts with one name.
//!
//! The server fixes what a statement returns when it parses it. So a statement is shared only among clients with the same
//! settings: one that is parsed while they are in doubt is its client's own, and so is one that replaces a statement
//! whose result had changed.

use crate::protocol::{Intent, Settings, keyed_hash};
use crate::sql;
use crate::sql::Dialect;
use crate::sql::settings::Changes;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use std::sync::Arc;

/// What the proxy's own names on servers begin with. A client's own name that begins so is never sent as it is.
pub(super) const PREFIX: &[u8] = b"sg_";
/// A name on servers that is only ever closed or prepared anew, never used: a stand-in.
pub(super) const STAND_IN: &[u8] = b"sg_stand_in";
/// Names on the server are compared in their first 63 bytes (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

/// Settings that don't decide what the server makes of a text, nor what it makes of constants when it plans it (as
/// `bytea_output` and `extra_float_digits` do, by functions that it takes for immutable). One left out here only makes clients
/// share less.
const NOT_FOR_STATEMENTS: &[&str] = &[
    "application_name",
    "client_min_messages",
    "deadlock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "transaction_timeout",
    "work_mem",
];

/// A label of those settings that decide what a statement means. The application's own (with a dot) are read as a
/// statement runs, if at all.
pub(super) fn statement_label(settings: &Settings) -> u64 {
    let decides = |name: &str| !name.contains('.') && !NOT_FOR_STATEMENTS.contains(&name);
    let mut deciding = settings.iter().filter(|(name, _)| decides(name)).peekable();
    if deciding.peek().is_none() {
        return 0;
    }
    let mut hasher = SipHasher13::new();
    deciding.for_each(|pair| std::hash::Hash::hash(&pair, &mut hasher));
    hasher.finish()
}

/// How a statement comes to be on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By Parse: the body is what stands behind the name in one, that is text, NUL, number of types, types.
    Parsed,
    /// By `PREPARE`: the body is what stands behind the name in one. It has no NUL, so none is another's.
    Sql,
}

/// The text of a statement that is itself about prepared ones: what it is to a server depends on what their names mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// As the client wrote it.
    pub(super) text: Box<[u8]>,
    /// Number of types, types.
    pub(super) types: Box<[u8]>,
    pub(super) statement: sql::Statement,
}

/// Names of functions; `None`: there are none.
pub(super) type Calls = Option<Arc<[Box<[u8]>]>>;

/// What is to be kept of these.
pub(super) fn calls(names: Vec<Box<[u8]>>) -> Calls {
    (!names.is_empty()).then(|| names.into())
}

/// A prepared statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// Tells it from every other statement; see the module's head.
    pub(super) id: Id,
    /// What equal statements of clients with the same settings have as `id`.
    pub(super) family: Id,
    /// Of the settings that it was made under.
    pub(super) label: u64,
    pub(super) form: Form,
    /// See [`Form`].
    pub(super) body: Box<[u8]>,
    /// What its text intends.
    pub(super) intent: Intent,
    /// What its text does to settings, if it does.
    pub(super) changes: Option<Arc<Changes>>,
    /// Functions that it may call.
    pub(super) calls: Calls,
    /// How the server read its text when it was classified.
    pub(super) dialect: Dialect,
    /// The body is what became of this.
    pub(super) template: Option<Arc<Template>>,
}

impl Statement {
    /// No other client has it.
    pub(super) fn is_own(&self) -> bool {
        self.id != self.family
    }

    /// Bytes that are kept of it.
    pub(super) fn bytes(&self) -> usize {
        let template = self.template.as_ref().map_or(0, |template| template.text.len() + template.types.len());
        self.body.len() + template
    }
}

/// Identity of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id(u128);

impl Id {
    /// Of a statement with this body, made under settings with this label.
    pub(super) fn of(key: &[u8; 16], body: &[u8], settings_label: u64) -> Self {
        Self(keyed_hash(key, settings_label, body))
    }

    /// Of a statement of this client's that no other shares, nor an equal one of its own.
    pub(super) fn own(key: &[u8; 16], family: Self, client_id: u64, number: u64) -> Self {
        let mut hasher = SipHasher13::new_with_key(key);
        hasher.write_u64(client_id);
        hasher.write_u64(number);
        hasher.write(&family.0.to_be_bytes());
        Self(hasher.finish128().as_u128())
    }

    /// Its name on servers.
    pub(super) fn name(self) -> [u8; 35] {
        let mut name = [b'_'; 35];
        let digits = (0..32).rev().map(|nibble| {
            let value = (self.0 >> (nibble * 4)) & 0xf;
            char::from_digit(u32::try_from(value).unwrap_or(0), 16).map_or(b'0', |digit| digit as u8)
        });
        for (slot, byte) in name.iter_mut().zip(PREFIX.iter().copied().chain(digits)) {
            *slot = byte;
        }
        name
    }
}

/// A client's name for a statement as the server would compare it.
pub(super) fn name_key(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

/// The text with every name in the proxy's own form turned into one that no server has; `None`: there is none. For
/// statements about prepared statements: what a client finds in `pg_prepared_statements` is not its to use.
pub(super) fn without_our_names(text: &[u8]) -> Option<Vec<u8>> {
    let is_ours = |window: &[u8]| {
        window.split_at_checked(PREFIX.len()).is_some_and(|(prefix, digits)| {
            prefix.eq_ignore_ascii_case(PREFIX) && digits.iter().all(u8::is_ascii_hexdigit)
        })
    };
    let places: Vec<usize> =
        text.windows(35).enumerate().filter(|(_, window)| is_ours(window)).map(|(place, _)| place).collect();
    let mut hidden = text.to_vec();
    for place in &places {
        if let Some(first) = hidden.get_mut(*place) {
            *first = b'_';
        }
    }
    (!places.is_empty()).then_some(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_text_types_settings_and_key() {
        let body = b"SELECT 1\0\0\0";
        let id = Id::of(&[1; 16], body, 0);
        assert_eq!(id, Id::of(&[1; 16], body, 0));
        assert_ne!(id, Id::of(&[1; 16], b"SELECT 2\0\0\0", 0));
        assert_ne!(id, Id::of(&[1; 16], body, 1));
        assert_ne!(id, Id::of(&[2; 16], body, 0));
        let own = Id::own(&[1; 16], id, 1, 1);
        assert!(own != id && own != Id::own(&[1; 16], id, 1, 2) && own != Id::own(&[1; 16], id, 2, 1));
        let name = id.name();
        assert!(name.starts_with(PREFIX));
        assert!(name.iter().skip(3).all(u8::is_ascii_hexdigit));
        assert_eq!(u128::from_str_radix(std::str::from_utf8(&name[3..]).unwrap_or_default(), 16), Ok(id.0));
    }

    #[test]
    fn our_names_are_hidden_from_statements_about_them() {
        let ours = "sg_0123456789abcdef0123456789ABCDEF";
        for (text, expected) in [
            (format!("EXECUTE {ours}"), Some(format!("EXECUTE _{}", &ours[1..]))),
            (format!("DEALLOCATE \"SG{}\"", &ours[2..]), Some(format!("DEALLOCATE \"_G{}\"", &ours[2..]))),
            ("EXECUTE sg_short".to_owned(), None),
            ("EXECUTE mine".to_owned(), None),
        ] {
            let hidden = without_our_names(text.as_bytes());
            assert_eq!(hidden, expected.map(String::into_bytes), "{text}");
        }
    }
}
