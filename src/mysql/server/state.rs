//! What the connection must have for its client, and how that is put there.

use super::owed::{Effect, Kind};
use super::{Client, Server};
use crate::mysql::frame::packet;
use crate::mysql::message::command;
use crate::protocol::{ClientSide, Out, PinReason, Settings};
use crate::sql::mysql::settings::{
    Change, ISOLATION, LAST_INSERT_ID, NAMES, NO_SCHEMA, PREPARED, READ_ONLY, RESULTS, SCHEMA, SQL_MODE, STATE_CHANGE,
    Value, is_no_setting, is_variable,
};
use mysql_common::collations::{Collation, CollationId};
use std::collections::BTreeMap;
use std::sync::Arc;

const WAIT_TIMEOUT: &str = "wait_timeout";
/// What a login may make another value of than the global one.
const OWN: [&str; 2] = [SQL_MODE, WAIT_TIMEOUT];

impl Server {
    /// Gives the connection the settings that a client wants.
    pub(super) fn replay(&mut self, wanted: &Arc<Settings>, out: &mut Vec<u8>) {
        let is_same = !self.settings_lost && self.applied == *wanted;
        if is_same && self.tells_state {
            return;
        }
        self.tally.replays += u64::from(!is_same);
        // Its warnings would be the client's.
        self.foreign_values |= !is_same;
        let has = self.select(wanted, out);
        let leaves_more = has.iter().any(|(name, _)| is_no_setting(name) && wanted.value(name).is_none());
        if leaves_more && !self.settings_lost {
            self.reset_connection(out);
        }
        let is_lost = self.settings_lost || leaves_more;
        let mut difference = has.difference(wanted);
        if !self.means_the_same(wanted) {
            // What was prepared under other settings is another statement, whatever its text.
            let is_prepared = |name: &str| name.starts_with(PREPARED);
            difference.set.retain(|(name, _)| !is_prepared(name));
            let all = wanted.iter().filter(|(name, _)| is_prepared(name));
            difference.set.extend(all.map(|(name, text)| (name.to_owned(), text.to_owned())));
        }
        let mut reset = if is_lost { Vec::new() } else { difference.reset };
        // Results go back to what `NAMES` says, which makes them anew whenever it is said.
        let has_results = reset.iter().any(|name| name == RESULTS);
        reset.retain(|name| name != NAMES && name != RESULTS && name != SCHEMA);
        let says = |values: &[(String, String)], own: &str| values.iter().any(|(name, _)| name == own);
        if has_results && !says(&difference.set, NAMES) {
            difference.set.extend(wanted.value(NAMES).map(|value| (NAMES.to_owned(), value.to_owned())));
        }
        if says(&difference.set, NAMES) && !says(&difference.set, RESULTS) {
            difference.set.extend(wanted.value(RESULTS).map(|value| (RESULTS.to_owned(), value.to_owned())));
        }
        if !reset.is_empty() {
            let reset: Vec<(&str, String)> = reset.iter().map(|name| (name.as_str(), self.default_of(name))).collect();
            let text = self.set(reset.iter().map(|(name, value)| (*name, value.as_str())));
            let left = has.edited(|values| reset.iter().for_each(|(name, _)| _ = values.remove(*name)));
            self.query(text.as_bytes(), Effect::Applied(Arc::new(left)), out);
        }
        let own = OWN.iter().filter(|name| wanted.value(name).is_none());
        let own: Vec<_> = own.filter_map(|name| Some((*name, self.own_default(name)?))).collect();
        // MariaDB's resets keep nothing of the login.
        if is_lost && self.is_mariadb && !own.is_empty() {
            let text = self.set(own.into_iter());
            self.query(text.as_bytes(), Effect::Initialized, out);
        }
        if is_lost || !reset.is_empty() && self.init.is_some() {
            // What every client is to find went with the settings, and may undo others.
            self.send_init(out);
            difference.set = wanted.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        }
        difference.set.retain(|(name, _)| name != SCHEMA);
        if is_lost || !self.tells_state {
            let tells = (STATE_CHANGE.to_owned(), "1".to_owned());
            difference.set.push(tells);
        }
        let (prepared, sets): (Vec<_>, Vec<_>) =
            difference.set.into_iter().partition(|(name, _)| name.starts_with(PREPARED));
        let (variables, mut others): (Vec<_>, Vec<_>) = sets.into_iter().partition(|(name, _)| is_variable(name));
        let read_only = wanted.value(READ_ONLY).filter(|_| !prepared.is_empty());
        if read_only.is_some() {
            // Where transactions may only read, nothing that writes can be prepared.
            others.retain(|(name, _)| name != READ_ONLY);
            others.push((READ_ONLY.to_owned(), "0".to_owned()));
        }
        // Each is read under what the one before has set.
        for set in [others, variables].into_iter().filter(|set| !set.is_empty()) {
            let text = self.set(set.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            self.query(text.as_bytes(), Effect::Applied(Arc::clone(wanted)), out);
        }
        for (name, text) in prepared {
            let name = name.strip_prefix(PREPARED).unwrap_or_default();
            let text = format!("PREPARE `{name}` FROM '{}'", text.replace('\'', "''"));
            // One that can't be any more is told so when it is executed.
            self.query(text.as_bytes(), Effect::AppliedAtBest(Arc::clone(wanted)), out);
        }
        if let Some(value) = read_only {
            let text = self.set([(READ_ONLY, value)].into_iter());
            self.query(text.as_bytes(), Effect::Applied(Arc::clone(wanted)), out);
        }
    }

    /// A text means the same under these settings and those of the connection.
    fn means_the_same(&self, wanted: &Settings) -> bool {
        fn settings(all: &Settings) -> impl Iterator<Item = (&str, &str)> {
            all.iter().filter(|(name, _)| !is_no_setting(name))
        }
        settings(&self.applied).eq(settings(wanted))
    }

    /// Selects the client's database, which no reset of the connection has undone. What the connection has then.
    fn select(&mut self, wanted: &Settings, out: &mut Vec<u8>) -> Arc<Settings> {
        let schema = wanted.value(SCHEMA);
        if self.applied.value(SCHEMA) == schema || schema == Some(NO_SCHEMA) {
            return Arc::clone(&self.applied);
        }
        packet(out, &mut 0, |out| {
            out.push(command::INIT_DB);
            out.extend_from_slice(schema.unwrap_or(&self.options.database).as_bytes());
        });
        let selected = Arc::new(self.applied.edited(|values| match schema {
            Some(schema) => _ = values.insert(SCHEMA.to_owned(), schema.to_owned()),
            None => _ = values.remove(SCHEMA),
        }));
        self.owe(Kind::Simple, true, Effect::Selected(Arc::clone(&selected)));
        self.holding = true;
        selected
    }

    /// The connection has the database of its login again.
    pub(super) fn is_back(&mut self) {
        if self.applied.value(SCHEMA).is_some() {
            self.applied = Arc::new(self.applied.edited(|values| _ = values.remove(SCHEMA)));
        }
    }

    /// One statement for all of these. What names and texts are written in comes first, if it is among them.
    fn set<'a>(&self, values: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        let (names, others): (Vec<_>, Vec<_>) = values.partition(|(name, _)| *name == NAMES);
        let names = names.into_iter().map(|(_, id)| self.names(Some(id)));
        let others = others.into_iter().map(|(name, value)| {
            let scope = if is_variable(name) { "" } else { "SESSION " };
            format!("{scope}{} = {value}", self.spelled(name))
        });
        format!("SET {}", names.chain(others).collect::<Vec<_>>().join(", "))
    }

    /// As the server calls the variable.
    pub(super) fn spelled<'a>(&self, name: &'a str) -> &'a str {
        match name {
            ISOLATION if self.is_mariadb => "tx_isolation",
            READ_ONLY if self.is_mariadb => "tx_read_only",
            name => name,
        }
    }

    /// What the variable has behind a login. `DEFAULT` is not always that: MySQL 9.7 has no checks of foreign keys then.
    fn default_of(&self, name: &str) -> String {
        let own = self.own_default(name).map(str::to_owned);
        own.unwrap_or_else(|| format!("@@GLOBAL.{}", self.spelled(name)))
    }

    /// What logins like this one make of a variable, if that is not its global value.
    fn own_default(&self, name: &str) -> Option<&'static str> {
        let has = |own: &str| self.options.fixed.iter().any(|(fixed, _)| fixed == own);
        match name {
            SQL_MODE if has("ignore_space") => Some("CONCAT(@@GLOBAL.sql_mode, ',IGNORE_SPACE')"),
            WAIT_TIMEOUT if has("interactive") => Some("@@GLOBAL.interactive_timeout"),
            _ => None,
        }
    }

    /// The client has set these on the connection. It may have gone since: no reset undoes what database it has selected.
    /// `warned`: something may not be as it was written.
    pub(super) fn has_set(&mut self, sets: &[Change], warned: bool, client: Option<&mut Client>) {
        if sets.iter().any(|(name, _)| *name == STATE_CHANGE) {
            self.tells_state = client.as_deref().is_some_and(|client| client.tracks_state);
            // What changes meanwhile nobody is told.
            self.is_soiled |= !self.tells_state;
        }
        let edited = |settings: &Settings| {
            let others = sets.iter().filter(|(name, _)| *name != STATE_CHANGE);
            settings.edited(|values| others.for_each(|set| self.edit(values, set)))
        };
        let applied = edited(&self.applied);
        match client {
            Some(client) => {
                let wanted = edited(client.settings());
                // What it has prepared by then was read under what it had: for another client of these settings that is another statement.
                self.is_soiled |= client.has_prepared_by_sql();
                // Code may have run in the mode before.
                client.held.asks_mode &= !sets.iter().any(|(name, _)| *name == SQL_MODE);
                self.has_now(applied, wanted, client);
                client.may_have_set(asked(sets, warned));
            }
            None => self.applied = Arc::new(applied),
        }
    }

    /// A setting becomes what it is set to.
    fn edit(&self, values: &mut BTreeMap<String, String>, (name, value): &Change) {
        if *name == NAMES {
            values.remove(RESULTS);
        }
        // What it was at the login may be another value than the default.
        let own = self.own_default(name);
        let is_other = own.is_some() || self.init.is_some() && *name != SCHEMA;
        let value = match value {
            Value::Default if is_other => "DEFAULT".to_owned(),
            Value::Default => {
                values.remove(*name);
                return;
            }
            Value::Written(value) => value.clone(),
            Value::Asked => return,
            Value::Appended(more) => {
                let known = values.get(*name).map(String::as_str).or(own);
                match known.and_then(|known| known.rsplit_once('\'')) {
                    // A string, or one that was appended.
                    Some((begins, ends)) => format!("{}'{ends}", appended(begins, more)),
                    None => format!("CONCAT(@@GLOBAL.{name}, '{}')", appended("", more)),
                }
            }
        };
        values.insert((*name).to_owned(), value);
    }

    /// The client has not set these.
    pub(super) fn has_not_set(&mut self, client: &Client) {
        let reads_settings = client.unread.names().any(|name| !is_variable(name));
        if self.has_moved_unread && !reads_settings && !client.unread.unknown().contains(PinReason::Setting) {
            self.is_back_in_place();
        }
    }

    /// Names and texts mean here what they mean elsewhere.
    pub(super) fn is_back_in_place(&mut self) {
        (self.has_moved, self.has_moved_unread, self.is_anchored) = (false, false, false);
        self.prepared.forget_failures();
    }

    /// Nobody knows whether the client has set these: whoever gets the connection has them set.
    pub(super) fn may_have_set(&mut self, sets: &[Change]) {
        let (tracking, others): (Vec<_>, Vec<_>) = sets.iter().partition(|(name, _)| *name == STATE_CHANGE);
        self.tells_state &= tracking.is_empty();
        // Nobody wants this value.
        let unknown = |(name, _): &Change| ((*name).to_owned(), NO_SCHEMA.to_owned());
        self.applied = Arc::new(self.applied.edited(|values| values.extend(others.into_iter().map(unknown))));
    }

    /// What a login with this collation does to character sets. One that the server does not know is its default
    /// (<https://dev.mysql.com/doc/refman/9.7/en/set-names.html>).
    pub(super) fn names(&self, id: Option<&str>) -> String {
        let id = match id.map(str::parse::<u16>) {
            Some(Ok(id)) => id,
            None => 0,
            // As the client has written it.
            Some(Err(_)) => return format!("NAMES {}", id.unwrap_or_default()),
        };
        // MySQL's own: of lower case, of GB18030, of Unicode 9. Names that MariaDB has given to others.
        let (is_known, own_name) = match id {
            76 | 248..=250 | 255..=323 => (!self.is_mariadb, None),
            213 if self.is_mariadb => (true, Some("utf8mb3_croatian_mysql561_ci")),
            245 if self.is_mariadb => (true, Some("utf8mb4_croatian_mysql561_ci")),
            _ => (true, None),
        };
        let collation = Collation::resolve(CollationId::from(id));
        if !is_known || collation.id() == CollationId::UNKNOWN_COLLATION_ID {
            return "NAMES DEFAULT".to_owned();
        }
        format!("NAMES {} COLLATE {}", collation.charset(), own_name.unwrap_or(collation.collation()))
    }

    pub(super) fn send_init(&mut self, out: &mut Vec<u8>) {
        if let Some(query) = self.init.clone() {
            self.query(query.as_bytes(), Effect::Initialized, out);
        }
    }

    /// A statement asks for last values, and those on the connection are another client's: they become this one's. The rows
    /// that were found and the warnings become those of a statement of the proxy's own.
    pub(super) fn guard_values(&mut self, client: &Client, out: &mut Out) {
        // Or that is under way.
        if !self.foreign_values || self.owed.iter().any(|owed| matches!(owed.effect, Effect::Guarded)) {
            return;
        }
        out.write(|out| {
            // MariaDB keeps warnings until a statement uses a table.
            self.query(b"SELECT 1 FROM (SELECT 1) t LIMIT 0", Effect::Guarded, out);
            // No rows, in any case: `ROW_COUNT()` is 0 then.
            self.insert_id = None;
            if !self.bring_insert_id(client, out) {
                self.query(b"DO 0", Effect::Guarded, out);
            }
        });
    }

    /// `LAST_INSERT_ID()` becomes the client's own. False: it is.
    pub(super) fn bring_insert_id(&mut self, client: &Client, out: &mut Vec<u8>) -> bool {
        // One that is not known yet is there.
        let is_here = client.unread.names().any(|name| name == LAST_INSERT_ID);
        let brings = !is_here && self.insert_id != Some(client.insert_id);
        if brings {
            let text = format!("SET SESSION last_insert_id = {}", client.insert_id);
            self.query(text.as_bytes(), Effect::Brings, out);
            self.insert_id = Some(client.insert_id);
        }
        brings
    }
}

/// Those that the server is to be asked for. `warned`: it may have brought a number into its range, and where the mode is strict the
/// one that was written is refused.
fn asked(sets: &[Change], warned: bool) -> Vec<String> {
    let asked = sets.iter().filter(|(name, value)| match value {
        Value::Asked => true,
        Value::Written(text) => warned && *name != NAMES && *name != STATE_CHANGE && is_number(text),
        Value::Default | Value::Appended(_) => false,
    });
    asked.map(|(name, _)| (*name).to_owned()).collect()
}

/// Modes behind others, as far as they are new: a client may say the same again and again.
fn appended(known: &str, more: &str) -> String {
    let (begins, list) = known.split_at(known.rfind('\'').map_or(0, |quote| quote + 1));
    let mut modes: Vec<&str> = list.split(',').collect();
    for mode in more.split(',').map(str::trim).filter(|mode| !mode.is_empty()) {
        if !modes.iter().any(|known| known.trim().eq_ignore_ascii_case(mode)) {
            modes.push(mode);
        }
    }
    format!("{begins}{}", modes.join(","))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.')
}
