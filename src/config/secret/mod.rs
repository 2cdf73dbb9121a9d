//! Passwords: a type that does not show what it holds, and where it is read from.
//!
//! A `Secret` prints as stars, is only read through `expose`, and wipes its memory when dropped. What is said about one
//! that could not be had names the key and the source, never what stood there.

mod source;

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use source::{Source, refused, usable};

use super::errors::Problem;
use super::field::Field;
use super::table::Table;

pub(super) const FORMS: &str =
    "{ env = \"NAME\" }, { file = \"/path\" }, { command = [\"program\", \"argument\"] } or { value = \"...\" }";

/// Text that must not be seen: a password. Not empty when it comes from a configuration file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// Where it can be read anew. `None`: it can't change.
    origin: Option<Arc<Origin>>,
}

#[derive(PartialEq, Eq)]
struct Origin {
    source: Source,
    refresh: Option<Duration>,
}

impl Secret {
    /// Takes charge of a text.
    pub fn new(text: String) -> Self {
        Self { text, origin: None }
    }

    fn read(source: Source, refresh: Option<Duration>) -> Result<Self, Problem> {
        let text = source.read()?;
        Ok(Self { text, origin: Some(Arc::new(Origin { source, refresh })) })
    }

    /// It came from a file or a command, where another may stand meanwhile.
    pub fn can_change(&self) -> bool {
        self.origin.is_some()
    }

    /// Reads it once more where it came from: a file or a command. `None`: it came from elsewhere and can't change.
    /// Blocks, for up to 10 s.
    pub fn read_again(&self) -> Option<Result<Self, Problem>> {
        let origin = self.origin.as_ref()?;
        Some(origin.source.read().map(|text| Self { text, origin: Some(Arc::clone(origin)) }))
    }

    /// It should be read again this often, whether or not somebody has found it to be wrong.
    pub fn refresh(&self) -> Option<Duration> {
        self.origin.as_ref()?.refresh
    }

    /// The text itself, for those who prove or check it. It belongs in no message, log or error.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.text).into_bytes();
        bytes.fill(0);
        // Keeps the compiler from leaving out a write that nobody reads.
        std::hint::black_box(&bytes);
    }
}

/// Reads the secret a field describes; reports why when there is none.
pub(super) fn read(field: &Field<'_>) -> Option<Secret> {
    let Some(table) = field.table() else {
        // Never the value: somebody who writes the password right here is not to find it in the log.
        field.report(Problem::WrongType { found: format!("{} here", field.type_name()), allowed: FORMS.to_owned() });
        return None;
    };
    let secret = read_source(field, &table);
    table.finish();
    secret
}

fn read_source(field: &Field<'_>, table: &Table<'_>) -> Option<Secret> {
    let env = table.take("env");
    let file_ = table.take("file");
    let value = table.take("value");
    let command_ = table.take("command");
    let refresh = table.take("refresh");
    let refresh = refresh.and_then(|refresh| {
        if command_.is_none() {
            refresh.report(Problem::Conflict { reason: "goes with `command` only".to_owned() });
        }
        refresh.duration()
    });
    let found = match (env, file_, value, command_) {
        (Some(env), None, None, None) => from_env(&env).and_then(usable).map(Secret::new),
        (None, Some(named), None, None) => file(&named).and_then(|source| Secret::read(source, None)),
        (None, None, Some(value), None) => usable(value.text_unseen("the password in quotes")?).map(Secret::new),
        (None, None, None, Some(words)) => Secret::read(command(&words)?, refresh),
        _ => {
            field.report(Problem::WrongType { found: "not exactly one source".to_owned(), allowed: FORMS.to_owned() });
            return None;
        }
    };
    found.map_err(|problem| field.report(problem)).ok()
}

fn from_env(field: &Field<'_>) -> Result<String, Problem> {
    let name = field
        .text_unseen("the name of an environment variable")
        .ok_or_else(|| refused("its environment variable has no name"))?;
    field.source().env(&name).ok_or_else(|| {
        // A password put here by mistake seldom looks like this.
        let usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.bytes().all(usual) {
            refused(&format!("the environment variable {name} is not set"))
        } else {
            refused("the environment variable named here is not set")
        }
    })
}

fn file(field: &Field<'_>) -> Result<Source, Problem> {
    let name = field.text_unseen("the name of a file").ok_or_else(|| refused("its file has no name"))?;
    Ok(Source::File { path: field.source().resolve(&name), is_named: name.contains('/') })
}

/// `None`: the mistake was reported.
fn command(field: &Field<'_>) -> Option<Source> {
    const ALLOWED: &str =
        "a program and its arguments, such as [\"vault\", \"kv\", \"get\", \"-field=password\", \"db\"]";
    let words: Option<Vec<_>> = field.list_unseen(ALLOWED)?.iter().map(|word| word.text_unseen(ALLOWED)).collect();
    let mut words = words?.into_iter();
    let Some(program) = words.next() else {
        field.report_impossible(ALLOWED);
        return None;
    };
    Some(Source::Command { program, arguments: words.collect() })
}
