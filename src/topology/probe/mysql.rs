//! The probe of MySQL and MariaDB: what it asks, what the answer means, and what is said of errors.

use super::{Finding, ProbeError};
use crate::protocol::{HandshakeError, Meaning, ServerError};
use crate::topology::{Limits, Reason, Role};

/// The same of both. `super_read_only` is MySQL's alone, and switches `read_only` on; `innodb_read_only` is what a reader of
/// Aurora's has.
pub(super) const QUESTION: &str =
    "SELECT @@version, @@global.max_connections, @@global.read_only, @@global.innodb_read_only";

/// A variable that is a boolean, or, as `read_only` of newer MariaDBs, one of some words.
const OFF: [&str; 2] = ["0", "OFF"];
/// `require_secure_transport` is on.
const TLS_REQUIRED: &str = "3159";
/// The account has a plugin that is not there, or one that the server does not use with such a client.
const PLUGIN_REFUSED: [&str; 2] = ["1524", "1251"];

pub(super) fn understand(row: &[Option<String>]) -> Result<Finding, ProbeError> {
    let needed = |column: usize, name: &'static str| {
        row.get(column).and_then(Option::as_deref).ok_or(ProbeError::Answer(name, None))
    };
    let unclear = |name: &'static str, text: &str| ProbeError::Answer(name, Some(text.to_owned()));
    let (version, max_connections) = (needed(0, "version")?, needed(1, "max_connections")?);
    let is_on = |column: usize, name| Ok::<_, ProbeError>(!OFF.contains(&needed(column, name)?));
    let is_read_only = is_on(2, "read_only")? || is_on(3, "innodb_read_only")?;
    let number = version_number(version).ok_or_else(|| unclear("version", version))?;
    // As MariaDB's own greeting has it before version 11, for old replicas.
    let is_old_mariadb = version.contains("MariaDB") && number < 110_000;
    let text = if is_old_mariadb { format!("5.5.5-{version}") } else { version.to_owned() };
    Ok(Finding {
        role: if is_read_only { Role::Standby } else { Role::Writer },
        limits: Limits {
            max_connections: max_connections.parse().map_err(|_| unclear("max_connections", max_connections))?,
            // Both let one administrator in beyond `max_connections`.
            reserved: 0,
        },
        version: number,
        version_text: Some(text.into()),
    })
}

/// `9.7.4` and whatever stands behind it: 90704, which is how MySQL itself counts.
fn version_number(text: &str) -> Option<u32> {
    let digits = text.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    let mut parts = digits.split('.').map(|part| part.parse::<u32>().ok().filter(|number| *number < 1000));
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0));
    Some(major * 10_000 + minor.min(99) * 100 + patch.min(99))
}

pub(super) fn reason_of_server(error: &ServerError) -> Reason {
    match error.meaning() {
        Meaning::NoSuchDatabase | Meaning::WrongPassword | Meaning::LoginRefused => Reason::AccountRefused,
        Meaning::Other if error.code == TLS_REQUIRED => Reason::Tls,
        Meaning::Other if PLUGIN_REFUSED.contains(&error.code.as_str()) => Reason::AccountRefused,
        Meaning::Full | Meaning::NotReady | Meaning::Other => Reason::Database,
    }
}

pub(super) fn words_of_server(error: &ServerError) -> String {
    let said = format!("the database answered {}: {}", error.code, error.message);
    match reason_of_server(error) {
        Reason::Tls => format!("{said}; set tls in [[target_group]] to \"verify-full\", \"verify-ca\" or \"require\""),
        Reason::AccountRefused => format!(
            "{said}; look at `user`, `password` and `database` in [target_group.health], and at the hosts the account may \
             come from"
        ),
        Reason::Network | Reason::Timeout | Reason::Database => said,
    }
}

pub(super) fn reason_of_login(error: &HandshakeError) -> Reason {
    match error {
        HandshakeError::TlsDeclined => Reason::Tls,
        // How the account proves itself is not how we do.
        HandshakeError::UnsupportedMethod(_) | HandshakeError::NoPassword(_) | HandshakeError::Challenge(_) => {
            Reason::AccountRefused
        }
        HandshakeError::Server(error) => reason_of_server(error),
        HandshakeError::Violation(_)
        | HandshakeError::Refused(_)
        | HandshakeError::ServerNotProven
        | HandshakeError::Standby => Reason::Network,
    }
}

pub(super) fn words_of_login(error: &HandshakeError) -> String {
    match error {
        HandshakeError::TlsDeclined => format!(
            "{error}: switch TLS on at the target (ssl_cert, ssl_key), or set tls = \"off\" in [[target_group]] if the network \
             is safe"
        ),
        HandshakeError::UnsupportedMethod(_) => format!(
            "{error}; the account of [target_group.health] must be one of caching_sha2_password or mysql_native_password"
        ),
        HandshakeError::Server(error) => words_of_server(error),
        HandshakeError::NoPassword(_)
        | HandshakeError::Challenge(_)
        | HandshakeError::Violation(_)
        | HandshakeError::Refused(_)
        | HandshakeError::ServerNotProven
        | HandshakeError::Standby => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| (*value != "NULL").then(|| (*value).to_owned())).collect()
    }

    #[test]
    fn both_are_understood() {
        let mysql = ["9.7.4", "151", "0", "0"];
        let found = understand(&row(&mysql)).unwrap();
        assert_eq!((found.role, found.version, found.version_text.as_deref()), (Role::Writer, 90_704, Some("9.7.4")));
        assert_eq!(found.limits, Limits { max_connections: 151, reserved: 0 });
        for (version, text) in
            [("10.11.19-MariaDB", "5.5.5-10.11.19-MariaDB"), ("11.4.2-MariaDB-log", "11.4.2-MariaDB-log")]
        {
            let found = understand(&row(&[version, "400", "OFF", "OFF"])).unwrap();
            assert_eq!((found.role, found.version_text.as_deref()), (Role::Writer, Some(text)));
        }
        for (column, value) in [(2, "1"), (2, "ON"), (2, "NO_LOCK_NO_ADMIN"), (3, "1"), (3, "ON")] {
            let mut read_only = mysql;
            read_only[column] = value;
            assert_eq!(understand(&row(&read_only)).unwrap().role, Role::Standby, "{column} {value}");
        }
        for (column, value) in [(0, "NULL"), (0, "new"), (1, "many"), (1, "-1"), (2, "NULL"), (3, "NULL")] {
            let mut broken = mysql;
            broken[column] = value;
            assert!(matches!(understand(&row(&broken)), Err(ProbeError::Answer(..))), "{column} {value}");
        }
        assert!(understand(&[]).is_err());
    }

    #[test]
    fn versions_are_counted_as_mysql_does() {
        for (text, number) in [
            ("8.0.36", Some(80_036)),
            ("8.4.10-debug", Some(80_410)),
            ("5.7.44-48-log", Some(50_744)),
            ("11.4-MariaDB", Some(110_400)),
            ("10.11.119", Some(101_199)),
            ("4294967295.1.1", None),
            ("v8", None),
            ("8", None),
            ("", None),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }

    #[test]
    fn errors_have_their_reasons_and_say_what_to_do() {
        for (code, expected, word) in [
            ("1045", Reason::AccountRefused, "[target_group.health]"),
            ("1049", Reason::AccountRefused, "`database`"),
            ("1524", Reason::AccountRefused, "[target_group.health]"),
            ("1040", Reason::Database, "answered 1040: x"),
            ("1203", Reason::Database, "answered 1203"),
            ("1053", Reason::Database, "answered 1053"),
            ("3159", Reason::Tls, "set tls"),
        ] {
            let (code, message) = (code.to_owned(), "x".to_owned());
            let error = ServerError { code, message, is_fatal: true, frame: Vec::new() };
            let said = words_of_server(&error);
            assert_eq!(reason_of_server(&error), expected, "{said}");
            assert!(said.contains(word), "{said}");
        }
        for (error, expected, word) in [
            (HandshakeError::TlsDeclined, Reason::Tls, "switch TLS on"),
            (HandshakeError::UnsupportedMethod("parsec"), Reason::AccountRefused, "parsec; the account"),
        ] {
            let said = words_of_login(&error);
            assert_eq!(reason_of_login(&error), expected, "{said}");
            assert!(said.contains(word), "{said}");
        }
    }
}
