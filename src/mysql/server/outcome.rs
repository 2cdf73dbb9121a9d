//! What a reply ends with, and what comes of it: of the client's own statement, and of what the proxy has asked for or set.

use super::hidden::Hidden;
use super::owed::{Effect, Owed, Preparing, Stage};
use super::receive::Packet;
use super::{Client, Server};
use crate::mysql::frame::packet;
use crate::mysql::held::Held;
use crate::mysql::message::{self, OkPacket, mark, status};
use crate::mysql::statement::Statement;
use crate::mysql::unread::Unread;
use crate::protocol::{AttachFailure, ClientError, Out, PinReason, Pins, ServerError, Violation};
use crate::sql::mysql::mentions::Mentions;
use crate::sql::mysql::settings::LAST_INSERT_ID;

impl Server {
    /// An OK, or what stands in its place at the end of rows.
    pub(super) fn ok(
        &mut self,
        ok: OkPacket<'_>,
        read: Packet<'_>,
        mut client: Option<&mut Client>,
        passes: bool,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let Some(owed) = self.owed.front() else { return Ok(()) };
        let ends_rows = read.payload.first() == Some(&mark::EOF);
        let told = if ok.changes.is_empty() { None } else { Some(ok.untold()).filter(|(_, is_told)| *is_told) };
        let is_seen = owed.effect.is_seen();
        if let (Effect::Statement { sets: Some(sets), .. }, Some(client)) = (&owed.effect, client.as_deref_mut()) {
            client.track_state(sets);
        }
        if let (Some(_), false, Some(client)) = (&told, is_seen, client.as_deref_mut()) {
            self.has_changed_unseen(client);
        }
        // What its text says may not be all.
        self.is_soiled |= told.is_some() && self.owed.front().is_some_and(|owed| owed.effect.hides());
        let Some(owed) = self.owed.front() else { return Ok(()) };
        let is_own = owed.hidden;
        let written = owed.effect.written();
        // Who has not asked for that does not get it.
        let told = told.filter(|_| client.as_deref().is_some_and(|client| !client.tracks_state));
        let is_whole = told.is_none();
        let ok = match &told {
            Some((changes, _)) if changes.is_empty() => {
                OkPacket { changes, status: ok.status & !status::STATE_CHANGED, ..ok }
            }
            Some((changes, _)) => OkPacket { changes, ..ok },
            None => ok,
        };
        if owed.stage == Stage::Described && ok.status & status::CURSOR_EXISTS == 0 {
            // A result without rows.
            self.status = ok.status;
            self.describe(client.as_deref_mut(), passes, out);
        }
        self.status = ok.status;
        self.in_doubt = false;
        self.must_roll_back = false;
        // What the proxy asks ahead of it knows nothing of it.
        self.is_xa &= is_own || self.in_transaction();
        let has_more = ok.status & status::MORE_RESULTS != 0;
        if passes {
            let (tracks, deprecates) =
                client.as_deref().map_or((true, true), |client| (client.tracks(), client.deprecates_eof()));
            match ends_rows {
                true if !deprecates => self.put(read.head, client.as_deref_mut(), out, |out| ok.write_eof(out)),
                true if !tracks => {
                    self.put(read.head, client.as_deref_mut(), out, |out| ok.write(mark::EOF, false, out))
                }
                false if !tracks => {
                    self.put(read.head, client.as_deref_mut(), out, |out| ok.write(mark::OK, false, out))
                }
                _ if !is_whole => {
                    let mark = if ends_rows { mark::EOF } else { mark::OK };
                    self.put(read.head, client.as_deref_mut(), out, |out| ok.write(mark, true, out))
                }
                _ => self.pass(read, client.as_deref_mut(), out),
            }
            if ok.insert_id != 0 {
                // Behind a warning it may be a number that no row has got, or one that was brought into its range.
                let is_drawn = ok.warnings == 0 && !written.may_have(ok.insert_id);
                self.tells_insert_id(ok.insert_id, is_drawn, client.as_deref_mut());
            }
        }
        if let Some(client) = client.as_deref_mut() {
            // Also what the proxy has asked on its own account: whether a transaction is still there.
            client.status = ok.status & status::LASTING;
        }
        if has_more {
            if let Some(owed) = self.owed.front_mut() {
                owed.stage = Stage::First;
            }
            return Ok(());
        }
        let Some(Owed { effect, added, .. }) = self.pop() else { return Ok(()) };
        match effect {
            Effect::Statement { pins, uses, releases, sets, hold, hides_last_value, makes_routines, .. } => {
                if makes_routines {
                    self.options.learned.made_routines();
                }
                if let Some(sets) = sets {
                    self.has_set(&sets, ok.warnings > 0, client.as_deref_mut());
                }
                self.ended |= releases;
                if hides_last_value && (ends_rows || ok.insert_id == 0) {
                    self.hides_insert_id(client.as_deref_mut());
                }
                if let Some(number) = uses.filter(|_| ok.status & status::CURSOR_EXISTS == 0) {
                    self.prepared.unload(number, true);
                }
                if let Some(client) = client {
                    client.pin(pins, b"");
                    if ok.warnings > 0 {
                        client.has_last_values();
                    }
                    if let Some(hold) = hold {
                        self.is_done(*hold, client);
                    }
                    if uses.is_some() {
                        self.settle_statements(client);
                    }
                }
            }
            Effect::Fetches(_) if ok.status & status::LAST_ROW_SENT == 0 => {}
            Effect::Fetches(number) | Effect::Unloads(number) => {
                self.prepared.unload(number, true);
                if let Some(client) = client {
                    self.settle_statements(client);
                }
            }
            Effect::Applied(settings) => {
                self.tells_state = true;
                self.applied = settings;
                self.settings_lost = false;
            }
            Effect::Selected(settings) | Effect::AppliedAtBest(settings) => self.applied = settings,
            Effect::Reset => {
                self.is_as_new();
                if std::mem::take(&mut self.has_moved) {
                    self.is_back();
                }
            }
            Effect::ClientReset => {
                // `FOUND_ROWS()` outlives it.
                let is_foreign = self.foreign_values;
                // Settings alone are gone with it.
                self.has_moved &= !self.has_moved_unread;
                self.is_as_new();
                self.foreign_values = is_foreign;
                self.own_values = false;
                if let Some(client) = client {
                    // Whatever database there is stays, and what no reset undoes.
                    let moved = if self.has_moved { Pins::of(PinReason::Setting) } else { Pins::NONE };
                    client.pins = client.pins.lasting().and(moved);
                    client.unread = Unread::default();
                    client.charset_unknown = false;
                    client.unread.lose(client.pins);
                    client.held = Held::default();
                    client.tracks_state = false;
                    client.insert_id = 0;
                    client.statements.clear();
                    client.forget_settings();
                }
            }
            Effect::Guarded => self.foreign_values = false,
            Effect::Reads(reading) => self.has_read(*reading),
            Effect::Asks(question) => {
                if let Some(client) = client {
                    self.is_answered(*question, client);
                }
            }
            Effect::Fails(failed) => {
                if let Some(client) = client {
                    client.failed = failed;
                }
            }
            Effect::Refuse { why, prepares } => {
                if let Some(client) = client.filter(|_| prepares) {
                    client.statements.failed();
                }
                self.count_refused(&why);
                let mut sequence = read.head.sequence.wrapping_add(added);
                out.write(|out| packet(out, &mut sequence, |out| message::client_error(&why, out)));
            }
            Effect::Nothing
            | Effect::Brings
            | Effect::Probes { .. }
            | Effect::Initialized
            | Effect::Prepares(_)
            | Effect::PreparesAnew { .. } => {}
        }
        Ok(())
    }

    /// An answer to the client tells a number, which is `LAST_INSERT_ID()` if it is sure that the server has drawn it.
    fn tells_insert_id(&mut self, number: u64, is_drawn: bool, client: Option<&mut Client>) {
        match client {
            Some(client) if is_drawn => {
                client.insert_id = number;
                self.insert_id = Some(number);
            }
            client => self.hides_insert_id(client),
        }
    }

    /// What `LAST_INSERT_ID()` is only the server knows.
    fn hides_insert_id(&mut self, client: Option<&mut Client>) {
        self.insert_id = None;
        // Who keeps its connection will find it there, unless it turns out that there was no reason to keep it.
        if let Some(client) = client.filter(|client| !client.is_kept_for_code()) {
            client.may_have_set(vec![LAST_INSERT_ID.to_owned()]);
        }
    }

    /// The connection has nothing on it but its database.
    fn is_as_new(&mut self) {
        self.settings_lost = true;
        // What it has now is nobody's, and another client may have it already.
        self.foreign_values = true;
        self.insert_id = Some(0);
        self.prepared.clear();
        self.is_xa = false;
        self.has_moved_unread = false;
        self.is_anchored = false;
        self.tells_state = false;
        self.is_soiled = false;
        self.hidden = Hidden::default();
    }

    /// The client is told this. The server's own words are nobody's refusal, and a transaction that failed was counted when it did.
    pub(super) fn count_refused(&mut self, why: &ClientError) {
        if !matches!(
            why,
            ClientError::Server(_) | ClientError::TransactionTooLong { .. } | ClientError::TransactionLost
        ) {
            self.refused.push_back(why.clone());
        }
    }

    /// The server has prepared a statement under this number: what its client is told.
    pub(super) fn is_prepared(
        &mut self,
        effect: Effect,
        number: u32,
        parameters: u16,
        client: Option<&mut Client>,
    ) -> u32 {
        match (effect, client) {
            (Effect::Prepares(preparing), Some(client)) => {
                let Preparing { id, under, text, meaning } = *preparing;
                let is_shared = text.is_some() && !self.has_moved;
                self.is_anchored &= !is_shared;
                let mentioned = Mentions::of(text.as_deref().unwrap_or_default());
                let statement = Statement { id, text, parameters, mentioned, meaning, types: None, lost_piece: None };
                let own = client.statements.insert(statement);
                if is_shared {
                    self.prepared.share(id.under(under), number);
                } else {
                    self.prepared.keep(own, number);
                }
                return own;
            }
            (Effect::PreparesAnew { number: own, is_own: true, .. }, Some(_)) => self.prepared.keep(own, number),
            (Effect::PreparesAnew { id, is_own: false, .. }, _) => {
                self.is_anchored = false;
                self.prepared.share(id, number);
            }
            _ => self.prepared.drop_number(number),
        }
        number
    }

    pub(super) fn error(
        &mut self,
        read: Packet<'_>,
        mut client: Option<&mut Client>,
        passes: bool,
        out: &mut Out,
    ) -> Result<(), Violation> {
        let error = message::server_error(read.payload).ok_or(Violation::MalformedFrame(mark::ERROR))?;
        let is_bound = client.as_deref().is_none_or(Client::is_bound);
        if error.is_fatal && !is_bound && self.owed.front().is_some_and(|owed| is_lost_with(&owed.effect, &error)) {
            self.lost = true;
            return Ok(());
        }
        self.ended |= error.is_fatal;
        if self.owed.front().is_some_and(|owed| owed.stage == Stage::Described) {
            // It comes in place of the first row.
            self.describe(client.as_deref_mut(), passes, out);
        }
        if passes {
            let why = self.explanation.take_if(|_| error.code == INTERRUPTED);
            self.must_roll_back |= matches!(why, Some(ClientError::TransactionTooLong { .. }))
                && self.status & status::IN_TRANSACTION != 0
                && !self.is_xa;
            match why {
                Some(why) => self.put(read.head, client.as_deref_mut(), out, |out| message::client_error(&why, out)),
                None => self.pass(read, client.as_deref_mut(), out),
            }
        }
        self.drain_file();
        let was_open = self.status & (status::IN_TRANSACTION | status::AUTOCOMMIT) != status::AUTOCOMMIT;
        let Some(Owed { effect, .. }) = self.pop() else { return Ok(()) };
        match effect {
            Effect::Selected(_) if client.is_some() && NO_DATABASE.contains(&error.code.as_str()) => {
                client.into_iter().for_each(|client| client.lose_schema(error.clone()));
            }
            Effect::Applied(_) | Effect::Selected(_) | Effect::Reset => {
                self.attach_failed(AttachFailure::Settings(error));
            }
            Effect::AppliedAtBest(settings) => {
                self.applied = settings;
                self.in_doubt |= was_open;
            }
            Effect::Initialized => self.attach_failed(AttachFailure::InitQuery(error)),
            Effect::Asks(question) => {
                if let Some(client) = client {
                    self.is_answered(question.refused(), client);
                }
            }
            Effect::Reads(reading) => {
                self.in_doubt |= was_open;
                self.has_read(reading.refused(&error.code));
            }
            // Another client's would be taken for this one's.
            Effect::Guarded | Effect::Brings => return Err(Violation::UnexpectedReply(mark::ERROR)),
            Effect::Statement {
                is_doubtful,
                uses,
                hold,
                may_change,
                hides,
                hides_last_value,
                written,
                sets,
                makes_routines,
                ..
            } => {
                if makes_routines {
                    // The first of several statements may have.
                    self.options.learned.made_routines();
                }
                self.in_doubt |= was_open || is_doubtful;
                self.saw_changes = may_change;
                // It may have drawn one.
                self.insert_id = None;
                // MySQL tells with its next answer: if that is to a ping, it says whose change it was.
                let will_tell = !self.is_mariadb && self.in_doubt && !may_change && self.owed.is_empty();
                self.is_soiled |= hides && !will_tell && error.code != PARSE_ERROR;
                if let Some(sets) = sets {
                    // What it was interrupted in, or behind, may be done.
                    if STOPPED.contains(&error.code.as_str()) {
                        self.may_have_set(&sets);
                    }
                    if let Some(client) = client.as_deref() {
                        self.has_not_set(client);
                    }
                }
                client.as_deref_mut().into_iter().for_each(Client::has_last_values);
                if hides_last_value || written.inserts && error.code != PARSE_ERROR {
                    // What a procedure has done before it failed is done, and so are the first of several statements. Rows are not, nor
                    // one behind which a trigger fails, in whatever way, but have drawn their numbers.
                    self.hides_insert_id(client.as_deref_mut());
                }
                if let (Some(hold), Some(client)) = (hold, client.as_deref_mut()) {
                    self.has_failed(&hold, &error.code, client);
                }
                if let Some(number) = uses {
                    self.prepared.unload(number, false);
                }
                if let Some(client) = client.filter(|_| uses.is_some()) {
                    self.settle_statements(client);
                }
            }
            Effect::Fetches(number) | Effect::Unloads(number) => {
                self.in_doubt |= was_open;
                self.prepared.unload(number, false);
                if let Some(client) = client {
                    self.settle_statements(client);
                }
            }
            Effect::Prepares(_) => {
                self.in_doubt |= was_open;
                self.prepared.refused(&error);
                if let Some(client) = client {
                    client.statements.failed();
                    self.settle_statements(client);
                }
            }
            Effect::PreparesAnew { number, .. } => {
                self.in_doubt |= was_open;
                self.prepared.fail(number, error);
            }
            // XA knows no such ROLLBACK.
            Effect::Fails(_) => self.in_doubt |= was_open,
            Effect::Nothing | Effect::Probes { .. } | Effect::ClientReset | Effect::Refuse { .. } => {
                self.in_doubt |= was_open;
            }
        }
        Ok(())
    }
}

/// An error with which the connection ends takes with it what was asked for, rather than to be the answer to that. What the proxy
/// puts on a connection it can put on another one; and who must change the password must be told so.
fn is_lost_with(effect: &Effect, error: &ServerError) -> bool {
    let is_own = matches!(effect, Effect::Applied(_) | Effect::Selected(_) | Effect::Reset | Effect::Initialized);
    !is_own && error.code != PASSWORD_EXPIRED
}

/// Nothing of it was done: ER_PARSE_ERROR.
pub(super) const PARSE_ERROR: &str = "1064";
/// ER_MUST_CHANGE_PASSWORD
const PASSWORD_EXPIRED: &str = "1820";
/// The database was told to stop: ER_QUERY_INTERRUPTED.
const INTERRUPTED: &str = "1317";

/// There is no such database, or none for this user: ER_BAD_DB_ERROR, ER_DBACCESS_DENIED_ERROR. Another connection would be told the same.
const NO_DATABASE: [&str; 2] = ["1049", "1044"];

/// What else stops a statement that may be done by then: ER_QUERY_TIMEOUT, MariaDB's ER_STATEMENT_TIMEOUT.
pub(super) const STOPPED: [&str; 3] = [INTERRUPTED, "3024", "1969"];
