//! One value of the file: what it is read as, and what is said when it can't be.
//!
//! Every reader reports its own mistake and gives `None`. Values are shown in messages through `Field::found` alone,
//! which keeps quiet about text that may hold a password.

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::errors::Problem;
use super::secret::{self, Secret};
use super::table::{Source, Table};
use super::values;

/// Messages quote no more of a value than this.
const QUOTED_CHARS_MAX: usize = 60;

/// One value, with its place.
pub(super) struct Field<'s> {
    source: &'s Source<'s>,
    pub(super) path: String,
    pub(super) line: usize,
    value: &'s DeValue<'s>,
}

impl<'s> Field<'s> {
    pub(super) fn new(source: &'s Source<'s>, path: String, line: usize, value: &'s DeValue<'s>) -> Self {
        Self { source, path, line, value }
    }

    /// Whether this is the same value, however it is written.
    pub(super) fn is(&self, other: &DeValue<'_>) -> bool {
        same(self.value, other)
    }

    pub(super) fn source(&self) -> &'s Source<'s> {
        self.source
    }

    pub(super) fn report(&self, problem: Problem) {
        self.source.report(self.line, &self.path, problem);
    }

    pub(super) fn report_type(&self, allowed: &str) {
        self.report(Problem::WrongType { found: self.found(), allowed: allowed.to_owned() });
    }

    pub(super) fn report_impossible(&self, allowed: &str) {
        self.report(Problem::Impossible { found: self.found(), allowed: allowed.to_owned(), nearest: None });
    }

    pub(super) fn report_conflict(&self, reason: String) {
        self.report(Problem::Conflict { reason });
    }

    pub(super) fn report_later(&self, note: &str) {
        self.report(Problem::NotYet { found: None, note: Some(note.to_owned()) });
    }

    /// The kind of value, with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// The value as messages show it. Lists and tables may hold secrets, and so may a URL with a user in it.
    fn found(&self) -> String {
        if let Some(text) = self.value.as_str() {
            if text.contains('@') {
                return "a string with an @".to_owned();
            }
            let cut: String = text.chars().take(QUOTED_CHARS_MAX).collect();
            let more = if cut.len() < text.len() { "..." } else { "" };
            return format!("{cut:?}{more}");
        }
        if let Some(number) = self.value.as_integer() {
            return number.to_string();
        }
        match self.value.as_bool() {
            Some(truth) => truth.to_string(),
            None => self.type_name().to_owned(),
        }
    }

    pub(super) fn table(&self) -> Option<Table<'s>> {
        let entries = Some(self.value.as_table()?);
        Some(Table::new(self.source, entries, self.path.clone(), self.line))
    }

    pub(super) fn elements(&self) -> Option<Vec<Field<'s>>> {
        let list = self.value.as_array()?;
        let element = |(index, item): (usize, &'s toml::Spanned<DeValue<'s>>)| Field {
            source: self.source,
            path: format!("{}[{index}]", self.path),
            line: self.source.line(item.span().start),
            value: item.get_ref(),
        };
        Some(list.iter().enumerate().map(element).collect())
    }

    pub(super) fn list(&self, allowed: &str) -> Option<Vec<Field<'s>>> {
        let elements = self.elements();
        if elements.is_none() {
            self.report_type(allowed);
        }
        elements
    }

    /// Like `list`; the value is never shown.
    pub(super) fn list_unseen(&self, allowed: &str) -> Option<Vec<Field<'s>>> {
        let elements = self.elements();
        if elements.is_none() {
            self.report(Problem::WrongType { found: self.type_name().to_owned(), allowed: allowed.to_owned() });
        }
        elements
    }

    /// The elements of a list, or this field itself where a single value may stand for a list of one.
    pub(super) fn list_or_one(self) -> Vec<Field<'s>> {
        self.elements().unwrap_or_else(|| vec![self])
    }

    pub(super) fn text(&self, allowed: &str) -> Option<&'s str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.report_type(allowed);
        }
        text
    }

    /// Like `text`, and not empty; the value is never shown.
    pub(super) fn text_unseen(&self, allowed: &str) -> Option<String> {
        let text = self.value.as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.report(Problem::WrongType {
                found: match self.value.as_str() {
                    Some(_) => "an empty string".to_owned(),
                    None => self.type_name().to_owned(),
                },
                allowed: allowed.to_owned(),
            });
        }
        text.map(str::to_owned)
    }

    /// Text that `parse` understands.
    pub(super) fn parsed<T>(&self, allowed: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parsed = parse(self.text(allowed)?);
        if parsed.is_none() {
            self.report_impossible(allowed);
        }
        parsed
    }

    /// True or false.
    pub(super) fn boolean(&self) -> Option<bool> {
        let truth = self.value.as_bool();
        if truth.is_none() {
            self.report_type("true or false");
        }
        truth
    }

    /// A whole number in a range.
    pub(super) fn integer<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Option<T> {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        let Some(digits) = self.value.as_integer() else {
            self.report_type(&allowed);
            return None;
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.report_impossible(&allowed);
        }
        number
    }

    pub(super) fn duration_or_zero(&self) -> Option<Duration> {
        self.parsed(values::DURATION_FORM, values::duration)
    }

    /// A duration that can't be switched off.
    pub(super) fn duration(&self) -> Option<Duration> {
        let duration = self.duration_or_zero()?;
        if duration.is_zero() {
            self.report_impossible("a duration above zero: this one can't be switched off");
            return None;
        }
        Some(duration)
    }

    /// A duration where `"0"` means none.
    pub(super) fn duration_or_off(&self) -> Option<Option<Duration>> {
        let duration = self.duration_or_zero()?;
        Some((!duration.is_zero()).then_some(duration))
    }

    /// One of a few words; those in `later` are known and refused.
    pub(super) fn choice<T: Copy>(&self, available: &[(&'static str, T)], later: &[&'static str]) -> Option<T> {
        let words: Vec<_> = available.iter().map(|(word, _)| *word).collect();
        let allowed = format!("\"{}\"", words.join("\" or \""));
        let text = self.text(&allowed)?;
        if let Some((_, value)) = available.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let found = self.found();
        self.report(if later.contains(&text) {
            Problem::NotYet { found: Some(found), note: Some(format!("use {allowed}")) }
        } else {
            let words = [&words, later].concat();
            Problem::Impossible { nearest: values::nearest(text, &words), found, allowed }
        });
        None
    }

    /// The name of something else in the file. With no `names` at all that is reported elsewhere.
    pub(super) fn reference(&self, what: &str, names: &[&str]) -> Option<String> {
        let text = self.text(&format!("the name of {what}"))?;
        if names.is_empty() || names.contains(&text) {
            return Some(text.to_owned());
        }
        self.report(Problem::Impossible {
            found: self.found(),
            allowed: format!("the name of {what}: {}", names.join(", ")),
            nearest: values::nearest(text, names),
        });
        None
    }

    /// A file that can be opened now.
    pub(super) fn readable_file(&self) -> Option<PathBuf> {
        let path = self.parsed("the path of a file", |text| {
            (!text.is_empty() && !text.contains('\0')).then(|| self.source.resolve(text))
        })?;
        match File::open(&path).and_then(|file| file.metadata()) {
            Ok(found) if found.is_dir() => {
                self.report_impossible("the path of a file; this is a folder");
                None
            }
            Ok(_) => Some(path),
            Err(source) => {
                self.report(Problem::Unreadable { file: path, source });
                None
            }
        }
    }

    pub(super) fn secret(&self) -> Option<Secret> {
        secret::read(self)
    }
}

/// Whether two values are the same, wherever and however they are written.
fn same(a: &DeValue<'_>, b: &DeValue<'_>) -> bool {
    if let (Some(a), Some(b)) = (a.as_array(), b.as_array()) {
        return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a.get_ref(), b.get_ref()));
    }
    if let (Some(a), Some(b)) = (a.as_table(), b.as_table()) {
        return a.len() == b.len()
            && a.iter().all(|(key, a)| b.get(key.get_ref().as_ref()).is_some_and(|b| same(a.get_ref(), b.get_ref())));
    }
    if let (Some(a), Some(b)) = (a.as_integer(), b.as_integer()) {
        return a.as_str() == b.as_str() && a.radix() == b.radix();
    }
    a.same_type(b) && a.as_str() == b.as_str() && a.as_bool() == b.as_bool()
}
