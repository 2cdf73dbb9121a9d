//! What a client has set and what a server connection has: maps with a label, and the difference to replay.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a server reports of itself (ParameterStatus): name to value, names as the server spells them.
pub type Parameters = BTreeMap<String, String>;

/// Settings by lower-case name. Immutable; shared behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    label: u64,
    values: BTreeMap<String, String>,
}

/// What must be done to a connection with one set of settings so that it has another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Name and value, in the order of names.
    pub set: Vec<(String, String)>,
    /// Back to the connection's default.
    pub reset: Vec<String>,
}

impl Hash for Settings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.label);
    }
}

impl Settings {
    /// Makes a map of pairs; later pairs win; names are folded to lower case (ASCII only, as servers do).
    pub fn new<N: AsRef<str>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self::of(pairs.into_iter().map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.into())).collect())
    }

    fn of(values: BTreeMap<String, String>) -> Self {
        let label = if values.is_empty() {
            0
        } else {
            let mut hasher = DefaultHasher::new();
            values.hash(&mut hasher);
            hasher.finish()
        };
        Self { label, values }
    }

    /// Equal maps have equal labels; the reverse is likely, not certain.
    pub fn label(&self) -> u64 {
        self.label
    }

    /// The value of a setting, by lower-case name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The same with this done to the values, whose names are in lower case.
    #[must_use]
    pub fn edited(&self, edit: impl FnOnce(&mut BTreeMap<String, String>)) -> Self {
        let mut values = self.values.clone();
        edit(&mut values);
        Self::of(values)
    }

    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Name and value, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What turns `self` into `wanted`.
    pub fn difference(&self, wanted: &Self) -> Difference {
        let set = wanted
            .values
            .iter()
            .filter(|(name, value)| self.values.get(*name) != Some(*value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let reset = self.values.keys().filter(|name| !wanted.values.contains_key(*name)).cloned().collect();
        Difference { set, reset }
    }
}

impl Difference {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.reset.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fold_values_do_not() {
        let settings = Settings::new([("DateStyle", "ISO"), ("datestyle", "German"), ("a.B", "C")]);
        assert_eq!(settings.value("datestyle"), Some("German"));
        assert_eq!(settings.value("a.b"), Some("C"));
    }

    #[test]
    fn difference_sets_and_resets() {
        let have = Settings::new([("a", "1"), ("b", "2")]);
        let want = Settings::new([("b", "3"), ("c", "4")]);
        let difference = have.difference(&want);
        assert_eq!(difference.set, [("b".into(), "3".into()), ("c".into(), "4".into())]);
        assert_eq!(difference.reset, ["a".to_owned()]);
        assert!(want.difference(&want).is_empty());
        assert_ne!(have.label(), want.label());
        assert_eq!(Settings::default().label(), Settings::new(Vec::<(String, String)>::new()).label());
    }
}
