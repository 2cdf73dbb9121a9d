//! The replies owed: their forms, and what they change once they have come.

use super::question::Question;
use super::routines::Reading;
use crate::mysql::failed::Failed;
use crate::mysql::statement::{Boundary, Id, Meaning};
use crate::protocol::{ClientError, Pins, Settings};
use crate::sql::mysql::holds::Hold;
use crate::sql::mysql::settings::Change;
use crate::sql::mysql::written::Written;
use std::sync::Arc;

/// A reply that must come.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) kind: Kind,
    /// The client does not see it.
    pub(super) hidden: bool,
    pub(super) effect: Effect,
    pub(super) stage: Stage,
    /// Packets that the client has got beside the server's.
    pub(super) added: u8,
}

/// What form the reply has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Results: an OK, or columns and rows, and more of them.
    Query,
    /// What is prepared: an OK of its own form, parameters, columns.
    Prepare,
    /// Rows of an open cursor.
    Fetch,
    /// Columns alone.
    FieldList,
    /// An OK.
    Simple,
    /// A packet of text.
    Text,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    First,
    /// So many columns of a result are still to come.
    Columns(u64),
    /// All have come; rows, or their end, follow.
    Described,
    Rows,
    /// So many parameters and columns of a prepared statement.
    Prepared {
        parameters: u16,
        columns: u16,
    },
}

/// What its completion changes.
#[derive(Debug)]
pub(super) enum Effect {
    Nothing,
    /// A statement of the client's.
    Statement {
        /// Reasons to pin that hold once it is done.
        pins: Pins,
        /// Behind its error the server has to be asked: a transaction may be open although none was before, or something of the
        /// session has changed.
        is_doubtful: bool,
        /// What it says that it does to the transaction.
        boundary: Boundary,
        /// It may ask for a file.
        loads_file: bool,
        /// The prepared statement that it executes, if something is kept for that on the server.
        uses: Option<u32>,
        /// `COMMIT RELEASE`: the server closes behind it.
        releases: bool,
        /// What it sets, that goes along with its client.
        sets: Option<Box<[Change]>>,
        /// It may change something of the session, which is seen to.
        may_change: bool,
        /// Routines may be others behind it.
        makes_routines: bool,
        /// What it leaves as `LAST_INSERT_ID()` its answer may not say.
        hides_last_value: bool,
        /// A number that its answer tells is `LAST_INSERT_ID()` unless it is one of these.
        written: Written,
        /// It may run code that it does not name, which may change more.
        hides: bool,
        /// What it leaves, or ends, by name.
        hold: Option<Box<Hold>>,
    },
    /// The client prepares a statement.
    Prepares(Box<Preparing>),
    /// A statement of the client's is prepared on this connection as well.
    PreparesAnew {
        /// The client's.
        number: u32,
        id: Id,
        /// No other client may use it.
        is_own: bool,
    },
    /// Rows are fetched of this statement's cursor.
    Fetches(u32),
    /// What is kept for this statement goes.
    Unloads(u32),
    /// The connection has these settings then.
    Applied(Arc<Settings>),
    /// The same, whether it succeeds or not.
    AppliedAtBest(Arc<Settings>),
    /// The connection has the database of these settings then, and otherwise what it had.
    Selected(Arc<Settings>),
    /// What every client is to find is there: that of the login, or `init_query` has run.
    Initialized,
    /// The connection is as new, but for `init_query`.
    Reset,
    /// The same, asked for by the client.
    ClientReset,
    /// The client's transaction is rolled back without its doing, and this is what it knows of that.
    Fails(Failed),
    /// In place of a request that was refused.
    Refuse {
        why: Box<ClientError>,
        /// It was to prepare a statement.
        prepares: bool,
    },
    /// Last values are the client's own from here on.
    Guarded,
    /// Something of another client's has given place to the client's own, or to nothing: it must not fail.
    Brings,
    /// What the client has set is known.
    Asks(Box<Question>),
    /// What a routine does is known.
    Reads(Box<Reading>),
    /// What an error has left open is known; `may_change`: of the statement that failed.
    Probes {
        may_change: bool,
    },
}

impl Effect {
    /// What it does to the transaction.
    pub(super) fn boundary(&self) -> Boundary {
        if let Self::Statement { boundary, .. } = self {
            return *boundary;
        }
        if matches!(self, Self::ClientReset) { Boundary::Ends } else { Boundary::None }
    }

    /// Which statement is the latest depends on it.
    pub(super) fn prepares(&self) -> bool {
        matches!(self, Self::Prepares(_) | Self::PreparesAnew { .. } | Self::Refuse { prepares: true, .. })
    }

    /// Whether something is still kept for this statement of the client's depends on it.
    pub(super) fn settles(&self, number: u32) -> bool {
        let (Self::Statement { uses: Some(used), .. } | Self::Fetches(used) | Self::Unloads(used)) = self else {
            return false;
        };
        *used == number
    }

    /// What has changed may be more than it says.
    pub(super) fn hides(&self) -> bool {
        matches!(self, Self::Statement { hides: true, .. })
    }

    /// A number that its answer tells is `LAST_INSERT_ID()` unless it is one of these.
    pub(super) fn written(&self) -> Written {
        if let Self::Statement { written, .. } = self { *written } else { Written::default() }
    }

    /// Whatever it changes of the session is seen to; else a change is nobody's that is known.
    pub(super) fn is_seen(&self) -> bool {
        let (Self::Statement { may_change, .. } | Self::Probes { may_change }) = self else { return true };
        *may_change
    }
}

/// What is known of a statement before it has been prepared.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) id: Id,
    /// The label of the settings it is read under.
    pub(super) under: u64,
    /// `None`: it is too long to be kept.
    pub(super) text: Option<Arc<[u8]>>,
    pub(super) meaning: Meaning,
}

impl Owed {
    pub(super) fn new(kind: Kind, hidden: bool, effect: Effect) -> Self {
        let stage = match kind {
            Kind::Fetch | Kind::FieldList => Stage::Rows,
            Kind::Query | Kind::Prepare | Kind::Simple | Kind::Text => Stage::First,
        };
        Self { kind, hidden, effect, stage, added: 0 }
    }
}
