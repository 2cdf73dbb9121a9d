//! One setting's value in two ways: `'5MB'`, as a client has written it, and `5120`, as the server says when it is asked.
//!
//! What is certainly the same is kept in the client's words, so that a client of which the server was asked still has the settings of
//! those of which it was not: a connection goes from one to the other as it is. All else counts as different, which costs
//! a replay and no more.

/// How many of the smallest there are in each unit of memory, and of time.
const MEMORY: &[(&str, i64)] =
    &[("B", 1), ("kB", 1 << 10), ("8kB", 8 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];
const TIME: &[(&str, i64)] =
    &[("us", 1), ("ms", 1_000), ("s", 1_000_000), ("min", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Whether what a client has written is certainly what the server says, where `kind` is the `vartype` of `pg_settings` with its
/// `unit` behind it, if it has one.
pub(super) fn is_same(written: &str, said: &str, kind: &str) -> bool {
    if written == said {
        return true;
    }
    match kind.split_once(' ').unwrap_or((kind, "")) {
        ("bool", _) => truth(written).is_some_and(|value| truth(said) == Some(value)),
        ("enum", _) => written.eq_ignore_ascii_case(said),
        ("integer", unit) => number(written, unit).is_some_and(|value| said.parse() == Ok(value)),
        _other => false,
    }
}

fn truth(word: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    match () {
        () if is(&["on", "true", "yes", "1"]) => Some(true),
        () if is(&["off", "false", "no", "0"]) => Some(false),
        () => None,
    }
}

/// A whole number of this unit. The server also reads octal and hexadecimal numbers and fractions, and rounds: not here.
fn number(text: &str, unit: &str) -> Option<i64> {
    let digits = text.bytes().skip(usize::from(text.starts_with('-'))).take_while(u8::is_ascii_digit).count();
    let (value, suffix) = text.split_at_checked(digits + usize::from(text.starts_with('-')))?;
    if digits == 0 || (digits > 1 && value.trim_start_matches('-').starts_with('0')) {
        return None;
    }
    let value: i64 = value.parse().ok()?;
    let suffix = suffix.trim_start_matches(' ');
    if suffix.is_empty() {
        return Some(value);
    }
    // There is no word for eight kilobytes.
    let units = [MEMORY, TIME].into_iter().find(|units| units.iter().any(|(name, _)| *name == unit))?;
    let of = |wanted: &str| units.iter().find(|(name, _)| *name == wanted).map(|(_, size)| *size);
    let all = value.checked_mul(of(suffix).filter(|_| suffix != "8kB")?)?;
    let size = of(unit)?;
    (all % size == 0).then(|| all / size)
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn what_is_certainly_the_same() {
        for (written, said, kind) in [
            ("5MB", "5120", "integer kB"),
            ("5 MB", "5120", "integer kB"),
            ("5120", "5120", "integer kB"),
            ("1GB", "131072", "integer 8kB"),
            ("64kB", "65536", "integer B"),
            ("90s", "90000", "integer ms"),
            ("2min", "120", "integer s"),
            ("1d", "1440", "integer min"),
            ("-1", "-1", "integer ms"),
            ("0", "0", "integer"),
            ("true", "on", "bool"),
            ("OFF", "off", "bool"),
            ("Warning", "warning", "enum"),
            ("any, thing", "any, thing", "string"),
        ] {
            assert!(is_same(written, said, kind), "{written} {said} {kind}");
        }
    }

    #[test]
    fn all_else_may_differ() {
        for (written, said, kind) in [
            ("5MB", "5", "integer kB"),
            ("5MB", "5", "integer"),
            ("5mb", "5120", "integer kB"),
            ("8kB", "1", "integer ms"),
            ("1 8kB", "1", "integer 8kB"),
            ("1kB", "0", "integer 8kB"),
            ("1500us", "2", "integer ms"),
            ("010", "10", "integer"),
            ("-010", "-10", "integer"),
            ("0x10", "16", "integer"),
            ("1.0", "1", "integer"),
            ("1e3", "1000", "integer"),
            ("", "0", "integer"),
            ("-", "0", "integer"),
            ("MB", "0", "integer kB"),
            ("9223372036854775807TB", "1", "integer kB"),
            ("99999999999999999999", "1", "integer"),
            ("é5", "5", "integer"),
            ("1.10", "1.1", "real"),
            ("on", "off", "bool"),
            ("t", "on", "bool"),
            ("debug", "debug2", "enum"),
            ("A", "a", "string"),
            ("A", "a", ""),
        ] {
            assert!(!is_same(written, said, kind), "{written} {said} {kind}");
        }
    }
}
