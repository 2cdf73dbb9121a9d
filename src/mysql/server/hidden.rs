//! What other clients' code may have left on the connection that no server tells of, and a text may look at.
//!
//! A trigger, or a routine that a view calls, may set user variables by `SELECT ... INTO @a` and `:=`, of which neither server says
//! anything, and may draw from a MariaDB sequence. So before a text is sent that looks at a variable, that is what its client has set, or
//! unset, where another client has run such code; before one of which nobody can say what it looks at, the connection is made as new, if
//! its client has nothing on it.

use super::owed::Effect;
use super::{Client, Server};
use crate::mysql::client::is_opaque;
use crate::protocol::{ClientSide, Intent, Out, PinReason};
use crate::sql::mysql::calls;
use crate::sql::mysql::mentions::{self, Mentions};
use crate::sql::mysql::settings::is_variable;
use std::collections::BTreeSet;

/// More of its client's variables are not told apart.
const BROUGHT_MAX: usize = 256;

/// Who has run code here that no text names, since the connection was as new.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Its client, since it got the connection.
    own: bool,
    /// Clients before.
    foreign: bool,
    /// User variables that are its client's own since then, or not there.
    brought: BTreeSet<String>,
}

/// What a text may look at.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) enum Looks {
    /// Nothing of that kind, or nothing of others' is there.
    #[default]
    AtNothing,
    /// At these user variables. `sets`: it may set some of them as well.
    At {
        names: BTreeSet<String>,
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
        self.brought.clear();
    }
}

impl Server {
    /// What a text looks at whose statements intend this, and that calls routines with these variables in them; `executed`: what it
    /// executes, if it is known; `sets`: it may set some of them.
    pub(super) fn looks(
        &self,
        (text, executed): (&[u8], Option<&[u8]>),
        mentioned: Mentions,
        intent: Intent,
        sets: bool,
        in_routines: &[String],
        client: &Client,
    ) -> Looks {
        if !self.hidden.foreign {
            return Looks::AtNothing;
        }
        let has = |word| mentions::has(text, word);
        let looks_at_sequences =
            || self.is_mariadb && intent.asks_sequence && ["lastval", "previous", "currval"].into_iter().any(has);
        let is_unclear = is_opaque(intent.pins_when_sent.and(intent.pins_when_done)) || mentioned.lists_variables;
        if is_unclear || looks_at_sequences() {
            return Looks::AtAnything;
        }
        let mut names: BTreeSet<String> = in_routines.iter().cloned().collect();
        if intent.looks_at_variables {
            for text in [Some(text), executed].into_iter().flatten() {
                let Some(more) = calls::variables(text, self.dialect(client)) else { return Looks::AtAnything };
                names.extend(more);
            }
        }
        if names.is_empty() { Looks::AtNothing } else { Looks::At { names, sets } }
    }

    /// What a text looks at is its client's own, or not there. False: the server was asked for something that must come first.
    pub(super) fn hides_from(&mut self, looks: &Looks, client: &Client, out: &mut Out) -> bool {
        match looks {
            Looks::At { names, sets } => self.bring(names, *sets, client, out),
            Looks::AtAnything if self.hidden.foreign => return self.is_clean(client, out),
            Looks::AtNothing | Looks::AtAnything => {}
        }
        true
    }

    /// Variables are what its client has set, or there are none.
    fn bring(&mut self, names: &BTreeSet<String>, sets: bool, client: &Client, out: &mut Out) {
        let is_known = |name: &&String| client.settings().value(name).is_some();
        let is_here = |name: &&String| {
            self.hidden.brought.contains(*name) || client.unread.names().any(|unread| unread == name.as_str())
        };
        let names: BTreeSet<String> = names.iter().filter(|name| !is_here(name)).cloned().collect();
        if names.is_empty() {
            return;
        }
        // There may be some of its own that nobody knows of.
        let may_have_more = client.has_opaque() || client.unread.unknown().contains(PinReason::UserVariable);
        if (self.hidden.own || may_have_more) && !sets {
            // They may have been its own just now: from now on they are brought before that.
            self.options.learned.add(names.iter().filter(|name| !is_known(name)).map(String::as_str));
        }
        if may_have_more {
            return;
        }
        out.write(|out| self.send_variables(&names, client, out));
        if !self.is_xa {
            self.hidden.brought.extend(names);
        }
        if self.hidden.brought.len() > BROUGHT_MAX {
            // Those that were unset are there, as NULL, until the connection is as new.
            self.hidden.brought.clear();
            self.is_soiled = true;
        }
    }

    fn send_variables(&mut self, names: &BTreeSet<String>, client: &Client, out: &mut Vec<u8>) {
        let one = |name: &String| format!("{name} = {}", client.settings().value(name).unwrap_or("NULL"));
        let text = format!("SET {}", names.iter().map(one).collect::<Vec<_>>().join(", "));
        // A transaction of XA that has been ended takes nothing, nor the client's own text then.
        let effect = if self.is_xa { Effect::Nothing } else { Effect::Brings };
        self.query(text.as_bytes(), effect, out);
        // What the client's last statement has left to ask for is gone. (Where XA takes nothing it could not be guarded.)
        self.foreign_values |= !self.is_xa;
    }

    /// A client gets the connection: what it has set is brought before code of its own looks at it or sets it, and so are those that clients
    /// look at behind such code.
    pub(super) fn bring_all(&mut self, client: &Client, out: &mut Vec<u8>) {
        if !self.hidden.foreign {
            return;
        }
        let wanted = client.settings();
        let mut names = self.options.learned.variables();
        names.extend(wanted.iter().map(|(name, _)| name).filter(|name| is_variable(name)).map(str::to_owned));
        if names.is_empty() {
            return;
        }
        // What the connection does not seem to have is replayed.
        let seems_here = |name: &&String| !self.settings_lost && self.applied.value(name) == wanted.value(name);
        let seeming: BTreeSet<String> = names.iter().filter(seems_here).cloned().collect();
        if !seeming.is_empty() {
            self.send_variables(&seeming, client, out);
        }
        self.hidden.brought = names;
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
