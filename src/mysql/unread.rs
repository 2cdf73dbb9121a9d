//! What a client may have set on its connection that no text says: user variables, and settings that were given by expressions. The
//! server is asked for them before the connection goes to somebody else, and from then on they go with their client.

use crate::protocol::{PinReason, Pins};
use crate::sql::mysql::settings::{LAST_INSERT_ID, is_variable};
use std::collections::BTreeSet;

/// More are not asked for at once.
const NAMES_MAX: usize = 32;

/// By name, a user variable's with its `@`.
#[derive(Debug, Default)]
pub struct Unread {
    names: BTreeSet<String>,
    /// Some can't be asked for: of these reasons to pin.
    unknown: Pins,
}

impl Unread {
    /// Reasons that it knows of.
    pub const OWN: Pins = Pins::of(PinReason::UserVariable).and(Pins::of(PinReason::Setting));

    /// These may have been set.
    pub fn add(&mut self, names: Vec<String>) {
        self.names.extend(names);
        if self.names.len() > NAMES_MAX + usize::from(self.names.contains(LAST_INSERT_ID)) {
            self.unknown = self.unknown.and(self.reasons());
            self.names.clear();
        }
    }

    /// Nobody knows all that there is, as far as it is for these reasons.
    pub fn lose(&mut self, reasons: Pins) {
        self.unknown = self.unknown.and(reasons.common(Self::OWN));
    }

    /// All have been asked for, and nobody knows what there is for these reasons.
    pub fn is_answered(&mut self, unknown: Pins) {
        self.names.clear();
        self.lose(unknown);
    }

    /// What can be asked for, in the order of names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// What they pin for, if nothing is asked.
    pub fn reasons(&self) -> Pins {
        let last_value = self.names.get(LAST_INSERT_ID).map_or(Pins::NONE, |name| Pins::of(reason(name)));
        self.lasting().and(last_value)
    }

    /// The same without a last value, which nobody misses who loses the connection.
    pub fn lasting(&self) -> Pins {
        let lasting = self.names().filter(|name| *name != LAST_INSERT_ID);
        lasting.fold(self.unknown, |reasons, name| reasons.and(Pins::of(reason(name))))
    }

    /// A last value is not asked for.
    pub fn forget_last_value(&mut self) {
        self.names.remove(LAST_INSERT_ID);
    }

    /// Reasons for which asking is of no use.
    pub fn unknown(&self) -> Pins {
        self.unknown
    }
}

/// Why a client keeps its connection for it.
pub fn reason(name: &str) -> PinReason {
    if is_variable(name) { PinReason::UserVariable } else { PinReason::Setting }
}
