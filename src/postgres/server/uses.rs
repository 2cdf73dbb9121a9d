//! The use of a prepared statement by Bind or Describe: what its name means to the server, what must be sent ahead, and what its
//! Execute will do.

use super::names::{Ahead, Names, Rewriting};
use super::owed::{Effect, Kind};
use super::send::never_ours;
use super::write::write_parse;
use super::{BoundPortal, Server, Transaction};
use crate::postgres::client::{Bound, Client, Prepared};
use crate::postgres::frame;
use crate::postgres::message;
use crate::postgres::statement::PREFIX;
use crate::protocol::{Clears, ClientError, Gate, Intent, Out, PinReason, Pins};
use crate::sql::Dialect;
use crate::sql::settings::Changes;
use std::sync::Arc;

/// Parameters are read for texts up to this length: once for each Bind.
const SETTING_TEXT_BYTES_MAX: usize = 4 << 10;
/// Types of which the server makes the text that is bound: not said, text, boolean, varchar.
const PLAIN_TYPES: &[u32] = &[0, 25, 16, 1043];
/// Portals whose Execute does more than run them, at a time.
const BOUND_MAX: usize = 1_000;
/// And so many of those that make statements of more bytes than this.
const BOUND_HEAVY_MAX: usize = 8;
const BOUND_BYTES_MAX: usize = 16 << 10;

impl Server {
    /// What a Bind (to this portal, with what its values do to settings) or a Describe of this name must say to the server; what it
    /// lacks is sent ahead.
    pub(super) fn resolve(
        &mut self,
        key: &[u8],
        meaning: Option<Prepared>,
        bind: Option<(&[u8], Option<Arc<Changes>>)>,
        client: &mut Client,
        out: &mut Out,
    ) -> SentName {
        let (portal, bound) = bind.map_or((None, None), |(portal, bound)| (Some(portal), bound));
        if key.is_empty() {
            return self.resolve_unnamed(portal, bound, client, out);
        }
        match meaning {
            Some(Prepared::Anywhere(statement)) => {
                let mut statement = self.in_present_settings(statement, client);
                let changes = bound.or_else(|| statement.changes.clone());
                let calls = statement.calls.iter().cloned().collect();
                let mut use_of = Use { intent: statement.intent, changes, calls, ..Use::default() };
                if let Some(template) = statement.template.as_ref().filter(|_| self.can_parse(portal)) {
                    let (body, rewriting) = self.concrete(&Arc::clone(template), client);
                    statement = self.current(statement, body, client);
                    use_of = rewriting.into();
                }
                if let Err(refused) = self.admit(portal, &mut use_of, &statement.body, client.pins, &mut client.gate) {
                    return refused;
                }
                self.send_ahead(&use_of.ahead, portal.is_some(), client, out);
                let pins = portal.map_or(Pins::NONE, |portal| self.bind(portal, use_of, client, out));
                self.ensure_prepared(&statement, client, out);
                let name = statement.id.name().to_vec();
                SentName { rewritten: Some(name), effect: Effect::Uses(statement, pins) }
            }
            Some(Prepared::OnConnection) | None => {
                SentName { rewritten: key.starts_with(PREFIX).then(|| never_ours(key)), effect: Effect::Nothing }
            }
        }
    }

    /// The text of a statement whose parameters decide what it does to settings.
    pub(super) fn text_with_parameters<'a>(
        &self,
        key: &[u8],
        meaning: Option<&'a Prepared>,
        client: &'a Client,
    ) -> Option<(&'a [u8], Dialect)> {
        let decide = |changes: &Option<Arc<Changes>>| changes.as_ref().is_some_and(|changes| changes.has_parameters);
        let (body, dialect) = match meaning {
            _ if key.is_empty() => {
                let (_, body, bound) = client.unnamed.latest().filter(|(_, _, bound)| decide(&bound.changes))?;
                (body, bound.dialect)
            }
            Some(Prepared::Anywhere(statement)) if decide(&statement.changes) => (&*statement.body, statement.dialect),
            _other => return None,
        };
        let (text, types) = frame::cstr(body)?;
        // Another type might make another text of what is bound.
        let are_plain = types.get(2..)?.chunks(4).all(|oid| PLAIN_TYPES.iter().any(|plain| plain.to_be_bytes() == oid));
        let is_short = text.len() <= SETTING_TEXT_BYTES_MAX;
        (are_plain && is_short).then_some((text, dialect))
    }

    /// A statement that is used in this way may be parsed anew ahead. What is described in a failed transaction is described as
    /// it is.
    pub(super) fn can_parse(&self, portal: Option<&[u8]>) -> bool {
        portal.is_some() || self.transaction != Transaction::Failed
    }

    pub(super) fn resolve_unnamed(
        &mut self,
        portal: Option<&[u8]>,
        bound_changes: Option<Arc<Changes>>,
        client: &mut Client,
        out: &mut Out,
    ) -> SentName {
        let latest = client.unnamed.latest().filter(|_| !self.owed.drops_unnamed());
        let Some((generation, _, bound)) = latest else {
            // Whatever is there is a stranger's: out of the way, so that the server says there is none.
            out.write(|out| message::close_statement(b"", out));
            self.owe_hidden(Kind::Close, Effect::Nothing);
            self.unnamed = None;
            return SentName { rewritten: None, effect: Effect::Nothing };
        };
        let Bound { intent, dialect, changes, calls, template } = bound.clone();
        let calls = calls.into_iter().collect();
        let mut use_of = Use { intent, changes: bound_changes.or(changes), calls, ..Use::default() };
        if let Some(template) = template.filter(|_| self.can_parse(portal)) {
            let (body, rewriting) = self.concrete(&template, client);
            use_of = rewriting.into();
            if client.unnamed.latest().is_some_and(|(_, sent, _)| *sent != *body) {
                client.unnamed.resend(&body);
                self.unnamed = None;
            }
        }
        let body = client.unnamed.latest().map_or(&b""[..], |(_, body, _)| body);
        if let Err(refused) = self.admit(portal, &mut use_of, body, client.pins, &mut client.gate) {
            return refused;
        }
        self.send_ahead(&use_of.ahead, portal.is_some(), client, out);
        let body = client.unnamed.latest().map_or(&b""[..], |(_, body, _)| body);
        if self.unnamed != Some((client.id, generation)) && !body.is_empty() {
            let misreads = self.misreads(body, dialect, self.reads_in());
            out.write(|out| write_parse(b"", body, out));
            self.owe_hidden(Kind::Parse, Effect::RestoreUnnamed);
            self.unnamed = Some((client.id, generation));
            if misreads {
                self.distrust_text(client, out);
            }
        }
        let effect = portal.map_or(Effect::Nothing, |portal| Effect::Pin(self.bind(portal, use_of, client, out)));
        SentName { rewritten: None, effect }
    }

    /// A statement with this body is to be bound, if it is: it may be, or what the client gets instead.
    fn admit(
        &mut self,
        portal: Option<&[u8]>,
        use_of: &mut Use,
        body: &[u8],
        pins: Pins,
        gate: &mut Gate,
    ) -> Result<(), SentName> {
        if portal.is_none() {
            return Ok(());
        }
        let full = use_of.refusal.take();
        if let Some(why) = full.or_else(|| self.refusal(use_of.intent, use_of.changes.as_deref(), body, pins, gate)) {
            return Err(SentName { rewritten: None, effect: Effect::Refuse(Box::new(why)) });
        }
        self.may_do(use_of.intent, body, 1);
        Ok(())
    }

    /// A statement is being bound to this portal. What it pins for once it is done.
    pub(super) fn bind(&mut self, portal: &[u8], use_of: Use, client: &mut Client, out: &mut Out) -> Pins {
        let Use { intent, changes, calls, names, .. } = use_of;
        self.begin_statement(intent, calls.iter().flat_map(|calls| calls.iter()), client, out);
        self.begin_changes(intent, changes.as_deref());
        let pins = pins_with(intent, changes.as_deref());
        // What is counted when it is bound is counted when it is done, and nothing else.
        let changes = changes.filter(|_| pins.contains(PinReason::Setting));
        let clears = intent.clears != Clears::Nothing;
        // Of more of them it is not known what their Executes do: tags and the server's own answers tell.
        let bytes: usize = names.iter().flat_map(|names| names.makes()).map(|(_, made)| made.bytes()).sum();
        let is_heavy = bytes > BOUND_BYTES_MAX && self.bound.len() >= BOUND_HEAVY_MAX;
        if self.bound.len() < BOUND_MAX && !is_heavy && (names.is_some() || changes.is_some() || clears) {
            self.bound.push(BoundPortal { portal: portal.into(), names, changes, clears });
        }
        pins
    }
}

/// What the use of a statement does, together with those that it executes itself.
#[derive(Default)]
pub(super) struct Use {
    intent: Intent,
    changes: Option<Arc<Changes>>,
    /// Functions that they may call.
    calls: Vec<Arc<[Box<[u8]>]>>,
    names: Option<Box<Names>>,
    /// What the server must have by then.
    ahead: Vec<Ahead>,
    /// Why it must not be bound.
    refusal: Option<ClientError>,
}

impl From<Rewriting> for Use {
    fn from(rewriting: Rewriting) -> Self {
        let Rewriting { intent, changes, calls, names, ahead, refusal, .. } = rewriting;
        Self { intent, changes, calls, names: Some(Box::new(names)), ahead, refusal }
    }
}

/// The name that a request says to the server.
pub(super) struct SentName {
    /// `None`: as the client wrote it.
    pub(super) rewritten: Option<Vec<u8>>,
    /// What its completion changes.
    pub(super) effect: Effect,
}

/// What a statement pins for once it is done, which does this to settings.
pub(super) fn pins_with(intent: Intent, changes: Option<&Changes>) -> Pins {
    let is_local = changes.is_some_and(Changes::is_local);
    intent.pins_when_done.without(if is_local { Pins::of(PinReason::Setting) } else { Pins::NONE })
}
