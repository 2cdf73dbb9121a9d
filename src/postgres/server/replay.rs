//! What the proxy itself asks of a connection: the settings that its client must find there, the query that every client is to
//! find done, and what a client has left.
//!
//! Each in segments of its own, whose replies nobody sees; but for what has been reset in the middle of a client's segment.

use super::owed::{Effect, Kind};
use super::write::{write_bind, write_close_portal, write_execute, write_parse};
use super::{Hold, Server};
use crate::postgres::message;
use crate::protocol::{Difference, Settings};
use std::sync::Arc;

/// The statement that puts settings back is prepared as this for a moment.
const SET_BACK: &[u8] = b"sg_set_back";

/// The setting that `SET ROLE` changes.
const ROLE: &str = "role";

const ENCODING: &str = "client_encoding";

/// Settings that can't change what a statement does: their replay need not be waited for.
const COSMETIC: &[&str] = &["application_name"];

impl Server {
    /// Writes what turns the connection's settings into these, in segments of its own.
    pub(super) fn replay(&mut self, wanted: &Arc<Settings>, out: &mut Vec<u8>) {
        self.settings_lost = false;
        let is_there = Arc::ptr_eq(&self.applied, wanted) || self.applied == *wanted;
        if is_there && !self.init_lost {
            return;
        }
        self.tally.replays += 1;
        let mut difference = in_the_login_role(&self.applied, wanted);
        for name in &difference.reset {
            let mut text = b"RESET ".to_vec();
            quote_setting(name, &mut text);
            text.extend_from_slice(b"\0\0\0");
            write_parse(b"", &text, out);
            write_bind(b"", b"", &[], out);
            self.owe_hidden(Kind::Parse, Effect::Nothing);
            self.replay_execute(out);
        }
        // RESET goes back to what was there before `init`, which may set the others, too.
        if self.init_lost || (self.init.is_some() && !difference.reset.is_empty()) {
            if !difference.reset.is_empty() {
                message::sync(out);
                self.owe_hidden(Kind::Sync, Effect::Nothing);
                self.begin_segment();
            }
            self.send_init(out);
            difference.set = in_the_login_role(&Settings::default(), wanted).set;
        }
        if !difference.set.is_empty() {
            // Parameters, so that there is nothing to quote.
            write_parse(b"", b"SELECT pg_catalog.set_config($1, $2, false)\0\0\0", out);
            self.owe_hidden(Kind::Parse, Effect::Nothing);
        }
        for (name, value) in &difference.set {
            write_bind(b"", b"", &[name.as_bytes(), value.as_bytes()], out);
            self.replay_execute(out);
        }
        message::sync(out);
        self.owe_hidden(Kind::Sync, Effect::Applied(Arc::clone(wanted)));
        self.begin_segment();
        self.unnamed = None;
        let names = difference.set.iter().map(|(name, _)| name).chain(&difference.reset);
        if names.into_iter().any(|name| !COSMETIC.contains(&name.as_str())) {
            self.hold = Hold::UntilAnswered;
        }
    }

    /// Gives settings the values that the client began with, in the segment that is being sent. `is_own`: it is the proxy's own,
    /// and says nothing of what the client's next one does.
    pub(super) fn set_back(&mut self, settings: &[(String, String)], is_own: bool, out: &mut Vec<u8>) {
        message::close_statement(SET_BACK, out);
        write_parse(SET_BACK, b"SELECT pg_catalog.set_config($1, $2, false)\0\0\0", out);
        self.owe_hidden(Kind::Close, Effect::Nothing);
        self.owe_hidden(Kind::Parse, Effect::Nothing);
        for (name, value) in settings {
            // A portal of its own: the client's unnamed one may be waiting for its Execute.
            write_bind(SET_BACK, SET_BACK, &[name.as_bytes(), value.as_bytes()], out);
            write_execute(SET_BACK, out);
            write_close_portal(SET_BACK, out);
            self.owe_hidden(Kind::Bind, Effect::Nothing);
            self.owe_hidden(Kind::Execute, Effect::Nothing);
            self.owe_hidden(Kind::Close, if is_own { Effect::Nothing } else { Effect::PutsBack });
        }
    }

    /// Ends a segment of the proxy's own.
    pub(super) fn end_own_segment(&mut self, out: &mut Vec<u8>) {
        message::sync(out);
        self.owe_hidden(Kind::Sync, Effect::Tells);
        self.begin_segment();
    }

    /// What every client is to find done, if anything is.
    pub(super) fn send_init(&mut self, out: &mut Vec<u8>) {
        let Some(query) = &self.init else { return };
        message::query(query.as_bytes(), out);
        self.owe_hidden(Kind::Query, Effect::Initialized);
        // It may change what any statement means.
        self.hold = Hold::UntilAnswered;
    }

    /// Asks the server something about the connection, in a segment of its own.
    pub(super) fn ask(&mut self, query: &str, parameters: &[&[u8]], out: &mut Vec<u8>) {
        self.tally.questions += 1;
        let text = [query.as_bytes(), b"\0\0\0"].concat();
        write_parse(b"", &text, out);
        write_bind(b"", b"", parameters, out);
        write_execute(b"", out);
        message::sync(out);
        self.owe_hidden(Kind::Parse, Effect::Asks);
        self.owe_hidden(Kind::Bind, Effect::Asks);
        self.owe_hidden(Kind::Execute, Effect::Answers);
        self.owe_hidden(Kind::Sync, Effect::Nothing);
        self.begin_segment();
        self.unnamed = None;
    }

    fn replay_execute(&mut self, out: &mut Vec<u8>) {
        write_execute(b"", out);
        self.owe_hidden(Kind::Bind, Effect::Nothing);
        self.owe_hidden(Kind::Execute, Effect::Nothing);
    }
}

/// What turns one into the other. Some settings need the rights of the role that has logged in: another one is put off
/// first and on last.
fn in_the_login_role(applied: &Settings, wanted: &Settings) -> Difference {
    let mut difference = applied.difference(wanted);
    let is_role = |name: &String| name == ROLE;
    if difference.is_empty() {
        return difference;
    }
    if applied.value(ROLE).is_some() {
        difference.reset.retain(|name| !is_role(name));
        difference.reset.insert(0, ROLE.to_owned());
    }
    difference.set.retain(|(name, _)| !is_role(name));
    // The values are sent in UTF-8: what they are read in changes behind them.
    difference.set.sort_by_key(|(name, _)| name == ENCODING);
    if let Some(role) = wanted.value(ROLE) {
        difference.set.push((ROLE.to_owned(), role.to_owned()));
    }
    difference
}

/// A setting's name as an identifier, part by part.
fn quote_setting(name: &str, out: &mut Vec<u8>) {
    for (index, part) in name.split('.').enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.push(b'"');
        out.extend_from_slice(part.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    }
}
