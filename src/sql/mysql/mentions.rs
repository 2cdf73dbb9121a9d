//! What a text speaks of, however it is read: what may be a name or a word counts, in strings and comments as well.

use super::settings::STATE_CHANGE;

/// More are not gathered.
pub const MENTIONS_MAX: usize = 32;
/// Bytes of a name: 64 letters (<https://dev.mysql.com/doc/refman/9.7/en/user-variables.html>).
const NAME_BYTES_MAX: usize = 64;

/// The user variables that a text may speak of, each as `@name` in lower case, in no order and maybe several times. `None`: some can't be told,
/// or there are too many.
pub fn variables(text: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for at in memchr::memchr_iter(b'@', text) {
        let is_system = text.get(at + 1) == Some(&b'@') || at > 0 && text.get(at - 1) == Some(&b'@');
        if is_system {
            continue;
        }
        let rest = text.get(at + 1..).unwrap_or_default();
        let quote = rest.first().filter(|byte| b"'\"`".contains(byte));
        let rest = rest.get(quote.iter().count()..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_$.".contains(byte)).count();
        let is_whole = match (quote, rest.get(len)) {
            (Some(quote), next) => next == Some(quote) && rest.get(len + 1) != Some(quote),
            (None, next) => next.is_none_or(|next| next.is_ascii() && !b"@\\".contains(next)),
        };
        let name = rest.get(..len).filter(|_| (1..=NAME_BYTES_MAX).contains(&len) && is_whole)?;
        let name = format!("@{}", String::from_utf8_lossy(name).to_ascii_lowercase());
        if !found.contains(&name) {
            if found.len() == MENTIONS_MAX {
                return None;
            }
            found.push(name);
        }
    }
    Some(found)
}

/// Of a byte, how common it is in texts: those that no word has come first.
#[allow(clippy::indexing_slicing, reason = "the compiler does it")]
const COMMON: [u8; 256] = {
    const RARE_FIRST: &[u8] = b";zqxjk_vbwpygfmucdlhrsnioate";
    let mut ranks = [0; 256];
    let (mut rest, mut rank) = (RARE_FIRST, 1);
    while let [letter, more @ ..] = rest {
        ranks[*letter as usize] = rank;
        ranks[letter.to_ascii_uppercase() as usize] = rank;
        (rest, rank) = (more, rank + 1);
    }
    ranks
};

/// This is somewhere in the text, which may be long: its rarest letter is looked for.
pub fn has(text: &[u8], word: &str) -> bool {
    let (mut at, mut letter, mut rarest) = (0, 0, u8::MAX);
    for (place, byte) in word.bytes().enumerate() {
        let rank = COMMON.get(usize::from(byte)).copied().unwrap_or_default();
        if rank < rarest {
            (at, letter, rarest) = (place, byte, rank);
        }
    }
    let mut letters = memchr::memchr2_iter(letter.to_ascii_lowercase(), letter.to_ascii_uppercase(), text);
    word.is_empty()
        || letters.any(|found| {
            let part = found.checked_sub(at).and_then(|begins| text.get(begins..begins + word.len()));
            part.is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        })
}

/// What a text mentions, to be kept with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mentions {
    /// It may be a `SET` or a `USE`.
    pub may_set: bool,
    /// Code may run that it does not name: of a trigger, or of a view.
    pub runs_code: bool,
    /// It speaks of the session's tracker of changes.
    pub tracks: bool,
    /// It speaks of a table that shows user variables.
    pub lists_variables: bool,
    /// It may be a `CREATE`, an `ALTER` or a `DROP`.
    pub may_make: bool,
}

impl Mentions {
    /// Nothing but code of triggers and views.
    pub fn are_plain(self) -> bool {
        !(self.may_set || self.tracks || self.lists_variables || self.may_make)
    }

    /// Those of this text.
    pub fn of(text: &[u8]) -> Self {
        const MAKE: &[&str] = &["create", "alter", "drop"];
        let begins_with = |words: &[&str]| words.iter().any(|word| begins(text, word));
        let has_any = |words: &[&str]| words.iter().any(|word| has(text, word));
        let is_plain = text.trim_ascii_start().first().is_some_and(u8::is_ascii_alphabetic);
        Self {
            may_set: begins_with(&["set", "use"]),
            runs_code: may_run_code(text),
            tracks: has(text, STATE_CHANGE),
            lists_variables: has(text, "user_variables"),
            // MariaDB's `SET STATEMENT ... FOR` has any statement in it; `SET max_statement_time` has none.
            may_make: begins_with(MAKE) || !is_plain || begins(text, "set") && has(text, "statement") && has_any(MAKE),
        }
    }
}

/// The text's first letters.
pub fn begins(text: &[u8], word: &str) -> bool {
    text.trim_ascii_start().get(..word.len()).is_some_and(|first| first.eq_ignore_ascii_case(word.as_bytes()))
}

fn may_run_code(text: &[u8]) -> bool {
    let reads = || ["from", "table", ";"].iter().any(|word| has(text, word));
    match ["select", "set", "do"].iter().any(|word| begins(text, word)) {
        true => reads(),
        // Tables at most are named there.
        false => {
            !["lock", "drop", "prepare", "deallocate", "use"].iter().any(|word| begins(text, word)) || has(text, ";")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mentions, has, may_run_code, variables};

    #[test]
    fn words_anywhere() {
        for text in ["track_it", "x TRACK_IT", "trtrack_itx", "track_ trac track_It"] {
            assert!(has(text.as_bytes(), "track_it"), "{text}");
        }
        for text in ["", "k", "track_i", "rack_it", "trac_kit"] {
            assert!(!has(text.as_bytes(), "track_it"), "{text}");
        }
        assert!(has(b"a;", ";") && has(b"", "") && !has(b"a", ";"));
    }

    #[test]
    fn what_may_make_something() {
        for text in [
            "CREATE TABLE t (a INT)",
            " drop procedure p",
            "/* x */ SELECT 1",
            "SET STATEMENT a = 1 FOR CREATE TABLE t (b INT)",
        ] {
            assert!(Mentions::of(text.as_bytes()).may_make, "{text}");
        }
        for text in ["SELECT 1", "SET max_statement_time = 5", "INSERT INTO t VALUES ('create')"] {
            assert!(!Mentions::of(text.as_bytes()).may_make, "{text}");
        }
    }

    #[test]
    fn code_without_a_name() {
        for text in ["SELECT 1", "SET @a = 1", " do 1", "DROP TABLE t", "LOCK TABLES t READ", "PREPARE s FROM 'x'"] {
            assert!(!may_run_code(text.as_bytes()), "{text}");
        }
        for text in ["INSERT INTO t VALUES (1)", "SELECT 1 FROM v", "SET @a = (TABLE v)", "DO 1; CALL p()", "TABLE v"] {
            assert!(may_run_code(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn names() {
        for (text, expected) in [
            ("SET @a = 1, @B.c$_9 = 2, @a = 3", Some(&["@a", "@b.c$_9"][..])),
            ("SELECT @@sql_mode, @@session.x, '@b', /* @c */ 1 INTO @d", Some(&["@b", "@c", "@d"])),
            ("SELECT 1", Some(&[])),
            ("SELECT 1 INTO @'a', @`B`, @\"c\"", Some(&["@a", "@b", "@c"])),
            ("SELECT 1 INTO @'a b'", None),
            ("SELECT 1 INTO @`a``b`", None),
            ("SELECT 1 INTO @'a", None),
            ("SELECT 1 INTO @'a\"", None),
            ("SELECT 1 INTO @``", None),
            ("SELECT 1 INTO @ a", None),
            ("SELECT 1 INTO @", None),
            ("SELECT 1 INTO @ä", None),
            ("SELECT 1 INTO @aä", None),
            ("SELECT 1 INTO @/**/a", None),
            ("SELECT 1 INTO @a/**/", Some(&["@a"])),
            ("SELECT 1 INTO @a@b", None),
        ] {
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(variables(text.as_bytes()), expected, "{text}");
        }
        let many: String = (0..33).map(|number| format!("@a{number},")).collect();
        assert_eq!(variables(many.as_bytes()), None);
        assert_eq!(variables(format!("@{}", "a".repeat(65)).as_bytes()), None);
    }
}
