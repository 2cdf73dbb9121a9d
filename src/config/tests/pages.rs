//! The pages beside the code are true: the example starts, and the contract and docs/CONFIG.md know the same keys.

use super::*;

const CONTRACT: &str = include_str!("../../../tests/fixtures/contract.toml");
const EXAMPLE: &str = include_str!("../../../proxy.toml");
const PAGE: &str = include_str!("../../../docs/CONFIG.md");

#[test]
fn the_example_starts_without_a_warning() {
    let config = good(EXAMPLE);
    assert_eq!(config.warnings, [""; 0]);
    // Its values are the defaults, but for those that make it fit a developer's machine.
    let group = &config.target_groups[0];
    assert_eq!(
        format!("{:?}", group.pool),
        format!("{:?}", PoolConfig::default())
    );
    assert_eq!(
        format!("{:?}", config.runtime),
        format!("{:?}", RuntimeConfig::default())
    );
}

#[test]
fn every_key_of_the_contract_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.pem");
    fs::write(&file, "").unwrap();
    let mut text = CONTRACT.to_owned();
    for name in ["rds-ca.pem", "proxy.pem", "proxy.key"] {
        text = text.replace(&format!("/etc/sluicegate/{name}"), file.to_str().unwrap());
    }
    let errors = parse(&text).expect_err("the contract has more than is built");
    for error in &errors.errors {
        assert!(matches!(error.problem, Problem::NotYet { .. }), "{errors}");
    }
    let refused: Vec<_> = errors.errors.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(
        refused,
        [
            "endpoint[0].hostnames",
            "endpoint[1].role",
            "endpoint[2].role",
            "target_group[0].targets",
            "target_group[0].auth_query.user",
            "target_group[0].auth_query.password",
            "user[0].auth[0]",
            "iam",
            "admin.console",
            "admin.operators",
        ]
    );
}

/// The keys of the contract, those in comments too, as (table, key).
fn contract_keys() -> Vec<(String, String)> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in CONTRACT.lines().map(str::trim) {
        if line.starts_with("# identities.toml:") {
            table.clear();
        } else if line.starts_with('[') {
            table = line.split_whitespace().next().unwrap().to_owned();
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, _)) = line.split_once('=')
            && !table.is_empty()
            && key
                .trim()
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_')
            && !key.trim().is_empty()
        {
            keys.push((table.clone(), key.trim().to_owned()));
        }
    }
    keys
}

#[test]
fn the_page_names_every_key() {
    let keys = contract_keys();
    assert!(keys.len() > 90, "{}", keys.len());
    let (available, later) = PAGE.split_once("\n## Not available yet").unwrap();
    for (table, key) in keys {
        let section = available
            .split("\n## ")
            .find(|section| section.starts_with(&table));
        let is_available = section.is_some_and(|s| s.contains(&format!("\n| `{key}` |")));
        let row = later
            .lines()
            .find(|line| line.starts_with(&format!("| `{table}` |")));
        let is_later = row.is_some_and(|row| row.contains(&format!("`{key}`")));
        assert!(
            is_available != is_later,
            "{table} {key}: available {is_available}, later {is_later}"
        );
    }
}
