//! A cursor over the parsed file that knows where everything stands.
//!
//! Readers take the keys they know from a `Table`; what is left over at `finish` is unknown. A key that is wrong is
//! reported with its line and path, and reading goes on, so that one run finds every mistake.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::errors::{ConfigError, Problem};
use super::field::Field;
use super::values;

/// The file being read, and what was found out about it so far.
pub(super) struct Source<'s> {
    text: &'s str,
    folder: &'s Path,
    env: &'s dyn Fn(&str) -> Option<String>,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<String>>,
}

impl<'s> Source<'s> {
    /// `folder` is where relative paths start.
    pub(super) fn new(text: &'s str, folder: &'s Path, env: &'s dyn Fn(&str) -> Option<String>) -> Self {
        Self { text, folder, env, errors: RefCell::default(), warnings: RefCell::default() }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        let newlines = self.text.bytes().take(offset).filter(|b| *b == b'\n');
        1 + newlines.count()
    }

    pub(super) fn report(&self, line: usize, path: &str, problem: Problem) {
        self.errors.borrow_mut().push(ConfigError { line, path: path.to_owned(), problem });
    }

    pub(super) fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(super) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The errors by line, and the warnings.
    pub(super) fn into_findings(self) -> (Vec<ConfigError>, Vec<String>) {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| error.line);
        (errors, self.warnings.into_inner())
    }
}

/// One table of the file, or the empty one where it was left out.
pub(super) struct Table<'s> {
    source: &'s Source<'s>,
    entries: Option<&'s DeTable<'s>>,
    pub(super) path: String,
    pub(super) line: usize,
    known: RefCell<Vec<&'static str>>,
}

impl<'s> Table<'s> {
    pub(super) fn root(source: &'s Source<'s>, entries: &'s DeTable<'s>) -> Self {
        Self::new(source, Some(entries), String::new(), 1)
    }

    pub(super) fn new(source: &'s Source<'s>, entries: Option<&'s DeTable<'s>>, path: String, line: usize) -> Self {
        Self { source, entries, path, line, known: RefCell::default() }
    }

    pub(super) fn source(&self) -> &'s Source<'s> {
        self.source
    }

    /// The key's value when it is there.
    pub(super) fn take(&self, key: &'static str) -> Option<Field<'s>> {
        self.known.borrow_mut().push(key);
        let (name, value) = self.entries?.get_key_value(key)?;
        let line = self.source.line(name.span().start);
        let path = join(&self.path, key);
        Some(Field::new(self.source, path, line, value.get_ref()))
    }

    /// The key's value; its absence is a mistake.
    pub(super) fn require(&self, key: &'static str, allowed: &str) -> Option<Field<'s>> {
        let field = self.take(key);
        if field.is_none() {
            self.report_missing(key, allowed);
        }
        field
    }

    pub(super) fn report_missing(&self, key: &str, allowed: &str) {
        let allowed = allowed.to_owned();
        let problem = Problem::Missing { allowed };
        self.source.report(self.line, &join(&self.path, key), problem);
    }

    /// The key read by `read`; the default where it is absent or wrong.
    pub(super) fn read<T>(&self, key: &'static str, default: T, read: impl FnOnce(&Field<'s>) -> Option<T>) -> T {
        self.take(key).and_then(|field| read(&field)).unwrap_or(default)
    }

    /// A key of a later version: only its default may stand here. `default` is TOML; without one, nothing may.
    pub(super) fn later(&self, key: &'static str, default: Option<&str>) {
        let Some(field) = self.take(key) else {
            return;
        };
        let is_default =
            default.and_then(|text| DeValue::parse(text).ok()).is_some_and(|default| field.is(default.get_ref()));
        if !is_default {
            field.report(Problem::NotYet { found: None, note: None });
        }
    }

    /// The table under a key; an empty one when it is absent or not a table.
    pub(super) fn child(&self, key: &'static str) -> Table<'s> {
        let found = self.take(key).and_then(|field| {
            let table = field.table();
            if table.is_none() {
                field.report_type(&format!("a table, [{}]", field.path));
            }
            table
        });
        found.unwrap_or_else(|| Self::new(self.source, None, join(&self.path, key), self.line))
    }

    /// The tables of a `[[key]]`.
    pub(super) fn children(&self, key: &'static str) -> Vec<Table<'s>> {
        let Some(field) = self.take(key) else {
            return Vec::new();
        };
        let tables: Option<Vec<_>> = field.elements().and_then(|elements| elements.iter().map(Field::table).collect());
        tables.unwrap_or_else(|| {
            field.report_type(&format!("tables, each headed [[{key}]]"));
            Vec::new()
        })
    }

    pub(super) fn is_there(&self) -> bool {
        self.entries.is_some()
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.into_inner();
        for name in self.entries.into_iter().flat_map(|entries| entries.keys()) {
            let key = name.get_ref().as_ref();
            if !known.contains(&key) {
                let problem = Problem::UnknownKey { nearest: values::nearest(key, &known), known: known.clone() };
                let line = self.source.line(name.span().start);
                self.source.report(line, &join(&self.path, key), problem);
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
