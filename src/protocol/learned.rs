//! What connections to one target have found out about those who use it, and keep for one another.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// More names are not kept.
const NAMES_MAX: usize = 32;

/// See [`ConnectOptions::learned`](super::ConnectOptions::learned).
#[derive(Debug, Default)]
pub struct Learned {
    routines_version: AtomicU64,
    is_any: AtomicBool,
    /// The one that was looked at last comes last.
    variables: Mutex<VecDeque<String>>,
}

impl Learned {
    /// A statement has been executed that may have made stored routines, or dropped some.
    pub fn made_routines(&self) {
        self.routines_version.fetch_add(1, Ordering::Relaxed);
    }

    /// As long as it is the same, nobody here has made any.
    #[must_use]
    pub fn routines_version(&self) -> u64 {
        self.routines_version.load(Ordering::Relaxed)
    }

    /// Clients have looked at these variables, which code that no text names may have set before. There is room for so many; the oldest go.
    pub fn add<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut variables = self.variables.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            variables.retain(|known| known != name);
            variables.push_back(name.to_owned());
            if variables.len() > NAMES_MAX {
                variables.pop_front();
            }
        }
        self.is_any.store(!variables.is_empty(), Ordering::Relaxed);
    }

    /// All that have been looked at.
    #[must_use]
    pub fn variables(&self) -> BTreeSet<String> {
        // Mostly there are none.
        if !self.is_any.load(Ordering::Relaxed) {
            return BTreeSet::new();
        }
        self.variables.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Learned, NAMES_MAX};

    #[test]
    fn so_many_are_kept() {
        let learned = Learned::default();
        assert!(learned.variables().is_empty());
        learned.add(["@b", "@a", "@b"].into_iter());
        assert_eq!(Vec::from_iter(learned.variables()), ["@a", "@b"]);
        let many: Vec<String> = (0..NAMES_MAX).map(|number| format!("@c{number}")).collect();
        learned.add(many.iter().map(String::as_str));
        let variables = learned.variables();
        assert!(variables.len() == NAMES_MAX && !variables.contains("@a") && variables.contains("@c31"));
    }
}
