//! Procedures and functions that clients' texts call: what a connection knows of them.
//!
//! One that is new here is read before the statement that calls it is sent (`SHOW CREATE PROCEDURE`, which neither begins a transaction
//! nor sees one), and so are those that it calls. If all of them are calm (see [`body`]), the statement is no code that
//! can't be seen: it leaves what they say. Somebody may make one anew; so each is read again after so many uses.

use super::owed::Effect;
use super::{Client, Server};
use crate::mysql::frame::Reader;
use crate::protocol::{ClientSide, Intent, Out, PinReason, Pins};
use crate::sql::mysql::body::{self, Calm};
use crate::sql::mysql::calls::{self, Routine, RoutineKind};
use crate::sql::mysql::mentions;
use crate::sql::mysql::settings::{RESULTS, SCHEMA};
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many are known at once.
const ROUTINES_MAX: usize = 256;
/// Uses of one until it is read again.
const USES_MAX: u32 = 1_000;
/// A statement that calls more, with all that these call, is code that can't be seen.
const CALLED_MAX: usize = 32;
/// ER_SP_DOES_NOT_EXIST; also said to those who may not call it.
const NO_ROUTINE: &str = "1305";

/// Character sets in which the bytes of ASCII are ASCII's letters, and nothing else becomes one of these.
const FAITHFUL: [&[u8]; 5] = [b"utf8mb4", b"utf8mb3", b"utf8", b"latin1", b"ascii"];

/// Those that are known.
#[derive(Debug, Default)]
pub(super) struct Routines {
    known: BTreeMap<Routine, Known>,
    /// See [`Learned::routines_version`](crate::protocol::Learned::routines_version).
    version: u64,
}

#[derive(Debug)]
struct Known {
    /// `None`: it may do anything.
    calm: Option<Arc<Calm>>,
    uses: u32,
}

/// A question for one, and its answer.
#[derive(Debug)]
pub(super) struct Reading {
    routine: Routine,
    /// Its definition is written in what keeps ASCII apart.
    is_plain: bool,
    /// There is none.
    is_missing: bool,
    row: Vec<Option<Vec<u8>>>,
}

/// What a statement calls.
#[derive(Debug, Default)]
pub(super) struct Called {
    /// Those to be read first.
    pub(super) unread: Vec<Routine>,
    /// All of them, if there is nothing to be read.
    pub(super) routines: Vec<Routine>,
    /// User variables that the server is to be asked for behind them.
    pub(super) variables: Vec<String>,
    /// They may want the client's own last values.
    pub(super) asks: bool,
}

impl Reading {
    pub(super) fn new(routine: Routine, is_plain: bool) -> Self {
        Self { routine, is_plain, is_missing: false, row: Vec::new() }
    }

    /// The row has come.
    pub(super) fn row(&mut self, payload: &[u8]) {
        /// Its name, its `sql_mode`, itself, and the character set that it was written in; more follows.
        const COLUMNS: usize = 4;
        let mut reader = Reader(payload);
        let values = std::iter::from_fn(|| reader.value()).take(COLUMNS.saturating_sub(self.row.len()));
        self.row.extend(values.map(|value| value.map(<[u8]>::to_vec)));
    }

    /// There is none, or none that can be had.
    pub(super) fn refused(self, code: &str) -> Self {
        Self { row: Vec::new(), is_missing: code == NO_ROUTINE, ..self }
    }

    /// What it says. Who may not see it is told nothing.
    fn calm(&self, mariadb: bool) -> Option<Calm> {
        if self.is_missing && self.routine.may_be_built_in(mariadb) {
            return Some(Calm::default());
        }
        let [_, Some(modes), Some(definition), Some(charset)] = self.row.as_slice() else { return None };
        // The server turns it into the client's, and makes quotes and backslashes of what was none in others (`sjis`, `armscii8`).
        let is_faithful = FAITHFUL.iter().any(|own| charset.eq_ignore_ascii_case(own));
        let is_readable = self.is_plain || definition.is_ascii();
        body::read(self.routine.kind, definition, modes, mariadb).filter(|_| is_readable && is_faithful)
    }
}

impl Server {
    /// The routines that the text of a statement calls, if these are all of the code in it that can't be seen: then that is no reason of
    /// its to pin.
    pub(super) fn called(&self, text: &[u8], intent: &mut Intent, client: &Client) -> Called {
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        // Who keeps its connection for it anyway, or never.
        let is_allowed = client.gate.allowed().contains(PinReason::OpaqueCode);
        let is_kept = client.has_opaque() || pins.contains(PinReason::Unreadable) || is_allowed;
        // Nobody knows what database it has; or the next statement has something said of it alone, a question too.
        let is_lost = self.has_moved && !self.has_moved_unread || client.held.awaits_transaction();
        if !pins.contains(PinReason::OpaqueCode) || is_kept || is_lost {
            return Called::default();
        }
        let Some(calls) = calls::calls(text, self.dialect(client)) else { return Called::default() };
        let schema = client.settings().value(SCHEMA).unwrap_or(&self.options.database);
        let Some(called) = self.all_called(&calls.routines, schema) else { return Called::default() };
        let reasons = Pins::of(PinReason::OpaqueCode);
        intent.pins_when_sent = intent.pins_when_sent.without(reasons);
        intent.pins_when_done = intent.pins_when_done.without(reasons);
        let calms = || called.routines.iter().filter_map(|routine| self.routines.known.get(routine)?.calm.as_ref());
        intent.asks_sequence = calls.asks || calms().any(|calm| calm.asks);
        let variables = calms().flat_map(|calm| calm.variables.clone()).collect();
        // What a function makes of it is gone at its end.
        let has_procedure = called.routines.iter().any(|routine| routine.kind == RoutineKind::Procedure);
        let makes_id = calms().any(|calm| calm.sets_id || has_procedure && calm.makes_id);
        intent.hides_last_value = calls.hides_id || makes_id;
        let asks = calms().any(|calm| calm.asks_id || calm.asks);
        Called { variables, asks, ..called }
    }

    /// These, and what they call. `None`: they may do anything.
    fn all_called(&self, routines: &[Routine], schema: &str) -> Option<Called> {
        let mut called = Called::default();
        let mut waiting: Vec<Routine> = Vec::new();
        self.find(routines, schema, &mut waiting)?;
        while let Some(routine) = waiting.pop() {
            if called.routines.contains(&routine) || called.unread.contains(&routine) {
                continue;
            }
            if called.routines.len() + called.unread.len() == CALLED_MAX {
                return None;
            }
            match self.routines.known.get(&routine) {
                None => called.unread.push(routine),
                Some(known) => {
                    let schema = routine.schema.clone().unwrap_or_default();
                    self.find(&known.calm.as_ref()?.routines, &schema, &mut waiting)?;
                    called.routines.push(routine);
                }
            }
        }
        Some(called)
    }

    /// Where they are, called from this database.
    fn find(&self, routines: &[Routine], schema: &str, found: &mut Vec<Routine>) -> Option<()> {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'`';
        for routine in routines {
            let own = routine.schema.as_deref().unwrap_or(schema);
            // Without a database there is no stored one that is meant.
            if own.is_empty() && routine.may_be_built_in(self.is_mariadb) {
                continue;
            }
            // There is none, or it has another name here than there.
            if own.is_empty() || !own.bytes().all(is_plain) {
                return None;
            }
            // The server goes there and back, and tells of that as of any change. In MariaDB it may be a package's name, of one in the
            // database of that name as well.
            if own != schema || self.is_mariadb && routine.schema.is_some() {
                return None;
            }
            found.push(Routine { schema: Some(own.to_owned()), ..routine.clone() });
        }
        Some(())
    }

    /// Asks for what these are.
    pub(super) fn read_routines(&mut self, routines: &[Routine], client: &Client, out: &mut Out) {
        let is_plain = !client.is_multibyte_unsafe() && client.settings().value(RESULTS).is_none();
        for routine in routines {
            let kind = if routine.kind == RoutineKind::Procedure { "PROCEDURE" } else { "FUNCTION" };
            let schema = routine.schema.as_deref().unwrap_or_default();
            let text = format!("SHOW CREATE {kind} `{schema}`.`{}`", routine.name);
            let reading = Reading::new(routine.clone(), is_plain);
            out.write(|out| self.query(text.as_bytes(), Effect::Reads(Box::new(reading)), out));
            self.tally.questions += 1;
        }
    }

    /// The server has answered, or refused to.
    pub(super) fn has_read(&mut self, reading: Reading) {
        let calm = reading.calm(self.is_mariadb).map(Arc::new);
        if self.routines.known.len() == ROUTINES_MAX {
            self.routines.known.clear();
        }
        self.routines.known.insert(reading.routine, Known { calm, uses: 0 });
    }

    /// A statement is sent that calls these.
    pub(super) fn uses_routines(&mut self, routines: &[Routine]) {
        for routine in routines {
            let Some(known) = self.routines.known.get_mut(routine) else { continue };
            known.uses += 1;
            if known.uses == USES_MAX {
                self.routines.known.remove(routine);
            }
        }
    }

    /// A client gets the connection: on others routines may have been made anew since.
    pub(super) fn renew_routines(&mut self) {
        let version = self.options.learned.routines_version();
        if self.routines.version != version {
            self.routines = Routines { known: BTreeMap::new(), version };
        }
    }

    /// Nobody knows what they are.
    pub(super) fn forget_routines(&mut self) {
        self.routines.known.clear();
    }
}

/// Of a text that makes something: its words speak of routines, or of all that is in a database.
pub(super) fn makes_routines(text: &[u8]) -> bool {
    let words = ["procedure", "function", "package", "database", "schema"];
    words.into_iter().any(|word| mentions::has(text, word))
}
