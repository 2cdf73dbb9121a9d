//! Passwords: a type that does not show what it holds, and where it is read from.
//!
//! A `Secret` prints as stars, is only read through `expose`, and wipes its memory when dropped. What is said about one
//! that could not be had names the key and the source, never what stood there.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::mem;
use std::path::Path;

use super::errors::Problem;
use super::field::Field;
use super::table::Table;

/// Far beyond any password or token; a larger file is the wrong file.
const SECRET_BYTES_MAX: usize = 64 * 1024;

pub(super) const FORMS: &str = "{ env = \"NAME\" }, { file = \"/path\" } or { value = \"...\" }";

/// Text that must not be seen: a password. Not empty when it comes from a configuration file.
#[derive(Clone)]
pub struct Secret {
    text: String,
}

impl Secret {
    /// Takes charge of a text.
    pub fn new(text: String) -> Self {
        Self { text }
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
    let file = table.take("file");
    let value = table.take("value");
    let command = table.take("command");
    let refresh = table.take("refresh");
    if let Some(command) = command {
        command.report(Problem::NotYet { found: None, note: Some(format!("use {FORMS}")) });
        return None;
    }
    if let Some(refresh) = refresh {
        refresh.report(Problem::Conflict { reason: "goes with `command` only".to_owned() });
    }
    let found = match (env, file, value) {
        (Some(env), None, None) => from_env(&env),
        (None, Some(file), None) => from_file(&file),
        (None, None, Some(value)) => Ok(value.text_unseen("the password in quotes")?),
        _ => {
            field.report(Problem::WrongType { found: "not exactly one source".to_owned(), allowed: FORMS.to_owned() });
            return None;
        }
    };
    match found.and_then(usable) {
        Ok(text) => Some(Secret::new(text)),
        Err(problem) => {
            field.report(problem);
            None
        }
    }
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

fn from_file(field: &Field<'_>) -> Result<String, Problem> {
    let name = field.text_unseen("the name of a file").ok_or_else(|| refused("its file has no name"))?;
    let path = field.source().resolve(&name);
    let mut bytes = read_at_most(&path, SECRET_BYTES_MAX + 1).map_err(|source| {
        // The path is named only when it looks like one, see `from_env`.
        if name.contains('/') {
            Problem::Unreadable { file: path, source }
        } else {
            refused(&format!("the file named here can't be read: {source}"))
        }
    })?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(refused("its file is larger than 64 KiB"));
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    String::from_utf8(bytes).map_err(|_| refused("its file is not UTF-8 text"))
}

fn read_at_most(path: &Path, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn usable(text: String) -> Result<String, Problem> {
    if text.is_empty() {
        Err(refused("the secret is empty"))
    } else if text.contains('\0') {
        Err(refused("the secret holds a zero byte"))
    } else {
        Ok(text)
    }
}

fn refused(reason: &str) -> Problem {
    Problem::Secret { reason: reason.to_owned() }
}
