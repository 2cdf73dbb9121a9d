//! What both sides can do: what clients are offered, what is asked of servers, and what of it belongs to a pool's key.
//!
//! MariaDB has capabilities of its own, in bytes that are reserved elsewhere; who has them leaves out MySQL's first flag
//! (<https://mariadb.com/kb/en/connection/#capabilities>). Offered is what the target's version has, and nothing that a connection
//! which others share can't keep for each of them: results without descriptions, or with such as only who has seen them before can do
//! without (`CLIENT_OPTIONAL_RESULTSET_METADATA`, `CACHE_METADATA`).

pub use mysql_common::constants::CapabilityFlags as Capabilities;
pub use mysql_common::constants::MariadbCapabilities as Extended;

/// What every client may use. What it does not know it leaves out.
const OFFERED: Capabilities = Capabilities::CLIENT_LONG_PASSWORD
    .union(Capabilities::CLIENT_FOUND_ROWS)
    .union(Capabilities::CLIENT_LONG_FLAG)
    .union(Capabilities::CLIENT_CONNECT_WITH_DB)
    .union(Capabilities::CLIENT_ODBC)
    .union(Capabilities::CLIENT_COMPRESS)
    .union(Capabilities::CLIENT_LOCAL_FILES)
    .union(Capabilities::CLIENT_IGNORE_SPACE)
    .union(Capabilities::CLIENT_PROTOCOL_41)
    .union(Capabilities::CLIENT_INTERACTIVE)
    .union(Capabilities::CLIENT_TRANSACTIONS)
    .union(Capabilities::CLIENT_SECURE_CONNECTION)
    .union(Capabilities::CLIENT_MULTI_STATEMENTS)
    .union(Capabilities::CLIENT_MULTI_RESULTS)
    .union(Capabilities::CLIENT_PS_MULTI_RESULTS)
    .union(Capabilities::CLIENT_PLUGIN_AUTH)
    .union(Capabilities::CLIENT_CONNECT_ATTRS)
    .union(Capabilities::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Capabilities::CLIENT_SESSION_TRACK)
    .union(Capabilities::CLIENT_DEPRECATE_EOF)
    .union(Capabilities::CLIENT_ZSTD_COMPRESSION_ALGORITHM);

/// What is always wanted of a server.
pub const NEEDED: Capabilities = Capabilities::CLIENT_PROTOCOL_41
    .union(Capabilities::CLIENT_SECURE_CONNECTION)
    .union(Capabilities::CLIENT_PLUGIN_AUTH)
    .union(Capabilities::CLIENT_SESSION_TRACK)
    .union(Capabilities::CLIENT_DEPRECATE_EOF);
/// What is used beside that.
const USED: Capabilities = NEEDED
    .union(Capabilities::CLIENT_LONG_PASSWORD)
    .union(Capabilities::CLIENT_LONG_FLAG)
    .union(Capabilities::CLIENT_TRANSACTIONS)
    .union(Capabilities::CLIENT_MULTI_RESULTS)
    .union(Capabilities::CLIENT_PS_MULTI_RESULTS)
    .union(Capabilities::CLIENT_CONNECT_ATTRS)
    .union(Capabilities::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA);
/// MariaDB's that any client's connection may have: nothing is sent otherwise for it.
const USED_EXTENDED: Extended = Extended::MARIADB_CLIENT_STMT_BULK_OPERATIONS;

/// Decided at a login for good, and so a part of the pool's key.
const FIXED: &[(Capabilities, &str)] = &[
    (Capabilities::CLIENT_FOUND_ROWS, "found_rows"),
    (Capabilities::CLIENT_IGNORE_SPACE, "ignore_space"),
    (Capabilities::CLIENT_INTERACTIVE, "interactive"),
    (Capabilities::CLIENT_LOCAL_FILES, "local_files"),
    (Capabilities::CLIENT_MULTI_STATEMENTS, "multi_statements"),
    (Capabilities::CLIENT_QUERY_ATTRIBUTES, "query_attributes"),
];
/// The same of MariaDB's.
const FIXED_EXTENDED: &[(Extended, &str)] = &[
    (Extended::MARIADB_CLIENT_EXTENDED_METADATA, "extended_metadata"),
    (Extended::MARIADB_CLIENT_PROGRESS, "progress"),
];

/// Its client knows of one result to a command alone: a `CALL` that has more is an error then.
const SINGLE_RESULTS: &str = "single_results";

/// What clients may use before a target of this version. `None`: nobody knows it yet.
pub fn offered(version: Option<&str>) -> (Capabilities, Extended) {
    let numbers = version.map(numbers);
    if version.is_some_and(is_mariadb) {
        let progress = USED_EXTENDED.union(Extended::MARIADB_CLIENT_PROGRESS);
        let metadata = Extended::MARIADB_CLIENT_EXTENDED_METADATA;
        let extended = if numbers < Some([10, 5, 2]) { progress } else { progress.union(metadata) };
        return (OFFERED.difference(Capabilities::CLIENT_LONG_PASSWORD), extended);
    }
    let attributes = Capabilities::CLIENT_QUERY_ATTRIBUTES;
    // Where a server turns out not to have them, they are dropped.
    let is_older = numbers.is_some_and(|numbers| numbers < [8, 0, 23]);
    (if is_older { OFFERED } else { OFFERED.union(attributes) }, Extended::empty())
}

/// What is wanted of a server for clients whose logins have these fixed.
pub fn wanted(fixed: &[(String, String)]) -> (Capabilities, Extended) {
    let is_fixed = |name: &str| fixed.iter().any(|(fixed, _)| fixed == name);
    let usual = FIXED.iter().filter(|(_, name)| is_fixed(name));
    let extended = FIXED_EXTENDED.iter().filter(|(_, name)| is_fixed(name));
    let used = if is_fixed(SINGLE_RESULTS) { USED.difference(Capabilities::CLIENT_MULTI_RESULTS) } else { USED };
    (usual.fold(used, |all, (flag, _)| all | *flag), extended.fold(USED_EXTENDED, |all, (flag, _)| all | *flag))
}

/// What of a client's is fixed, by its names.
pub fn fixed(usual: Capabilities, extended: Extended) -> impl Iterator<Item = &'static str> {
    let single = (!usual.contains(Capabilities::CLIENT_MULTI_RESULTS)).then_some(SINGLE_RESULTS);
    let usual = FIXED.iter().filter(move |(flag, _)| usual.contains(*flag)).map(|(_, name)| *name).chain(single);
    let extended = FIXED_EXTENDED.iter().filter(move |(flag, _)| extended.contains(*flag)).map(|(_, name)| *name);
    usual.chain(extended)
}

/// By what it says of itself.
pub fn is_mariadb(version: &str) -> bool {
    version.to_ascii_lowercase().contains("mariadb")
}

/// The three numbers of a version. One that is none of them is taken for a late one: `8.0.mysql_aurora.3.08.0`.
fn numbers(version: &str) -> [u32; 3] {
    // What MariaDB put in front for clients that know nothing beyond 5.
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = version.split(|letter: char| !letter.is_ascii_digit());
    [0; 3].map(|_| parts.next().and_then(|part| part.parse().ok()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_is_what_the_version_has() {
        let attributes = Capabilities::CLIENT_QUERY_ATTRIBUTES;
        for (version, has_attributes) in [
            (None, true),
            (Some("9.7.4"), true),
            (Some("8.0.23-0ubuntu"), true),
            (Some("8.0.mysql_aurora.3.08.0"), true),
            (Some("8.0.22"), false),
            (Some("5.7.44-log"), false),
        ] {
            let (usual, extended) = offered(version);
            assert_eq!((usual.contains(attributes), extended), (has_attributes, Extended::empty()), "{version:?}");
            assert!(usual.contains(Capabilities::CLIENT_LONG_PASSWORD));
        }
        for (version, extended) in [("10.11.19-MariaDB-log", 0xD), ("5.5.5-10.6.1-MariaDB", 0xD), ("10.5.1-MariaDB", 5)]
        {
            let (usual, found) = offered(Some(version));
            assert_eq!(found.bits(), extended, "{version}");
            assert!(!usual.intersects(attributes | Capabilities::CLIENT_LONG_PASSWORD));
        }
    }

    #[test]
    fn what_is_fixed_is_asked_for() {
        let asked = (
            Capabilities::CLIENT_FOUND_ROWS | Capabilities::CLIENT_QUERY_ATTRIBUTES,
            Extended::MARIADB_CLIENT_PROGRESS | Extended::MARIADB_CLIENT_CACHE_METADATA,
        );
        let names: Vec<(String, String)> = fixed(asked.0, asked.1).map(|name| (name.into(), "on".into())).collect();
        assert_eq!(
            names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["found_rows", "query_attributes", "single_results", "progress"]
        );
        let single = USED.difference(Capabilities::CLIENT_MULTI_RESULTS);
        assert_eq!(wanted(&names), (single | asked.0, USED_EXTENDED | Extended::MARIADB_CLIENT_PROGRESS));
        assert_eq!(fixed(USED, USED_EXTENDED).next(), None);
    }
}
