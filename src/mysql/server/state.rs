//! What the connection must have for its client, and how that is put there.

use super::owed::Effect;
use super::{Client, Server};
use crate::mysql::accept::NAMES;
use crate::protocol::{Out, Settings};
use mysql_common::collations::{Collation, CollationId};
use std::sync::Arc;

impl Server {
    /// Gives the connection the settings that a client wants.
    pub(super) fn replay(&mut self, wanted: &Arc<Settings>, out: &mut Vec<u8>) {
        if !self.settings_lost && self.applied == *wanted {
            return;
        }
        self.tally.replays += 1;
        if self.settings_lost {
            // What every client is to find went with the settings.
            self.send_init(out);
        }
        let text = self.set_names(wanted.value(NAMES));
        self.query(text.as_bytes(), Effect::Applied(Arc::clone(wanted)), out);
    }

    /// What a login with this collation does to character sets. One that the server does not know is its default
    /// (<https://dev.mysql.com/doc/refman/9.7/en/set-names.html>).
    pub(super) fn set_names(&self, id: Option<&str>) -> String {
        let id = id.and_then(|id| id.parse::<u16>().ok()).unwrap_or_default();
        // MySQL's own: of lower case, of GB18030, of Unicode 9. Names that MariaDB has given to others.
        let (is_known, own_name) = match id {
            76 | 248..=250 | 255..=323 => (!self.is_mariadb, None),
            213 if self.is_mariadb => (true, Some("utf8mb3_croatian_mysql561_ci")),
            245 if self.is_mariadb => (true, Some("utf8mb4_croatian_mysql561_ci")),
            _ => (true, None),
        };
        let collation = Collation::resolve(CollationId::from(id));
        if !is_known || collation.id() == CollationId::UNKNOWN_COLLATION_ID {
            return "SET NAMES DEFAULT".to_owned();
        }
        format!("SET NAMES {} COLLATE {}", collation.charset(), own_name.unwrap_or(collation.collation()))
    }

    pub(super) fn send_init(&mut self, out: &mut Vec<u8>) {
        if let Some(query) = self.init.clone() {
            self.query(query.as_bytes(), Effect::Initialized, out);
        }
    }

    /// A statement asks for last values, and those on the connection are another client's: they become this one's. The rows
    /// that were found and the warnings become those of a statement of the proxy's own.
    pub(super) fn guard_values(&mut self, client: &Client, out: &mut Out) {
        if !self.foreign_values {
            return;
        }
        let text = format!("SET SESSION last_insert_id = {}", client.insert_id);
        out.write(|out| {
            self.query(b"DO 0", Effect::Nothing, out);
            self.query(b"SELECT 1 LIMIT 0", Effect::Nothing, out);
            self.query(text.as_bytes(), Effect::Guarded, out);
        });
    }
}
