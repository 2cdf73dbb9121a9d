//! What a statement is about to do, as far as its text shows it, and why a client must keep its connection.

use std::fmt;

/// What a request intends. The text only proposes; the server's answers decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Intent {
    /// Reasons to pin that hold from the moment the statement is sent (a lock taken by a statement that fails stays).
    pub pins_when_sent: Pins,
    /// Reasons to pin that hold once the statement has completed.
    pub pins_when_done: Pins,
    /// What the statement does to prepared statements and to everything else on the connection.
    pub clears: Clears,
    /// Asks for the last value of a sequence: must not see one that another client drew.
    pub asks_sequence: bool,
    /// May draw from a sequence: its last value may be asked for next.
    pub draws_sequence: bool,
    /// The server's answer does not say which value it has drawn.
    pub hides_last_value: bool,
    /// Speaks of variables that are the session's own and that anything may have set (`@a`).
    pub looks_at_variables: bool,
    /// May change a setting, be it for its transaction only, or what a name means: what is sent behind it may be read in
    /// another way.
    pub changes_settings: bool,
    /// Reasons to pin that may end with it.
    pub may_end: Pins,
    /// Reasons to pin that nothing will be left of behind the transaction, by what the text says (`ON COMMIT DROP`): it only
    /// has to be made sure.
    pub passing: Pins,
}

impl Intent {
    /// What both intend, together.
    pub const fn and(self, other: Self) -> Self {
        let stays = self.pins_when_done.without(self.passing).and(other.pins_when_done.without(other.passing));
        Self {
            passing: self.passing.and(other.passing).without(stays),
            pins_when_sent: self.pins_when_sent.and(other.pins_when_sent),
            pins_when_done: self.pins_when_done.and(other.pins_when_done),
            clears: if matches!(self.clears, Clears::Nothing) { other.clears } else { self.clears },
            asks_sequence: self.asks_sequence || other.asks_sequence,
            draws_sequence: self.draws_sequence || other.draws_sequence,
            hides_last_value: self.hides_last_value || other.hides_last_value,
            looks_at_variables: self.looks_at_variables || other.looks_at_variables,
            changes_settings: self.changes_settings || other.changes_settings,
            may_end: self.may_end.and(other.may_end),
        }
    }
}

/// What a statement clears on its connection when it completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clears {
    /// Nothing.
    #[default]
    Nothing,
    /// `DEALLOCATE ALL`: every prepared statement.
    Statements,
    /// `DISCARD ALL`: everything.
    Everything,
}

/// Why a client keeps its server connection after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PinReason {
    /// A setting that is not replayed (`SET`, `RESET`, `set_config`).
    Setting = 0,
    /// `PREPARE` as a statement.
    PreparedStatement = 1,
    /// A temporary table, view or sequence.
    TemporaryObject = 2,
    /// A lock that belongs to the session (`pg_advisory_lock`).
    SessionLock = 3,
    /// A cursor that outlives its transaction.
    HeldCursor = 4,
    /// `LISTEN`.
    Listen = 5,
    /// The last value of a sequence will probably be asked for: up to the client's next statement, or for a second.
    Sequence = 6,
    /// Code whose effect on the session can't be seen (`DO`, `CALL`).
    OpaqueCode = 7,
    /// `LOAD`, `dblink_connect`, `setseed`: state inside the server process.
    ServerProcess = 8,
    /// A text too long, or in an encoding, that can't be read safely.
    Unreadable = 9,
    /// A prepared statement too long to be kept by the proxy.
    LargeStatement = 10,
    /// A variable of the user's (`SET @a`, `SELECT ... INTO @a`), in MySQL and MariaDB.
    UserVariable = 11,
}

impl PinReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::Setting,
        Self::PreparedStatement,
        Self::TemporaryObject,
        Self::SessionLock,
        Self::HeldCursor,
        Self::Listen,
        Self::Sequence,
        Self::OpaqueCode,
        Self::ServerProcess,
        Self::Unreadable,
        Self::LargeStatement,
        Self::UserVariable,
    ];

    /// As in metrics, logs and `pin_on`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::PreparedStatement => "prepared_statement",
            Self::TemporaryObject => "temporary_object",
            Self::SessionLock => "session_lock",
            Self::HeldCursor => "held_cursor",
            Self::Listen => "listen",
            Self::Sequence => "sequence",
            Self::OpaqueCode => "opaque_code",
            Self::ServerProcess => "server_process",
            Self::Unreadable => "unreadable",
            Self::LargeStatement => "large_statement",
            Self::UserVariable => "user_variable",
        }
    }
}

impl fmt::Display for PinReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of reasons to pin.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Pins(u16);

impl Pins {
    /// No reason at all.
    pub const NONE: Self = Self(0);

    /// One reason.
    pub const fn of(reason: PinReason) -> Self {
        Self(1 << reason as u8)
    }

    /// Adds a reason.
    pub fn add(&mut self, reason: PinReason) {
        *self = self.and(Self::of(reason));
    }

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// No reason to pin.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The reason is among them.
    pub const fn contains(self, reason: PinReason) -> bool {
        self.0 & Self::of(reason).0 != 0
    }

    /// The connection is kept for a value that may be asked for, and for nothing else.
    pub const fn are_for_a_moment(self) -> bool {
        self.0 == Self::of(PinReason::Sequence).0
    }

    /// What is here and not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What `DISCARD ALL` does not end: it is in no catalog, and in no setting.
    pub const fn behind_discard_all(self) -> Self {
        self.common(Self::of(PinReason::ServerProcess))
    }

    /// A reset of the connection undoes all of it. Else it must be closed behind its client.
    pub const fn can_be_reset(self) -> bool {
        self.lasting().is_empty()
    }

    /// Those that say so.
    pub const fn lasting(self) -> Self {
        let lasting = Self::of(PinReason::ServerProcess)
            .and(Self::of(PinReason::OpaqueCode))
            .and(Self::of(PinReason::Unreadable));
        self.common(lasting)
    }

    /// A reset undoes some of it. State inside the process stays as it is, and values of sequences are guarded otherwise.
    pub const fn need_reset(self) -> bool {
        !self.without(Self::of(PinReason::Sequence).and(Self::of(PinReason::ServerProcess))).is_empty()
    }

    /// The reasons in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(PinReason::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_back_out_of_the_set() {
        for (number, reason) in PinReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            let pins = Pins::of(reason);
            assert_eq!(pins.iter().collect::<Vec<_>>(), [reason]);
            assert!(pins.without(pins).is_empty());
        }
    }
}
