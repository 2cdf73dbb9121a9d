//! What a client of MySQL's model does next: drawn by chance, and nothing but data, so that a run can be had again with fewer.

use std::fmt;

use super::texts;
use crate::harness::mysql::Flavour;
use crate::model::random::Random;
use crate::my_settings::SET;

/// Clients' own names for their prepared statements.
pub const SLOTS: usize = 3;
/// Values that a statement is executed with, of which it takes as many as it has parameters.
pub const PARAMETERS: usize = 3;

/// What one client does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Texts, sent in one go; each has a reply.
    Queries(Vec<String>),
    Prepare {
        slot: usize,
        text: String,
    },
    Execute {
        slot: usize,
        /// Kinds and values, both by numbers.
        values: [(usize, usize); PARAMETERS],
        /// Its types are said again, if it has had any.
        retypes: bool,
        cursor: bool,
    },
    Fetch {
        slot: usize,
        rows: u32,
    },
    /// A piece of its first parameter.
    Piece {
        slot: usize,
        bytes: usize,
    },
    ResetStatement {
        slot: usize,
    },
    Close {
        slot: usize,
    },
    InitDb(&'static str),
    FieldList(&'static str),
    Ping,
    /// Several statements in one text: yes or no.
    SetOption(bool),
    ResetConnection,
    /// COM_CHANGE_USER, as the same user.
    LogsInAgain,
    /// In whatever state, and comes again.
    Leaves,
    /// All that can be asked about a session.
    State,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queries(texts) => write!(f, "{}", texts.join("  |  ")),
            Self::Prepare { slot, text } => write!(f, "(prepare {slot}) {text}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What a variable is as a statement is prepared counts for what sets others from it; and in MariaDB preparing an assignment gives the
/// variable another character set. It may be prepared on a connection, or at a time, where the variable is something else.
fn is_prepared_alike(text: &str) -> bool {
    !(text.contains(":=") || text.starts_with("SET") && text.contains("= @"))
}

/// Draws steps. A client is calm for a while, when it does nothing that a connection would be kept for today, and wild again: else
/// all would have connections of their own most of the time.
pub struct Steps {
    random: Random,
    settings: Vec<(&'static str, [&'static str; 2])>,
    wild: Vec<&'static str>,
    is_wild: Vec<bool>,
}

impl Steps {
    /// `has`: the server has this variable.
    pub fn new(seed: u64, clients: usize, flavour: Flavour, mut has: impl FnMut(&str) -> bool) -> Self {
        // In MySQL clients have no right to set this one. One that fails by an expression, which nothing but the server can tell, is
        // put on the next connection all the same, and fails there.
        let may_be_set = |name: &str| flavour == Flavour::MariaDb || name != "low_priority_updates";
        let settings = SET.iter().copied().filter(|(name, _)| has(name) && may_be_set(name)).collect();
        let own = if flavour == Flavour::MariaDb { texts::MARIADB } else { texts::MYSQL };
        let wild = texts::WILD.iter().chain(own).copied().collect();
        Self { random: Random(seed), settings, wild, is_wild: vec![false; clients] }
    }

    pub fn client(&mut self) -> usize {
        self.random.below(self.is_wild.len())
    }

    /// What this client does next.
    pub fn step(&mut self, client: usize) -> Step {
        if self.random.one_in(25) {
            self.is_wild[client] = self.random.one_in(3);
        }
        let is_wild = self.is_wild[client];
        let random = &mut self.random;
        let slot = random.below(SLOTS);
        match random.below(200) {
            0..90 => Step::Queries(vec![self.text(is_wild)]),
            90..96 => Step::Queries((0..2 + self.random.below(2)).map(|_| self.text(is_wild)).collect()),
            96..110 => {
                let texts: Vec<String> = (0..2 + self.random.below(2)).map(|_| self.part(is_wild)).collect();
                Step::Queries(vec![texts.join("; ")])
            }
            110..125 => {
                let part = self.random.one_in(3).then(|| self.part(is_wild)).filter(|text| is_prepared_alike(text));
                let text = part.unwrap_or_else(|| self.prepared());
                Step::Prepare { slot, text }
            }
            125..155 => {
                let values = [(); PARAMETERS].map(|()| (random.below(20), random.below(20)));
                Step::Execute { slot, values, retypes: random.one_in(2), cursor: is_wild && random.one_in(4) }
            }
            155..158 if is_wild => Step::Fetch { slot, rows: 1 + u32::try_from(random.below(3)).unwrap() },
            158..160 if is_wild => Step::Piece { slot, bytes: [0, 1, 300, 70_000][random.below(4)] },
            160..162 => Step::ResetStatement { slot },
            162..165 => Step::Close { slot },
            165..167 => Step::InitDb(random.of(&["{db}", "{db}b", "{db}b", "nowhere", ""])),
            167 => Step::FieldList(random.of(&["p", "t1", "tmp"])),
            168..171 => Step::Ping,
            171 if is_wild => Step::SetOption(random.one_in(2)),
            172 => Step::ResetConnection,
            173 => Step::LogsInAgain,
            174 if random.one_in(2) => Step::Leaves,
            _ => Step::State,
        }
    }

    fn text(&mut self, is_wild: bool) -> String {
        let random = &mut self.random;
        let text = match random.below(10) {
            0..3 => random.of(texts::TRANSACTION),
            3 => random.of(texts::SETS),
            4 if is_wild => random.of(texts::EXPRESSIONS),
            5.. if is_wild => random.of(&self.wild),
            _ => random.of(texts::CALM),
        };
        self.filled(text)
    }

    fn prepared(&mut self) -> String {
        let text = self.random.of(texts::PREPARED);
        self.filled(text)
    }

    /// One that stands alone nowhere: a `KILL` among others, or prepared, is refused; and who may have set its tracker among other things is
    /// told of changes from then on, whether that has failed or not.
    fn part(&mut self, is_wild: bool) -> String {
        let text = self.text(is_wild);
        let stands_alone = text.starts_with("KILL") || text.contains("session_track_state_change");
        if stands_alone { "DO 1".to_owned() } else { text }
    }

    fn filled(&mut self, text: &str) -> String {
        let random = &mut self.random;
        let number = 1 + random.below(3);
        let (name, values) = self.settings[random.below(self.settings.len())];
        let value = values[random.below(2)];
        text.replace("{n}", &number.to_string()).replace("{v}", name).replace("{x}", value)
    }
}
