//! What a client's statements leave on its connection: settings, and whatever else pins.
//!
//! Texts only raise a suspicion: a pin, from the moment a statement is sent or has completed. Once the transaction is over
//! the suspicion is settled, in one of two ways. A segment of nothing but plain `SET`s, `RESET`s and `set_config`s with
//! literal values, outside a transaction block, that did not fail: its outcome is known from its texts. Everything else,
//! with transactions, savepoints, rollbacks, functions and what they did: the server is asked what is there now. So there is
//! no model of the server's own stack of settings here that could disagree with it.

use super::functions::{self, Call, redefines};
use super::words::is_same;
use super::{Server, Transaction};
use crate::postgres::client::Client;
use crate::postgres::message;
use crate::postgres::statement::Form;
use crate::protocol::{ClientSide, Intent, PinReason, Pins, Settings, Violation};
use crate::sql;
use crate::sql::settings::{Change, Changes, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of the application's own settings that are asked for; one that sets more keeps its connection.
const NAMES_MAX: usize = 200;
/// Changes of a segment that are kept; what more of them come to is asked for.
const CHANGES_MAX: usize = 1_000;
/// A number with its unit, or a word; of longer values no server has words of its own.
const WRITTEN_BYTES_MAX: usize = 100;
/// Rows that an answer may have, and bytes of it. More is no session's settings.
const ROWS_MAX: usize = 2_000;
const BYTES_MAX: usize = 4 << 20;

/// What can be asked for, and so what a pin ends with.
const VERIFIABLE: Pins = Pins::of(PinReason::Setting)
    .and(Pins::of(PinReason::PreparedStatement))
    .and(Pins::of(PinReason::TemporaryObject))
    .and(Pins::of(PinReason::SessionLock))
    .and(Pins::of(PinReason::HeldCursor))
    .and(Pins::of(PinReason::Listen))
    .and(OPAQUE);
/// Code may have done anything: everything is asked for.
const OPAQUE: Pins = Pins::of(PinReason::OpaqueCode);

/// What there is to know of each reason but settings: rows of its name, if it holds. Names and operators are the system's
/// whatever `search_path` says.
const PRESENCE: &[(PinReason, &str)] = &[
    // Those that the client has by name are the proxy's.
    (
        PinReason::PreparedStatement,
        "pg_catalog.pg_prepared_statements WHERE from_sql AND NOT (pg_catalog.left(name, 3) OPERATOR(pg_catalog.=) \
         'sg_'::pg_catalog.text AND pg_catalog.length(name) OPERATOR(pg_catalog.=) 35)",
    ),
    // Whatever lies in a schema depends on it.
    (
        PinReason::TemporaryObject,
        "pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
         AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()",
    ),
    // Outside a transaction only those of the session are left.
    (
        PinReason::SessionLock,
        "pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
         AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
    ),
    (PinReason::HeldCursor, "pg_catalog.pg_cursors WHERE is_holdable"),
    (PinReason::Listen, "pg_catalog.pg_listening_channels()"),
];

/// Settings of the session, with what kind of value they have (see `words.rs`); the role, which does not stand there; and the application's own, which neither do.
const SETTINGS: &str = "SELECT pg_catalog.concat('setting ', vartype, ' ', unit), name, setting FROM pg_catalog.pg_settings \
     WHERE source OPERATOR(pg_catalog.=) 'session'::pg_catalog.text \
     UNION ALL SELECT 'setting'::pg_catalog.text, 'role'::pg_catalog.text, pg_catalog.current_setting('role') \
     UNION ALL SELECT 'setting'::pg_catalog.text, n, pg_catalog.current_setting(n, true) \
     FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n";

/// How many statements the server has under the proxy's names, made by Parse: code may have taken some away, or put others in
/// their place (by `PREPARE`).
const OWN: &str = "SELECT 'own'::pg_catalog.text, pg_catalog.count(*)::pg_catalog.text, NULL FROM \
     pg_catalog.pg_prepared_statements WHERE NOT from_sql AND pg_catalog.left(name, 3) \
     OPERATOR(pg_catalog.=) 'sg_'::pg_catalog.text AND pg_catalog.length(name) OPERATOR(pg_catalog.=) 35";

/// What is suspected of the present client.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Reasons to pin that have come up since the server was last asked.
    suspects: Pins,
    /// What the client's present segment does to settings.
    segment: Segment,
    /// What became of settings in a segment that is over is not known from its texts.
    in_doubt: bool,
    /// Settings that the client began with and that a query of its has reset: to the server's own value, which is not
    /// where they are to go back to.
    due: Vec<(String, String)>,
    /// The values that texts of the client's give settings, as they are written there, if they do.
    written: BTreeMap<String, String>,
    /// The application's own settings that may have been changed.
    names: BTreeSet<String>,
    /// There may be more of them, of names that nobody knows.
    names_unknown: bool,
    /// There was code that was not called by name alone: whatever else, it may have done something.
    has_code: bool,
    /// What was asked for, with these names, and the answer so far.
    asked: Pins,
    asked_has_code: bool,
    asked_names: BTreeSet<String>,
    found: Found,
}

/// What a segment of requests does to settings.
#[derive(Debug, Default)]
struct Segment {
    changes: Vec<Change>,
    /// Statements that may change settings, as far as they have completed.
    changing: usize,
    /// Those of them whose changes are listed.
    listed: usize,
    /// Something failed, or a transaction began or ended in the middle.
    is_mixed: bool,
    has_failed: bool,
    /// What was reset has been put back to where the client began.
    is_put_back: bool,
    /// All settings have been put back for the rest of it.
    is_restored: bool,
    /// Of what it has reset.
    due: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug, Default)]
struct Found {
    reasons: Pins,
    /// Names of functions that are code.
    code: BTreeSet<Box<[u8]>>,
    /// Statements under the proxy's names.
    own: Option<usize>,
    /// With the kind of each.
    settings: BTreeMap<String, (String, String)>,
    rows: usize,
    bytes: usize,
}

impl State {
    /// The texts of a request that is being sent change these settings, if nothing fails.
    pub(super) fn may_change(&mut self, changes: &Changes) {
        for change in &changes.list {
            if let Value::Known(value) = &change.value
                && self.written.len() < NAMES_MAX
                && value.len() <= WRITTEN_BYTES_MAX
            {
                self.written.insert(change.name.clone(), value.clone());
            }
        }
        for change in changes.list.iter().filter(|change| change.name.contains('.')) {
            if self.names.len() >= NAMES_MAX {
                self.names_unknown = true;
                return;
            }
            self.names.insert(change.name.clone());
        }
        self.names_unknown |= changes.has_others;
    }

    /// Settings of any name may be changed.
    pub(super) fn may_change_any(&mut self) {
        self.names_unknown = true;
    }

    /// A request that may end these pins is being sent.
    pub(super) fn may_end(&mut self, pins: Pins) {
        self.suspects = self.suspects.and(pins);
    }

    /// A statement that may change settings is there to be executed.
    pub(super) fn is_changing(&mut self) {
        self.segment.changing += 1;
    }

    /// It has completed.
    pub(super) fn has_changed(&mut self, changes: Option<&Changes>) {
        let has_room = self.segment.changes.len() < CHANGES_MAX;
        if let Some(changes) = changes.filter(|changes| has_room && changes.are_known()) {
            self.segment.changes.extend(changes.list.iter().cloned());
            self.segment.listed += 1;
        }
    }

    /// A transaction begins or ends.
    pub(super) fn mixes(&mut self) {
        self.segment.is_mixed = true;
    }

    /// The segment does not do all that its texts say: something fails, or is taken back.
    pub(super) fn fails(&mut self) {
        self.segment.is_mixed = true;
        self.segment.has_failed = true;
    }

    /// A query is done that has reset these.
    pub(super) fn has_reset(&mut self, due: Vec<(String, String)>) {
        self.segment.due.extend(due);
    }

    /// What was reset has been put back.
    pub(super) fn puts_back(&mut self) {
        self.segment.is_put_back = true;
    }

    /// All settings are put back in the middle of the segment; false: they have been already.
    pub(super) fn restores(&mut self) -> bool {
        !std::mem::replace(&mut self.segment.is_restored, true)
    }

    /// They have been put back in the segment that is being sent.
    pub(super) fn is_restored(&self) -> bool {
        self.segment.is_restored
    }

    /// A row of the answer.
    pub(super) fn row(&mut self, body: &[u8]) -> Result<(), Violation> {
        let malformed = || Violation::MalformedFrame(message::from_server::DATA_ROW);
        self.found.rows += 1;
        self.found.bytes += body.len();
        if self.found.rows > ROWS_MAX || self.found.bytes > BYTES_MAX {
            return Err(Violation::FrameTooLong);
        }
        let mut fields = message::data_row(body).ok_or_else(malformed)?.into_iter();
        let mut field = || fields.next().ok_or_else(malformed);
        let kind = field()?.ok_or_else(malformed)?;
        if let Some(reason) = PinReason::ALL.into_iter().find(|reason| reason.name().as_bytes() == kind)
            && reason != PinReason::Setting
        {
            self.found.reasons.add(reason);
            return Ok(());
        }
        let name = field()?.ok_or_else(malformed)?;
        if kind == b"own" {
            self.found.own = std::str::from_utf8(name).ok().and_then(|count| count.parse().ok());
            return Ok(());
        }
        if kind == b"function" {
            if field()?.is_some() {
                self.found.code.insert(name.into());
            }
            return Ok(());
        }
        // A setting that nobody has ever given a value has none.
        let Some(value) = field()? else { return Ok(()) };
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok("role"), Ok("none")) => {}
            (Ok(name), Ok(value)) => {
                let kind = kind.strip_prefix(b"setting ").and_then(|kind| std::str::from_utf8(kind).ok());
                let kind = kind.unwrap_or_default().trim_end().to_owned();
                self.found.settings.insert(name.to_ascii_lowercase(), (value.to_owned(), kind));
            }
            // In another encoding than ours it could not be put on another connection.
            _other => self.names_unknown = true,
        }
        Ok(())
    }

    /// The server did not answer: what was suspected stands.
    pub(super) fn is_refused(&mut self) {
        self.suspects = self.suspects.and(std::mem::take(&mut self.asked));
        self.found = Found::default();
        self.has_code |= self.asked_has_code;
        self.names.append(&mut self.asked_names);
    }
}

impl Server {
    /// The client keeps its connection for these reasons, until they turn out not to hold.
    pub(super) fn pin(&mut self, pins: Pins, client: &mut Client) {
        self.holds(pins, client);
        self.state.suspects = self.state.suspects.and(pins);
    }

    /// The client keeps its connection for these reasons.
    fn holds(&mut self, pins: Pins, client: &mut Client) {
        if pins.contains(PinReason::TemporaryObject) && !client.pins.contains(PinReason::TemporaryObject) {
            // What others have prepared means the table that a temporary one may hide.
            self.prepared.values_mut().for_each(|held| held.usable = super::Usable::Never);
        }
        client.pins = client.pins.and(pins);
    }

    /// The text of a request that is being sent, of so many statements, may make another function of a name; and it may hold
    /// code, which does something to settings that it mentions, or calls what does.
    pub(super) fn may_do(&mut self, intent: Intent, text: &[u8], statements: usize) {
        if redefines(text, statements) {
            self.functions.forget();
        }
        if !intent.pins_when_sent.contains(PinReason::OpaqueCode) {
            return;
        }
        self.state.has_code = true;
        let code = sql::settings::mentioned(text, self.reads_in());
        self.state.may_change(&code.changes);
        for name in &code.calls {
            self.functions.call(name);
        }
    }

    /// A statement that may call these functions is being sent. True: they may do anything, and look at what others have left
    /// of sequences.
    pub(super) fn call<'a>(&mut self, names: impl Iterator<Item = &'a Box<[u8]>>, client: &mut Client) -> bool {
        let call = names.map(|name| self.functions.call(name)).max();
        if call.is_none_or(|call| call == Call::Harmless) {
            return false;
        }
        self.state.has_code |= call == Some(Call::Code);
        self.pin(OPAQUE, client);
        self.opens_settings();
        true
    }

    /// The client's segment is over; the transaction was as `was` before it.
    pub(super) fn end_segment(&mut self, was: Transaction, client: &mut Client) {
        let segment = std::mem::take(&mut self.state.segment);
        if segment.is_restored && !segment.has_failed && self.transaction == Transaction::None {
            self.applied = Arc::clone(client.settings());
            self.settings_lost = self.init_lost;
        }
        if segment.changing == 0 {
            return;
        }
        let is_plain = !segment.is_mixed && was == Transaction::None && self.transaction == Transaction::None;
        self.state.in_doubt |= !is_plain || segment.listed != segment.changing || self.state.names_unknown;
        if self.state.in_doubt {
            if !segment.has_failed {
                self.state.due.extend(segment.due);
            }
            return;
        }
        let mut changes = segment.changes;
        changes.iter_mut().for_each(|change| self.as_reported(change));
        let resets = changes.iter().any(|change| matches!(change.value, Value::Default | Value::AllDefault));
        let wanted = with_changes(client.settings(), &changes, client.baseline());
        let nothing = Settings::default();
        let back_at = if segment.is_put_back { &**client.baseline() } else { &nothing };
        let applied = with_changes(&self.applied, &changes, back_at);
        // What `init` had set went the same way.
        self.init_lost |= resets && self.init.is_some();
        self.have(applied, wanted, client);
        self.state.suspects = self.state.suspects.without(Pins::of(PinReason::Setting));
        client.pins = client.pins.without(Pins::of(PinReason::Setting));
    }

    /// The value as the server has reported it, which is how all clients get to have the same.
    fn as_reported(&self, change: &mut Change) {
        let Value::Known(value) = &mut change.value else { return };
        let reported = self.reported.parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(&change.name));
        if let Some((_, reported)) = reported {
            value.clone_from(reported);
        }
    }

    /// The connection has these settings, and the client wants those.
    fn have(&mut self, applied: Settings, wanted: Settings, client: &mut Client) {
        let is_same = applied == wanted;
        let created_temporary = client.creates_temporary();
        client.has_set(Arc::new(wanted));
        self.pin_for_path(client);
        if created_temporary {
            self.state.suspects.add(PinReason::TemporaryObject);
        }
        self.applied = if is_same { Arc::clone(client.settings()) } else { Arc::new(applied) };
        self.settings_lost = !is_same || self.init_lost;
    }

    /// Asks the server what the client has left on the connection, if that is in doubt, behind what is still to be put back;
    /// true if there was either.
    pub(super) fn ask_state(&mut self, client: &Client, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        if self.settings_lost {
            self.replay(client.settings(), out);
        }
        self.put_back(out);
        let mut asked = std::mem::take(&mut self.state.suspects).common(client.pins).common(VERIFIABLE);
        if asked.is_empty() {
            return out.len() > before;
        }
        let is_opaque = !asked.common(OPAQUE).is_empty();
        if is_opaque {
            asked = asked.and(VERIFIABLE.without(OPAQUE));
        } else if asked.contains(PinReason::Setting) {
            // The path may have been the temporary schema for a while.
            asked.add(PinReason::TemporaryObject);
        }
        let mut parts = Vec::new();
        if asked.contains(PinReason::Setting) {
            parts.push(SETTINGS.to_owned());
        }
        for (reason, from) in PRESENCE.iter().filter(|(reason, _)| asked.contains(*reason)) {
            parts.push(format!("SELECT '{reason}'::pg_catalog.text, NULL, NULL WHERE EXISTS (SELECT FROM {from})"));
        }
        if asked.contains(PinReason::PreparedStatement) {
            parts.push(OWN.to_owned());
        }
        let mut called = Vec::new();
        if is_opaque {
            called = message::text_array(self.functions.ask());
            parts.push(functions::question());
        }
        let known = client.settings().iter().chain(self.applied.iter()).map(|(name, _)| name);
        let own = known.chain(self.state.names.iter().map(String::as_str)).filter(|name| name.contains('.'));
        let names: BTreeSet<&str> = own.collect();
        let names = message::text_array(names);
        let parameters: &[&[u8]] = match asked.contains(PinReason::Setting) {
            true if is_opaque => &[&names, &called],
            true => &[&names],
            false => &[],
        };
        self.ask(&parts.join(" UNION ALL "), parameters, out);
        // What comes up from here on is asked for the next time.
        self.state.asked_names = std::mem::take(&mut self.state.names);
        self.state.asked_has_code = std::mem::take(&mut self.state.has_code);
        self.state.asked = asked;
        self.state.found = Found::default();
        true
    }

    /// The server has answered.
    pub(super) fn answered_state(&mut self, client: &mut Client) {
        let (asked, mut found) = (std::mem::take(&mut self.state.asked), std::mem::take(&mut self.state.found));
        self.state.in_doubt = false;
        if asked.contains(PinReason::PreparedStatement) {
            self.check_own(found.own);
        }
        // Nothing is learned of what was not asked for.
        if asked.contains(PinReason::OpaqueCode) && self.functions.learn(&found.code) && !self.state.asked_has_code {
            // What only might have been code was none.
            found.reasons = found.reasons.without(OPAQUE);
        }
        self.holds(found.reasons.common(asked), client);
        // What has come up since is asked for the next time.
        let mut gone = asked.without(found.reasons).without(self.state.suspects);
        if asked.contains(PinReason::Setting) {
            let settings = self.in_words_of(client, found.settings);
            self.has_settings(settings, client);
            if self.is_someone_else() || self.state.names_unknown {
                gone = gone.without(Pins::of(PinReason::Setting));
                self.holds(Pins::of(PinReason::Setting), client);
            }
        }
        if client.creates_temporary() {
            gone = gone.without(Pins::of(PinReason::TemporaryObject));
        }
        client.pins = client.pins.without(gone);
    }

    /// Something that could make and drop statements has run; there are so many of those that Parse has made. What `PREPARE` has
    /// made can't be told from what it has replaced.
    fn check_own(&mut self, there: Option<usize>) {
        let parsed = self.prepared.values().filter(|held| held.form == Form::Parsed).count();
        let are_there = there == Some(parsed);
        for held in self.prepared.values_mut().filter(|held| !are_there || held.form == Form::Sql) {
            held.usable = super::Usable::Never;
        }
    }

    /// These settings as the client has written them, where that is the same.
    fn in_words_of(&mut self, client: &Client, found: BTreeMap<String, (String, String)>) -> BTreeMap<String, String> {
        let written = std::mem::take(&mut self.state.written);
        let in_words = |(name, (said, kind)): (String, (String, String))| {
            let known = [client.settings().value(&name), written.get(&name).map(String::as_str)];
            let same = known.into_iter().flatten().find(|words| is_same(words, &said, &kind)).map(str::to_owned);
            (name, same.unwrap_or(said))
        };
        found.into_iter().map(in_words).collect()
    }

    /// As long as any table may be a temporary one, the client keeps its connection.
    pub(super) fn pin_for_path(&mut self, client: &mut Client) {
        if client.creates_temporary() {
            self.pin(Pins::of(PinReason::TemporaryObject), client);
        }
    }

    /// The connection has all of these settings, and no others.
    fn has_settings(&mut self, found: BTreeMap<String, String>, client: &mut Client) {
        let applied = Settings::new(found);
        let wanted = applied.edited(|values| {
            for (name, value) in client.baseline().iter() {
                values.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        });
        // `init` may have set them; who resets one of them gets it back with the rest.
        self.init_lost |= self.init.is_some();
        self.have(applied, wanted, client);
    }

    /// What of the settings that the client began with these changes reset.
    pub(super) fn resets(&self, changes: &Changes, client: &Client) -> Vec<(String, String)> {
        let reset = client.baseline().iter().filter(|(name, _)| changes.resets(name));
        reset.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Nothing is left to be put back.
    pub(super) fn is_put_back(&self) -> bool {
        self.state.due.is_empty()
    }

    /// Puts back what a query has reset, ahead of whatever comes next, in the transaction if there is one: it is undone
    /// with the reset then.
    pub(super) fn put_back(&mut self, out: &mut Vec<u8>) {
        let due = std::mem::take(&mut self.state.due);
        if !due.is_empty() && self.transaction != Transaction::Failed {
            self.set_back(&due, true, out);
            self.end_own_segment(out);
        }
    }

    /// `SET SESSION AUTHORIZATION` is in force.
    fn is_someone_else(&self) -> bool {
        let now = self.reported.parameters.get("session_authorization");
        now != self.login_authorization.as_ref()
    }

    /// The client has given the connection back, or nothing of it is left.
    pub(super) fn forget_state(&mut self) {
        self.state = State::default();
    }
}

/// What the settings are behind these changes, where `baseline` is what they began with.
fn with_changes(settings: &Settings, changes: &[Change], baseline: &Settings) -> Settings {
    settings.edited(|values| {
        for Change { name, value } in changes {
            match value {
                Value::Known(value) => {
                    values.insert(name.clone(), value.clone());
                }
                Value::Default => match baseline.value(name) {
                    Some(value) => {
                        values.insert(name.clone(), value.to_owned());
                    }
                    None => {
                        values.remove(name);
                    }
                },
                Value::AllDefault => {
                    values.retain(|name, _| name == "role");
                    for (name, value) in baseline.iter() {
                        values.entry(name.to_owned()).or_insert_with(|| value.to_owned());
                    }
                }
                Value::Unknown => {}
            }
        }
    })
}
