//! A transaction whose beginning was refused, since there was no database connection for it.
//!
//! A client may have sent the rest of its transaction already, in a pipeline. It must not run outside of one: as behind any `BEGIN` that
//! fails, everything up to the transaction's end is refused as well, here, without a server.

use super::client::{Prepared, Statements, Unnamed};
use super::frame;
use crate::sql::Dialect;
use crate::sql::transaction::{Boundaries, boundaries};

/// Texts are read up to this length. What opens or ends a transaction stands in a short one.
const READ_BYTES_MAX: usize = 64 << 10;
/// Parses of a refused exchange whose texts are remembered for their Binds.
const PARSES_MAX: usize = 1_000;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    is_open: bool,
    /// The client has not been told so yet.
    is_fresh: bool,
    /// An exchange fails as it would in any failed transaction: what else is in it means nothing.
    is_skipping: bool,
    /// Statements of the exchange that is being refused, by name.
    parses: Vec<(Box<[u8]>, Boundaries)>,
}

/// What becomes of the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is the transaction's end, and nothing else.
    Ends,
    /// It is its end, and more.
    GoesOn,
    /// It fails.
    Fails,
}

impl Aborted {
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// As ReadyForQuery says it. Who has sent nothing more by then knows that the `BEGIN` was refused: there is no transaction, and
    /// drivers that keep count themselves (psycopg2) send no `ROLLBACK`.
    pub(super) fn status(&mut self, is_more_there: bool) -> u8 {
        self.parses = Vec::new();
        self.is_skipping = false;
        if std::mem::take(&mut self.is_fresh) && !is_more_there {
            self.is_open = false;
        }
        if self.is_open { b'E' } else { b'I' }
    }

    /// More of the frame, which has so many bytes, must be there.
    pub(super) fn wants(&self, frame_bytes: usize, there: &[u8]) -> bool {
        there.len() < frame_bytes.min(READ_BYTES_MAX)
    }

    /// A query with this body (or the beginning of one) has been refused.
    pub(super) fn refuse_query(&mut self, body: &[u8]) {
        self.takes(read(body));
    }

    /// A Parse or Bind with this body has been refused with its exchange.
    pub(super) fn refuse_extended(&mut self, kind: u8, body: &[u8], statements: &Statements, unnamed: &Unnamed) {
        match kind {
            _ if self.is_skipping => {}
            b'P' if self.parses.len() < PARSES_MAX => {
                let Some((name, text)) = frame::cstr(body) else { return };
                self.parses.push((name.into(), read(text)));
            }
            b'B' => {
                if let Some(bound) = self.bound(body, statements, unnamed) {
                    self.takes(bound);
                }
            }
            _other => {}
        }
    }

    /// The next request, while the transaction is open.
    pub(super) fn next(&mut self, kind: u8, body: &[u8], statements: &Statements, unnamed: &Unnamed) -> Next {
        let found = match kind {
            b'Q' => Some(read(body)),
            b'P' => frame::cstr(body).map(|(_, text)| read(text)),
            b'B' => self.bound(body, statements, unnamed),
            _other => None,
        };
        let Some(found) = found.filter(|found| found.begins_with_end) else {
            self.is_skipping = true;
            return Next::Fails;
        };
        self.is_open = false;
        if kind == b'Q' && found.statements == 1 { Next::Ends } else { Next::GoesOn }
    }

    fn takes(&mut self, found: Boundaries) {
        self.is_open = found.leaves_open.unwrap_or(self.is_open);
        self.is_fresh = self.is_open;
    }

    /// What the statement says that a Bind names.
    fn bound(&self, body: &[u8], statements: &Statements, unnamed: &Unnamed) -> Option<Boundaries> {
        let (_, rest) = frame::cstr(body)?;
        let (name, _) = frame::cstr(rest)?;
        if let Some((_, found)) = self.parses.iter().rev().find(|(parsed, _)| **parsed == *name) {
            return Some(*found);
        }
        if name.is_empty() {
            return unnamed.latest().map(|(_, body, _)| read(body));
        }
        match statements.find(name)? {
            Prepared::Anywhere(statement) => Some(read(&statement.body)),
            Prepared::OnConnection => None,
        }
    }
}

/// What the text at the beginning of this says.
fn read(body: &[u8]) -> Boundaries {
    let text = frame::cstr(body).map_or(body, |(text, _)| text);
    boundaries(text.get(..READ_BYTES_MAX).unwrap_or(text), Dialect::default())
}
