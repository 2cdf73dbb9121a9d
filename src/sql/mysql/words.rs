//! The words that mean something to the scan, and what else a token may be to it.

use super::lexer::{Kind, Token};

/// A token, as far as the scan tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Word {
    /// A name, or a word that says nothing here.
    #[default]
    Name,
    /// Digits.
    Number,
    /// A string.
    Literal,
    /// `@a`
    Variable,
    /// `@@`
    System,
    /// `:=`
    Assign,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `:`
    Colon,
    /// Any other byte.
    Symbol,
    /// What a statement begins with that changes no connection, and may end a transaction.
    Admin,
    /// What a statement begins with that changes nothing here.
    Plain,
    /// A name that follows is no function, even if a parenthesis follows it.
    Naming,
    /// What may stand right before a routine's body.
    Header,
    /// A setting of the whole server.
    Scope,
    Alter,
    Analyze,
    And,
    As,
    Backup,
    Begin,
    Call,
    Case,
    Chain,
    Character,
    Commit,
    Connection,
    Count,
    Create,
    Currval,
    Database,
    Deallocate,
    Declare,
    Default,
    Delete,
    Do,
    Drop,
    Else,
    End,
    Errors,
    Event,
    Execute,
    Explain,
    Export,
    Flush,
    For,
    From,
    Get,
    Handler,
    Hard,
    Id,
    If,
    Infile,
    Insert,
    Into,
    Join,
    Kill,
    Load,
    Local,
    Lock,
    Loop,
    Names,
    Next,
    Nextval,
    No,
    Not,
    On,
    Or,
    Package,
    Password,
    Prepare,
    Previous,
    Query,
    Release,
    Repeat,
    Replace,
    Resource,
    Return,
    Returning,
    Role,
    Rollback,
    Select,
    Session,
    Set,
    Show,
    Soft,
    SqlCalcFoundRows,
    Start,
    Statement,
    Table,
    Temporary,
    Then,
    To,
    Transaction,
    Unlock,
    Update,
    Use,
    User,
    Value,
    Values,
    Warnings,
    While,
    With,
    Work,
    Xa,
    /// `CLOSE`
    Closes,
    /// `OPEN`
    Opens,
    Xml,
    /// What has a body that runs later.
    Routine,
}

impl Word {
    /// What is quoted is never a keyword.
    pub(super) fn of(token: Token<'_>) -> Self {
        match token.kind {
            Kind::Word => keyword(token.bytes),
            Kind::Quoted | Kind::Semicolon => Self::Name,
            Kind::Literal => Self::Literal,
            Kind::UserVariable => Self::Variable,
            Kind::SystemVariable => Self::System,
            Kind::Number => Self::Number,
            Kind::Assign => Self::Assign,
            Kind::Open => Self::Open,
            Kind::Close => Self::Close,
            Kind::Comma => Self::Comma,
            Kind::Dot => Self::Dot,
            Kind::Other if token.bytes == b":" => Self::Colon,
            Kind::Other | Kind::Unterminated => Self::Symbol,
        }
    }
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Words(u128);

impl Words {
    pub(super) fn add(&mut self, word: Word) {
        self.0 |= Self::bit(word);
    }

    pub(super) fn contains(self, word: Word) -> bool {
        self.0 & Self::bit(word) != 0
    }

    fn bit(word: Word) -> u128 {
        1_u128.checked_shl(word as u32).unwrap_or_default()
    }
}

/// Sorted.
const KEYWORDS: &[(&str, Word)] = &[
    ("alter", Word::Alter),
    ("analyze", Word::Analyze),
    ("and", Word::And),
    ("as", Word::As),
    ("backup", Word::Backup),
    ("begin", Word::Begin),
    ("cache", Word::Admin),
    ("call", Word::Call),
    ("case", Word::Case),
    ("chain", Word::Chain),
    ("change", Word::Admin),
    ("character", Word::Character),
    ("charset", Word::Character),
    ("check", Word::Admin),
    ("checksum", Word::Admin),
    ("clone", Word::Admin),
    ("close", Word::Closes),
    ("column", Word::Naming),
    ("commit", Word::Commit),
    ("connection", Word::Connection),
    ("constraint", Word::Naming),
    ("count", Word::Count),
    ("create", Word::Create),
    ("currval", Word::Currval),
    ("data", Word::Header),
    ("database", Word::Database),
    ("deallocate", Word::Deallocate),
    ("declare", Word::Declare),
    ("default", Word::Default),
    ("definer", Word::Header),
    ("delayed", Word::Naming),
    ("delete", Word::Delete),
    ("desc", Word::Explain),
    ("describe", Word::Explain),
    ("deterministic", Word::Header),
    ("do", Word::Do),
    ("drop", Word::Drop),
    ("else", Word::Else),
    ("end", Word::End),
    ("errors", Word::Errors),
    ("event", Word::Event),
    ("execute", Word::Execute),
    ("exists", Word::Naming),
    ("explain", Word::Explain),
    ("export", Word::Export),
    ("flush", Word::Flush),
    ("for", Word::For),
    ("from", Word::From),
    ("fulltext", Word::Naming),
    ("function", Word::Routine),
    ("get", Word::Get),
    ("global", Word::Scope),
    ("grant", Word::Admin),
    ("handler", Word::Handler),
    ("hard", Word::Hard),
    ("help", Word::Plain),
    ("id", Word::Id),
    ("if", Word::If),
    ("ignore", Word::Naming),
    ("import", Word::Admin),
    ("index", Word::Naming),
    ("infile", Word::Infile),
    ("insert", Word::Insert),
    ("install", Word::Admin),
    ("into", Word::Into),
    ("invoker", Word::Header),
    ("join", Word::Join),
    ("key", Word::Naming),
    ("kill", Word::Kill),
    ("load", Word::Load),
    ("local", Word::Local),
    ("lock", Word::Lock),
    ("loop", Word::Loop),
    ("low_priority", Word::Naming),
    ("names", Word::Names),
    ("next", Word::Next),
    ("nextval", Word::Nextval),
    ("no", Word::No),
    ("not", Word::Not),
    ("on", Word::On),
    ("open", Word::Opens),
    ("optimize", Word::Admin),
    ("or", Word::Or),
    ("package", Word::Package),
    ("partition", Word::Naming),
    ("password", Word::Password),
    ("persist", Word::Scope),
    ("persist_only", Word::Scope),
    ("prepare", Word::Prepare),
    ("previous", Word::Previous),
    ("procedure", Word::Routine),
    ("purge", Word::Admin),
    ("query", Word::Query),
    ("recursive", Word::Naming),
    ("references", Word::Naming),
    ("release", Word::Release),
    ("rename", Word::Admin),
    ("repair", Word::Admin),
    ("repeat", Word::Repeat),
    ("replace", Word::Replace),
    ("reset", Word::Admin),
    ("resignal", Word::Plain),
    ("resource", Word::Resource),
    ("restart", Word::Admin),
    ("return", Word::Return),
    ("returning", Word::Returning),
    ("revoke", Word::Admin),
    ("role", Word::Role),
    ("rollback", Word::Rollback),
    ("row", Word::Header),
    ("savepoint", Word::Plain),
    ("schema", Word::Database),
    ("select", Word::Select),
    ("session", Word::Session),
    ("set", Word::Set),
    ("show", Word::Show),
    ("shutdown", Word::Admin),
    ("signal", Word::Plain),
    ("soft", Word::Soft),
    ("spatial", Word::Naming),
    ("sql", Word::Header),
    ("sql_calc_found_rows", Word::SqlCalcFoundRows),
    ("start", Word::Start),
    ("statement", Word::Statement),
    ("stop", Word::Admin),
    ("subpartition", Word::Naming),
    ("table", Word::Table),
    ("temporary", Word::Temporary),
    ("then", Word::Then),
    ("to", Word::To),
    ("transaction", Word::Transaction),
    ("trigger", Word::Routine),
    ("truncate", Word::Admin),
    ("uninstall", Word::Admin),
    ("unique", Word::Naming),
    ("unlock", Word::Unlock),
    ("update", Word::Update),
    ("use", Word::Use),
    ("user", Word::User),
    ("value", Word::Value),
    ("values", Word::Values),
    ("view", Word::Naming),
    ("warnings", Word::Warnings),
    ("while", Word::While),
    ("with", Word::With),
    ("work", Word::Work),
    ("xa", Word::Xa),
    ("xml", Word::Xml),
];

/// Where in the list those of a first letter begin; at its end, where the last ones end.
#[allow(clippy::indexing_slicing, reason = "the compiler does it")]
const STARTS: [u8; LETTERS + 1] = {
    let mut starts = [0; LETTERS + 1];
    let (mut rest, mut letter) = (KEYWORDS, 0);
    while letter < LETTERS {
        while let [(keyword, _), more @ ..] = rest
            && keyword.as_bytes()[0] as usize == 'a' as usize + letter
        {
            rest = more;
        }
        letter += 1;
        starts[letter] = (KEYWORDS.len() - rest.len()) as u8;
    }
    starts
};

const LETTERS: usize = 26;

fn keyword(word: &[u8]) -> Word {
    let Some(first) = word.first().filter(|first| first.is_ascii_alphabetic()) else { return Word::Name };
    let letter = usize::from(first.to_ascii_lowercase() - b'a');
    let Some([begins, ends]) = STARTS.get(letter..).and_then(|starts| starts.first_chunk()) else { return Word::Name };
    let same_letter = KEYWORDS.get(usize::from(*begins)..usize::from(*ends)).unwrap_or_default();
    let found = same_letter.iter().find(|(keyword, _)| keyword.as_bytes().eq_ignore_ascii_case(word));
    found.map_or(Word::Name, |(_, word)| *word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_found() {
        assert!(KEYWORDS.is_sorted_by_key(|(keyword, _)| keyword));
        assert_eq!(STARTS.last().copied().map(usize::from), Some(KEYWORDS.len()));
        for (text, word) in KEYWORDS {
            assert_eq!(keyword(text.to_ascii_uppercase().as_bytes()), *word);
            let mut words = Words::default();
            words.add(*word);
            assert!(words.contains(*word) && !words.contains(Word::Name));
        }
        assert_eq!(keyword(b""), Word::Name);
        assert_eq!(keyword(b"a_name_that_is_longer_than_any_keyword"), Word::Name);
    }
}
