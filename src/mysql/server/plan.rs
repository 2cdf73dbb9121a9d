//! What becomes of the state that a text makes: what goes along with its client, what the server is asked for, what is told apart by name
//! and keeps the client as long as it is there, and what keeps it until it leaves.

use super::hidden::Looks;
use super::outcome::{PARSE_ERROR, STOPPED};
use super::routines::{self, Called};
use super::{Client, Server};
use crate::mysql::client::is_opaque;
use crate::mysql::held::Held;
use crate::mysql::statement::Meaning;
use crate::mysql::unread::Unread;
use crate::protocol::{ClientError, ClientSide, Intent, Out, PinReason, Pins, Settings};
use crate::sql::mysql::holds::{self, Hold, Thing};
use crate::sql::mysql::mentions::{self, Mentions};
use crate::sql::mysql::settings::{self, Change, PREPARED, SCHEMA, SELECT_LIMIT};
use crate::sql::mysql::written::Written;
use crate::sql::mysql::{self as sql, Dialect};

/// Statements that SQL has prepared and that go with a client, and the bytes of their texts.
const PREPARED_MAX: usize = 32;
const PREPARED_BYTES_MAX: usize = 64 << 10;

/// ER_LOCK_WAIT_TIMEOUT
const LOCK_WAIT_TIMEOUT: &str = "1205";

/// Of a text that is about to be sent.
#[derive(Default)]
pub(super) struct Plan {
    /// Without what goes along.
    pub(super) intent: Intent,
    /// Its reasons to pin of which the things themselves are told apart.
    pub(super) told: Pins,
    /// Names that the server is to be asked for.
    pub(super) unread: Vec<String>,
    /// What it sets, that goes along.
    pub(super) sets: Option<Vec<Change>>,
    pub(super) hold: Option<Hold>,
    /// What it calls that is known, or must be read first.
    called: Called,
    /// Nobody knows what routines are behind it.
    forgets_routines: bool,
    /// Routines may be others behind it, on all connections.
    pub(super) makes_routines: bool,
    /// Temporary tables may have other names behind it.
    renames: bool,
    /// Texts may be written in another character set behind it.
    may_set_charset: bool,
    /// It may say, among other things, whether the client is to be told of changes.
    may_track: bool,
    /// It may run code that it does not name: of triggers, of views.
    pub(super) hides: bool,
    /// The server may tell nothing of what it changes.
    is_silent: bool,
    /// What must not be another client's.
    looks: Looks,
    /// It may ask for a file.
    pub(super) is_load_local: bool,
    /// It may be of a transaction of XA's.
    pub(super) has_xa: bool,
    /// Numbers that it may write out.
    pub(super) written: Written,
}

impl Plan {
    /// What comes behind it is read by what becomes of it.
    pub(super) fn is_awaited(&self) -> bool {
        self.sets.is_some() || matches!(self.hold, Some(Hold::Begins(_) | Hold::Prepares { .. }))
    }

    /// Something of the session may change, of which this says what.
    pub(super) fn may_change(&self) -> bool {
        let pins = self.intent.pins_when_sent.and(self.intent.pins_when_done);
        // What is executed by name says that by itself.
        let holds = self.hold.as_ref().is_some_and(|hold| !matches!(hold, Hold::Executes(_)));
        self.renames || self.sets.is_some() || !self.unread.is_empty() || holds || !pins.is_empty()
    }
}

impl Server {
    /// Of a text as its scan has found it. `is_one`: it is here to its end, and is one statement.
    pub(super) fn plan(
        &self,
        (text, mentioned): (&[u8], Mentions),
        is_one: bool,
        is_unknown: bool,
        meaning: Meaning,
        client: &Client,
    ) -> Result<Plan, ClientError> {
        let Meaning { mut intent, mut is_load_local, mut has_xa, mut written, .. } = meaning;
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        let is_plain = is_one && !is_unknown && leaves_nothing(intent) && mentioned.are_plain();
        if is_plain && !client.held.awaits_transaction() && !client.held.has_table() {
            // As most do.
            return Ok(Plan { intent, hides: mentioned.runs_code, is_load_local, has_xa, written, ..Plan::default() });
        }
        let may_hold = !pins.and(intent.may_end).common(Held::OWN).is_empty()
            || pins.contains(PinReason::Setting)
            || client.held.awaits_transaction();
        let mut hold = if may_hold && is_one { holds::of(text) } else { None };
        if is_one && is_unknown {
            hold = Some(Hold::Unknown);
            // Mostly it is a mistake, and no reason to expect that its client asks for last values.
            (intent.asks_sequence, intent.draws_sequence, intent.hides_last_value) = (false, false, false);
            written = Written::default();
        }
        if hold == Some(Hold::NoUserLocks) && may_be_without_rows(text, client) {
            hold = None;
        }
        let mut told = hold.as_ref().map_or(Pins::NONE, Held::told_by);
        let mut prepared = None;
        match &mut hold {
            Some(Hold::Prepares { name, text }) => {
                if !self.goes_along(name, text.as_deref(), client) {
                    *text = None;
                }
                if text.is_some() {
                    without(&mut intent, told);
                }
            }
            Some(Hold::Executes(name)) => {
                // Another one of that name may have come unseen.
                let known = client.prepared_by_sql(name).filter(|_| !client.held.has_statement(name));
                if let Some(text) = known.map(str::as_bytes) {
                    let dialect = self.dialect(client);
                    let statement =
                        sql::classify(text, dialect).or(sql::classify(text, Dialect { ansi_quotes: true, ..dialect }));
                    if statement.has_kill {
                        return Err(ClientError::Unsupported { feature: "KILL" });
                    }
                    let looks_at_variables = intent.looks_at_variables || statement.intent.looks_at_variables;
                    intent = Intent { looks_at_variables, ..statement.intent };
                    (is_load_local, has_xa) = (statement.is_load_local, statement.has_xa);
                    // What its parameters are the text does not say.
                    written = if statement.written.has_parameters { Written::ANY } else { statement.written };
                    prepared = Some(text);
                    // What it leaves is not told apart.
                    told = Pins::NONE;
                } else if !client.held.has_statement(name) && !client.has_opaque() {
                    // There is none.
                    (intent, written) = (Intent::default(), Written::default());
                } else {
                    // It may be any.
                    (is_load_local, has_xa, written) = (true, true, Written::ANY);
                }
            }
            Some(Hold::Begins(_) | Hold::Ends(_) | Hold::UserLocks(_) | Hold::NoUserLocks | Hold::Unknown) | None => {}
        }
        let (done, mentioned) = prepared.map_or((text, mentioned), |prepared| (prepared, Mentions::of(prepared)));
        let sets = if is_one && mentioned.may_set { self.sets(done, client) } else { None };
        if sets.is_some() {
            without(&mut intent, Pins::of(PinReason::Setting));
        }
        let called = if is_one && !is_unknown { self.called(done, &mut intent, client) } else { Called::default() };
        let mut unread = if is_one { readable(done, &mut intent) } else { Vec::new() };
        if prepared.is_some_and(|prepared| mentions::has(prepared, "call")) {
            // OUT parameters: `EXECUTE s USING @a`.
            match mentions::variables(text) {
                Some(names) => unread.extend(names),
                None => intent.pins_when_sent.add(PinReason::UserVariable),
            }
        }
        let looks = self.looks((text, prepared), mentioned, intent, !unread.is_empty(), &called.variables, client);
        unread.extend_from_slice(&called.variables);
        let pins = intent.pins_when_sent.and(intent.pins_when_done);
        let forgets_routines = mentioned.may_make || !is_one || is_opaque(pins);
        let makes_routines = forgets_routines && routines::makes_routines(done);
        let renames = client.held.may_rename(done);
        let may_set_charset = may_set_charset(done, intent);
        // Routines have texts that fire triggers.
        let hides = !called.routines.is_empty() || mentioned.runs_code;
        let is_silent = sets.is_none() && mentioned.tracks;
        let may_track = is_silent && intent.changes_settings;
        Ok(Plan {
            intent,
            told,
            unread,
            sets,
            hold,
            called,
            forgets_routines,
            makes_routines,
            renames,
            may_set_charset,
            may_track,
            hides,
            is_silent,
            looks,
            is_load_local,
            has_xa,
            written,
        })
    }

    /// What the text sets, if that can be had on another connection.
    fn sets(&self, text: &[u8], client: &Client) -> Option<Vec<Change>> {
        let used = settings::used(text).map(|name| vec![self.uses(name)]);
        let sets = used.or_else(|| settings::changes(text)).filter(|sets| !sets.is_empty());
        sets.filter(|sets| self.follows(sets, client))
    }

    /// The text is sent, if nothing must come first (then: false), and what keeps its client is known from here on.
    pub(super) fn carry_out(
        &mut self,
        plan: &Plan,
        text: &[u8],
        client: &mut Client,
        out: &mut Out,
    ) -> Result<bool, ClientError> {
        if !plan.called.unread.is_empty() {
            self.read_routines(&plan.called.unread, client, out);
            return Ok(false);
        }
        if !self.hides_from(&plan.looks, client, out) {
            return Ok(false);
        }
        if !self.will_ask(plan.sets.as_deref().unwrap_or_default(), client, out)
            || !self.begin(plan.intent, Some((plan.told, text)), client, out)?
        {
            return Ok(false);
        }
        if plan.called.asks {
            self.guard_values(client, out);
        }
        self.uses_routines(&plan.called.routines);
        if plan.forgets_routines {
            self.forget_routines();
        }
        if plan.makes_routines {
            // And again once it is done: until then they are the old ones, and who knows whether that will be told.
            self.options.learned.made_routines();
        }
        client.may_have_set(plan.unread.clone());
        if plan.renames {
            client.held.lose_tables();
        }
        client.charset_unknown |= plan.may_set_charset;
        // The server does as it was told, and nobody else gets the connection.
        client.tracks_state |= plan.may_track;
        self.is_soiled |= plan.is_silent;
        if let Some(Hold::UserLocks(names)) = &plan.hold {
            client.held.may_lock(names);
            self.settle_held(client);
        }
        Ok(true)
    }

    /// A statement that SQL prepares can be prepared on another connection.
    fn goes_along(&self, name: &str, text: Option<&str>, client: &Client) -> bool {
        let Some(text) = text else { return false };
        let own = format!("{PREPARED}{name}");
        let others = || client.settings().iter().filter(|(other, _)| other.starts_with(PREPARED) && *other != own);
        let bytes = text.len() + others().map(|(_, text)| text.len()).sum::<usize>();
        !self.has_moved && others().count() < PREPARED_MAX && bytes <= PREPARED_BYTES_MAX
    }

    /// A statement of the client's has succeeded.
    pub(super) fn is_done(&mut self, hold: Hold, client: &mut Client) {
        match hold {
            Hold::Begins(things) => {
                let things: Vec<Thing> = things.into_iter().map(|thing| self.placed(thing, client)).collect();
                client.held.begin(things);
            }
            Hold::Ends(things) => {
                for thing in things {
                    // It may be another database's.
                    if self.has_moved && matches!(thing, Thing::Table(None, _)) {
                        continue;
                    }
                    if let Thing::Statement(name) = &thing {
                        self.forget_prepared(name, client);
                    }
                    let thing = self.placed(thing, client);
                    client.held.end(&[thing]);
                }
            }
            Hold::NoUserLocks => client.held.end_user_locks(),
            Hold::Prepares { name, text } => {
                self.forget_prepared(&name, client);
                client.held.end(&[Thing::Statement(name.clone())]);
                match text {
                    Some(text) => {
                        let edit = |settings: &Settings| {
                            settings.edited(|values| _ = values.insert(format!("{PREPARED}{name}"), text.clone()))
                        };
                        self.has_now(edit(&self.applied), edit(client.settings()), client);
                    }
                    None => client.held.begin([Thing::Statement(name)]),
                }
            }
            Hold::Unknown => {
                client.pin(Pins::of(PinReason::OpaqueCode), b"");
                self.has_moved_unread = false;
            }
            Hold::UserLocks(_) | Hold::Executes(_) => {}
        }
        self.settle_held(client);
    }

    /// A statement of the client's has failed.
    pub(super) fn has_failed(&mut self, hold: &Hold, code: &str, client: &mut Client) {
        if *hold == Hold::Unknown {
            let was_opaque = client.pins.contains(PinReason::OpaqueCode);
            client.pins.add(PinReason::OpaqueCode);
            client.held.asks_mode |= code == PARSE_ERROR && !was_opaque;
            self.has_moved_unread &= client.held.asks_mode;
        }
        if let Hold::Begins(things) = hold
            && things.contains(&Thing::TableLocks)
            && (code == LOCK_WAIT_TIMEOUT || STOPPED.contains(&code))
        {
            // MySQL's FLUSH TABLES WITH READ LOCK has its lock by then.
            client.held.begin([Thing::TableLocks]);
            self.settle_held(client);
        }
        if let Hold::Prepares { name, .. } = hold {
            // So has the one of this name that was there.
            self.forget_prepared(name, client);
            client.held.end(&[Thing::Statement(name.clone())]);
            self.settle_held(client);
        }
    }

    /// A statement has changed something of the session, and its text does not say so: a trigger may have.
    pub(super) fn has_changed_unseen(&mut self, client: &mut Client) {
        if !client.has_opaque() {
            client.pin(Pins::of(PinReason::UserVariable), b"");
            // It may be what texts mean.
            self.has_moved = true;
            self.has_moved_unread = false;
        }
    }

    fn forget_prepared(&mut self, name: &str, client: &mut Client) {
        let name = format!("{PREPARED}{name}");
        if client.settings().value(&name).is_some() {
            let edit = |settings: &Settings| settings.edited(|values| _ = values.remove(&name));
            self.has_now(edit(&self.applied), edit(client.settings()), client);
        }
    }

    /// A table without its database is of the selected one.
    fn placed(&self, thing: Thing, client: &Client) -> Thing {
        match thing {
            Thing::Table(None, name) => {
                let database = client.settings().value(SCHEMA).unwrap_or(&self.options.database);
                Thing::Table(Some(database.to_owned()), name)
            }
            other @ (Thing::Table(Some(_), _)
            | Thing::UserLock(_)
            | Thing::TableLocks
            | Thing::InstanceLock
            | Thing::Handler(_)
            | Thing::Statement(_)
            | Thing::NextTransaction) => other,
        }
    }

    /// The client keeps its connection for what is there, and for what the server has not been asked yet.
    pub(super) fn settle_held(&self, client: &mut Client) {
        client.pins =
            client.pins.without(Held::OWN.and(Unread::OWN)).and(client.held.reasons()).and(client.unread.reasons());
        self.settle_statements(client);
    }
}

/// Nothing of it has to be looked at closer.
fn leaves_nothing(intent: Intent) -> bool {
    let reasons = intent.pins_when_sent.and(intent.pins_when_done).and(intent.may_end);
    reasons.is_empty() && !intent.asks_sequence && !intent.looks_at_variables && !intent.changes_settings
}

/// A text that keeps its client for what it sets may set what texts are written in.
fn may_set_charset(text: &[u8], intent: Intent) -> bool {
    let has = |word| mentions::has(text, word);
    intent.pins_when_sent.and(intent.pins_when_done).contains(PinReason::Setting) && (has("char") || has("names"))
}

/// A question of one row may be answered by none.
fn may_be_without_rows(text: &[u8], client: &Client) -> bool {
    let limits = client.settings().iter().map(|(name, _)| name).chain(client.unread.names());
    mentions::begins(text, "select") && limits.into_iter().any(|name| name == SELECT_LIMIT)
}

/// User variables that a text may set, if the server can be asked for them: they are no reason to pin then.
fn readable(text: &[u8], intent: &mut Intent) -> Vec<String> {
    let pins = intent.pins_when_sent.and(intent.pins_when_done);
    // Who keeps its connection for these will find all there.
    if is_opaque(pins) || !pins.contains(PinReason::UserVariable) {
        return Vec::new();
    }
    let Some(names) = mentions::variables(text) else { return Vec::new() };
    without(intent, Pins::of(PinReason::UserVariable));
    names
}

/// These reasons to pin are none.
fn without(intent: &mut Intent, reasons: Pins) {
    intent.pins_when_sent = intent.pins_when_sent.without(reasons);
    intent.pins_when_done = intent.pins_when_done.without(reasons);
}
