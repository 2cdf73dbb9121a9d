//! Where the definition of a routine ends: not at the semicolons of its `BEGIN ... END`.
//!
//! Only words that can open a block where they stand do so. A text that is read wrongly is cut too early: more statements
//! are found than there are, never fewer.

use super::words::Word;

/// A procedure, function, trigger or event that is being defined; made when its kind has been read.
#[derive(Debug, Default, Clone)]
pub(super) struct Routine {
    /// Its body has begun.
    has_body: bool,
    /// A MariaDB package: it has semicolons of its own, and is taken to go on to the text's end.
    is_package: bool,
    /// An event whose schedule is read: that is evaluated at once.
    is_schedule: bool,
    /// Blocks that are open.
    blocks: usize,
    /// `CASE` expressions that are open: they hold no statements.
    expressions: usize,
    /// A statement may begin with the next word.
    is_at_start: bool,
    /// The word before was a block's `END`: its kind may follow.
    is_behind_end: bool,
    declares: bool,
    /// The statement declares a handler: its block may follow anywhere.
    declares_handler: bool,
}

impl Routine {
    pub(super) fn new(kind: Word) -> Self {
        Self { is_package: kind == Word::Package, is_schedule: kind == Word::Event, ..Self::default() }
    }

    /// What is read is not run when the definition is.
    pub(super) const fn is_deferred(&self) -> bool {
        !self.is_schedule
    }

    /// One more of its tokens, and the one before it.
    #[allow(clippy::wildcard_enum_match_arm, reason = "every other word of the language is the wildcard")]
    pub(super) fn token(&mut self, word: Word, previous: Word) {
        let is_at_start = std::mem::take(&mut self.is_at_start);
        let is_behind_end = std::mem::take(&mut self.is_behind_end);
        if previous == Word::Dot {
            return;
        }
        let begins_body = !self.has_body && matches!(previous, Word::Close | Word::Literal | Word::Header);
        let may_open = is_at_start || begins_body;
        match word {
            Word::If | Word::Case | Word::Loop | Word::While | Word::Repeat | Word::For if is_behind_end => {}
            Word::Begin if may_open || !self.has_body || self.declares_handler => self.open(true),
            Word::Loop | Word::Repeat if may_open => self.open(true),
            Word::If | Word::Case | Word::While if may_open => self.open(false),
            Word::For if is_at_start => self.open(false),
            Word::Case => self.expressions += 1,
            Word::End if self.expressions > 0 => self.expressions -= 1,
            Word::End if self.blocks > 0 => {
                self.blocks -= 1;
                self.is_behind_end = true;
            }
            Word::Then | Word::Else if self.expressions == 0 => self.is_at_start = true,
            Word::Colon => self.is_at_start = true,
            Word::Do if !is_at_start => {
                self.is_at_start = true;
                self.is_schedule = false;
            }
            Word::Declare if is_at_start => self.declares = true,
            Word::Handler if self.declares => self.declares_handler = true,
            Word::Return => self.has_body = true,
            Word::Set | Word::Select | Word::Insert | Word::Update | Word::Delete | Word::Replace | Word::Call
                if may_open =>
            {
                self.has_body = true;
            }
            _ => {}
        }
    }

    fn open(&mut self, is_at_start: bool) {
        self.has_body = true;
        self.blocks += 1;
        self.is_at_start = is_at_start;
    }

    /// A semicolon: whether the definition goes on behind it.
    pub(super) fn goes_on(&mut self) -> bool {
        self.is_at_start = true;
        self.is_behind_end = false;
        self.declares = false;
        self.declares_handler = false;
        self.expressions = 0;
        self.is_package || self.blocks > 0
    }
}
