//! What other clients' code may have left on the connection that no server tells of, and a text may look at.
//!
//! A trigger, or a routine that a view calls, may set user variables by `SELECT ... INTO @a` and `:=`, of which neither server says
//! anything, and may draw from a MariaDB sequence. So before a text is sent that speaks of a variable which its client does not have,
//! that is unset where another client has run such code; before one of which nobody can say what it looks at, the connection is made as
//! new, if its client has nothing on it.

use super::owed::Effect;
use super::plan::is_opaque;
use super::{Client, Server};
use crate::protocol::{ClientSide, Intent, Out, PinReason};
use crate::sql::mysql::mentions;
use std::collections::BTreeSet;

/// Who has run code here that no text names, since the connection was as new.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Its client, since it got the connection.
    own: bool,
    /// Clients before.
    foreign: bool,
    /// User variables that were unset for its client.
    unset: BTreeSet<String>,
}

/// What a text may look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Nothing of that kind, or nothing of others' is there.
    AtNothing,
    /// At these user variables. `sets`: it may set some of them as well.
    At {
        names: Vec<String>,
        sets: bool,
    },
    AtAnything,
}

impl Hidden {
    /// Its client runs such code.
    pub(super) fn runs(&mut self) {
        self.own = true;
    }

    /// Another client gets the connection.
    pub(super) fn change_hands(&mut self) {
        self.foreign |= std::mem::take(&mut self.own);
        self.unset.clear();
    }
}

impl Server {
    /// What a text looks at whose statements intend this, and that calls routines with these variables in them. `executed`: what it
    /// executes, if it is known.
    pub(super) fn looks(
        &self,
        (text, executed): (&[u8], Option<&[u8]>),
        intent: Intent,
        unread: &[String],
        in_routines: &[String],
    ) -> Looks {
        if !self.hidden.foreign {
            return Looks::AtNothing;
        }
        let has = |word| mentions::has(text, word);
        let looks_at_sequences =
            || self.is_mariadb && intent.asks_sequence && ["lastval", "previous", "currval"].into_iter().any(has);
        let is_unclear = is_opaque(intent.pins_when_sent.and(intent.pins_when_done));
        // A transaction of XA may be in a state in which nothing can be unset.
        if is_unclear || looks_at_sequences() || mentions::begins(text, "xa") {
            return Looks::AtAnything;
        }
        let mut names = in_routines.to_vec();
        if intent.looks_at_variables {
            for text in [Some(text), executed].into_iter().flatten() {
                let Some(more) = mentions::variables(text) else { return Looks::AtAnything };
                names.extend(more);
            }
        }
        if names.is_empty() { Looks::AtNothing } else { Looks::At { names, sets: !unread.is_empty() } }
    }

    /// What a text looks at is its client's own, or not there. False: the server was asked for something that must come first.
    pub(super) fn hides_from(&mut self, looks: &Looks, client: &Client, out: &mut Out) -> bool {
        match looks {
            Looks::At { names, sets } if self.hidden.foreign => self.unset((names, *sets), client, out),
            Looks::AtAnything if self.hidden.foreign => return self.is_clean(client, out),
            Looks::AtNothing | Looks::At { .. } | Looks::AtAnything => {}
        }
        true
    }

    /// Its client has none of these: so there are none.
    fn unset(&mut self, (names, sets): (&[String], bool), client: &Client, out: &mut Out) {
        // There may be some of its own that nobody knows of.
        if client.has_opaque() || client.unread.unknown().contains(PinReason::UserVariable) || self.is_xa {
            return;
        }
        let has = |name: &str| client.settings().value(name).is_some() || client.unread.names().any(|own| own == name);
        let is_new = |name: &&String| !self.hidden.unset.contains(*name) && !has(name);
        let names: BTreeSet<String> = names.iter().filter(is_new).cloned().collect();
        if names.is_empty() {
            return;
        }
        if self.hidden.own && !sets {
            // They may have been its own just now: from now on they are unset before that.
            self.options.learned.add(names.iter().map(String::as_str));
        }
        out.write(|out| self.send_unset(&names, out));
        self.hidden.unset.extend(names);
    }

    fn send_unset(&mut self, names: &BTreeSet<String>, out: &mut Vec<u8>) {
        let text = format!("SET {}", names.iter().map(|name| format!("{name} = NULL")).collect::<Vec<_>>().join(", "));
        self.query(text.as_bytes(), Effect::Brings, out);
        // What the client's last statement has left to ask for is gone.
        self.foreign_values = true;
    }

    /// A client gets the connection: variables that clients look at behind code of their own are unset before that.
    pub(super) fn unset_learned(&mut self, client: &Client, out: &mut Vec<u8>) {
        if !self.hidden.foreign {
            return;
        }
        let mut names = self.options.learned.variables();
        names.retain(|name| client.settings().value(name).is_none());
        if !names.is_empty() {
            self.send_unset(&names, out);
            self.hidden.unset = names;
        }
    }

    /// Nothing of others' is there, as far as its client has nothing on it. False: it is being made so.
    fn is_clean(&mut self, client: &Client, out: &mut Out) -> bool {
        if self.in_transaction() || !client.pins().is_empty() {
            return true;
        }
        if !self.owed.is_empty() {
            self.holding = true;
            return false;
        }
        out.write(|out| {
            self.reset_connection(out);
            self.settings_lost = true;
            self.replay(client.settings(), out);
        });
        false
    }
}
